"""Small programs that try what a sandbox must not allow, with nothing but a shell and the usual commands.

Invariant: a trial judges by what its program came to. Each one belongs to a guarantee, and where a back end
says itself that it does not enforce that one, the trial is not run.
"""

import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sandbox.backends.backend import Backend, Sandbox, StageOrder, StageOutcome
from sandbox.request import Limits
from sandbox.result import LimitKind
from sandbox.tree import LanguageTree

__all__ = ["LIMITS", "TRIALS", "Trial", "host_itself", "open_trial", "order_of", "run_trial", "seen"]

LIMITS = Limits(
    wall_time_s=10, memory_bytes=64 << 20, disk_bytes=1 << 20, inodes=100, processes=3, output_bytes=1 << 16
)
Verdict = Callable[[StageOutcome], bool]


@dataclass(frozen=True, slots=True)
class Trial:
    """A program for a sandbox, and how its outcome shows that a guarantee holds."""

    name: str
    guarantee: str
    script: str
    holds: Verdict
    limits: Limits = LIMITS


def order_of(script: str, limits: Limits = LIMITS) -> StageOrder:
    """Return the stage that runs a script."""
    return StageOrder(
        name="run",
        argv=("/bin/sh", "-c", script),
        env={"PATH": "/usr/bin:/bin"},
        limits=limits,
        tasks_max=64,
        counts_processes_exactly=True,
    )


def host_itself() -> LanguageTree:
    """Return this machine's own tree, without any language."""
    return LanguageTree(path=Path("/"), digest="0" * 64, kind="host", runtimes=())


@asynccontextmanager
async def open_trial(backend: Backend, tree: LanguageTree, limits: Limits) -> AsyncIterator[Sandbox]:
    """Open a sandbox for a moment."""
    sandbox = await backend.open(tree, limits, f"check-{uuid.uuid4().hex}")
    try:
        yield sandbox
    finally:
        await sandbox.destroy()


async def run_trial(backend: Backend, trial: Trial) -> StageOutcome:
    """Run a trial in a sandbox of its own."""
    async with open_trial(backend, host_itself(), trial.limits) as sandbox:
        return await sandbox.run(order_of(trial.script, trial.limits))


def seen(outcome: StageOutcome) -> str:
    """Say in a few words how a program ended."""
    printed = (outcome.stdout.data + outcome.stderr.data).decode(errors="replace").strip()[:200]
    return f"exit code {outcome.exit_code}, signal {outcome.signal}, printed {printed!r}"


def _prints(text: str) -> Verdict:
    return lambda outcome: outcome.stdout.data.decode(errors="replace").split() == text.split()


def _killed_for(limit: LimitKind) -> Verdict:
    return lambda outcome: outcome.killed_for == limit


def _namespace_of_its_own(kind: str) -> Trial:
    host = os.readlink(f"/proc/self/ns/{kind}")  # noqa: PTH115 - the link's text, which is no path

    def holds(outcome: StageOutcome) -> bool:
        said = outcome.stdout.data.decode(errors="replace").strip()
        return said.startswith(f"{kind}:[") and said != host

    guarantee = f"{NAMESPACES[kind]}_namespace"
    return Trial(f"own {kind} namespace", guarantee, f"readlink /proc/self/ns/{kind}", holds)


NAMESPACES = {
    "pid": "pid", "mnt": "mount", "net": "network", "ipc": "ipc", "uts": "uts", "user": "user",
    "cgroup": "cgroup",
}  # fmt: skip
REFUSED = "2>/dev/null && echo done || echo refused"

