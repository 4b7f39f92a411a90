"""The control group of one stage: how a command gets into it, and how it is removed.

Invariant: a group is removed only when nothing lives in it, and a cancellation waits for that.
"""

import asyncio
import contextlib
import mmap
from collections.abc import AsyncIterator
from pathlib import Path

from sandbox.backends.refusal import refusal
from sandbox.errors import SystemFailureError
from sandbox.kernel.cgroups import Group
from sandbox.kernel.grouptree import GroupTree

__all__ = [
    "bound_memory_and_tasks",
    "bounded_tasks",
    "join_files",
    "joining_argv",
    "new_group",
    "remove_group",
]

REMOVE_TIMEOUT_S = 10.0
REMOVE_TICK_S = 0.005
JOIN = 'while [ "$1" != -- ]; do echo 0 >"$1" || exit 125; shift; done; shift; exec "$@"'


def new_group(groups: GroupTree, name: str) -> Group:
    """Make a group without bounds.

    Raises:
        SystemFailureError: the kernel refuses.
    """
    try:
        return groups.create(name)
    except OSError as exc:
        raise SystemFailureError(f"the control group {name} cannot be made: {exc}") from exc


def bound_memory_and_tasks(group: Group, *, memory_bytes: int, held_bytes: int, tasks_max: int) -> None:
    """Set the bounds of a group.

    SECURITY: ``held_bytes`` of files are charged to groups of earlier stages, and to the service; they count
    against this one, or a program would get its memory and its disk (test_files_of_a_stage_...).

    Raises:
        SandboxUnavailableError: the kernel refuses.
        SystemFailureError: this machine is short of something.
    """
    try:
        group.limit(memory_bytes=max(mmap.PAGESIZE, memory_bytes - held_bytes), tasks_max=tasks_max)
    except OSError as exc:
        fix = "the memory and pids controllers are needed"
        raise refusal(exc.errno, f"a limit cannot be set: {exc}", fix) from exc


def join_files(group: Group) -> list[str]:
    """Return the control files through which a process enters the group."""
    file = "tasks" if group.version == 1 else "cgroup.procs"
    folders = (Path(f"/proc/self/fd/{folder}").readlink() for folder in group.folders.values())
    return [f"{folder}/{file}" for folder in dict.fromkeys(folders)]


def joining_argv(group: Group) -> list[str]:
    """Return the prefix that runs a command in the group."""
    return ["/bin/sh", "-c", JOIN, "join", *join_files(group), "--"]


async def remove_group(groups: GroupTree, name: str, *, killing: Group | None = None) -> None:
    """Remove a group whose processes are dead, or are to be killed; a cancellation waits for that.

    Raises:
        SystemFailureError: something lives in it still.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + REMOVE_TIMEOUT_S
    cancelled: asyncio.CancelledError | None = None
    while True:
        if killing is not None:
            killing.kill()
        if groups.remove(name):
            break
        if loop.time() > deadline_s:
            raise SystemFailureError(f"the control group {name} cannot be removed")
        try:
            await asyncio.sleep(REMOVE_TICK_S)
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled


@contextlib.asynccontextmanager
async def bounded_tasks(groups: GroupTree | None, name: str, tasks_max: int) -> AsyncIterator[Group | None]:
    """Hold a group that bounds tasks alone, and kill what is left in it; None where there are no groups."""
    if groups is None:
        yield None
        return
    group = new_group(groups, name)
    try:
        try:
            group.write("pids", "pids.max", str(tasks_max))
        except OSError as exc:
            raise SystemFailureError(f"the control group {name} cannot be bounded: {exc}") from exc
        yield group
    finally:
        try:
            await remove_group(groups, name, killing=group)
        finally:
            group.close()
