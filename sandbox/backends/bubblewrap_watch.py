"""Looks at the processes of a stage from outside: number, memory and time, without a control group.

Invariant: only the stage's init and what descends from it is counted, and an init takes every descendant with
it. The init is no process of the program, but its memory and time are.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Look", "look_at"]

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MOST_LOOKED_AT = 2000
"""A stage with more processes than this is over every limit anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the processes of a stage used at one moment; the times of the dead are in their parents'."""

    processes: int
    anonymous_bytes: int
    user_time_s: float
    system_time_s: float


def look_at(init_pid: int, proc: Path = Path("/proc")) -> Look:
    """Add up an init and everything below it. A process that ends meanwhile is skipped."""
    count = pages = user = system = 0
    # SECURITY: a program can write to the memory of an init of its own user, and let it work.
    for pid in (init_pid, *_descendants(init_pid, proc)):
        try:
            resident, shared = (proc / str(pid) / "statm").read_text().split()[1:3]
            # The name in parentheses may hold blanks and parentheses: fields are counted from its end.
            fields = (proc / str(pid) / "stat").read_text().rpartition(") ")[2].split()
        except (OSError, ValueError):
            continue
        count += fields[0] != "Z" and pid != init_pid
        pages += max(0, int(resident) - int(shared))
        user += int(fields[11]) + int(fields[13])
        system += int(fields[12]) + int(fields[14])
    return Look(
        processes=count,
        anonymous_bytes=pages * PAGE_BYTES,
        user_time_s=user / TICKS_PER_S,
        system_time_s=system / TICKS_PER_S,
    )


def _descendants(pid: int, proc: Path) -> Iterator[int]:
    waiting, seen = [pid], 0
    while waiting and seen < MOST_LOOKED_AT:
        parent = waiting.pop()
        try:
            tasks = [path.name for path in (proc / str(parent) / "task").iterdir()]
        except OSError:
            continue
        for task in tasks:
            try:
                children = (proc / str(parent) / "task" / task / "children").read_text().split()
            except OSError:
                continue
            for child in map(int, children):
                seen += 1
                yield child
                waiting.append(child)