TRIALS: tuple[Trial, ...] = (
    Trial("sandbox", "mount_namespace", "echo ready", _prints("ready")),
    Trial(
        "memory limit",
        "memory",
        # A variable that doubles: 64 MiB are full after 26 rounds.
        "x=0123456789abcdef; while :; do x=$x$x; done",
        lambda outcome: outcome.usage.oom_kills > 0,
    ),
    Trial(
        "files are memory",
        "memory",
        "head -c 90000000 /dev/zero > /work/big; echo written",
        lambda outcome: outcome.usage.oom_kills > 0,
        replace(LIMITS, disk_bytes=100 << 20, file_size_bytes=100 << 20),
    ),
    Trial(
        "process limit",
        "processes",
        "(sleep 9 & sleep 9 & sleep 9 & sleep 9 & :) 2>/dev/null; echo end",
        lambda outcome: outcome.usage.processes_peak == LIMITS.processes,
    ),
    Trial(
        "CPU time limit",
        "cpu_time",
        "while :; do :; done",
        _killed_for(LimitKind.CPU_TIME),
        replace(LIMITS, cpu_time_s=0.2),
    ),
    Trial(
        "wall clock limit",
        "wall_time",
        "trap '' TERM INT; sleep 9",
        _killed_for(LimitKind.WALL_TIME),
        replace(LIMITS, wall_time_s=0.2),
    ),
    Trial(
        "disk limit",
        "disk",
        "head -c 4000000 /dev/zero > /work/big 2>/dev/null; wc -c < /work/big",
        _prints(str(LIMITS.disk_bytes)),
    ),
    Trial(
        "inode limit",
        "inodes",
        "i=0; while [ $i -lt 150 ] && echo > /tmp/$i; do i=$((i+1)); done 2>/dev/null; ls /tmp | wc -l",
        lambda outcome: 0 < int(outcome.stdout.data or 0) <= LIMITS.inodes,
    ),
    Trial(
        "file size limit",
        "file_size",
        "head -c 400000 /dev/zero > /work/big 2>/dev/null; wc -c < /work/big",
        _prints("4096"),
        replace(LIMITS, file_size_bytes=4096),
    ),
    Trial("open files limit", "open_files", "ulimit -n", _prints("16"), replace(LIMITS, open_files=16)),
    Trial("no core dumps", "core_dumps_none", f"ulimit -c 9 {REFUSED}", _prints("refused")),
    Trial(
        "output limit",
        "output",
        "head -c 262144 /dev/zero",
        lambda outcome: (
            len(outcome.stdout.data) == LIMITS.output_bytes
            and outcome.stdout.size_bytes == 4 * LIMITS.output_bytes
        ),
    ),
    Trial(
        "no network",
        "network_none",
        "grep -c : /proc/net/dev; grep -vc Iface /proc/net/route",
        _prints("1 0"),
    ),
    Trial(
        "no privileges",
        "capabilities_none",
        "grep -E '^(CapPrm|CapEff|CapBnd)' /proc/self/status | grep -c 0000000000000000",
        _prints("3"),
    ),
    Trial(
        "no way to privileges",
        "no_new_privileges",
        "grep '^NoNewPrivs:' /proc/self/status | cut -f2",
        _prints("1"),
    ),
    Trial(
        "seccomp filter",
        "seccomp",
        f"grep '^Seccomp:' /proc/self/status | cut -f2; unshare --user true {REFUSED}",
        _prints("2 refused"),
    ),
    Trial(
        "host files",
        "mount_namespace",
        "ls -d /root /home /etc/shadow /sys 2>/dev/null | wc -l",
        _prints("0"),
    ),
    Trial(
        "read-only root",
        "read_only_root",
        "for f in /x /usr/x /dev/x; do (: > $f) 2>/dev/null && echo $f; done; echo end",
        _prints("end"),
    ),
    Trial(
        "proc",
        "proc_masked",
        "cat /proc/keys /proc/kallsyms 2>/dev/null | wc -c; ls /proc/1/environ 2>/dev/null | wc -l",
        _prints("0 0"),
    ),
    Trial("Landlock in force", "landlock", f"(echo name > /proc/self/comm) {REFUSED}", _prints("refused")),
    *(_namespace_of_its_own(kind) for kind in NAMESPACES),
)
