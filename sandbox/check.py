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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sandbox.backends.backend import Backend, StageOutcome
from sandbox.backends.bubblewrap import BubblewrapBackend
from sandbox.backends.slot import PACKAGE_PARENT, SlotBackend
from sandbox.errors import SandboxError, SandboxUnavailableError
from sandbox.kernel.grouptree import find_group_tree
from sandbox.kernel.landlock import landlock_abi
from sandbox.kernel.mounts import new_tmpfs
from sandbox.kernel.seccomp import compile_filter
from sandbox.tree import LanguageTree
from sandbox.trials import LIMITS, TRIALS, Trial, host_itself, open_trial, order_of, run_trial, seen

__all__ = ["Finding", "Level", "backends_that_serve", "check", "prove"]

CONTAINER_FIX = (
    "in a container: --privileged, or --cap-add SYS_ADMIN with seccomp and AppArmor unconfined and cgroups "
    "writable"
)
GROUPS_FIX = "mount cgroups writable (in a container: --privileged, or a delegated group of its own)"
PROC_FIX = "in a container proc must not be masked: --security-opt systempaths=unconfined"
ROOT_FIX = "run as root, so that the slot back end can be used"
SWAP_FIX = "swapoff -a, or boot with swapaccount=1"
GATEWAY_FIX = "only dependencies and egress policies need it; in a container: --cap-add NET_ADMIN"
LANDLOCK_FIX = "one more lock, which no guarantee needs: boot a kernel with Landlock, lsm=landlock,..."
TRIAL_TIMEOUT_S = 20.0
NAMESPACES = {
    "mount": 0x0002_0000,
    "cgroup": 0x0200_0000,
    "uts": 0x0400_0000,
    "ipc": 0x0800_0000,
    "user": 0x1000_0000,
    "pid": 0x2000_0000,
    "net": 0x4000_0000,
}
IMPORTS = """
import os, sys
sys.path.append(sys.argv[1])
from sandbox.kernel.syscalls import invoke, prctl, unshare
"""
UNSHARE = "unshare(int(sys.argv[2]))"
LISTEN = f"""
from sandbox.kernel.network import listen_on_loopback
unshare({NAMESPACES["net"]})
listen_on_loopback(4242)
"""
# Harmless should the filter let them through: they get no arguments.
CALLS = """
from sandbox.kernel.seccomp import compile_filter, install_filter
from sandbox.kernel.syscall_numbers import NUMBERS
prctl(38, 1, what="no new privileges")
install_filter(compile_filter())
for name in sys.argv[2:]:
    try: invoke(NUMBERS[os.uname().machine][name], name, 0, 0, 0, 0, 0)
    except OSError as exc:
        if exc.errno in (1, 38, 97): continue  # EPERM, ENOSYS, EAFNOSUPPORT
    sys.exit(f"the filter lets {name} through")
"""
REFUSED_CALLS = (
    "add_key", "bpf", "clone3", "io_uring_setup", "keyctl", "mount", "open_by_handle_at", "perf_event_open",
    "process_vm_readv", "ptrace", "request_key", "setns", "socket", "unshare", "userfaultfd",
)  # fmt: skip


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
    backend: str = ""
    """Which back end rests on it; empty for all of them."""


async def check() -> list[Finding]:
    """Try everything that this user can use. Takes a few seconds; leaves nothing behind.

    As root the slot back end is tried, and bubblewrap too where slot cannot serve.
    """
    findings = [_kernel_table(), await asyncio.to_thread(_calls)]
    if os.geteuid() == 0:
        findings.append(Finding(name="root", level=Level.OK, detail="running as root", backend="slot"))
        findings += await _check_slot()
        if "slot" in backends_that_serve(findings):
            return findings
    else:
        fix = "for every limit to be in force, run the node as root inside its own VM or container"
        findings.append(
            Finding(name="root", level=Level.WEAK, detail=f"running as user {os.geteuid()}", fix=fix)
        )
    return [*findings, *(await _trials(BubblewrapBackend))]


