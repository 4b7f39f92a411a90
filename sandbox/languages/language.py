"""What a Language Executor declares: how a program in one language becomes stages to run.

Invariant: a `Plan` is data; it holds everything that a back end needs, and running it needs no knowledge
of the language.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sandbox.request import ExecutionRequest, SourceFile
from sandbox.tree import Runtime

__all__ = ["Language", "Plan", "Stage", "StageLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLimits:
    """Where one stage needs other bounds than the request's limits; None keeps the request's.

    Compilers write files that a program may not: a stage may raise the size of a single file. The disk quota,
    the memory group and the clocks stay the request's, so nothing is gained by it.
    """

    file_size_bytes: int | None = None
    """``RLIMIT_FSIZE`` of this stage."""
    open_files: int | None = None
    """``RLIMIT_NOFILE`` of this stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One command in the sandbox. The stages of a plan share ``/work``; each has its own processes."""

    name: str
    """``compile`` or ``run``."""
    argv: tuple[str, ...]
    """An absolute program path and its arguments, as seen inside."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the base environment (PATH, HOME, LANG, TMPDIR); the user's variables join in ``run`` only."""
    tasks_max: int = 64
    """Kernel tasks (threads and processes) that the runtime needs at most: ``pids.max``."""
    counts_processes_exactly: bool = False
    """True where the runtime is single-threaded, so that ``pids.max`` is the limit on processes itself."""
    limits: StageLimits | None = None
    """Bounds that differ from the request's for this stage only; None for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The files to lay down under ``/work`` beside the user's own, and the stages in order."""

    files: Sequence[SourceFile] = ()
    stages: tuple[Stage, ...]


class Language(Protocol):
    """A Language Executor. One instance per language, without state."""

    name: str
    """The lower-case name that requests use."""
    aliases: tuple[str, ...]
    title: str
    """The name as people write it."""
    default_file: str
    """The path that a lone snippet is given."""

    def plan(self, request: ExecutionRequest, runtime: Runtime) -> Plan:
        """Return the stages for a request.

        Args:
            request: the program; ``limits`` are the ones in force (None is read as ``Limits()``), because the
                heap of a JVM and of Node is sized by them.
            runtime: one of this language's runtimes in the tree that will be mounted.

        Raises:
            RequestError: the request cannot be planned in this language (no entry point, a bad option).
        """
