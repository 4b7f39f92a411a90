"""The whole node on a chain in memory: run, recover, cancel, stop, fail."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from blueprint.chain.listener import Listener
from blueprint.chain.signer import Signer
from blueprint.chain.submitter import Submitter, SubmitterPolicy
from blueprint.errors import ConfigError, JournalError, PostponedError, RpcError
from blueprint.job import Handler
from blueprint.node import Node, NodePolicy
from blueprint.store.journal import Journal
from blueprint.store.reader import retry_call
from blueprint.testing import FakeChain
from blueprint.types import CallState, JobCall

OPERATOR = Signer(b"\x01" * 32)
FAST = NodePolicy(tick_s=0.05, retry_s=0.01, grace_s=2.0)


async def echo(call: JobCall) -> bytes:
    """The simplest job."""
    return call.inputs


class Rig:
    """A node over a journal and a chain, for the length of one start."""

    def __init__(self, chain: FakeChain, path: Path, handler: Handler, policy: NodePolicy) -> None:
        names = {"chain_id": chain.chain_id, "contract": chain.contract}
        self.chain = chain
        self.journal = Journal(path, **names, operator=OPERATOR.address)  # type: ignore[arg-type]  # names fit
        self.submitter = Submitter(
            chain,
            ledger=self.journal,
            signer=OPERATOR,
            policy=SubmitterPolicy(tick_s=0.05, retry_s=0.05),
            **names,  # type: ignore[arg-type]
        )
        listener = Listener(
            chain,
            **names,
            service_ids=[0],
            window=self.journal.window(),
            start_block=0,
            poll_s=0.05,  # type: ignore[arg-type]
        )
        self.node = Node(
            rpc=chain,
            listener=listener,
            journal=self.journal,
            submitter=self.submitter,
            handler=handler,
            policy=policy,
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the node work until something is true."""
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - what is waited for is in the journal
                await asyncio.sleep(0.005)

    def count(self, state: CallState) -> int:
        """How many calls are in a state."""
        return self.journal.counts()[state]


@asynccontextmanager
async def running(
    chain: FakeChain, path: Path, handler: Handler = echo, policy: NodePolicy = FAST
) -> AsyncIterator[Rig]:
    """A node that runs inside the block and is stopped politely after it."""
    rig = Rig(chain, path, handler, policy)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(rig.node.run())
            yield rig
            rig.node.request_stop()
    finally:
        rig.journal.close()


@pytest.fixture
def chain() -> FakeChain:
    """A chain with our operator."""
    return FakeChain(operators=[OPERATOR.address])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal.db"


async def test_calls_from_before_and_after_the_start_are_answered(chain: FakeChain, path: Path) -> None:
    """What was submitted while the node was down is answered as well as what comes."""
    chain.submit_job(b"early")
    async with running(chain, path) as rig:
        chain.submit_job(b"late")
        await rig.until(lambda: rig.count(CallState.DONE) == 2)
    assert chain.outputs() == {0: [b"early"], 1: [b"late"]}


async def test_a_call_ends_in_one_line(chain: FakeChain, path: Path) -> None:
    """The canonical line tells state, sizes, hashes and times, and no inputs."""
    with capture_logs() as logs:
        async with running(chain, path) as rig:
            chain.submit_job(b"secret inputs")
            await rig.until(lambda: rig.count(CallState.DONE) == 1)
    (line,) = [entry for entry in logs if entry["event"] == "call_ended"]
    assert (line["state"], line["call_id"], line["inputs_size"], line["output_size"]) == ("done", 0, 13, 13)
    assert "secret" not in str(line)


async def test_no_more_handlers_run_than_allowed(chain: FakeChain, path: Path) -> None:
    """The limit on handlers holds while many calls wait."""
    running_now, most = 0, 0

    async def slow(call: JobCall) -> bytes:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        await asyncio.sleep(0.01)
        running_now -= 1
        return b""

    for _ in range(12):
        chain.submit_job(b"x")
    async with running(chain, path, slow, NodePolicy(max_running=3, tick_s=0.05)) as rig:
        await rig.until(lambda: rig.count(CallState.DONE) == 12)
    assert most == 3