def backends_that_serve(findings: Sequence[Finding]) -> list[str]:
    """Return the back ends that were tried and lack nothing, the strongest first."""
    tried = dict.fromkeys(finding.backend for finding in findings if finding.backend)
    lacking = {finding.backend for finding in findings if finding.level == Level.MISSING}
    return [] if "" in lacking else [name for name in tried if name not in lacking]


async def prove(backend: Backend, tree: LanguageTree) -> None:
    """Run one small program in a sandbox, so that a service does not start where every program would fail.

    Raises:
        SandboxUnavailableError: it did not run; the message says at what it failed.
    """
    try:
        async with open_trial(backend, tree, LIMITS) as sandbox:
            outcome = await sandbox.run(order_of("echo ready"))
    except SandboxError as exc:
        raise SandboxUnavailableError(f"a trial program cannot run under {backend.name}: {exc}") from exc
    if outcome.stdout.data.strip() != b"ready":
        fix = f"; {PROC_FIX}" if _lacks_proc(outcome) else ""
        raise SandboxUnavailableError(f"a trial program failed under {backend.name}: {seen(outcome)}{fix}")


async def _check_slot() -> list[Finding]:
    findings = [
        *(await asyncio.to_thread(_namespaces)),
        await asyncio.to_thread(_gateway),
        _tmpfs(),
        *_groups(),
        _landlock(),
    ]
    if any(finding.level == Level.MISSING for finding in findings):
        return findings
    return [*findings, *(await _trials(SlotBackend))]


def _kernel_table() -> Finding:
    try:
        program = compile_filter()
    except NotImplementedError as exc:
        return Finding(
            name="seccomp table", level=Level.MISSING, detail=str(exc), fix="use x86_64 or aarch64"
        )
    detail = f"{len(program) // 8} instructions for {platform.machine()}"
    return Finding(name="seccomp table", level=Level.OK, detail=detail)


def _in_a_child(code: str, *arguments: str) -> str:
    """Run code in a process of its own; return what went wrong, empty when nothing did."""
    command = [sys.executable, "-I", "-S", "-B", "-c", IMPORTS + code, str(PACKAGE_PARENT), *arguments]
    trial = subprocess.run(
        command, env={}, capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S, check=False
    )
    lines = trial.stderr.strip().splitlines() or ["no message"]
    return lines[-1] if trial.returncode else ""


def _calls() -> Finding:
    name = "system calls refused"
    if wrong := _in_a_child(CALLS, *REFUSED_CALLS):
        fix = "a kernel with CONFIG_SECCOMP_FILTER is needed, and a container that allows seccomp(2)"
        return Finding(name=name, level=Level.MISSING, detail=wrong, fix=fix)
    return Finding(name=name, level=Level.OK, detail=", ".join(REFUSED_CALLS))


def _namespaces() -> list[Finding]:
    return [_namespace(name, flag) for name, flag in NAMESPACES.items()]


def _namespace(kind: str, flag: int) -> Finding:
    name = f"{kind} namespace"
    if wrong := _in_a_child(UNSHARE, str(flag)):
        return Finding(name=name, level=Level.MISSING, detail=wrong, fix=CONTAINER_FIX, backend="slot")
    return Finding(name=name, level=Level.OK, detail="can be made", backend="slot")


def _gateway() -> Finding:
    name = "network gateway"
    if wrong := _in_a_child(LISTEN):
        return Finding(name=name, level=Level.WEAK, detail=wrong, fix=GATEWAY_FIX, backend="slot")
    return Finding(name=name, level=Level.OK, detail="can be served on a loopback", backend="slot")


def _landlock() -> Finding:
    abi = landlock_abi()
    if not abi:
        detail = "not in this kernel, or too old"
        return Finding(name="Landlock", level=Level.WEAK, detail=detail, fix=LANDLOCK_FIX, backend="slot")
    return Finding(name="Landlock", level=Level.OK, detail=f"ABI {abi}", backend="slot")


def _tmpfs() -> Finding:
    name = "detached tmpfs"
    try:
        os.close(new_tmpfs(size_bytes=1 << 16, inodes=8))
    except OSError as exc:
        fix = f"Linux 5.12 or later is needed, with CAP_SYS_ADMIN; {CONTAINER_FIX}"
        return Finding(name=name, level=Level.MISSING, detail=str(exc), fix=fix, backend="slot")
    return Finding(name=name, level=Level.OK, detail="the disk quota can be set", backend="slot")


