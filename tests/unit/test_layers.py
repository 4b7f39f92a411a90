"""Layers: limits of calls and time, retries within a budget, one line per call."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest
import structlog
from calls import make_call

from blueprint.errors import InputsInvalidError, JobTimeoutError, JournalError, PostponedError, RpcError
from blueprint.job import Handler
from blueprint.layers import RetryBudget, call_log, concurrency_limit, retry, time_limit
from blueprint.types import JobCall

CALL = make_call(2, b"abc")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep log lines off the terminal; rendering their tracebacks takes longer than the tests."""
    with structlog.testing.capture_logs():
        yield


def failing(*errors: BaseException) -> tuple[Handler, list[int]]:
    """Return a handler that raises these, one after the other, and then answers; and the list of its runs."""
    runs: list[int] = []

    async def handler(call: JobCall) -> bytes:
        runs.append(call.job_index)
        if len(runs) <= len(errors):
            raise errors[len(runs) - 1]
        return b"ok"

    return handler, runs


async def test_layers_concurrency_limit_lets_no_more_in() -> None:
    """Of many calls at once, at most the limit are inside, and all are answered."""
    inside, most = 0, 0

    async def handler(call: JobCall) -> bytes:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1
        return b""

    limited = concurrency_limit(3)(handler)

    async def run() -> None:
        assert await limited(CALL) == b""

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(run())
    assert most == 3


async def test_layers_time_limit_cancels_and_says_how_long_it_waited() -> None:
    """A handler over its time is cancelled, and the error names the limit."""
    cancelled = []

    async def handler(call: JobCall) -> bytes:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(call.job_index)
            raise
        return b""

    with pytest.raises(JobTimeoutError, match=r"within 0\.01 s"):
        await time_limit(0.01)(handler)(CALL)
    assert cancelled == [2]


async def test_layers_time_limit_leaves_a_handlers_own_timeout_alone() -> None:
    """A TimeoutError that the handler raises itself is not ours."""
    handler, _ = failing(TimeoutError("its own"))
    with pytest.raises(TimeoutError, match="its own"):
        await time_limit(60)(handler)(CALL)


@pytest.mark.parametrize("bad", [0, -1])
def test_layers_refuse_limits_that_let_nothing_through(bad: int) -> None:
    """Zero and less are mistakes."""
    with pytest.raises(ValueError, match="received"):
        concurrency_limit(bad)
    with pytest.raises(ValueError, match="received"):
        time_limit(bad)
    with pytest.raises(ValueError, match="received"):
        retry(attempts=bad)


async def test_layers_retry_repeats_what_may_pass() -> None:
    """Two failures that may pass and a success are a success, with growing pauses between."""
    pauses: list[float] = []

    async def sleep(delay_s: float) -> None:
        pauses.append(delay_s)

    handler, runs = failing(RpcError("once"), RpcError("twice"))
    assert await retry(sleep=sleep, jitter=lambda: 1.0)(handler)(CALL) == b"ok"
    assert len(runs) == 3
    assert pauses == [0.1, 0.2]


async def test_layers_retry_gives_up_with_the_last_error() -> None:
    """After the last attempt the error passes through."""
    handler, runs = failing(*[RpcError(str(number)) for number in range(9)])
    with pytest.raises(RpcError, match="2"):
        await retry(attempts=3, first_delay_s=0)(handler)(CALL)
    assert len(runs) == 3


@pytest.mark.parametrize("error", [InputsInvalidError("bad"), JournalError("full"), ValueError("a bug")])
async def test_layers_retry_does_not_repeat_what_cannot_pass(error: Exception) -> None:
    """A rejection, a fatal error and a bug are raised at once."""
    handler, runs = failing(error)
    with pytest.raises(type(error)):
        await retry()(handler)(CALL)
    assert len(runs) == 1


async def test_layers_retry_leaves_a_postponed_call_to_the_node() -> None:
    """There is no room: that uses up no attempt and no budget, it is passed on at once."""
    handler, runs = failing(PostponedError("full", retry_after_s=5))
    budget = RetryBudget(capacity=1)
    with pytest.raises(PostponedError):
        await retry(budget=budget)(handler)(CALL)
    assert (runs, budget.left) == ([2], 1)


async def test_layers_retry_stops_when_its_budget_is_spent() -> None:
    """The budget is shared by all calls, and successes earn it back in part."""
    budget = RetryBudget(capacity=1, earned_per_success=0.5)
    layer = retry(first_delay_s=0, budget=budget)
    handler, runs = failing(*[RpcError("down")] * 3)
    with pytest.raises(RpcError):
        await layer(handler)(CALL)
    assert len(runs) == 2
    with pytest.raises(RpcError):
        await layer(handler)(CALL)
    assert len(runs) == 3
    assert await layer(handler)(CALL) == b"ok"
    assert await layer(handler)(CALL) == b"ok"
    assert budget.spend()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "answered"),
        (InputsInvalidError("bad"), "rejected"),
        (ValueError("a bug"), "failed"),
        (asyncio.CancelledError(), "cancelled"),
    ],
)
async def test_layers_call_log_writes_one_line_with_sizes_only(
    error: BaseException | None, outcome: str
) -> None:
    """Each call ends in one line with its outcome, its sizes and its time; contents are not in it."""
    ticks = iter([1.0, 1.25])
    handler, _ = failing(*[error] if error else [])
    with structlog.testing.capture_logs() as logs, suppress(Exception, asyncio.CancelledError):
        await call_log(clock=lambda: next(ticks))(handler)(CALL)
    assert logs == [
        {
            "event": "call_handled",
            "log_level": "info",
            "service_id": 3,
            "call_id": 7,
            "job_index": 2,
            "outcome": outcome,
            "inputs_bytes": 3,
            "output_bytes": 2 if outcome == "answered" else 0,
            "wall_time_ms": 250.0,
        }
    ]
