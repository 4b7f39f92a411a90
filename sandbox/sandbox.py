"""The life of one sandbox: made, filled, run stage by stage, collected, destroyed.

Invariant: whatever happens (an error, a cancellation), the sandbox is destroyed before `run_plan` returns,
and outputs are read only after every process in it is dead.
"""

import asyncio
import hashlib
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from typing import TypeVar

from sandbox.backends.backend import (
    Backend,
    BoxUsage,
    Gateway,
    Mount,
    OnSample,
    Sandbox,
    StageOrder,
    StageOutcome,
)
from sandbox.bounds import StageBounds
from sandbox.errors import RequestError, SystemFailureError
from sandbox.kernel.files import (
    OUR_SHORTAGES,
    CollectBounds,
    CollectionError,
    collect,
    has_file_of_size,
    lay_down,
)
from sandbox.languages.language import Plan, Stage
from sandbox.request import ExecutionRequest, SourceFile
from sandbox.result import (
    ExecutionResult,
    ExecutionStatus,
    Guarantees,
    LimitKind,
    OutputFile,
    ProcessStats,
    RuntimeUsed,
    StageStats,
)
from sandbox.tree import LanguageTree
from sandbox.verdict import judge, message_of

__all__ = [
    "BASE_ENVIRONMENT",
    "Installed",
    "StageRecord",
    "Surroundings",
    "fill",
    "order_of",
    "run_plan",
    "run_stage",
]

