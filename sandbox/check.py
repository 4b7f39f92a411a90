"""The self-check: tries every mechanism that a guarantee rests on, and names the fix for what is missing.

Invariant: nothing is concluded from a version number; each mechanism is used once, in a child or in a sandbox
of the real back end, and undone.
"""

import asyncio
import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sandbox.backends.backend import Backend, StageOrder, StageOutcome
from sandbox.backends.bubblewrap import BubblewrapBackend
from sandbox.backends.slot import PACKAGE_PARENT, SlotBackend
from sandbox.errors import SandboxError, SandboxUnavailableError
from sandbox.kernel.grouptree import find_group_tree
from sandbox.kernel.mounts import new_tmpfs
from sandbox.kernel.seccomp import compile_filter
from sandbox.request import Limits
from sandbox.tree import LanguageTree

__all__ = ["Finding", "Level", "check", "prove"]

CONTAINER_FIX = "in a container: --privileged, or --cap-add SYS_ADMIN with seccomp and AppArmor unconfined"
TRIAL_TIMEOUT_S = 20.0
TRIAL_LIMITS = Limits(wall_time_s=10, memory_bytes=64 << 20, disk_bytes=1 << 20, processes=3)
NAMESPACES = {
    "mount": 0x0002_0000,
    "cgroup": 0x0200_0000,
    "uts": 0x0400_0000,
    "ipc": 0x0800_0000,
    "user": 0x1000_0000,
    "pid": 0x2000_0000,
    "net": 0x4000_0000,
}
UNSHARE = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from sandbox.kernel.syscalls import unshare; unshare(int(sys.argv[2]))"
)


class Level(StrEnum):
    """How a requirement stands."""

    OK = "ok"
    WEAK = "weak"  # works with less than everything in force
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One requirement: what it is, how it stands, and what to do."""

    name: str
    level: Level
    detail: str
    fix: str = ""
    """Empty when nothing needs doing."""


async def check() -> list[Finding]:
    """Try everything that this user can use. Takes a few seconds; leaves nothing behind."""
    if os.geteuid() != 0:
        return await _check_without_root()
    findings = [
        Finding(name="root", level=Level.OK, detail="running as root"),
        _kernel_table(),
        *(await asyncio.to_thread(_namespaces)),
        _tmpfs(),
        _groups(),
    ]
    if any(finding.level == Level.MISSING for finding in findings):
        return findings
    return [*findings, *(await _trials(SlotBackend))]


async def prove(backend: Backend, tree: LanguageTree) -> None:
    """Run one small program in a sandbox, so that a service does not start where every program would fail.

    Raises:
        SandboxUnavailableError: it did not run; the message says at what it failed.
    """
    try:
        sandbox = await backend.open(tree, TRIAL_LIMITS, f"prove-{uuid.uuid4().hex}")
        try:
            outcome = await sandbox.run(_order("echo ready"))
        finally:
            await sandbox.destroy()
    except SandboxError as exc:
        raise SandboxUnavailableError(f"a trial program cannot run under {backend.name}: {exc}") from exc
    if outcome.stdout.data.strip() != b"ready":
        raise SandboxUnavailableError(f"a trial program failed under {backend.name}: {_seen(outcome)}")


async def _check_without_root() -> list[Finding]:
    fix = "for every limit to be in force, run the node as root inside its own VM or container"
    findings = [
        Finding(name="root", level=Level.WEAK, detail=f"running as user {os.geteuid()}", fix=fix),
        _kernel_table(),
    ]
    return [*findings, *(await _trials(BubblewrapBackend))]


def _kernel_table() -> Finding:
    try:
        program = compile_filter()
    except NotImplementedError as exc:
        return Finding(
            name="seccomp table", level=Level.MISSING, detail=str(exc), fix="use x86_64 or aarch64"
        )
    detail = f"{len(program) // 8} instructions for {platform.machine()}"
    return Finding(name="seccomp table", level=Level.OK, detail=detail)


def _namespaces() -> list[Finding]:
    return [_namespace(name, flag) for name, flag in NAMESPACES.items()]


def _namespace(name: str, flag: int) -> Finding:
    command = [sys.executable, "-I", "-S", "-B", "-c", UNSHARE, str(PACKAGE_PARENT), str(flag)]
    trial = subprocess.run(
        command, env={}, capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S, check=False
    )
    if trial.returncode == 0:
        return Finding(name=f"{name} namespace", level=Level.OK, detail="can be made")
    lines = trial.stderr.strip().splitlines() or ["no message"]
    return Finding(name=f"{name} namespace", level=Level.MISSING, detail=lines[-1], fix=CONTAINER_FIX)


def _tmpfs() -> Finding:
    try:
        os.close(new_tmpfs(size_bytes=1 << 16, inodes=8))
    except OSError as exc:
        fix = f"Linux 5.12 or later is needed, with CAP_SYS_ADMIN; {CONTAINER_FIX}"
        return Finding(name="detached tmpfs", level=Level.MISSING, detail=str(exc), fix=fix)
    return Finding(name="detached tmpfs", level=Level.OK, detail="the disk quota can be set")


def _groups() -> Finding:
    name = f"check-{uuid.uuid4().hex}"
    try:
        groups = find_group_tree()
        groups.prepare()
        group = groups.create(name)
        try:
            group.limit(memory_bytes=1 << 24, tasks_max=2)
        finally:
            group.close()
            groups.remove(name)
            groups.close()
    except (SandboxError, OSError) as exc:
        fix = "mount cgroups writable (in a container: --privileged, or a delegated group of its own)"
        return Finding(name="control groups", level=Level.MISSING, detail=str(exc), fix=fix)
    return Finding(
        name="control groups", level=Level.OK, detail=f"version {groups.version}: memory, processes, CPU"
    )


async def _trials(make: Callable[[], Backend]) -> list[Finding]:
    """Run small programs in real sandboxes of the host's own tree, and see that each bound bites."""
    try:
        backend = make()
        try:
            return [await _try(backend, trial) for trial in TRIALS]
        finally:
            await backend.aclose()
    except (SandboxError, OSError) as exc:
        return [Finding(name="sandbox", level=Level.MISSING, detail=str(exc), fix=CONTAINER_FIX)]


