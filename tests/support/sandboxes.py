"""Real sandboxes for tests: the machine's own Python in the slot back end, and what it left behind."""

import asyncio
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sandbox.backends.backend import Backend
from sandbox.backends.slot import SlotBackend
from sandbox.bounds import StageBounds
from sandbox.executor import CodeExecutor
from sandbox.kernel.grouptree import FOLDER
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
    namespaces: tuple[str, ...]
    """Those of these processes, and those that this process holds open."""
    ipc: tuple[str, ...]
    """System V objects and POSIX queues of the users."""
    keys: tuple[str, ...]
    files: tuple[str, ...]
    mounts: str
    descriptors: int

    @classmethod
    def look(cls, uids: range, pid: int | None = None) -> "Leftovers":
        """Look for what belongs to the users, and to the service ``pid`` (this process when None)."""
        pids = _processes_of(uids, pid or os.getpid())
        return cls(
            processes=tuple(map(_command_line, pids)),
            groups=tuple(groups_of(pid or os.getpid())),
            namespaces=tuple(sorted(_namespaces(pids))),
            ipc=tuple(_ipc_of(uids)),
            keys=tuple(_keys_of(uids)),
            files=tuple(
                str(path)
                for folder in (tempfile.gettempdir(), "/tmp", "/dev/shm", "/var/tmp")
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


def _processes_of(uids: range, pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid in uids or f"PPid:\t{pid}\n" in (path / "status").read_text():
                found.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return sorted(found)


def _command_line(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def _namespaces(pids: Sequence[int]) -> set[str]:
    folders = [Path("/proc/self/fd"), *(Path(f"/proc/{pid}/ns") for pid in pids)]
    found = set()
    for folder in folders:
        # A process that ends meanwhile has none, or does not show them; it is still told of by itself.
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            for link in folder.iterdir():
                with suppress(FileNotFoundError):
                    found.add(str(link.readlink()))
    return {name for name in found if re.fullmatch(r"[a-z_]+:\[\d+\]", name)}


def _ipc_of(uids: range) -> list[str]:
    """List System V objects of the machine's own name space, and POSIX queues where they are mounted."""
    found = []
    for kind in ("shm", "msg", "sem"):
        header, *lines = Path("/proc/sysvipc", kind).read_text().splitlines()
        column = header.split().index("cuid")
        found += [f"{kind} {line}" for line in lines if int(line.split()[column]) in uids]
    queues = Path("/dev/mqueue")
    return found + [
        str(path) for path in (queues.iterdir() if queues.is_dir() else ()) if _owner(path) in uids
    ]


def _keys_of(uids: range) -> list[str]:
    """List the keys of the users (keyrings(7), proc_keys(5)), as far as this process may see them."""
    lines = Path("/proc/keys").read_text().splitlines() if Path("/proc/keys").exists() else []
    return [line for line in lines if int(line.split()[5]) in uids]


def _owner(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.lstat().st_uid
    return -1


def groups_of(pid: int) -> list[str]:
    """List the control groups that the service with this process number has made, in every hierarchy."""
    mounts = (line.partition(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    points = {before.split()[4] for before, _, after in mounts if after.startswith("cgroup")}
    # Others make and remove groups meanwhile: a walk passes over what is gone.
    return sorted(
        f"{folder}/{name}"
        for point in points
        for folder, names, _ in os.walk(point)
        for name in names
        if Path(folder).name == FOLDER and name.startswith(f"{pid}-")
    )
