"""What the service tells a launcher, as types that both ends share.

Invariant: plain numbers, strings and lists, so that an order goes through JSON unchanged.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sandbox.inside.wire import Fields
from sandbox.kernel.cgroups import GroupUsage

__all__ = [
    "Layout",
    "LiveFigures",
    "StageAnswer",
    "StageTask",
    "StreamFacts",
    "pack",
    "unpack_answer",
    "unpack_figures",
    "unpack_layout",
    "unpack_task",
]


class Layout(NamedTuple):
    """The root that a launcher builds: what of the machine shows where, everything read-only."""

    binds: list[tuple[str, str]]
    """Path on this machine, path inside (without the leading slash)."""
    links: list[tuple[str, str]]
    """Target, path inside: symbolic links."""
    texts: list[tuple[str, str]]
    """Path inside, text: small files of the sandbox's own, laid over the tree's where it has them."""
    owner_uid: int
    """The user and group on this machine that ``INSIDE_ID`` is mapped to."""
    init_uid: int
    """The same for ``INIT_ID``."""
    group_prefix: str
    """What the names of the sandbox's control groups begin with, and no other's."""


class StageTask(NamedTuple):
    """One stage, as the launcher needs it."""

    argv: list[str]
    env: Mapping[str, str]
    rlimits: list[tuple[int, int]]
    wall_time_s: float
    cpu_time_s: float
    processes: int | None
    """Processes that the watch allows; None where the group's task bound does it."""
    output_bytes: int
    gateway_port: int | None
    """Where the stage's only way out listens on its loopback; None for a stage without any network."""
    wants_samples: bool
    """Send live figures while the stage runs."""
    group_version: int
    controllers: list[str]
    """Names of the group's folders, in the order of the descriptors that come with the task."""


class StreamFacts(NamedTuple):
    """One captured stream; the kept bytes travel beside the answer."""

    kept_bytes: int
    size_bytes: int
    sha256: str


class LiveFigures(NamedTuple):
    """What a stage uses at one moment; sent ahead of the answer."""

    elapsed_s: float
    processes: int
    disk_bytes: int
    stdout_bytes: int
    stderr_bytes: int
    group: GroupUsage


class StageAnswer(NamedTuple):
    """What the launcher saw of one stage. Raw part of its message: kept stdout, then kept stderr."""

    wait_status: int | None
    """As waitpid(2) gives it; None when the watch killed the stage."""
    killed_for: str
    """``wall``, ``cpu``, ``processes`` or empty."""
    hits: list[str]
    """``disk`` and ``inodes`` where the tmpfs was seen full."""
    walls: list[str]
    stdout: StreamFacts
    stderr: StreamFacts
    wall_time_s: float
    processes_peak: int | None
    group: GroupUsage
    """The group's counters after the end."""
    sample: GroupUsage | None
    """The group's counters when the most anonymous memory was seen; None for a very short stage."""
    context_switches: list[int] | None
    """Voluntary and involuntary context switches of what init reaped; None when it could not report."""


def pack(value: Layout | StageTask | StageAnswer | LiveFigures) -> Fields:
    """Return the fields of an order or an answer."""
    return {
        name: part._asdict() if isinstance(part, StreamFacts | GroupUsage) else part
        for name, part in value._asdict().items()
    }


def unpack_layout(fields: Fields) -> Layout:
    """Build a layout from what came through JSON."""
    return Layout(**fields)  # type: ignore[arg-type]  # both ends are ours, and of the same version


def unpack_task(fields: Fields) -> StageTask:
    """Build a task from what came through JSON."""
    return StageTask(**fields)  # type: ignore[arg-type]  # both ends are ours, and of the same version


def unpack_figures(fields: object) -> LiveFigures:
    """Build live figures from what came through JSON."""
    built: dict[str, Any] = dict(fields)  # type: ignore[call-overload]  # both ends are ours
    return LiveFigures(**built | {"group": GroupUsage(**built["group"])})


def unpack_answer(fields: Fields) -> StageAnswer:
    """Build an answer from what came through JSON."""
    built = dict(fields)
    for name, kind in (
        ("stdout", StreamFacts),
        ("stderr", StreamFacts),
        ("group", GroupUsage),
        ("sample", GroupUsage),
    ):
        part = built[name]
        if isinstance(part, dict):
            built[name] = kind(**part)
    return StageAnswer(**built)  # type: ignore[arg-type]  # both ends are ours, and of the same version
