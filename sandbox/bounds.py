"""The operator's bounds: one set of limits for each kind of stage, and a deadline for the whole request.

Invariant: a request lowers the bounds of its run and never raises any. Installing and compiling have their
own, because what builds a program needs more than the program may take.
"""

from dataclasses import dataclass, field, fields, replace

from sandbox import wellformed
from sandbox.errors import RequestError
from sandbox.request import MIB, ExecutionRequest, Limits

__all__ = ["StageBounds"]

COMPILE = Limits(
    wall_time_s=120.0,
    cpu_time_s=240.0,
    memory_bytes=1024 * MIB,
    processes=64,
    file_size_bytes=100 * MIB,
    open_files=1024,
)
INSTALL = Limits(
    wall_time_s=240.0,
    cpu_time_s=240.0,
    memory_bytes=2048 * MIB,
    disk_bytes=1024 * MIB,
    inodes=200_000,
    processes=64,
    file_size_bytes=512 * MIB,
    open_files=4096,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageBounds:
    """Upper bounds by kind of stage. ``run`` holds the owner's limits."""

    run: Limits = field(default_factory=Limits)
    compile: Limits = COMPILE
    """Disk and inodes are those of the run: both stages write to one file system."""
    install: Limits = INSTALL
    """Of the sandbox that installs dependencies; it has a file system of its own, whose pages are memory."""
    deadline_s: float = 600.0
    """Wall clock of a whole request, from its admission to the end of its last stage."""

    def __post_init__(self) -> None:
        wellformed.check_positive("deadline_s", self.deadline_s)

    def lowered(self, request: ExecutionRequest) -> "StageBounds":
        """Return the bounds in force for a request: for each of the run's, the lower of ours and theirs.

        Raises:
            RequestError: the request's timeout is longer than a run may take.
        """
        run = self.run
        if request.timeout_s is not None and not 0 < request.timeout_s <= run.wall_time_s:
            raise RequestError(
                f"timeout_s: expected more than 0 and at most {run.wall_time_s:g}, "
                f"received {request.timeout_s:g}"
            )
        if request.limits is not None:
            theirs = request.limits
            names = [each.name for each in fields(Limits)]
            run = Limits(**{name: min(getattr(run, name), getattr(theirs, name)) for name in names})
        if request.timeout_s is not None:
            run = replace(run, wall_time_s=min(run.wall_time_s, request.timeout_s))
        compiling = replace(self.compile, disk_bytes=run.disk_bytes, inodes=run.inodes)
        return replace(self, run=run, compile=compiling)

    def of(self, stage: str) -> Limits:
        """Return the limits of a stage by its name: ``install``, ``compile`` or ``run``."""
        return {"install": self.install, "compile": self.compile, "run": self.run}[stage]
