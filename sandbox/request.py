"""What one execution is asked to do.

Invariant: an `ExecutionRequest` that exists is well formed: every name, size and count has been checked,
so that nothing below has to. Which languages and versions exist is the executor's to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum

from sandbox import wellformed
from sandbox.errors import RequestError

__all__ = ["MIB", "Dependency", "ExecutionRequest", "Limits", "Priority", "SourceFile"]

MIB = 1024 * 1024


class Priority(IntEnum):
    """How soon a waiting request is admitted; see `sandbox.waitlist` for the shares."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


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

    def __post_init__(self) -> None:
        for each in fields(self):
            value, is_whole = getattr(self, each.name), isinstance(each.default, int)
            wellformed.check_positive(f"limits.{each.name}", value, must_be_whole=is_whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file of the program: a relative path with ``/`` between its parts, and its bytes."""

    path: str
    content: bytes = field(repr=False)

    def __post_init__(self) -> None:
        wellformed.check_path("files", self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """A package that the program needs, as its ecosystem names it, and an optional source for it."""

    name: str
    requirement: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        wellformed.check_dependency("dependencies", self.name, self.requirement, self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRequest:
    """One program with everything it is run with."""

    language: str
    files: Sequence[SourceFile]
    runtime: str = ""
    """A version of the language's runtime: exact, a prefix, a range, or empty for the default."""
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
    network: str = ""
    """The name of one of the operator's egress policies; empty for no network at all, loopback included."""
    caller: str = ""
    """Whose request it is: those who wait are served in turn by caller."""
    priority: Priority = Priority.NORMAL

    def __post_init__(self) -> None:
        """Check every field, and keep copies of the containers that the caller could still change.

        Raises:
            RequestError: a field is malformed; the message names it, what is expected and what came.
        """
        for name in ("files", "args", "dependencies", "outputs"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("env_vars", "options"):
            object.__setattr__(self, name, dict(getattr(self, name)))
        if not self.language:
            raise RequestError("language: a name is expected, received an empty text")
        wellformed.check_text("language", self.language, most=64)
        for name in ("runtime", "network", "caller"):
            wellformed.check_text(name, getattr(self, name), most=64)
        # SECURITY: a number beyond the highest would go before everybody else
        # (test_attack_...[priority-above-all-others...]).
        if self.priority not in list(Priority):
            choices = ", ".join(str(int(each)) for each in Priority)
            raise RequestError(f"priority: one of {choices} is expected, received another")
        self._check_files()
        self._check_surroundings()
        if self.timeout_s is not None:
            wellformed.check_positive("timeout_s", self.timeout_s, most=wellformed.MAX_TIMEOUT_S)

    def _check_files(self) -> None:
        if not self.files:
            raise RequestError("files: at least one file is expected, received none")
        wellformed.check_count("files", len(self.files), wellformed.MAX_FILES)
        wellformed.check_size("files", sum(len(f.content) for f in self.files), wellformed.MAX_FILES_BYTES)
        wellformed.check_disjoint("files", [file.path for file in self.files])
        if self.entry_point:
            wellformed.check_path("entry_point", self.entry_point)
        for file in self.files:
            is_started = len(self.files) == 1 or file.path == self.entry_point
            wellformed.check_source("files", file.path, file.content, is_started=is_started)
        wellformed.check_count("outputs", len(self.outputs), wellformed.MAX_OUTPUTS)
        for path in self.outputs:
            wellformed.check_path("outputs", path)

    def _check_surroundings(self) -> None:
        """Check what the program is given beside its files."""
        wellformed.check_size("stdin", len(self.stdin), wellformed.MAX_STDIN_BYTES)
        wellformed.check_count("args", len(self.args), wellformed.MAX_ARGS)
        most = wellformed.MAX_ARGS_BYTES
        sizes = [wellformed.check_text("args", a, most=most, may_have_controls=True) for a in self.args]
        wellformed.check_size("args", sum(sizes), most)
        wellformed.check_count("env_vars", len(self.env_vars), wellformed.MAX_ENV_VARS)
        most, size = wellformed.MAX_ENV_BYTES, 0
        for name, value in self.env_vars.items():
            wellformed.check_env_name("env_vars", name)
            size += len(name) + wellformed.check_text(
                f"env_vars.{name}", value, most=most, may_have_controls=True
            )
        wellformed.check_size("env_vars", size, most)
        wellformed.check_count("dependencies", len(self.dependencies), wellformed.MAX_DEPENDENCIES)
        wellformed.check_count("options", len(self.options), wellformed.MAX_OPTIONS)
        for name, value in self.options.items():
            wellformed.check_option_name("options", name)
            wellformed.check_text(f"options.{name}", value, most=256)
