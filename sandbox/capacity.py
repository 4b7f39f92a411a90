"""What this machine can hold: memory and CPUs that executions may reserve together.

Invariant: the figures are those of the place where the service lives: the machine's, or less where a control
group around the service bounds it, for the sandboxes' groups lie below the service's own.
Sources: the kernel's ``cgroup-v1/memory.rst``, ``scheduler/sched-bwc.rst`` and ``cgroup-v2.rst``.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from sandbox.kernel.grouptree import own_places

__all__ = ["EXECUTIONS_PER_CPU", "MEMORY_RESERVE_BYTES", "Capacity", "measure_capacity"]

MEMORY_RESERVE_BYTES = 256 * 1024 * 1024
EXECUTIONS_PER_CPU = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Memory and CPUs; what executions reserve is counted in the same two."""

    memory_bytes: int
    cpus: float


def measure_capacity(
    *,
    memory_reserve_bytes: int = MEMORY_RESERVE_BYTES,
    executions_per_cpu: float = EXECUTIONS_PER_CPU,
    proc: Path = Path("/proc/self"),
) -> Capacity:
    """Say what executions may reserve, as things stand now; of the CPUs at least one execution's worth.

    Args:
        memory_reserve_bytes: left to the service and the rest of the machine.
        executions_per_cpu: how often each CPU is given away: an execution also waits for other things.
        proc: of the process whose control groups count.
    """
    memory_bytes = min(psutil.virtual_memory().available, *_each_group(proc, "memory", _memory_left))
    cpus = min(float(len(os.sched_getaffinity(0))), *_each_group(proc, "cpu", _cpu_quota))
    return Capacity(
        memory_bytes=max(0, int(memory_bytes) - memory_reserve_bytes),
        cpus=max(1.0, cpus * executions_per_cpu),
    )


def _each_group(proc: Path, controller: str, bound_of: Callable[[Path], float]) -> list[float]:
    """Return the bounds of the service's own group and of those around it; infinity where there is none."""
    places = own_places(proc)
    folder = places.get(controller) or places.get("unified")
    bounds = [math.inf]
    while folder is not None and (folder / "cgroup.procs").exists():
        bounds.append(bound_of(folder))
        folder = folder.parent
    return bounds


def _memory_left(folder: Path) -> float:
    """Return what the group may still take; pages of files that the kernel would drop first count as free."""
    for limit_name, usage_name, idle_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit = _read(folder / limit_name)
        if limit is not None:
            pairs = (line.split() for line in (_read(folder / "memory.stat") or "").splitlines())
            idle = sum(int(value) for name, value in pairs if name == idle_name)
            used = int(_read(folder / usage_name) or 0)
            return math.inf if limit == "max" else int(limit) - max(0, used - idle)
    return math.inf


def _cpu_quota(folder: Path) -> float:
    """Return how many CPUs' time the group may use."""
    quota, _, period = (_read(folder / "cpu.max") or "").partition(" ")
    if not quota:
        quota = _read(folder / "cpu.cfs_quota_us") or "max"
        period = _read(folder / "cpu.cfs_period_us") or "0"
    return math.inf if quota in {"max", "-1"} else int(quota) / int(period)


def _read(path: Path) -> str | None:
    """Return a control file's text, or None where the kernel has none of that name."""
    try:
        return path.read_text().strip()
    except OSError:
        return None
