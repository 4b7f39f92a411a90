"""What one execution is asked to do.

Invariant: an `ExecutionRequest` that exists is well formed: every name, size and count has been checked,
so that nothing below has to. Which languages and versions exist is the executor's to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Dependency", "ExecutionRequest", "Limits", "SourceFile"]

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Upper bounds of one stage, enforced by the kernel. The defaults are the owner's."""

    wall_time_s: float = 300.0
    cpu_time_s: float = 300.0
    memory_bytes: int = 512 * MIB
    disk_bytes: int = 100 * MIB
    """Sum of everything written under ``/work``, ``/tmp`` and ``/dev/shm``."""
    inodes: int = 10_000
    processes: int = 10
    """Processes of the program, not threads; each language declares its own cap of tasks beside it."""
    file_size_bytes: int = 10 * MIB
    open_files: int = 256
    output_bytes: int = 1 * MIB
    """How much of stdout, and of stderr, is kept; the rest is counted and digested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file of the program: a relative path with ``/`` between its parts, and its bytes."""

    path: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """A package that the program needs, as its ecosystem names it, and an optional source for it."""

    name: str
    requirement: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRequest:
    """One program with everything it is run with."""

    language: str
    files: Sequence[SourceFile]
    runtime: str = ""
    """A version of the language's runtime: exact, prefix or empty for the default."""
    entry_point: str = ""
    """The path of the file that is started; empty for the only file or the language's usual one."""
    stdin: bytes = field(default=b"", repr=False)
    args: Sequence[str] = ()
    dependencies: Sequence[Dependency] = ()
    env_vars: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float | None = None
    """Wall clock for the run stage; at most the operator's limit; None for that limit."""
    limits: Limits | None = None
    """May only lower the operator's limits; None for those."""
    options: Mapping[str, str] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    """Paths under ``/work`` whose content is to come back, files or folders."""
