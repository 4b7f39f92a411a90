"""Limits per process (setrlimit(2)): the second line behind the control group.

Invariant: soft and hard are equal, so that the program cannot raise them. There is no RLIMIT_AS (the JVM, V8
and Go reserve far more address space than they use) and no RLIMIT_NPROC (it counts threads, over all of a
user's processes; the pids group does that per sandbox).
"""

import math
import resource

__all__ = ["apply_rlimits", "rlimits_for"]

STACK_BYTES = 64 * 1024 * 1024
CPU_GRACE_S = 2


def rlimits_for(*, file_size_bytes: int, open_files: int, cpu_time_s: float) -> dict[int, int]:
    """Return resource number to bound.

    The CPU bound of a process is a backstop that lies behind the watch over the whole group, rounded up to
    whole seconds as the kernel wants it.
    """
    return {
        resource.RLIMIT_FSIZE: file_size_bytes,
        resource.RLIMIT_NOFILE: open_files,
        resource.RLIMIT_CPU: math.ceil(cpu_time_s) + CPU_GRACE_S,
        resource.RLIMIT_STACK: STACK_BYTES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_RTPRIO: 0,
    }


def apply_rlimits(limits: dict[int, int]) -> None:
    """Set each bound, soft and hard, for the calling process and what it starts."""
    for number, bound in limits.items():
        resource.setrlimit(number, (bound, bound))
