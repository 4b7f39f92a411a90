"""An answer of the `execute` job as it stands on chain: decoded, shown, told apart from other bytes.

Invariant: bytes that are no answer of `execute` are shown as bytes, never as an error.
"""

import signal as signals
from typing import Any

from blueprint.cli.outcome import bytes_json, limits_text, memory_text, time_text
from blueprint.errors import Rejection
from jobs.execute_codec import ExecuteResult, decode_result
from sandbox.result import ExecutionStatus, LimitKind

__all__ = ["answer_json", "answer_summary", "read_answer", "status_name"]

_MICRO = 1_000_000


def read_answer(output: bytes) -> ExecuteResult | None:
    """Return the decoded answer, or None when the bytes are not one."""
    try:
        return decode_result(output)
    except Rejection:
        return None


def status_name(status: int) -> str:
    """Return a status in words; a number that this version does not know stays a number."""
    try:
        return ExecutionStatus(status).name.lower()
    except ValueError:
        return f"status_{status}"


def answer_json(answer: ExecuteResult) -> dict[str, Any]:
    """Return an answer as JSON, field by field."""
    stats = answer.stats
    return {
        "status": status_name(answer.status),
        "limits_hit": [name for name in limits_text(LimitKind(answer.limits_hit)).split(", ") if name],
        "exit_code": answer.exit_code,
        "signal": answer.signal or None,
        "stdout": {**bytes_json(answer.stdout), "size_bytes": answer.stdout_size},
        "stderr": {**bytes_json(answer.stderr), "size_bytes": answer.stderr_size},
        "stats": {name: getattr(stats, name) for name in type(stats).__slots__},
        "runtime": answer.runtime,
        "output_digest": answer.output_digest.hex(),
        "error_message": answer.error_message,
        "receipt": answer.receipt.hex(),
    }


def answer_summary(answer: ExecuteResult) -> str:
    """Return one line: status, runtime, what it cost."""
    how = status_name(answer.status)
    if answer.status == ExecutionStatus.NONZERO_EXIT:
        how += f" {answer.exit_code}"
    elif answer.status == ExecutionStatus.SIGNALLED and answer.signal in set(signals.Signals):
        how += f" by {signals.Signals(answer.signal).name}"
    if answer.status in (ExecutionStatus.REJECTED, ExecutionStatus.SYSTEM_ERROR):
        return f"{how}: {answer.error_message}"
    stats = answer.stats
    memory = memory_text(stats.memory_peak_bytes or None)
    cpu = time_text((stats.user_us + stats.system_us) / _MICRO)
    return f"{how}: {answer.runtime}, {time_text(stats.wall_us / _MICRO)} wall, {cpu} CPU, {memory}"
