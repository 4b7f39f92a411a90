"""How many blocks to ask logs of at a time: doubled after a success, halved when it was too much.

Source of the rule: there is no common error for a range that is too large; the words of the known end points
are matched here.
Invariant: a range is never below one block, and a rate limit is not taken for a range that is too large.
"""

import re

from blueprint.chain.transport import is_silence
from blueprint.errors import RpcError

__all__ = ["LogRange", "is_range_too_large"]

_TOO_LARGE = re.compile(
    r"more than \d+ (results|logs|blocks)"
    r"|(result|results|log|logs|range|ranges|response|body|message|size|blocks|payload)\b.{0,60}"
    r"(exceed|limited|too (large|big|wide|many|long)|greater than|not supported|over \d|max(imum)?\b|extends)"
    r"|(exceed|exceeds|exceeded|limited to|max(imum)?|over)\b.{0,60}"
    r"(result|results|logs|range|response|size|blocks|limit)"
    r"|too (large|big|wide|many)\b.{0,30}(result|logs|range|response|blocks|message)?"
    r"|up to a .{0,20}block range|block range should work|entity too large"
    r"|query timeout|timed out|timeout|deadline exceeded|took too long|aborted",
    re.IGNORECASE,
)
_RATE_LIMIT = re.compile(
    r"too many requests|rate[- ]?limit|requests? (per|rate|count|limit)|compute units|capacity|credits|daily|"
    r"monthly|quota|throughput",
    re.IGNORECASE,
)
_SUGGESTION = re.compile(r"\[\s*(0x[0-9a-f]+)\s*,\s*(0x[0-9a-f]+)\s*\]", re.IGNORECASE)
_TOO_MANY_REQUESTS = 429
_PAYLOAD_TOO_LARGE = 413


def is_range_too_large(error: RpcError) -> bool:
    """Return whether a smaller range of blocks may be answered where this one was not."""
    if error.code == _TOO_MANY_REQUESTS or error.retry_after_s is not None:
        return False
    if error.code == _PAYLOAD_TOO_LARGE or is_silence(error):
        return True
    text = str(error)
    return _RATE_LIMIT.search(text) is None and _TOO_LARGE.search(text) is not None


class LogRange:
    """The number of blocks of the next question.

    Args:
        size: blocks in the first question.
        max_size: the most blocks in any.
    """

    def __init__(self, *, size: int, max_size: int) -> None:
        self._max_size = max_size
        self._size = size

    @property
    def size(self) -> int:
        """Blocks to ask for, at least one."""
        return self._size

    def grow(self) -> None:
        """Double after a success."""
        self._size = min(self._size * 2, self._max_size)

    def shrink(self, asked: int, error: RpcError) -> bool:
        """Halve what was asked, or take the range that the error suggests; False if it was one block only."""
        if asked <= 1:
            return False
        self._size = max(1, asked // 2)
        suggestion = _SUGGESTION.search(str(error))
        if suggestion is not None:
            suggested = int(suggestion.group(2), 16) - int(suggestion.group(1), 16) + 1
            if 1 <= suggested < asked:
                self._size = suggested
        return True