async def test_a_handler_that_fails_runs_again(chain: FakeChain, path: Path) -> None:
    """An exception does not end the node; the second try answers."""
    tries = 0

    async def flaky(call: JobCall) -> bytes:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ZeroDivisionError
        return b"ok"

    chain.submit_job(b"x")
    async with running(chain, path, flaky) as rig:
        await rig.until(lambda: rig.count(CallState.DONE) == 1)
    assert (tries, chain.outputs()) == (2, {0: [b"ok"]})


async def test_a_handler_that_always_fails_is_given_up(chain: FakeChain, path: Path) -> None:
    """After the last try the call is closed with a reason, and can be retried while the node runs."""
    is_broken = True

    async def broken(call: JobCall) -> bytes:
        if is_broken:
            raise ZeroDivisionError
        return b"mended"

    key = chain.submit_job(b"x")
    async with running(chain, path, broken) as rig:
        await rig.until(lambda: rig.count(CallState.CLOSED) == 1)
        is_broken = False
        assert retry_call(path, key) is CallState.SEEN
        await rig.until(lambda: rig.count(CallState.DONE) == 1)
    assert chain.outputs() == {0: [b"mended"]}


async def test_a_call_without_room_runs_later_and_is_not_given_up(chain: FakeChain, path: Path) -> None:
    """However often a handler says that there is no room, the call stays open, and is answered in the end."""
    tries = 0

    async def busy(call: JobCall) -> bytes:
        nonlocal tries
        tries += 1
        if tries <= 2 * FAST.max_attempts:
            raise PostponedError("full", retry_after_s=0.01)
        return b"ok"

    chain.submit_job(b"x")
    async with running(chain, path, busy) as rig:
        await rig.until(lambda: rig.count(CallState.DONE) == 1)
    assert (tries, chain.outputs()) == (2 * FAST.max_attempts + 1, {0: [b"ok"]})


async def test_a_stop_does_not_wait_for_calls_without_room(chain: FakeChain, path: Path) -> None:
    """A call that is put back while the node stops is in the journal, and the stop takes no grace for it."""
    is_full = asyncio.Event()

    async def full(call: JobCall) -> bytes:
        await is_full.wait()
        raise PostponedError("stopping", retry_after_s=0)

    chain.submit_job(b"x")
    async with running(chain, path, full, NodePolicy(grace_s=60, tick_s=0.05)) as rig:
        await rig.until(lambda: rig.count(CallState.RUNNING) == 1)
        rig.node.request_stop()
        is_full.set()
        await rig.until(lambda: not rig.node.health().is_running)
        assert rig.count(CallState.SEEN) == 1


async def test_an_output_over_the_cap_is_not_sent(chain: FakeChain, path: Path) -> None:
    """What no end point would take is closed with a reason instead of being tried for ever."""

    async def huge(call: JobCall) -> bytes:
        return bytes(2000)

    chain.submit_job(b"x")
    async with running(chain, path, huge, NodePolicy(output_cap_bytes=1000, tick_s=0.05)) as rig:
        await rig.until(lambda: rig.count(CallState.CLOSED) == 1)
    assert chain.outputs() == {}


async def test_the_handler_of_an_orphaned_call_is_cancelled(chain: FakeChain, path: Path) -> None:
    """A fork without the call stops its handler; with other inputs the call runs anew."""
    ran: list[bytes] = []
    cancelled: list[bytes] = []

    async def patient(call: JobCall) -> bytes:
        ran.append(call.inputs)
        try:
            await asyncio.sleep(0 if call.inputs == b"new" else 60)
        except asyncio.CancelledError:
            cancelled.append(call.inputs)
            raise
        return call.inputs

    chain.mine()
    chain.submit_job(b"old")
    async with running(chain, path, patient) as rig:
        await rig.until(lambda: ran == [b"old"])
        chain.reorg(1)
        await rig.until(lambda: cancelled == [b"old"])
        chain.submit_job(b"new")
        await rig.until(lambda: rig.count(CallState.DONE) == 1)
    assert chain.outputs() == {0: [b"new"]}


