"""Between the port's words and the launcher's: a stage order becomes a task, an answer becomes an outcome."""

import errno
import os
import signal
from collections.abc import Sequence
from dataclasses import replace

from sandbox.backends.backend import StageOrder, StageOutcome, StageUsage
from sandbox.errors import RequestError, SystemFailureError
from sandbox.inside.orders import LiveFigures, StageAnswer, StageTask, StreamFacts, unpack_answer
from sandbox.inside.wire import Fields
from sandbox.kernel.cgroups import Group
from sandbox.kernel.rlimits import rlimits_for
from sandbox.result import CapturedStream, Guarantees, LimitKind, StageSample

__all__ = ["hits_of_signal", "outcome_of", "sample_of", "task_of"]

KILLED_FOR = {
    "": LimitKind.NONE,
    "wall": LimitKind.WALL_TIME,
    "cpu": LimitKind.CPU_TIME,
    "processes": LimitKind.PROCESSES,
}
HITS = {"disk": LimitKind.DISK, "inodes": LimitKind.INODES}


def task_of(order: StageOrder, group: Group, *, wants_samples: bool = False) -> StageTask:
    """Return what the launcher is told of a stage."""
    limits = order.limits
    rlimits = rlimits_for(
        file_size_bytes=limits.file_size_bytes, open_files=limits.open_files, cpu_time_s=limits.cpu_time_s
    )
    return StageTask(
        argv=list(order.argv),
        env=dict(order.env),
        rlimits=list(rlimits.items()),
        wall_time_s=limits.wall_time_s,
        cpu_time_s=limits.cpu_time_s,
        processes=None if order.counts_processes_exactly else limits.processes,
        output_bytes=limits.output_bytes,
        gateway_port=order.gateway.port if order.gateway else None,
        wants_samples=wants_samples,
        group_version=group.version,
        controllers=list(group.folders),
    )


def sample_of(order: StageOrder, figures: LiveFigures) -> StageSample:
    """Return live figures in the port's words."""
    return StageSample(
        stage=order.name,
        elapsed_s=figures.elapsed_s,
        memory_bytes=figures.group.memory_bytes,
        memory_anonymous_bytes=figures.group.memory_anonymous_bytes,
        memory_file_bytes=figures.group.memory_file_bytes,
        user_time_s=figures.group.user_time_s,
        system_time_s=figures.group.system_time_s,
        processes=figures.processes,
        disk_bytes=figures.disk_bytes,
        stdout_bytes=figures.stdout_bytes,
        stderr_bytes=figures.stderr_bytes,
    )


def outcome_of(order: StageOrder, fields: Fields, raw: bytes, *, guarantees: Guarantees) -> StageOutcome:
    """Return the facts of a stage.

    Raises:
        RequestError: arguments and environment are larger than the kernel takes.
        SystemFailureError: the launcher reports that a part of ours failed.
    """
    if fields["error"]:
        if fields.get("exec_errno") == errno.E2BIG:
            raise RequestError("args and env_vars together are larger than the kernel passes to a program")
        raise SystemFailureError(f"stage {order.name}: {fields['error']}")
    answer = unpack_answer({key: value for key, value in fields.items() if key != "error"})
    exit_code = signal_number = None
    if answer.wait_status is not None:
        code = os.waitstatus_to_exitcode(answer.wait_status)
        exit_code, signal_number = (code, None) if code >= 0 else (None, -code)
    killed_for = KILLED_FOR[answer.killed_for]
    return StageOutcome(
        exit_code=exit_code,
        signal=signal_number,
        killed_for=killed_for,
        limits_hit=killed_for | _hits(order, answer, signal_number),
        stdout=_stream(answer.stdout, raw[: answer.stdout.kept_bytes]),
        stderr=_stream(answer.stderr, raw[answer.stdout.kept_bytes :]),
        usage=_usage(order, answer),
        guarantees=replace(guarantees, enforced=guarantees.enforced | _walls(order, answer)),
    )


def _walls(order: StageOrder, answer: StageAnswer) -> set[str]:
    """Return what stood inside, and by which policy the network was open where it was."""
    policy = {f"network_policy:{order.gateway.name}"} if order.gateway else set()
    return set(answer.walls) | policy


def hits_of_signal(order: StageOrder, number: int | None, cpu_time_s: float) -> LimitKind:
    """Return the limit of which the signal that ended a program tells.

    SECURITY: a program can send itself either signal; of the one, what was used says whether the kernel did
    (test_attack..."CPU limit that was not reached").

    Args:
        order: names the limits.
        number: the signal, if any.
        cpu_time_s: what all processes of the stage have used.
    """
    if number == signal.SIGXFSZ:
        return LimitKind.FILE_SIZE
    if number == signal.SIGXCPU and cpu_time_s >= order.limits.cpu_time_s:
        return LimitKind.CPU_TIME
    return LimitKind.NONE


def _hits(order: StageOrder, answer: StageAnswer, signal_number: int | None) -> LimitKind:
    hits = hits_of_signal(order, signal_number, answer.group.user_time_s + answer.group.system_time_s)
    for name in answer.hits:
        hits |= HITS[name]
    if answer.group.oom_kills:
        hits |= LimitKind.MEMORY
    if answer.group.refused_tasks:
        hits |= LimitKind.PROCESSES
    if answer.stdout.size_bytes > answer.stdout.kept_bytes:
        hits |= LimitKind.STDOUT
    if answer.stderr.size_bytes > answer.stderr.kept_bytes:
        hits |= LimitKind.STDERR
    return hits


def _stream(facts: StreamFacts, data: bytes) -> CapturedStream:
    return CapturedStream(data=data, size_bytes=facts.size_bytes, sha256=facts.sha256)


def _usage(order: StageOrder, answer: StageAnswer) -> StageUsage:
    switches: Sequence[int | None] = answer.context_switches or (None, None)
    faults, major = answer.group.page_faults, answer.group.page_faults_major
    # The kernel's own peak counts tasks; it is a count of processes only where no threads are expected. The
    # looks every 50 ms may miss a short peak, so one task at most is the only other certain thing.
    peak = answer.group.tasks_peak
    is_certain = peak is not None and (order.counts_processes_exactly or peak == 1)
    return StageUsage(
        wall_time_s=answer.wall_time_s,
        user_time_s=answer.group.user_time_s,
        system_time_s=answer.group.system_time_s,
        memory_peak_bytes=answer.group.memory_peak_bytes,
        memory_anonymous_bytes=answer.sample.memory_anonymous_bytes if answer.sample else None,
        memory_file_bytes=answer.sample.memory_file_bytes if answer.sample else None,
        processes_peak=peak if is_certain else answer.processes_peak,
        page_faults_minor=None if faults is None else faults - (major or 0),
        page_faults_major=major,
        context_switches_voluntary=switches[0],
        context_switches_involuntary=switches[1],
        oom_kills=answer.group.oom_kills,
    )