async def _try(backend: Backend, trial: "Trial") -> Finding:
    why_not = backend.guarantees().not_enforced.get(trial.guarantee)
    if why_not:
        fix = "run as root, so that the slot back end can be used"
        return Finding(name=trial.name, level=Level.WEAK, detail=why_not, fix=fix)
    tree = LanguageTree(path=Path("/"), digest="0" * 64, kind="host", runtimes=())
    sandbox = await backend.open(tree, TRIAL_LIMITS, f"check-{uuid.uuid4().hex}")
    try:
        outcome = await sandbox.run(_order(trial.script))
    finally:
        await sandbox.destroy()
    if trial.holds(outcome):
        return Finding(name=trial.name, level=Level.OK, detail=f"holds in a trial under {backend.name}")
    return Finding(name=trial.name, level=Level.MISSING, detail=_seen(outcome), fix=CONTAINER_FIX)


def _order(script: str) -> StageOrder:
    return StageOrder(
        name="run",
        argv=("/bin/sh", "-c", script),
        env={"PATH": "/usr/bin:/bin"},
        limits=TRIAL_LIMITS,
        tasks_max=64,
        counts_processes_exactly=True,
    )


def _seen(outcome: StageOutcome) -> str:
    printed = (outcome.stdout.data + outcome.stderr.data).decode(errors="replace").strip()[:200]
    return f"exit code {outcome.exit_code}, signal {outcome.signal}, printed {printed!r}"


@dataclass(frozen=True, slots=True)
class Trial:
    """A program for a sandbox, and how its outcome shows that a guarantee holds."""

    name: str
    guarantee: str
    script: str
    holds: Callable[[StageOutcome], bool]


def _prints(text: bytes) -> Callable[[StageOutcome], bool]:
    return lambda outcome: outcome.stdout.data.strip() == text


TRIALS: tuple[Trial, ...] = (
    Trial("sandbox", "pid_namespace", "echo ready", _prints(b"ready")),
    Trial(
        "memory limit",
        "memory",
        # A variable that doubles: 64 MiB are full after 26 rounds.
        "x=0123456789abcdef; while :; do x=$x$x; done",
        lambda outcome: outcome.usage.oom_kills > 0,
    ),
    Trial(
        "process limit",
        "processes",
        "(sleep 9 & sleep 9 & sleep 9 & sleep 9 & :) 2>/dev/null; echo end",
        lambda outcome: outcome.usage.processes_peak == TRIAL_LIMITS.processes,
    ),
    Trial(
        "disk limit",
        "disk",
        "head -c 4000000 /dev/zero > /work/big 2>/dev/null; wc -c < /work/big",
        _prints(str(TRIAL_LIMITS.disk_bytes).encode()),
    ),
    Trial(
        "no network",
        "network_none",
        "grep -c : /proc/net/dev; grep -vc Iface /proc/net/route",
        _prints(b"1\n0"),
    ),
    Trial(
        "no privileges",
        "capabilities_none",
        "grep -E '^(CapPrm|CapBnd)' /proc/self/status | grep -c 0000000000000000",
        _prints(b"2"),
    ),
    Trial("seccomp filter", "seccomp", "grep -E '^Seccomp:' /proc/self/status | cut -f2", _prints(b"2")),
    Trial(
        "host files",
        "mount_namespace",
        "ls -d /root /home /etc/shadow /sys 2>/dev/null | wc -l",
        _prints(b"0"),
    ),
)