async def test_stopping_finishes_what_runs(chain: FakeChain, path: Path) -> None:
    """After the wish to stop, running handlers end and their outputs are sent; new calls wait."""
    started = asyncio.Event()
    finish = asyncio.Event()

    async def waits(call: JobCall) -> bytes:
        started.set()
        await finish.wait()
        return b"done"

    chain.submit_job(b"x")
    async with running(chain, path, waits) as rig:
        await started.wait()
        rig.node.request_stop()
        chain.submit_job(b"too late")
        finish.set()
    assert chain.outputs() == {0: [b"done"]}


async def test_what_outlives_the_grace_period_runs_after_the_restart(chain: FakeChain, path: Path) -> None:
    """A handler that takes too long is cancelled, and its call starts again with the next node."""

    async def forever(call: JobCall) -> bytes:
        await asyncio.sleep(60)
        return b""

    chain.submit_job(b"x")
    async with running(chain, path, forever, NodePolicy(grace_s=0.1, tick_s=0.05)) as rig:
        await rig.until(lambda: rig.count(CallState.RUNNING) == 1)
    async with running(chain, path) as rig:
        await rig.until(lambda: rig.count(CallState.DONE) == 1)
    assert chain.outputs() == {0: [b"x"]}


async def test_abort_does_not_wait(chain: FakeChain, path: Path) -> None:
    """The second signal ends the node at once, whatever runs."""

    async def forever(call: JobCall) -> bytes:
        await asyncio.sleep(60)
        return b""

    chain.submit_job(b"x")
    async with asyncio.timeout(1):
        async with running(chain, path, forever, NodePolicy(grace_s=60, tick_s=0.05)) as rig:
            await rig.until(lambda: rig.count(CallState.RUNNING) == 1)
            rig.node.request_stop()
            await asyncio.sleep(0.05)
            rig.node.abort()


async def test_readiness_is_nearness_to_the_head(chain: FakeChain, path: Path) -> None:
    """Ready while the end point answers and the cursor is near its head; not before and not after."""
    async with running(chain, path) as rig:
        await rig.until(lambda: rig.node.health().cursor == chain.head_number)
        ready = await rig.node.is_ready()
        chain.fail_next("eth_blockNumber", RpcError("down"))
        unreachable = await rig.node.is_ready()
    assert (ready, unreachable, await rig.node.is_ready()) == (True, False, False)


async def test_health_tells_what_is_going_on(chain: FakeChain, path: Path) -> None:
    """Cursor, head and counts are those of the journal and the chain."""
    chain.submit_job(b"x")
    async with running(chain, path) as rig:
        await rig.until(lambda: rig.count(CallState.DONE) == 1)
        health = rig.node.health()
    assert (health.is_running, health.is_stopping, health.head) == (True, False, chain.head_number)
    assert (health.calls[CallState.DONE], health.running) == (1, 0)


async def test_a_broken_journal_ends_the_node(chain: FakeChain, path: Path) -> None:
    """Without its memory the node can promise nothing: it stops with the cause, not with a group."""
    rig = Rig(chain, path, echo, FAST)

    def fail(*_: object) -> None:
        raise JournalError("the disk is full")

    rig.journal.apply = fail  # type: ignore[method-assign,assignment]  # the disk breaks now
    with pytest.raises(JournalError, match="the disk is full"):
        await rig.node.run()
    rig.journal.close()


def test_zero_handlers_are_refused(chain: FakeChain, path: Path) -> None:
    """A node that may run nothing is a mistake in its settings."""
    with pytest.raises(ConfigError, match="max_running: expected at least 1, received 0"):
        Rig(chain, path, echo, NodePolicy(max_running=0))
