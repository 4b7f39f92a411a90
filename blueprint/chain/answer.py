"""The answers of a JSON-RPC end point: what they say, and what their failures mean.

Source of the rule: JSON-RPC 2.0, Ethereum JSON-RPC specification, RFC 9110 (statuses, ``Retry-After``).
Invariant: an answer that cannot be understood is an ``RpcError`` that names the end point and quotes it.
"""

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from blueprint.chain.endpoint import Endpoint
from blueprint.chain.reverts import decode_revert
from blueprint.chain.wire import JsonValue
from blueprint.errors import ChainError, RevertedError, RpcError
from blueprint.foreign_json import parse_json

__all__ = [
    "Answer",
    "decode_message",
    "parse_retry_after",
    "pick_answers",
    "read_error",
    "read_result",
    "silence_error",
    "status_error",
    "unattributed_error",
]

_MAX_RETRY_AFTER_S = 3600.0
_SERVER_FAILURES = 500
_REVERT_CODE = 3
_REVERT_WORDS = re.compile(r"\brevert(ed)?\b", re.IGNORECASE)
_HEX_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
_FIXES = {
    401: "check the credentials in the URL",
    403: "check the credentials in the URL",
    404: "there is no JSON-RPC end point at this path; check the URL",
    405: "there is no JSON-RPC end point at this path; check the URL",
    413: "the request or its answer is too large",
    429: "the end point limits the rate; wait, or use another",
}

Answer = dict[str, JsonValue]
"""One JSON-RPC response object."""


def read_result(endpoint: Endpoint, method: str, answer: Answer | None) -> JsonValue | ChainError:
    """Return what one call came to: its result, or its error as a value.

    Args:
        endpoint: for the message.
        method: the method that was called, for the message.
        answer: the answer to it, or None when the end point left it out.
    """
    if answer is None:
        return RpcError(f"{endpoint.shown} left out the answer to {method}")
    error = answer.get("error")
    if error is None:
        if "result" in answer:
            return answer["result"]
        return RpcError(f"{endpoint.shown} answered {method} with neither a result nor an error")
    code, message, data = read_error(error)
    if code == _REVERT_CODE or _REVERT_WORDS.search(message):
        return _reverted(message, _find_hex(data))
    return RpcError(f"{endpoint.shown}: {method}: {endpoint.redact(message)}", code=code, data=data)


def _reverted(message: str, data: bytes) -> RevertedError:
    if data:
        return decode_revert(data)
    return RevertedError(f"the contract reverted: {ascii(message)[:200]}")


def _find_hex(data: JsonValue, *, depth: int = 3) -> bytes:
    """Return the revert bytes, which nodes put at different depths of the error's data."""
    if isinstance(data, str):
        found = _HEX_DATA.search(data)
        return bytes.fromhex(found.group()[2:]) if found else b""
    if isinstance(data, dict) and depth:
        for name in ("data", "originalError", "result", "return", "output"):
            if name in data and (found_below := _find_hex(data[name], depth=depth - 1)):
                return found_below
    return b""


def silence_error(endpoint: Endpoint, timeout_s: float) -> RpcError:
    """Return the error for an answer that did not come in time; raise it ``from`` the timeout."""
    return RpcError(f"{endpoint.shown} did not answer within {timeout_s:g} s")


def pick_answers(ids: Sequence[int], answers: Iterable[Answer]) -> dict[int, Answer]:
    """Return the answers whose id is one of ``ids``; what belongs to nobody is left out."""
    wanted = set(ids)
    found: dict[int, Answer] = {}
    for answer in answers:
        key = answer.get("id")
        if type(key) is int and key in wanted:
            found[key] = answer
    return found


def unattributed_error(endpoint: Endpoint, answers: Sequence[Answer]) -> RpcError:
    """Return the error for a message in which no answer is ours: usually one error for a whole batch."""
    for answer in answers:
        error = answer.get("error")
        if error is not None:
            code, message, data = read_error(error)
            return RpcError(f"{endpoint.shown}: {endpoint.redact(message)}", code=code, data=data)
    return RpcError(f"{endpoint.shown} answered, but not to what was asked; is it a JSON-RPC end point?")


def read_error(error: JsonValue) -> tuple[int | None, str, JsonValue]:
    """Return code, message and data of a JSON-RPC error, whatever shape it came in."""
    if not isinstance(error, dict):
        return None, str(error), None
    code = error.get("code")
    message = error.get("message")
    return (
        code if isinstance(code, int) else None,
        message if isinstance(message, str) else "an error without a message",
        error.get("data"),
    )


def decode_message(endpoint: Endpoint, content: bytes | str) -> Answer | list[Answer]:
    """Return the JSON-RPC message in ``content``: an object, or a list of objects.

    Raises:
        RpcError: it is not JSON, or JSON of another shape.
    """
    try:
        message = parse_json(content)
    except (ValueError, RecursionError) as exc:
        raise _not_json_rpc(endpoint, content, "not JSON") from exc
    if isinstance(message, dict):
        return message
    if isinstance(message, list):
        answers = [entry for entry in message if isinstance(entry, dict)]
        if len(answers) == len(message):
            return answers
    raise _not_json_rpc(endpoint, content, "not a JSON-RPC message")


def status_error(
    endpoint: Endpoint, status: int, retry_after: str | None, content: bytes | str = b""
) -> RpcError:
    """Return the error for an HTTP status that is not a success."""
    fix = _FIXES.get(
        status, "the end point failed; try later" if status >= _SERVER_FAILURES else "check the URL"
    )
    quoted = _quote(endpoint, content)
    return RpcError(
        f"{endpoint.shown} answered HTTP {status}: {fix}" + (f" (it said {quoted})" if quoted else ""),
        code=status,
        retry_after_s=parse_retry_after(retry_after, now=datetime.now(UTC)),
    )


def parse_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for (RFC 9110, section 10.2.3), at most an hour.

    Args:
        value: the header: seconds, or an HTTP date.
        now: the time against which a date is read.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - now).total_seconds()
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_S)


def _not_json_rpc(endpoint: Endpoint, content: bytes | str, what: str) -> RpcError:
    quoted = _quote(endpoint, content) or "nothing"
    return RpcError(
        f"{endpoint.shown} answered {quoted}, which is {what}; check that the URL is a JSON-RPC end point"
    )


def _quote(endpoint: Endpoint, content: bytes | str) -> str:
    start = content[:500]
    text = start.decode(errors="replace") if isinstance(start, bytes) else start
    text = endpoint.redact(text)[:80]
    return ascii(text) if text else ""