def _groups() -> list[Finding]:
    name, folder = "control groups", f"check-{uuid.uuid4().hex}"
    try:
        groups = find_group_tree()
        groups.prepare()
        group = groups.create(folder)
        try:
            group.limit(memory_bytes=1 << 24, tasks_max=2)
            bounds_swap = group.bounds_swap()
        finally:
            group.close()
            groups.remove(folder)
            groups.close()
    except (SandboxError, OSError) as exc:
        return [Finding(name=name, level=Level.MISSING, detail=str(exc), fix=GROUPS_FIX, backend="slot")]
    detail = f"version {groups.version}: memory, processes, CPU"
    return [Finding(name=name, level=Level.OK, detail=detail, backend="slot"), _swap(is_bounded=bounds_swap)]


def _swap(*, is_bounded: bool) -> Finding:
    areas = Path("/proc/swaps").read_text().splitlines()[1:]
    if areas and not is_bounded:
        detail = "programs can fill it beyond their memory limit"
        return Finding(name="swap", level=Level.WEAK, detail=detail, fix=SWAP_FIX, backend="slot")
    detail = "bounded together with memory" if is_bounded else "there is none"
    return Finding(name="swap", level=Level.OK, detail=detail, backend="slot")


async def _trials(make: Callable[[], Backend]) -> list[Finding]:
    """Run small programs in real sandboxes of the host's own tree, and see that each bound bites."""
    name = make.name if isinstance(make, type) else ""  # type: ignore[attr-defined]
    try:
        backend = make()
        try:
            tried = [await _try(backend, trial) for trial in TRIALS]
            return [*tried, await _users(backend)]
        finally:
            await backend.aclose()
    except (SandboxError, OSError) as exc:
        return [
            Finding(name="sandbox", level=Level.MISSING, detail=str(exc), fix=CONTAINER_FIX, backend=name)
        ]


async def _try(backend: Backend, trial: Trial) -> Finding:
    guarantees = backend.guarantees()
    if trial.guarantee not in guarantees.enforced:
        why_not = guarantees.not_enforced.get(trial.guarantee, f"not in force under {backend.name} here")
        fix = ROOT_FIX if os.geteuid() else ""
        return Finding(name=trial.name, level=Level.WEAK, detail=why_not, fix=fix, backend=backend.name)
    outcome = await run_trial(backend, trial)
    if trial.holds(outcome):
        detail = f"holds in a trial under {backend.name}"
        return Finding(name=trial.name, level=Level.OK, detail=detail, backend=backend.name)
    fix = PROC_FIX if _lacks_proc(outcome) else CONTAINER_FIX
    return Finding(name=trial.name, level=Level.MISSING, detail=seen(outcome), fix=fix, backend=backend.name)


def _lacks_proc(outcome: StageOutcome) -> bool:
    """Say whether bubblewrap was refused a proc of its own: the kernel gives none where one is masked."""
    return b"mount proc" in outcome.stderr.data


async def _users(backend: Backend) -> Finding:
    """Open two sandboxes at once and see who owns what their programs write."""
    name, owners = "users apart", set()
    if why_not := backend.guarantees().not_enforced.get("unique_uid"):
        return Finding(name=name, level=Level.WEAK, detail=why_not, fix=ROOT_FIX, backend=backend.name)
    tree = host_itself()
    async with open_trial(backend, tree, LIMITS) as one, open_trial(backend, tree, LIMITS) as other:
        for sandbox in (one, other):
            await sandbox.run(order_of(": > /work/mine"))
            owners.add(os.stat("work/mine", dir_fd=sandbox.files_fd).st_uid)
    if len(owners - {os.geteuid()}) != 2:  # noqa: PLR2004 - two sandboxes
        detail = f"the programs of two sandboxes are users {sorted(owners)}"
        return Finding(name=name, level=Level.MISSING, detail=detail, fix=CONTAINER_FIX, backend=backend.name)
    return Finding(name=name, level=Level.OK, detail=f"such as {sorted(owners)}", backend=backend.name)
