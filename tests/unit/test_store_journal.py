"""The journal: states of calls, forks, outputs and transactions, and what a restart finds."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blueprint.errors import JournalError
from blueprint.keccak import keccak256
from blueprint.store.journal import Journal
from blueprint.store.records import CallRecord
from blueprint.types import (
    Address,
    BlockRef,
    CallKey,
    CallOutcome,
    CallState,
    ChainUpdate,
    Hash,
    JobCall,
    PriceQuote,
    ReadyResult,
    ResultLog,
    SentTransaction,
)

CONTRACT = Address(b"\xcc" * 20)
OPERATOR = Address(b"\x0a" * 20)
RIVAL = Address(b"\x0b" * 20)


class Clock:
    """Unix seconds that stand still until they are moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that the test moves."""
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[Journal]:
    """An empty journal."""
    with open_journal(tmp_path, clock) as opened:
        yield opened


def open_journal(
    folder: Path, clock: Clock, *, operator: Address = OPERATOR, kept_calls: int = 100
) -> Journal:
    """Open the journal of a test."""
    return Journal(
        folder / "journal.db",
        chain_id=1,
        contract=CONTRACT,
        operator=operator,
        clock=clock,
        kept_calls=kept_calls,
    )


def block(number: int, fork: str = "") -> BlockRef:
    """A block of the main chain, or of a fork by name."""
    parent = f"{number - 1}{fork}"
    return BlockRef(
        number=number, hash=keccak256(f"{number}{fork}".encode()), parent_hash=keccak256(parent.encode())
    )


def key(call_id: int, service_id: int = 0) -> CallKey:
    """The name of a call."""
    return CallKey(chain_id=1, contract=CONTRACT, service_id=service_id, call_id=call_id)


def call(call_id: int, number: int, inputs: bytes = b"in", fork: str = "", service_id: int = 0) -> JobCall:
    """A call in a block."""
    return JobCall(
        key=key(call_id, service_id),
        job_index=0,
        caller=RIVAL,
        inputs=inputs,
        inputs_hash=keccak256(inputs),
        block_number=number,
        block_hash=block(number, fork).hash,
        transaction_hash=keccak256(inputs + fork.encode()),
        log_index=2,
    )


def step(number: int, *calls: JobCall, results: tuple[ResultLog, ...] = (), fork: str = "") -> ChainUpdate:
    """One new block."""
    return ChainUpdate(blocks=[block(number, fork)], calls=calls, results=results, head_number=number)


def result(call_id: int, number: int, operator: Address = OPERATOR, fork: str = "") -> ResultLog:
    """A result log."""
    return ResultLog(
        key=key(call_id),
        operator=operator,
        block_number=number,
        block_hash=block(number, fork).hash,
        transaction_hash=Hash(b"\x07" * 32),
    )


def transaction(nonce: int, *keys: CallKey, fee: int = 10) -> SentTransaction:
    """A recorded transaction."""
    return SentTransaction(
        nonce=nonce,
        hash=keccak256(f"{nonce} {keys} {fee}".encode()),
        raw=b"raw",
        keys=keys,
        data=b"data",
        gas=50_000,
        max_fee_wei=fee,
        max_priority_fee_wei=1,
    )


async def answer(journal: Journal, number: int, *calls: JobCall) -> list[ReadyResult]:
    """Bring calls to READY: one block, claimed, with the output of the echo."""
    journal.apply(step(number, *calls))
    for claimed in journal.claim(len(calls)):
        assert await journal.record_output(claimed, claimed.inputs)
    return list(journal.ready(100, number))


def state(journal: Journal) -> CallState:
    """The state of the only call."""
    (found,) = [name for name, count in journal.counts().items() if count]
    return found


async def test_a_call_walks_from_seen_to_done(journal: Journal) -> None:
    """A call is SEEN, RUNNING, READY, SENT and DONE, in this order."""
    states = []
    journal.apply(step(1, call(0, 1)))
    states.append(state(journal))
    (claimed,) = journal.claim(8)
    states.append(state(journal))
    await journal.record_output(claimed, b"out")
    states.append(state(journal))
    assert journal.record_sent(transaction(0, key(0)), journal.ready(1, 1))
    states.append(state(journal))
    journal.apply(step(2, results=(result(0, 2),)))
    states.append(state(journal))
    assert states == [CallState.SEEN, CallState.RUNNING, CallState.READY, CallState.SENT, CallState.DONE]


async def test_a_claimed_call_is_the_call_that_was_applied(journal: Journal) -> None:
    """Every field survives the journal, the largest numbers and a price quote among them."""
    quote = PriceQuote(operators=(RIVAL, OPERATOR), total_price_wei=2**255)
    large = replace(call(2**64 - 1, 1, service_id=2**63), price_quote=quote, inputs=b"\x00\xff")
    journal.apply(step(1, large))
    assert journal.claim(1) == [large]


async def test_calls_are_claimed_oldest_first_and_once(journal: Journal) -> None:
    """The limit holds, the order is that of the chain, and nothing is given out twice."""
    journal.apply(step(1, *(call(n, 1) for n in range(5))))
    first = [claimed.key.call_id for claimed in journal.claim(3)]
    second = [claimed.key.call_id for claimed in journal.claim(3)]
    assert (first, second, journal.claim(3), journal.claim(0)) == ([0, 1, 2], [3, 4], [], [])


async def test_a_call_quoted_to_others_is_closed_unseen(journal: Journal) -> None:
    """A quoted call of which we are no operator never starts, and the log says why."""
    ended: list[CallRecord] = []
    journal.on_end = ended.append
    quote = PriceQuote(operators=(RIVAL,), total_price_wei=100)
    journal.apply(step(1, replace(call(0, 1), price_quote=quote)))
    assert (journal.claim(1), state(journal)) == ([], CallState.CLOSED)
    assert [record.reason for record in ended] == ["not_quoted_operator"]


async def test_the_same_log_twice_changes_nothing(journal: Journal) -> None:
    """A range that is read again does not start a call again."""
    await answer(journal, 1, call(0, 1))
    journal.apply(step(1, call(0, 1)))
    assert state(journal) is CallState.READY


async def test_the_result_of_another_operator_does_not_end_a_call(journal: Journal) -> None:
    """Only our own result log makes a call DONE."""
    await answer(journal, 1, call(0, 1))
    journal.apply(step(2, results=(result(0, 2, operator=RIVAL),)))
    assert state(journal) is CallState.READY


async def test_a_result_for_an_unknown_call_is_passed_over(journal: Journal) -> None:
    """A call from before the start block may still be answered."""
    journal.apply(step(2, results=(result(9, 2),)))
    assert sum(journal.counts().values()) == 0


async def test_an_answered_call_stops_its_handler(journal: Journal) -> None:
    """When our result is on the chain already, what runs for the call runs for nothing."""
    journal.apply(step(1, call(0, 1)))
    journal.claim(1)
    applied = journal.apply(step(2, results=(result(0, 2),)))
    assert (applied.cancelled, state(journal)) == ([key(0)], CallState.DONE)


async def test_an_ended_call_is_told_once(journal: Journal) -> None:
    """The canonical line of a call is written when it ends, not again when the log is read again."""
    ended: list[CallRecord] = []
    journal.on_end = ended.append
    await answer(journal, 1, call(0, 1))
    journal.apply(step(2, results=(result(0, 2),)))
    journal.apply(step(3, results=(result(0, 2),)))
    assert [(record.state, record.result_block) for record in ended] == [(CallState.DONE, 2)]


async def test_the_window_is_what_was_applied(journal: Journal) -> None:
    """The window ends with the cursor and survives as it was given."""
    for number in range(1, 5):
        journal.apply(step(number))
    assert (list(journal.window()), journal.cursor()) == ([block(n) for n in range(1, 5)], 4)


async def test_the_window_is_bounded(journal: Journal) -> None:
    """Old blocks are forgotten."""
    journal.apply(ChainUpdate(blocks=[block(n) for n in range(1, 700)], head_number=699))
    assert [ref.number for ref in journal.window()] == list(range(188, 700))


async def test_an_orphaned_call_does_not_start(journal: Journal) -> None:
    """A call whose block is undone is not run and not sent."""
    journal.apply(step(1, call(0, 1)))
    journal.apply(ChainUpdate(fork_number=0, blocks=[block(1, "b")], head_number=1))
    assert (journal.claim(1), state(journal), list(journal.window())) == (
        [],
        CallState.ORPHANED,
        [block(1, "b")],
    )


async def test_an_orphaned_call_goes_on_with_its_output(journal: Journal) -> None:
    """The output of a call that comes back with the same inputs is used again."""
    before = await answer(journal, 1, call(0, 1))
    journal.apply(ChainUpdate(fork_number=0, head_number=1))
    assert journal.ready(1, 9) == []
    journal.apply(step(2, call(0, 2, fork="b"), fork="b"))
    assert journal.ready(1, 9) == before


async def test_other_inputs_start_anew(journal: Journal) -> None:
    """A call id that comes back with other inputs never gets the output of the old ones."""
    await answer(journal, 1, call(0, 1))
    journal.apply(ChainUpdate(fork_number=0, head_number=1))
    journal.apply(step(1, call(0, 1, inputs=b"other", fork="b"), fork="b"))
    assert journal.ready(1, 9) == []
    assert [claimed.inputs for claimed in journal.claim(1)] == [b"other"]


@pytest.mark.parametrize("change", [{"job_index": 3}, {"caller": OPERATOR}])
async def test_another_job_or_caller_starts_anew(journal: Journal, change: dict[str, object]) -> None:
    """Equal inputs are not the same call when the job or the caller differs."""
    await answer(journal, 1, call(0, 1))
    again = replace(call(0, 1, fork="b"), **change)  # type: ignore[arg-type]  # fields by name
    journal.apply(ChainUpdate(fork_number=0, blocks=[block(1, "b")], calls=[again], head_number=1))
    assert journal.claim(1) == [again]


async def test_a_running_call_that_returns_at_once_runs_on(journal: Journal) -> None:
    """A fork that includes the same call again does not disturb its handler."""
    journal.apply(step(1, call(0, 1)))
    (claimed,) = journal.claim(1)
    applied = journal.apply(
        ChainUpdate(fork_number=0, blocks=[block(1, "b")], calls=[call(0, 1, fork="b")], head_number=1)
    )
    assert (applied.cancelled, applied.is_fork, state(journal)) == ([], True, CallState.RUNNING)
    assert await journal.record_output(claimed, b"out")


async def test_a_running_call_that_is_orphaned_is_cancelled(journal: Journal) -> None:
    """Its handler is to be stopped; when it returns later, it starts anew."""
    journal.apply(step(1, call(0, 1)))
    (claimed,) = journal.claim(1)
    applied = journal.apply(ChainUpdate(fork_number=0, head_number=1))
    assert applied.cancelled == [key(0)]
    assert not await journal.record_output(claimed, b"late")
    journal.apply(step(2, call(0, 2, fork="b"), fork="b"))
    assert state(journal) is CallState.SEEN


async def test_a_running_call_with_other_inputs_is_cancelled(journal: Journal) -> None:
    """The handler of the old inputs is stopped, and its output is not accepted for the new ones."""
    journal.apply(step(1, call(0, 1)))
    (old,) = journal.claim(1)
    other = call(0, 1, inputs=b"other", fork="b")
    applied = journal.apply(ChainUpdate(fork_number=0, blocks=[block(1, "b")], calls=[other], head_number=1))
    assert applied.cancelled == [key(0)]
    journal.claim(1)
    assert not await journal.record_output(old, b"old")
    assert await journal.record_output(other, b"new")


async def test_a_result_that_is_undone_is_sent_again(journal: Journal) -> None:
    """When the block of our result leaves the chain, its transaction counts as on its way again."""
    ready = await answer(journal, 1, call(0, 1))
    journal.record_sent(transaction(4, key(0)), ready)
    journal.apply(step(2, results=(result(0, 2),)))
    journal.apply(ChainUpdate(fork_number=1, head_number=2))
    assert state(journal) is CallState.SENT
    assert [sent.keys for sent in journal.unconfirmed(9)] == [(key(0),)]


async def test_a_result_without_transaction_that_is_undone_is_ready(journal: Journal) -> None:
    """Without a recorded transaction the output waits to be sent."""
    await answer(journal, 1, call(0, 1))
    journal.apply(step(2, results=(result(0, 2),)))
    journal.apply(ChainUpdate(fork_number=1, head_number=2))
    assert state(journal) is CallState.READY


async def test_an_output_is_recorded_though_the_waiter_is_cancelled(journal: Journal) -> None:
    """Cancelling the task that waits for the record does not lose the output."""
    journal.apply(step(1, call(0, 1)))
    (claimed,) = journal.claim(1)
    waiter = asyncio.ensure_future(journal.record_output(claimed, b"out"))
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert [ready.output for ready in journal.ready(1, 1)] == [b"out"]


async def test_outputs_of_one_moment_share_a_commit(journal: Journal) -> None:
    """Many outputs are recorded together, each for its own call."""
    journal.apply(step(1, *(call(n, 1, inputs=b"%d" % n) for n in range(20))))
    recorded = await asyncio.gather(*(journal.record_output(one, one.inputs) for one in journal.claim(20)))
    assert all(recorded)
    assert [ready.output for ready in journal.ready(20, 1)] == [b"%d" % n for n in range(20)]


async def test_young_calls_wait_for_their_confirmations(journal: Journal) -> None:
    """An output is given out only up to the block that is asked for."""
    await answer(journal, 5, call(0, 5))
    assert (len(journal.ready(9, 4)), len(journal.ready(9, 5))) == (0, 1)


async def test_a_stale_output_is_not_recorded_as_sent(journal: Journal) -> None:
    """Between reading and sending the call may change; then nothing is recorded."""
    ready = await answer(journal, 1, call(0, 1), call(1, 1))
    other = call(0, 1, inputs=b"other", fork="b")
    journal.apply(
        ChainUpdate(fork_number=0, blocks=[block(1, "b")], calls=[other, call(1, 1, fork="b")], head_number=1)
    )
    assert not journal.record_sent(transaction(0, key(0), key(1)), ready)
    assert journal.unconfirmed(0) == []
    assert [one.key for one in journal.ready(9, 1)] == [key(1)]


async def test_a_transaction_with_an_orphaned_call_is_stale(journal: Journal) -> None:
    """What is on its way with an output of an undone call must be replaced."""
    ready = await answer(journal, 1, call(0, 1))
    journal.record_sent(transaction(3, key(0)), ready)
    assert [sent.is_stale for sent in journal.unconfirmed(3)] == [False]
    journal.apply(ChainUpdate(fork_number=0, head_number=1))
    (sent,) = journal.unconfirmed(3)
    assert (sent.is_stale, sent.keys) == (True, ())


async def test_a_transaction_whose_calls_returned_is_not_stale(journal: Journal) -> None:
    """The same calls in other blocks are still answered by it."""
    ready = await answer(journal, 1, call(0, 1))
    journal.record_sent(transaction(3, key(0)), ready)
    journal.apply(ChainUpdate(fork_number=0, head_number=1))
    journal.apply(step(2, call(0, 2, fork="b"), fork="b"))
    (sent,) = journal.unconfirmed(3)
    assert (sent.is_stale, sent.keys) == (False, (key(0),))


async def test_an_empty_replacement_frees_the_outputs(journal: Journal) -> None:
    """A filler at the same nonce takes the outputs out of the old transaction."""
    ready = await answer(journal, 1, call(0, 1))
    journal.record_sent(transaction(3, key(0)), ready)
    assert journal.record_sent(transaction(3, fee=20), [])
    assert [one.key for one in journal.ready(1, 1)] == [key(0)]
    assert [(sent.keys, sent.max_fee_wei) for sent in journal.unconfirmed(0)] == [((), 20)]


async def test_a_higher_fee_keeps_the_outputs(journal: Journal) -> None:
    """A replacement with another fee carries the same calls."""
    ready = await answer(journal, 1, call(0, 1))
    journal.record_sent(transaction(3, key(0)), ready)
    assert journal.record_sent(transaction(3, key(0), fee=20), None)
    assert [(sent.keys, sent.max_fee_wei, sent.is_stale) for sent in journal.unconfirmed(0)] == [
        ((key(0),), 20, False)
    ]


async def test_an_output_that_did_not_land_waits(journal: Journal, clock: Clock) -> None:
    """It is READY again, but not before its time."""
    ready = await answer(journal, 1, call(0, 1))
    journal.record_sent(transaction(3, key(0)), ready)
    journal.record_outcomes(
        [CallOutcome(key=key(0), state=CallState.READY, reason="missed", retry_after_s=5, nonce=3)]
    )
    assert journal.ready(1, 1) == []
    clock.now += 5
    assert len(journal.ready(1, 1)) == 1


async def test_an_outcome_of_another_transaction_is_ignored(journal: Journal) -> None:
    """What is known of an old transaction says nothing about the one that carries the output now."""
    ready = await answer(journal, 1, call(0, 1))
    journal.record_sent(transaction(4, key(0)), ready)
    journal.record_outcomes([CallOutcome(key=key(0), state=CallState.READY, reason="missed", nonce=3)])
    journal.record_outcomes([CallOutcome(key=key(0), state=CallState.CLOSED, reason="refused")])
    assert state(journal) is CallState.SENT


async def test_a_done_call_stays_done(journal: Journal) -> None:
    """Nothing that the submitter believes overrides our own result log."""
    ready = await answer(journal, 1, call(0, 1))
    journal.record_sent(transaction(4, key(0)), ready)
    journal.apply(step(2, results=(result(0, 2),)))
    for outcome in (CallState.READY, CallState.CLOSED):
        journal.record_outcomes([CallOutcome(key=key(0), state=outcome, reason="x", nonce=4)])  # type: ignore[arg-type]  # both allowed
    assert state(journal) is CallState.DONE


async def test_a_closed_call_whose_result_appears_is_done(journal: Journal) -> None:
    """The refusal "already submitted" may have been by ourselves: the log decides."""
    await answer(journal, 1, call(0, 1))
    journal.record_outcomes(
        [CallOutcome(key=key(0), state=CallState.CLOSED, reason="ResultAlreadySubmitted")]
    )
    assert state(journal) is CallState.CLOSED
    journal.apply(step(2, results=(result(0, 2),)))
    assert state(journal) is CallState.DONE


async def test_a_failed_handler_is_tried_again_later(journal: Journal, clock: Clock) -> None:
    """A failure puts the call back with a pause that doubles, and closes it in the end."""
    journal.apply(step(1, call(0, 1)))
    states = []
    for pause_s in (2, 4, 8):
        (claimed,) = journal.claim(1)
        states.append(journal.record_failure(claimed, "boom", retry_s=2, max_attempts=3))
        clock.now += pause_s - 1
        assert journal.claim(1) == []
        clock.now += 1
    assert states == [CallState.SEEN, CallState.SEEN, CallState.CLOSED]


async def test_a_postponed_call_uses_up_no_attempt(journal: Journal, clock: Clock) -> None:
    """However often there was no room, a call comes again after its pause, and is never closed for that."""
    journal.apply(step(1, call(0, 1)))
    for _ in range(20):
        (claimed,) = journal.claim(1)
        journal.postpone(claimed, retry_s=3)
        clock.now += 2
        assert journal.claim(1) == []
        clock.now += 1
    (claimed,) = journal.claim(1)
    assert journal.record_failure(claimed, "boom", retry_s=2, max_attempts=2) is CallState.SEEN


async def test_a_call_with_other_inputs_is_not_postponed_by_its_forerunner(journal: Journal) -> None:
    """After a fork the same number may be another call: it goes on running."""
    journal.apply(step(1, call(0, 1)))
    (claimed,) = journal.claim(1)
    journal.postpone(replace(claimed, inputs_hash=Hash(b"\x99" * 32)), retry_s=3)
    assert state(journal) is CallState.RUNNING


async def test_a_restart_runs_again_what_was_running(tmp_path: Path, clock: Clock) -> None:
    """RUNNING becomes SEEN, READY stays READY, SENT stays SENT, and the cursor stays."""
    with open_journal(tmp_path, clock) as journal:
        ready = await answer(journal, 1, call(0, 1), call(1, 1))
        journal.record_sent(transaction(7, key(0)), ready[:1])
        journal.apply(step(2, call(2, 2)))
        journal.claim(1)
    with open_journal(tmp_path, clock) as journal:
        assert [one.key for one in journal.claim(9)] == [key(2)]
        assert [one.key for one in journal.ready(9, 2)] == [key(1)]
        assert [(sent.nonce, sent.raw, sent.keys) for sent in journal.unconfirmed(0)] == [
            (7, b"raw", (key(0),))
        ]
        assert journal.cursor() == 2


async def test_another_operator_sends_what_the_first_sent(tmp_path: Path, clock: Clock) -> None:
    """With another key, nonces of the old one mean nothing, and its unanswered outputs are sent again."""
    with open_journal(tmp_path, clock) as journal:
        ready = await answer(journal, 1, call(0, 1))
        journal.record_sent(transaction(7, key(0)), ready)
    with open_journal(tmp_path, clock, operator=RIVAL) as journal:
        assert journal.unconfirmed(0) == []
        assert len(journal.ready(1, 1)) == 1


async def test_a_failed_step_leaves_nothing(journal: Journal) -> None:
    """A step of the chain is recorded as a whole or not at all."""
    broken = replace(call(1, 1), block_number=2**70)
    with pytest.raises(OverflowError):
        journal.apply(step(1, call(0, 1), broken))
    assert (sum(journal.counts().values()), journal.cursor()) == (0, None)


async def test_maintenance_keeps_the_newest_calls(tmp_path: Path, clock: Clock) -> None:
    """Ended calls beyond the number to keep are forgotten; open ones never."""
    with open_journal(tmp_path, clock, kept_calls=10) as journal:
        await answer(journal, 1, *(call(n, 1) for n in range(50)))
        ended = tuple(result(n, 2) for n in range(45))
        journal.apply(step(2, results=ended))
        journal.apply(step(600))
        await journal.maintain()
        counts = journal.counts()
        assert (counts[CallState.DONE], counts[CallState.READY]) == (10, 5)


async def test_maintenance_forgets_transactions_that_are_settled(journal: Journal, clock: Clock) -> None:
    """What is answered deep enough needs no transaction any more; what may be undone keeps its own."""
    ready = await answer(journal, 1, call(0, 1), call(1, 1), call(2, 1))
    for nonce, one in enumerate(ready):
        journal.record_sent(transaction(nonce, one.key), [one])
    journal.apply(step(2, results=(result(0, 2),)))
    journal.apply(step(600, results=(result(1, 600),)))
    clock.now += 3600
    await journal.maintain()
    assert [sent.nonce for sent in journal.unconfirmed(0)] == [1, 2]


async def test_a_second_node_is_refused(journal: Journal, tmp_path: Path, clock: Clock) -> None:
    """The journal of a running node cannot be opened, and the message names the pid."""
    with pytest.raises(JournalError, match=r"in use by the process with pid \d+"):
        open_journal(tmp_path, clock)
