"""From facts to a status: how one stage's outcome is judged, and what people are told.

Invariant: the same facts give the same status on every back end. A limit becomes the status only when it
ended the stage (the back end killed for it) or the program failed after touching it; a program that touched a
limit and still succeeded has succeeded, and ``limits_hit`` tells the rest.
"""

from signal import Signals

from sandbox.backends.backend import StageOrder, StageOutcome
from sandbox.request import MIB
from sandbox.result import ExecutionStatus, LimitKind

__all__ = ["judge", "message_of"]

_KILLED = {
    LimitKind.WALL_TIME: ExecutionStatus.TIMEOUT,
    LimitKind.CPU_TIME: ExecutionStatus.CPU_LIMIT,
    LimitKind.PROCESSES: ExecutionStatus.PROCESS_LIMIT,
    LimitKind.MEMORY: ExecutionStatus.MEMORY_LIMIT,
    LimitKind.DISK: ExecutionStatus.DISK_LIMIT,
}
# Which limit explains a failure when several were touched: the surest evidence first.
_FAILED_AFTER = (
    (LimitKind.MEMORY, ExecutionStatus.MEMORY_LIMIT),
    (LimitKind.CPU_TIME, ExecutionStatus.CPU_LIMIT),
    (LimitKind.FILE_SIZE, ExecutionStatus.FILE_SIZE_LIMIT),
    (LimitKind.DISK | LimitKind.INODES, ExecutionStatus.DISK_LIMIT),
    (LimitKind.PROCESSES, ExecutionStatus.PROCESS_LIMIT),
)
_FAILED_AT = {
    "install": ExecutionStatus.DEPENDENCY_ERROR,
    "compile": ExecutionStatus.COMPILATION_ERROR,
}


def judge(order: StageOrder, outcome: StageOutcome) -> ExecutionStatus:
    """Return the status that this stage gives to the whole execution, were it the last."""
    if outcome.killed_for:
        return _KILLED[outcome.killed_for]
    if outcome.exit_code == 0:
        return ExecutionStatus.SUCCESS
    for kinds, status in _FAILED_AFTER:
        if outcome.limits_hit & kinds:
            return status
    if order.name in _FAILED_AT:
        return _FAILED_AT[order.name]
    return ExecutionStatus.NONZERO_EXIT if outcome.signal is None else ExecutionStatus.SIGNALLED


def message_of(status: ExecutionStatus, order: StageOrder, outcome: StageOutcome) -> str:
    """Return one sentence that says what ended the stage and by which bound; empty on success."""
    limits = order.limits
    ending = _ending(outcome)
    sentences = {
        ExecutionStatus.SUCCESS: "",
        ExecutionStatus.NONZERO_EXIT: f"the program ended with {ending}",
        ExecutionStatus.SIGNALLED: f"the program was ended by {ending}",
        ExecutionStatus.COMPILATION_ERROR: f"the compiler ended with {ending}; stderr holds its output",
        ExecutionStatus.DEPENDENCY_ERROR: f"the installer ended with {ending}; stderr holds its output",
        ExecutionStatus.TIMEOUT: f"killed after {limits.wall_time_s:g} s of wall time",
        ExecutionStatus.CPU_LIMIT: f"used more than {limits.cpu_time_s:g} s of CPU time",
        ExecutionStatus.MEMORY_LIMIT: f"used more than {_amount(limits.memory_bytes)} of memory",
        ExecutionStatus.DISK_LIMIT: (
            f"ended with {ending} after the disk quota was used up "
            f"({_amount(limits.disk_bytes)}, {limits.inodes} files and folders)"
        ),
        ExecutionStatus.PROCESS_LIMIT: f"needed more than {_processes(limits.processes)}",
        ExecutionStatus.FILE_SIZE_LIMIT: f"wrote a file of more than {_amount(limits.file_size_bytes)}",
    }
    sentence = sentences[status]
    return f"{order.name}: {sentence}" if sentence else ""


def _amount(count: int) -> str:
    if count % MIB:
        return "1 byte" if count == 1 else f"{count} bytes"
    return f"{count // MIB} MiB"


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _ending(outcome: StageOutcome) -> str:
    if outcome.signal is None:
        return f"exit code {outcome.exit_code}"
    try:
        name = Signals(outcome.signal).name
    except ValueError:  # a real-time signal
        name = "a real-time signal"
    return f"signal {outcome.signal} ({name})"