BASE_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",  # noqa: S108 - the sandbox's own
    "TMPDIR": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
}
Result = TypeVar("Result")
SHORTEST_STAGE_S = 0.001
LOOK_BOUNDS = CollectBounds(files=1000, time_s=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Everything around a plan that is not the program's own."""

    backend: Backend
    tree: LanguageTree
    runtime: RuntimeUsed
    """Named in the result."""
    bounds: StageBounds
    """In force: already lowered to what the request asks for."""
    collecting: CollectBounds
    """What the collection of outputs may take."""
    sandbox_id: str
    """Unique on this machine."""
    mounts: Sequence[Mount] = ()
    gateway: Gateway | None = None
    """The run's only way out; a compiler never has one."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the run is told of the gateway; the request's own variables win."""
    on_sample: OnSample | None = None
    deadline_s: float = math.inf
    """When the whole request must have ended, on the monotonic clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """One stage that has ended, judged."""

    order: StageOrder
    outcome: StageOutcome
    status: ExecutionStatus
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What an installation came to."""

    record: StageRecord | None = None
    """The install stage; it has cost nothing when the layer was there or another request made it.

    None where there was nothing to install.
    """
    mounts: Sequence[Mount] = ()
    """Shows the layer to the later stages; none when the installation failed."""
    lock: str = ""


@dataclass(slots=True)
class _Progress:
    """What has happened so far in one execution."""

    records: list[StageRecord]
    message: str = ""
    files: Sequence[OutputFile] = ()
    usage: BoxUsage | None = None

    @property
    def has_failed(self) -> bool:
        """True when the last stage did not succeed: no other follows."""
        return bool(self.records) and self.records[-1].status != ExecutionStatus.SUCCESS


async def run_plan(
    around: Surroundings, request: ExecutionRequest, plan: Plan, *, installed: StageRecord | None = None
) -> ExecutionResult:
    """Run the stages of a plan in a sandbox of their own until one fails.

    Args:
        around: where and within which bounds.
        request: the program; its outputs are collected after the run stage.
        plan: stages, and files beside the request's.
        installed: how the installation of its dependencies went; when it failed, no stage is run.

    Raises:
        RequestError: the files do not fit into the disk quota, or clash.
        SandboxUnavailableError, SystemFailureError: as the back end says.
    """
    progress = _Progress([installed] if installed else [])
    if progress.has_failed:
        return _result(progress, around)
    sandbox = await around.backend.open(around.tree, around.bounds.run, around.sandbox_id, around.mounts)
    try:
        await fill(sandbox, (*request.files, *plan.files))
        for stage in plan.stages:
            progress.records.append(await run_stage(sandbox, order_of(stage, request, around), around))
            if progress.has_failed:
                break
        progress.usage = sandbox.usage()
        if request.outputs and progress.records[-1].order.name == "run":
            await _collect(sandbox, request.outputs, around.collecting, progress)
    finally:
        await sandbox.destroy()
    return _result(progress, around)


def order_of(
    stage: Stage, request: ExecutionRequest, around: Surroundings, gateway: Gateway | None = None
) -> StageOrder:
    """Return the order of a stage, within what the request's deadline still leaves.

    Args:
        stage: as planned.
        request: whose variables and input only a run gets.
        around: the bounds, and the gateway of a run.
        gateway: the way out of any other stage.
    """
    is_run = stage.name == "run"
    limits = around.bounds.of(stage.name)
    left_s = around.deadline_s - time.monotonic()
    limits = replace(limits, wall_time_s=max(SHORTEST_STAGE_S, min(limits.wall_time_s, left_s)))
    return StageOrder(
        name=stage.name,
        argv=stage.argv,
        env={
            **BASE_ENVIRONMENT,
            **stage.env,
            **({**around.environment, **request.env_vars} if is_run else {}),
        },
        stdin=request.stdin if is_run else b"",
        limits=limits,
        tasks_max=stage.tasks_max,
        counts_processes_exactly=stage.counts_processes_exactly,
        gateway=around.gateway if is_run else gateway,
    )


async def _with_folder(sandbox: Sandbox, work: Callable[[int], Result], folder: str = "work") -> Result:
    """Call ``work`` in a thread with a descriptor of a folder of the sandbox's writable file system.

    The thread owns its descriptor: when the caller is cancelled and the sandbox destroyed meanwhile, the
    number cannot come to mean another sandbox's folder.

    Raises:
        OSError: as ``work`` says, or the program has closed the folder to us.
        SystemFailureError: this process or this machine has run out of something.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        folder_fd = os.open(folder, flags, dir_fd=sandbox.files_fd)

        def call() -> Result:
            try:
                return work(folder_fd)
            finally:
                os.close(folder_fd)

        # Shielded: a call that is cancelled before a thread takes it up would never close its descriptor.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, call))
    except OSError as exc:
        if exc.errno in OUR_SHORTAGES:
            raise SystemFailureError(f"the files of a sandbox cannot be reached: {exc}") from exc
        raise


async def fill(sandbox: Sandbox, files: Sequence[SourceFile]) -> None:
    """Lay files down under ``/work``.

    Raises:
        RequestError: they clash, or do not fit into the disk quota.
    """
    owner_uid = sandbox.owner_uid
    contents = [(file.path, file.content) for file in files]
    try:
        await _with_folder(sandbox, lambda folder_fd: lay_down(folder_fd, contents, owner_uid))
    except OSError as exc:
        raise RequestError(f"files: they cannot be laid down under /work: {exc}") from exc


async def run_stage(sandbox: Sandbox, order: StageOrder, around: Surroundings) -> StageRecord:
    """Run one stage to its end, and judge it."""
    outcome = await _with_file_size(sandbox, order, await sandbox.run(order, around.on_sample))
    status = judge(order, outcome)
    message = message_of(status, order, outcome)
    bounds = around.bounds
    if status == ExecutionStatus.TIMEOUT and order.limits.wall_time_s < bounds.of(order.name).wall_time_s:
        # It was not the stage's own clock that ran out, but what the whole request was left.
        message = f"{order.name}: killed at the request's deadline of {bounds.deadline_s:g} s"
    return StageRecord(order=order, outcome=outcome, status=status, message=message)


async def _with_file_size(sandbox: Sandbox, order: StageOrder, outcome: StageOutcome) -> StageOutcome:
    """Add FILE_SIZE to a failed stage that left a file exactly as large as it may be.

    Runtimes that ignore SIGXFSZ (Python, Go) see an error instead of dying, and the kernel counts nothing.
    """
    if outcome.exit_code in {0, None}:
        return outcome
    size = order.limits.file_size_bytes
    if await _with_folder(sandbox, lambda fd: has_file_of_size(fd, size, bounds=LOOK_BOUNDS), "."):
        return replace(outcome, limits_hit=outcome.limits_hit | LimitKind.FILE_SIZE)
    return outcome


async def _collect(
    sandbox: Sandbox, paths: Sequence[str], bounds: CollectBounds, progress: _Progress
) -> None:
    try:
        found = await _with_folder(sandbox, lambda folder_fd: collect(folder_fd, paths, bounds))
    except (CollectionError, OSError) as exc:  # without root, a program can close /work to us
        progress.message = f"the outputs were not collected: {exc}"
        return
    progress.files = tuple(
        OutputFile(
            path=file.path,
            content=file.content,
            size_bytes=len(file.content),
            sha256=hashlib.sha256(file.content).hexdigest(),
        )
        for file in found
    )


def _result(progress: _Progress, around: Surroundings) -> ExecutionResult:
    record = progress.records[-1]
    last = record.outcome
    stdout, stderr = last.stdout, last.stderr
    if record.order.name != "run" and not stderr.size_bytes:
        # Some compilers print their errors on stdout; a caller looks for them in one place.
        stdout, stderr = stderr, stdout
    return ExecutionResult(
        sandbox_id=around.sandbox_id,
        status=record.status,
        limits_hit=reduce(or_, (each.outcome.limits_hit for each in progress.records)),
        exit_code=last.exit_code,
        signal=last.signal,
        stdout=stdout,
        stderr=stderr,
        process_stats=_stats(progress),
        runtime=around.runtime,
        guarantees=_guarantees(progress.records),
        files=progress.files,
        error_message=record.message or progress.message,
    )


def _guarantees(records: Sequence[StageRecord]) -> Guarantees:
    """Return what was in force in every stage of the program, and each policy by which one had a way out.

    An installation runs nothing of the program, and has its own way out.
    """
    own = [record.outcome.guarantees for record in records if record.order.name != "install"]
    stages = own or [records[-1].outcome.guarantees]
    enforced = frozenset.intersection(*(stage.enforced for stage in stages))
    policies = {name for stage in stages for name in stage.enforced if name.startswith("network_policy:")}
    not_enforced = {key: why for stage in stages for key, why in stage.not_enforced.items()}
    return Guarantees(backend=stages[-1].backend, enforced=enforced | policies, not_enforced=not_enforced)


def _stats(progress: _Progress) -> ProcessStats:
    usages = [record.outcome.usage for record in progress.records]
    box = progress.usage
    return ProcessStats(
        wall_time_s=sum(usage.wall_time_s for usage in usages),
        user_time_s=sum(usage.user_time_s for usage in usages),
        system_time_s=sum(usage.system_time_s for usage in usages),
        memory_peak_bytes=_all(max, [usage.memory_peak_bytes for usage in usages]),
        memory_anonymous_bytes=_all(max, [usage.memory_anonymous_bytes for usage in usages]),
        memory_file_bytes=_all(max, [usage.memory_file_bytes for usage in usages]),
        processes_peak=_all(max, [usage.processes_peak for usage in usages]),
        disk_bytes=box.disk_bytes if box else None,
        inodes=box.inodes if box else None,
        page_faults_minor=_all(sum, [usage.page_faults_minor for usage in usages]),
        page_faults_major=_all(sum, [usage.page_faults_major for usage in usages]),
        context_switches_voluntary=_all(sum, [usage.context_switches_voluntary for usage in usages]),
        context_switches_involuntary=_all(sum, [usage.context_switches_involuntary for usage in usages]),
        oom_kills=sum(usage.oom_kills for usage in usages),
        stages=tuple(_stage_stats(record.order, record.outcome) for record in progress.records),
    )


def _all(combine: Callable[[list[int]], int], values: Sequence[int | None]) -> int | None:
    """Combine the stages' numbers; None when one is unknown, rather than a number that is too small."""
    known = [value for value in values if value is not None]
    return combine(known) if len(known) == len(values) else None


def _stage_stats(order: StageOrder, outcome: StageOutcome) -> StageStats:
    usage = outcome.usage
    return StageStats(
        name=order.name,
        wall_time_s=usage.wall_time_s,
        user_time_s=usage.user_time_s,
        system_time_s=usage.system_time_s,
        memory_peak_bytes=usage.memory_peak_bytes,
        memory_anonymous_bytes=usage.memory_anonymous_bytes,
        memory_file_bytes=usage.memory_file_bytes,
        processes_peak=usage.processes_peak,
        page_faults_minor=usage.page_faults_minor,
        page_faults_major=usage.page_faults_major,
        context_switches_voluntary=usage.context_switches_voluntary,
        context_switches_involuntary=usage.context_switches_involuntary,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        oom_kills=usage.oom_kills,
    )
