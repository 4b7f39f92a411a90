"""Which refusals mean that fewer blocks should be asked for, and how many."""

import pytest

from blueprint.chain.log_range import LogRange, is_range_too_large
from blueprint.errors import RpcError

TOO_LARGE = [
    "query returned more than 10000 results",
    "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range",
    "this block range should work: [0x1, 0x2]",
    "eth_getLogs is limited to a 10,000 range",
    "eth_getLogs and eth_newFilter are limited to a 10,000 blocks range",
    "query exceeds max results 20000, retry with the range 1-2",
    "query exceeds max block range 100000",
    "Maximum block range: 1000",
    "block range too large",
    "block range is too wide",
    "Block range is too large",
    "exceed maximum block range: 5000",
    "exceed max addresses or topics per search position: logs are limited to 10000",
    "response size should not greater than 10000000 bytes",
    "response size exceeded",
    "response is too big",
    "backend response too large",
    "query timeout exceeded",
    "request timed out",
    "requested too many blocks from 0 to 16777216, maximum is set to 2048",
    "ranges over 10000 blocks are not supported on freetier",
    "block range extends beyond current head block, maximum 500",
    "getLogs request exceeded max allowed range",
    "Block range limit exceeded",
    "query set is too large",
    "too many logs",
    "lost the connection: sent 1009 (message too big)",
    "the server answered more than 67108864 bytes: response too large",
    "context deadline exceeded",
]
OTHER = [
    "too many requests",
    "rate limit exceeded",
    "daily request count exceeded, request rate limited",
    "Your app has exceeded its compute units per second capacity",
    "monthly quota exceeded",
    "invalid argument 0: json: cannot unmarshal",
    "Method not found",
    "header not found",
    "cannot reach ws://x: Connection refused",
    "invalid block range params",
]


@pytest.mark.parametrize("message", TOO_LARGE)
def test_the_words_of_known_end_points_are_understood(message):
    """Each known wording leads to a smaller range."""
    assert is_range_too_large(RpcError(message, code=-32005))


@pytest.mark.parametrize("message", OTHER)
def test_other_refusals_do_not_shrink_the_range(message):
    """A rate limit or an outage is waited for, not asked again at once."""
    assert not is_range_too_large(RpcError(message, code=-32005))


def test_silence_and_statuses_count_too():
    """A timeout and HTTP 413 lead to a smaller range, HTTP 429 does not."""
    silence = RpcError("no answer")
    silence.__cause__ = TimeoutError()
    assert is_range_too_large(silence)
    assert is_range_too_large(RpcError("no", code=413))
    assert not is_range_too_large(RpcError("response too large", code=429))
    assert not is_range_too_large(RpcError("response too large", retry_after_s=1.0))


def test_ranges_double_and_halve_within_bounds():
    """Success doubles up to the limit, refusal halves what was asked down to one block."""
    blocks = LogRange(size=100, max_size=300)
    blocks.grow()
    assert blocks.size == 200
    blocks.grow()
    assert blocks.size == 300
    assert blocks.shrink(200, RpcError("too large"))
    assert blocks.size == 100
    assert blocks.shrink(3, RpcError("too large"))
    assert blocks.size == 1
    assert not blocks.shrink(1, RpcError("too large"))


@pytest.mark.parametrize(
    ("suggestion", "size"), [("[0x10, 0x19]", 10), ("[0x0, 0xffff]", 50), ("[0x9, 0x1]", 50)]
)
def test_a_suggested_range_is_taken_if_it_is_smaller(suggestion, size):
    """Some end points say what would work; nonsense is not believed."""
    blocks = LogRange(size=100, max_size=100)
    assert blocks.shrink(100, RpcError(f"this block range should work: {suggestion}"))
    assert blocks.size == size
