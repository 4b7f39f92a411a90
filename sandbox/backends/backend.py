"""The port behind which a sandbox is made: what a back end is told, and the bare facts it answers.

Invariant: a back end reports facts (how the program ended, what it touched, what it cost) and judges nothing;
`sandbox.sandbox` turns facts into an `ExecutionStatus`, the same way for every back end.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sandbox.request import Limits
from sandbox.result import CapturedStream, Guarantees, LimitKind, StageSample
from sandbox.tree import LanguageTree

__all__ = [
    "Backend",
    "BoxUsage",
    "Gateway",
    "Mount",
    "OnSample",
    "Sandbox",
    "StageOrder",
    "StageOutcome",
    "StageUsage",
]

OnSample = Callable[[StageSample], None]
"""Called in the event loop about ten times a second while a stage runs; must not block or raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A folder of this machine that shows inside, read-only, beside the language tree."""

    source: Path
    target: str
    """The absolute path inside; it is made where the tree has none."""


class Gateway(Protocol):
    """The only way out of a stage: one listening socket on its own loopback, served by us from outside.

    Without a gateway a stage has no network at all. With one it has a loopback interface on which nothing but
    this port answers, so there is no route to anywhere and no rule that could be wrong.
    """

    @property
    def name(self) -> str:
        """What was allowed; shows in the guarantees as ``network_policy:<name>``."""

    @property
    def port(self) -> int:
        """The port on 127.0.0.1, as seen inside."""

    async def serve(self, listener: socket.socket) -> None:
        """Answer what connects. Runs while the stage runs and is cancelled at its end.

        The back end closes the listener; connections are the gateway's to close. An exception ends the stage
        as a failure of ours.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOrder:
    """One command to run in an open sandbox."""

    name: str
    """``install``, ``compile`` or ``run``; names the stage in statistics and messages."""
    argv: tuple[str, ...]
    """An absolute program path and its arguments, as seen inside. The working directory is ``/work``."""
    env: Mapping[str, str] = field(repr=False)
    """The whole environment of the program, nothing is added."""
    stdin: bytes = field(default=b"", repr=False)
    limits: Limits
    """Upper bounds of this stage, already clamped."""
    tasks_max: int
    """Kernel tasks (threads and processes) that the program may have at once: ``pids.max``."""
    counts_processes_exactly: bool = False
    """True when ``limits.processes`` may be enforced as the limit on tasks; else processes are counted."""
    gateway: Gateway | None = None
    """The stage's only way out; None for no network at all, loopback included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageUsage:
    """What one stage cost. Seconds and bytes; None where the back end could not measure it."""

    wall_time_s: float
    user_time_s: float
    system_time_s: float
    memory_peak_bytes: int | None = None
    memory_anonymous_bytes: int | None = None
    memory_file_bytes: int | None = None
    processes_peak: int | None = None
    page_faults_minor: int | None = None
    page_faults_major: int | None = None
    context_switches_voluntary: int | None = None
    context_switches_involuntary: int | None = None
    oom_kills: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOutcome:
    """How one stage ended. Every process of the stage is dead when this exists."""

    exit_code: int | None
    """None when a signal ended the program, or when the back end killed it."""
    signal: int | None
    killed_for: LimitKind
    """The limit for which the back end itself killed the stage; NONE when the program ended by itself.

    A kill by the kernel's OOM killer is not the back end's: it shows as ``signal`` and ``usage.oom_kills``.
    """
    limits_hit: LimitKind
    """Every limit that was touched, ``killed_for`` among them; STDOUT and STDERR where output was cut."""
    stdout: CapturedStream
    stderr: CapturedStream
    usage: StageUsage
    guarantees: Guarantees
    """What was really in force while this stage ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxUsage:
    """How much of the writable file system is in use."""

    disk_bytes: int
    inodes: int
    is_full: bool
    """True when no byte is left: the disk limit was reached."""
    is_out_of_inodes: bool


class Sandbox(Protocol):
    """One sandbox, from its making to its destruction, used by one execution only.

    ``files_fd`` is a directory descriptor of the writable file system, open until `destroy`. It holds the
    folders ``work`` (seen inside as ``/work``), ``tmp`` (``/tmp``) and ``shm`` (``/dev/shm``), which the back
    end has made. Files laid down there must belong to ``owner_uid`` (and the group of the same number), or to
    the calling process where that is None.
    """

    @property
    def files_fd(self) -> int:
        """The root folder of the writable file system."""

    @property
    def owner_uid(self) -> int | None:
        """Who must own what is laid down."""

    async def run(self, order: StageOrder, on_sample: OnSample | None = None) -> StageOutcome:
        """Run one stage to its end, with processes, namespaces and group of its own; stages share the files.

        Cancelling kills every process of the stage before the cancellation is passed on.

        Raises:
            SystemFailureError: a part of ours failed; nothing of the stage is left running.
        """

    def usage(self) -> BoxUsage | None:
        """Say how much is written; None where the back end cannot tell."""

    async def destroy(self) -> None:
        """Remove everything: processes, mounts, groups, files. Safe to call twice."""


class Backend(Protocol):
    """A way to make sandboxes. One instance serves the whole process; sandboxes of it run side by side."""

    name: str

    def guarantees(self) -> Guarantees:
        """Say what a sandbox of this back end will have in force on this machine."""

    async def open(
        self, tree: LanguageTree, limits: Limits, sandbox_id: str, mounts: Sequence[Mount] = ()
    ) -> Sandbox:
        """Make a sandbox with an empty writable file system of ``disk_bytes`` and ``inodes``.

        ``mounts`` show read-only beside the tree.

        Raises:
            SandboxUnavailableError: a mechanism is missing on this machine; the message holds the fix.
            SystemFailureError: it worked before and does not now (out of memory, out of descriptors).
        """

    async def aclose(self) -> None:
        """Destroy what is still open and free what the back end holds."""
