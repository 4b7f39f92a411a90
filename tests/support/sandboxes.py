"""Real sandboxes for tests: the machine's own Python in the slot back end, and what it left behind."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sandbox.backends.backend import Backend
from sandbox.backends.slot import SlotBackend
from sandbox.bounds import StageBounds
from sandbox.executor import CodeExecutor
from sandbox.kernel.grouptree import find_group_tree
from sandbox.request import ExecutionRequest, Limits, SourceFile
from sandbox.result import ExecutionResult
from sandbox.tree import LanguageTree, Runtime

__all__ = [
    "MIB",
    "SMALL",
    "Leftovers",
    "groups_of",
    "host_python",
    "python_request",
    "run_python",
    "sandboxes",
]

MIB = 1024 * 1024
SMALL = Limits(
    wall_time_s=30.0,
    cpu_time_s=10.0,
    memory_bytes=96 * MIB,
    disk_bytes=8 * MIB,
    inodes=200,
    processes=10,
    file_size_bytes=4 * MIB,
    open_files=64,
    output_bytes=64 * 1024,
)
UID_COUNT = 1000
LEAVE_TIMEOUT_S = 5.0


def host_python() -> LanguageTree:
    """Return the host tree with the system's Python alone."""
    runtime = Runtime(language="python", version="3", programs={"run": "/usr/bin/python3"})
    return LanguageTree(path=Path("/"), digest="0" * 64, kind="host", runtimes=(runtime,))


def python_request(
    code: str,
    *,
    stdin: bytes = b"",
    args: Sequence[str] = (),
    env_vars: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    limits: Limits | None = None,
    outputs: Sequence[str] = (),
    caller: str = "",
) -> ExecutionRequest:
    """Build a request for a lone Python file."""
    return ExecutionRequest(
        language="python",
        files=[SourceFile(path="main.py", content=code.encode())],
        stdin=stdin,
        args=args,
        env_vars=env_vars or {},
        timeout_s=timeout_s,
        limits=limits,
        outputs=outputs,
        caller=caller,
    )


@dataclass(frozen=True)
class Leftovers:
    """What this machine shows of one service and its sandboxes."""

    processes: tuple[str, ...]
    groups: tuple[str, ...]
    files: tuple[str, ...]
    mounts: str
    descriptors: int

    @classmethod
    def look(cls, uids: range) -> "Leftovers":
        """Look for processes and files of the users, for groups, mounts and descriptors of this process."""
        return cls(
            processes=tuple(_processes_of(uids)),
            groups=tuple(groups_of(os.getpid())),
            files=tuple(
                str(path)
                for folder in ("/tmp", "/dev/shm", "/var/tmp")
                for path in Path(folder).iterdir()
                if _owner(path) in uids
            ),
            mounts=Path("/proc/self/mountinfo").read_text(),
            descriptors=len(list(Path("/proc/self/fd").iterdir())),
        )


@asynccontextmanager
async def sandboxes(
    limits: Limits = SMALL, wrap: Callable[[Backend], Backend] = lambda backend: backend, **options: object
) -> AsyncIterator[CodeExecutor]:
    """Yield an executor, over a back end that ``wrap`` may watch; at the end, assert that nothing is left."""
    uids = range(800_000_000 + os.getpid() * UID_COUNT, 800_000_000 + (os.getpid() + 1) * UID_COUNT)
    before = Leftovers.look(uids)
    backend = SlotBackend(uid_base=uids.start, uid_count=UID_COUNT)
    executor = CodeExecutor(
        [host_python()], wrap(backend), bounds=StageBounds(run=limits), **{"max_concurrent": 4} | options
    )  # type: ignore[arg-type]
    try:
        yield executor
    finally:
        await executor.aclose()
    deadline = time.monotonic() + LEAVE_TIMEOUT_S
    while (after := Leftovers.look(uids)) != before and time.monotonic() < deadline:  # noqa: ASYNC110 - nothing tells when
        await asyncio.sleep(0.05)
    assert replace(after, mounts="") == replace(before, mounts="")
    assert after.mounts == before.mounts


async def run_python(code: str, limits: Limits = SMALL, **options: object) -> ExecutionResult:
    """Run one Python program in an executor of its own."""
    async with sandboxes(limits) as executor:
        return await executor.execute(python_request(code, **options))  # type: ignore[arg-type]


def _owner(path: Path) -> int:
    """Return whose a file is; -1 for one that somebody else has removed meanwhile."""
    try:
        return path.lstat().st_uid
    except FileNotFoundError:
        return -1


def _processes_of(uids: range) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid in uids or f"PPid:\t{os.getpid()}\n" in (path / "status").read_text():
                found.append((path / "cmdline").read_text().replace("\0", " "))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def groups_of(pid: int) -> list[str]:
    """List the control groups that the service with this process number has made."""
    tree = find_group_tree()
    return [
        str(path)
        for folder in set(tree._folders.values())
        if folder.is_dir()
        for path in folder.iterdir()
        if path.is_dir() and path.name.startswith(f"{pid}-")
    ]
