"""What one execution did: how it ended, what it printed, what it cost, and what held it.

Invariant: an `ExecutionResult` speaks of the user's program only; a failure of ours is an exception.
The numbers of `ExecutionStatus` and `LimitKind` are part of the on-chain format and never change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

__all__ = [
    "CapturedStream",
    "ExecutionResult",
    "ExecutionStatus",
    "Guarantees",
    "LimitKind",
    "NetworkContact",
    "OutputFile",
    "ProcessStats",
    "RuntimeUsed",
    "StageSample",
    "StageStats",
]


class ExecutionStatus(IntEnum):
    """How an execution ended. The executor returns 0 to 11; a job handler adds 20 and 21."""

    SUCCESS = 0
    NONZERO_EXIT = 1
    SIGNALLED = 2
    TIMEOUT = 3
    CPU_LIMIT = 4
    MEMORY_LIMIT = 5
    DISK_LIMIT = 6
    PROCESS_LIMIT = 7
    FILE_SIZE_LIMIT = 8
    COMPILATION_ERROR = 9
    DEPENDENCY_ERROR = 10
    CANCELLED = 11
    REJECTED = 20
    SYSTEM_ERROR = 21


class LimitKind(IntFlag):
    """A limit that was touched on the way; several may be set, whatever the status is."""

    NONE = 0
    WALL_TIME = 1
    CPU_TIME = 2
    MEMORY = 4
    DISK = 8
    PROCESSES = 16
    FILE_SIZE = 32
    STDOUT = 64
    STDERR = 128
    INODES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedStream:
    """What was printed on one stream: kept up to the cap, counted and digested to the end."""

    data: bytes = field(repr=False)
    size_bytes: int
    sha256: str
    """Hexadecimal SHA-256 of everything that was printed, kept or not."""

    @property
    def is_truncated(self) -> bool:
        """True when more was printed than was kept."""
        return self.size_bytes > len(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """A file that the program left under ``/work`` and that the request asked for."""

    path: str
    content: bytes = field(repr=False)
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSample:
    """What one stage uses at one moment while it runs; None where this back end cannot see it."""

    stage: str
    elapsed_s: float
    """Since the stage's program was started."""
    memory_bytes: int | None
    """All that is charged now, pages of the writable file system included."""
    memory_anonymous_bytes: int | None
    memory_file_bytes: int | None
    user_time_s: float
    system_time_s: float
    processes: int | None
    disk_bytes: int
    stdout_bytes: int
    stderr_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStats:
    """What one stage (``compile`` or ``run``) used."""

    name: str
    wall_time_s: float
    user_time_s: float
    system_time_s: float
    memory_peak_bytes: int | None
    """Peak of the memory group, tmpfs pages included; None where no group was in force."""
    memory_anonymous_bytes: int | None
    memory_file_bytes: int | None
    """Both at the moment when the most anonymous memory was seen; pages of tmpfs are file pages."""
    processes_peak: int | None
    page_faults_minor: int | None
    page_faults_major: int | None
    context_switches_voluntary: int | None
    context_switches_involuntary: int | None
    exit_code: int | None
    signal: int | None
    oom_kills: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStats:
    """What the whole execution used. Times in seconds, sizes in bytes; None where it was not measurable."""

    wall_time_s: float
    user_time_s: float
    system_time_s: float
    memory_peak_bytes: int | None = None
    memory_anonymous_bytes: int | None = None
    memory_file_bytes: int | None = None
    processes_peak: int | None = None
    disk_bytes: int | None = None
    inodes: int | None = None
    page_faults_minor: int | None = None
    page_faults_major: int | None = None
    context_switches_voluntary: int | None = None
    context_switches_involuntary: int | None = None
    oom_kills: int = 0
    stages: Sequence[StageStats] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeUsed:
    """What ran the program: language, exact version, and the digest of the tree that it came from."""

    language: str
    version: str
    tree_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkContact:
    """One place in the network that a run has contacted through its egress policy, or tried to."""

    host: str
    """A name or an address as the program asked for it; ``(others)`` stands for all beyond a bound."""
    port: int
    connections: int = 0
    refused: int = 0
    """Attempts that the policy did not allow."""
    sent_bytes: int = 0
    received_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarantees:
    """Which limits and walls were in force, by which back end. Never claims what was not set up."""

    backend: str
    enforced: frozenset[str]
    not_enforced: Mapping[str, str] = field(default_factory=dict)
    """The name of each guarantee that was not in force, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """How one execution ended."""

    sandbox_id: str
    status: ExecutionStatus
    limits_hit: LimitKind
    exit_code: int | None
    signal: int | None
    stdout: CapturedStream
    stderr: CapturedStream
    process_stats: ProcessStats
    runtime: RuntimeUsed
    guarantees: Guarantees
    files: Sequence[OutputFile] = ()
    lock: str = ""
    contacts: Sequence[NetworkContact] = ()
    """What the run contacted through its egress policy, or tried to; empty without one."""
    error_message: str = ""
    """One sentence for people; empty on success."""
