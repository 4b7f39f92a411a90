"""How the outcome of a program is shown: a summary for people, a document for machines.

Invariant: what a program printed reaches a terminal only with its control characters escaped.
"""

import base64
import signal as signals
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from blueprint.cli.session import Session
from blueprint.log import printable
from sandbox.result import CapturedStream, ExecutionResult, ExecutionStatus, LimitKind, NetworkContact

__all__ = [
    "as_json",
    "bytes_json",
    "contact_lines",
    "counted",
    "limits_text",
    "memory_text",
    "not_enforced_lines",
    "size_text",
    "stream_json",
    "summary",
    "time_text",
    "write_streams",
]

_KIB = 1024


def size_text(size_bytes: int | None) -> str:
    """Return a size for people: ``312 B``, ``4.1 KiB``, ``61 MiB``; ``not measured`` for None."""
    if size_bytes is None:
        return "not measured"
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _KIB or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"  # noqa: PLR2004 - two digits
        size /= _KIB
    raise AssertionError(size_bytes)


def memory_text(size_bytes: int | None) -> str:
    """Return how much memory was used, for people: ``61 MiB memory``, or ``memory not measured``."""
    return "memory not measured" if size_bytes is None else f"{size_text(size_bytes)} memory"


def counted(number: int, noun: str) -> str:
    """Return a number of things for people: ``1 process``, ``2 processes``."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def time_text(time_s: float) -> str:
    """Return a time for people: ``43 ms`` below a second, ``2.0 s`` above."""
    return f"{time_s * 1000:.0f} ms" if time_s < 1 else f"{time_s:.1f} s"


def limits_text(limits: LimitKind) -> str:
    """Return the names of the limits that were touched, separated by commas."""
    return ", ".join(kind.name.lower() for kind in LimitKind if kind and kind in limits and kind.name)


def stream_json(stream: CapturedStream) -> dict[str, Any]:
    """Return a stream as JSON: text where it is UTF-8, else base64, with full size and digest."""
    body: dict[str, Any] = {
        "size_bytes": stream.size_bytes,
        "sha256": stream.sha256,
        "is_truncated": stream.is_truncated,
    }
    return body | bytes_json(stream.data)


def bytes_json(data: bytes) -> dict[str, str]:
    """Return bytes as ``{"text": ...}`` where they are UTF-8, else ``{"base64": ...}``."""
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def as_json(result: ExecutionResult) -> dict[str, Any]:
    """Return a whole result as JSON, field by field."""
    stats = result.process_stats
    names = [name for name in type(stats).__slots__ if name != "stages"]
    return {
        "sandbox_id": result.sandbox_id,
        "status": result.status.name.lower(),
        "limits_hit": [name for name in limits_text(result.limits_hit).split(", ") if name],
        "exit_code": result.exit_code,
        "signal": result.signal,
        "error_message": result.error_message,
        "stdout": stream_json(result.stdout),
        "stderr": stream_json(result.stderr),
        "process_stats": {name: getattr(stats, name) for name in names}
        | {"stages": [{n: getattr(stage, n) for n in type(stage).__slots__} for stage in stats.stages]},
        "runtime": {
            "language": result.runtime.language,
            "version": result.runtime.version,
            "tree_digest": result.runtime.tree_digest,
        },
        "guarantees": {
            "backend": result.guarantees.backend,
            "enforced": sorted(result.guarantees.enforced),
            "not_enforced": dict(result.guarantees.not_enforced),
        },
        "lock": result.lock,
        "files": [
            {"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in result.files
        ],
        "contacts": [{n: getattr(each, n) for n in type(each).__slots__} for each in result.contacts],
    }


def summary(result: ExecutionResult) -> str:
    """Return one line: status, runtime, what it cost."""
    stats = result.process_stats
    how = result.status.name.lower()
    if result.status == ExecutionStatus.NONZERO_EXIT:
        how += f" {result.exit_code}"
    elif result.status == ExecutionStatus.SIGNALLED and result.signal:
        how += f" by {signals.Signals(result.signal).name}"
    parts = [
        f"{result.runtime.language} {result.runtime.version}",
        f"{time_text(stats.wall_time_s)} wall",
        f"{time_text(stats.user_time_s + stats.system_time_s)} CPU",
        memory_text(stats.memory_peak_bytes),
        result.guarantees.backend,
    ]
    return f"{how}: " + ", ".join(parts)


def write_streams(session: Session, stdout: bytes, stderr: bytes) -> None:
    """Pass on what a program printed: byte for byte into a pipe or file, made harmless on a terminal."""
    for stream, data in ((sys.stdout, stdout), (sys.stderr, stderr)):
        if stream.isatty():
            stream.write(printable(data))
            stream.flush()
        else:
            stream.flush()
            stream.buffer.write(data)
            stream.buffer.flush()
    if stdout and not stdout.endswith(b"\n") and sys.stdout.isatty():
        session.say("")


def contact_lines(contacts: Sequence[NetworkContact]) -> list[str]:
    """Return one line for each place that a run contacted under its egress policy, or tried to."""
    lines = []
    for each in contacts:
        parts = []
        if each.connections:
            amount = f"{size_text(each.sent_bytes)} sent, {size_text(each.received_bytes)} received"
            parts.append(f"{counted(each.connections, 'connection')}, {amount}")
        if each.refused:
            parts.append(f"{each.refused} refused")
        lines.append(f"network: {printable(each.host)}:{each.port}: {', '.join(parts)}")
    return lines


def not_enforced_lines(not_enforced: Mapping[str, str]) -> list[str]:
    """Return one line for each guarantee that is not in force."""
    return [f"not enforced: {name} ({reason})" for name, reason in sorted(not_enforced.items())]
