"""The error answers of the embedded chain's JSON-RPC.

Invariant: whatever a client sends, it gets an answer with one of these codes (JSON-RPC 2.0, section 5.1,
and the codes that geth adds: 3 for a revert, -32000 for a refused transaction).
"""

__all__ = [
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "PARSE_ERROR",
    "REVERTED",
    "SERVER_ERROR",
    "JsonRpcError",
    "invalid_params",
    "reverted",
]

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR = -32000
REVERTED = 3

_ERROR_SELECTOR = bytes.fromhex("08c379a0")
_WORD = 32


class JsonRpcError(Exception):
    """An error answer: raised by a method, turned into the ``error`` member by the dispatcher."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def as_json(self) -> dict[str, object]:
        """The ``error`` member of the answer."""
        body: dict[str, object] = {"code": self.code, "message": self.message}
        if self.data is not None:
            body["data"] = self.data
        return body


def invalid_params(position: int, message: str) -> JsonRpcError:
    """An argument has the wrong shape; worded as geth words it."""
    return JsonRpcError(INVALID_PARAMS, f"invalid argument {position}: {message}")


def reverted(output: bytes) -> JsonRpcError:
    """A call reverted: code 3, the bytes in ``data``, a reason in the message if it is ``Error(string)``."""
    reason = _reason(output)
    message = "execution reverted" if reason is None else f"execution reverted: {reason}"
    return JsonRpcError(REVERTED, message, "0x" + output.hex())


def _reason(output: bytes) -> str | None:
    if output[:4] != _ERROR_SELECTOR or len(output) < 4 + 2 * _WORD:
        return None
    length = int.from_bytes(output[4 + _WORD : 4 + 2 * _WORD], "big")
    text = output[4 + 2 * _WORD :][:length]
    return text.decode("utf-8", errors="replace") if len(text) == length else None
