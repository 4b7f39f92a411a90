"""How many sleeping sandboxes the machine holds: Python programs that wait, started until a bound is met.

    python -m bench.density [--quick] [--count N] [--reserve-mib N] [--backend NAME] [--json]

Beside the sandbox, in the same run: the same programs bare, under bubblewrap and under nsjail. It stops
at ``--count``, and when less than ``--reserve-mib`` of memory is available. Needs root and a built tree.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.machine import MIB, available_bytes, describe, held_bytes, run_apart, scratch_folder, table
from bench.sandbox.sides import BACKENDS, Boxed, Program, Side, bare, bubblewrap, nsjail, program
from bench.sandbox.sleepers import SLEEPERS
from sandbox.rootfs import find_tree

LANGUAGE = "python"
AT_ONCE = 4


@dataclass(frozen=True)
class Row:
    """What one side held."""

    side: str
    held: int
    stopped_by: str
    """``count``, ``memory``, or ``time``."""
    start_ms: float
    """From the first start to the last program being up, for each, ``AT_ONCE`` at a time."""
    end_ms: float
    """From the order to kill to everything being gone, for each."""
    own_mib: float
    """Memory of all its processes, for each; pages that several share count once in all."""
    machine_mib: float
    """What the machine has less available, for each; whatever else runs on it disturbs this."""


async def hold(side: Side, what: Program, *, count: int, reserve_bytes: int, for_s: float) -> Row:
    """Start programs until a bound is reached, look, and end them."""
    available, stopped_by, held = available_bytes(), "count", 0
    began = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        while held < count:
            if available_bytes() < reserve_bytes:
                stopped_by = "memory"
                break
            if time.monotonic() - began > for_s:
                stopped_by = "time"
                break
            some = [side.sleeping(what) for _ in range(min(AT_ONCE, count - held))]
            await asyncio.gather(*(stack.enter_async_context(each) for each in some))
            held += len(some)
        started = time.monotonic()
        own, less = held_bytes(), available - available_bytes()
        ending = time.monotonic()
    each = max(held, 1)
    return Row(
        side=side.name,
        held=held,
        stopped_by=stopped_by,
        start_ms=round((started - began) * 1000 / each, 1),
        end_ms=round((time.monotonic() - ending) * 1000 / each, 1),
        own_mib=round(own / MIB / each, 1),
        machine_mib=round(less / MIB / each, 1),
    )


async def bench(options: argparse.Namespace) -> None:
    """Measure every side and print."""
    tree = find_tree(options.state_dir)
    runtimes = [each for each in tree.runtimes if each.language == LANGUAGE] if tree else []
    if tree is None or not runtimes:
        sys.exit(f"no language tree with {LANGUAGE}: build it with: blueprint runtimes build")
    what, machine, rows = program(runtimes[0], SLEEPERS[LANGUAGE]), describe(), list[Row]()
    with scratch_folder() as scratch:
        boxed = Boxed(tree, options.backend)
        try:
            outside = [bare(tree, scratch), bubblewrap(tree, scratch), nsjail(tree, scratch)]
            sides: list[Side] = [*(each for each in outside if each is not None), boxed]
            bounds = {"reserve_bytes": options.reserve_mib * MIB, "for_s": options.budget_s / len(sides)}
            rows += [await hold(side, what, count=options.count, **bounds) for side in sides]
        finally:
            await boxed.aclose()
    if options.json:
        print(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=2))
        return
    print(f"Measured on {machine}; at most {options.count}, {options.reserve_mib} MiB kept free.\n")
    head = [
        "side",
        "stopped by",
        "sleeping at once",
        "start ms each",
        "end ms each",
        "own MiB each",
        "machine MiB each",
    ]
    lines = [
        [
            row.side,
            row.stopped_by,
            str(row.held),
            *map(str, (row.start_ms, row.end_ms, row.own_mib, row.machine_mib)),
        ]
        for row in rows
    ]
    print(table(head, lines, left=2))


def main() -> None:
    """Parse the command line and run apart."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="at most 20, less than a minute")
    parser.add_argument("--count", type=int, default=200, help="most at once (default 200)")
    parser.add_argument("--reserve-mib", type=int, default=2048, help="memory to leave free (default 2048)")
    parser.add_argument("--budget-s", type=float, default=400, help="for starting on all sides (default 400)")
    parser.add_argument("--backend", choices=tuple(BACKENDS), default="slot")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--state-dir", type=Path, default=Path("/var/lib/tee-job-node"))
    options = parser.parse_args()
    if options.quick:
        options.count, options.budget_s = min(options.count, 20), min(options.budget_s, 40)
    if os.geteuid() != 0:
        sys.exit("the other sides need root for their roots")
    run_apart("bench.density")
    asyncio.run(bench(options))


if __name__ == "__main__":
    main()
