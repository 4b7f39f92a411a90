"""What a build of a tree tells while it goes on."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["PHASES", "BuildStep", "Progress", "silent"]

PHASES = ("wait", "prepare", "download", "unpack", "install", "fetch", "trim", "warm", "verify", "seal")
"""Every phase in the order in which a build meets them; ``wait`` is for another builder's lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildStep:
    """One report. A phase reports several times; ``is_finished`` marks its last one."""

    phase: str
    message: str
    """A short sentence for people."""
    elapsed_s: float
    """Since this phase began."""
    done: int | None = None
    """How much of ``total`` is done; both in ``unit``, None where it is not countable."""
    total: int | None = None
    unit: str = ""
    """``bytes`` or ``packages``."""
    is_finished: bool = False


Progress = Callable[[BuildStep], None]


def silent(step: BuildStep) -> None:
    """Ignore a report."""
