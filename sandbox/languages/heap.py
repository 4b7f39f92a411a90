"""Sizes the heap of a runtime that would otherwise size itself by the machine.

Invariant: the heap leaves room in the memory group for the runtime's own code, stacks and buffers, so that a
program that asks for too much meets its runtime's own error first. Address space (``RLIMIT_AS``) is never
limited: the JVM, V8 and Go reserve far more of it than they use and would not start.
"""

from sandbox.request import MIB, Limits

__all__ = ["heap_mib"]

SMALLEST_HEAP_MIB = 16


def heap_mib(limits: Limits, *, share: float) -> int:
    """Return the heap in MiB: ``share`` (0 to 1) of the stage's memory limit, and never less than 16."""
    return max(SMALLEST_HEAP_MIB, int(limits.memory_bytes * share) // MIB)
