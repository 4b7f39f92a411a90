"""The submitter on a chain in memory with the real journal: sending, refusals, lost replies, fees, forks."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from blueprint.chain.fees import FeePolicy
from blueprint.chain.listener import Listener
from blueprint.chain.rpc import JsonValue
from blueprint.chain.signer import Signer
from blueprint.chain.submitter import Submitter, SubmitterPolicy
from blueprint.errors import ChainError, RpcError
from blueprint.store.journal import Journal
from blueprint.testing import FakeChain, FakeClock
from blueprint.testing.tangle import revert
from blueprint.types import CallState, ChainUpdate

OPERATOR = Signer(b"\x01" * 32)
RIVAL = Signer(b"\x02" * 32)
GWEI = 10**9


class CaughtUpError(Exception):
    """The listener has nothing more to read."""


class NoWaiting:
    """The chain's port, which ends the listener where it would wait for a block."""

    def __init__(self, chain: FakeChain) -> None:
        self._chain = chain

    async def call(self, method: str, *params: JsonValue) -> JsonValue:
        return await self._chain.call(method, *params)

    async def batch(self, calls: Sequence[tuple[str, Sequence[JsonValue]]]) -> list[JsonValue | ChainError]:
        return await self._chain.batch(calls)

    async def wait_head(self, timeout_s: float) -> bool:
        raise CaughtUpError


class Bench:
    """A chain, a journal that follows it by hand, and a submitter that works step by step."""

    def __init__(self, folder: Path, *, automine: bool, policy: SubmitterPolicy, fees: FeePolicy) -> None:
        self.folder, self.policy, self.fees = folder, policy, fees
        self.clock = FakeClock()
        self.chain = FakeChain(operators=[OPERATOR.address, RIVAL.address], automine=automine)
        self.echo: Callable[[bytes], bytes] = lambda inputs: b"echo " + inputs
        self.start()

    def start(self) -> None:
        """Open everything, as a node does."""
        chain = self.chain
        names = {"chain_id": chain.chain_id, "contract": chain.contract}
        self.journal = Journal(
            self.folder / "journal.db",
            **names,
            operator=OPERATOR.address,
            clock=self.clock,  # type: ignore[arg-type]
        )
        self.listener = Listener(
            NoWaiting(chain),
            **names,
            service_ids=[0],
            window=self.journal.window(),
            start_block=0,  # type: ignore[arg-type]
        )
        self.submitter = Submitter(
            chain,
            ledger=self.journal,
            signer=OPERATOR,
            policy=self.policy,
            fees=self.fees,
            clock=self.clock,
            **names,  # type: ignore[arg-type]
        )

    def restart(self) -> None:
        """Lose everything that is only in memory."""
        self.journal.close()
        self.start()

    async def read(self) -> None:
        """Let the journal catch up with the chain, and run what it finds."""
        with pytest.raises(CaughtUpError):
            await self.listener.run(self._apply)
        cursor = self.journal.cursor()
        self.submitter.advance(-1 if cursor is None else cursor)

    async def _apply(self, update: ChainUpdate) -> None:
        applied = self.journal.apply(update)
        for call in self.journal.claim(1000):
            await self.journal.record_output(call, self.echo(call.inputs))
        self.submitter.advance(self.journal.cursor() or 0, is_fork=applied.is_fork)
        self.submitter.wake()

    async def work(self, rounds: int = 4) -> None:
        """Read and step a few times; on a chain that mines by hand, mine in between."""
        for _ in range(rounds):
            await self.read()
            await self.submitter.step()
            if not self.chain.automine:
                self.chain.mine()
        await self.read()

    def count(self, method: str) -> int:
        """How often a method was asked."""
        return self.chain.asked.count(method)

    @property
    def states(self) -> dict[CallState, int]:
        """How many calls are in which state."""
        return {state: count for state, count in self.journal.counts().items() if count}


@pytest.fixture
async def benches(tmp_path: Path) -> AsyncIterator[Callable[..., Bench]]:
    """Makes a bench of its own with given policies."""
    made: list[Bench] = []

    def make(*, automine: bool = True, fees: FeePolicy | None = None, **policy: float) -> Bench:
        bench = Bench(
            tmp_path,
            automine=automine,
            policy=SubmitterPolicy(**policy),
            fees=fees or FeePolicy(),  # type: ignore[arg-type]
        )
        made.append(bench)
        return bench

    yield make
    for bench in made:
        bench.journal.close()


async def test_an_output_lands_once(benches: Callable[..., Bench]) -> None:
    """One call, one transaction, one result, and the call is DONE."""
    bench = benches()
    bench.chain.submit_job(b"a")
    await bench.work()
    assert (bench.chain.outputs(), bench.states) == ({0: [b"echo a"]}, {CallState.DONE: 1})
    assert bench.count("eth_sendRawTransaction") == 1


async def test_nothing_is_sent_before_the_contract_agrees(benches: Callable[..., Bench]) -> None:
    """Each output is tried by eth_call before its transaction is signed."""
    bench = benches()
    bench.chain.submit_job(b"a")
    await bench.work()
    assert bench.chain.asked.index("eth_call") < bench.chain.asked.index("eth_sendRawTransaction")


async def test_outputs_that_wait_travel_together(benches: Callable[..., Bench]) -> None:
    """Ten waiting outputs need one transaction."""
    bench = benches(automine=False)
    for number in range(10):
        bench.chain.submit_job(b"%d" % number)
    bench.chain.mine()
    await bench.work()
    assert bench.count("eth_sendRawTransaction") == 1
    assert bench.chain.outputs() == {n: [b"echo %d" % n] for n in range(10)}


async def test_a_batch_is_bounded_in_bytes(benches: Callable[..., Bench]) -> None:
    """Large outputs are spread over several transactions."""
    bench = benches(automine=False)
    bench.echo = lambda inputs: inputs * 30_000
    for letter in b"abcd":
        bench.chain.submit_job(bytes([letter]))
    bench.chain.mine()
    await bench.work()
    assert bench.count("eth_sendRawTransaction") == 2
    assert bench.states == {CallState.DONE: 4}


async def test_in_flight_is_bounded(benches: Callable[..., Bench]) -> None:
    """No more transactions are on their way than allowed; the rest waits for room."""
    bench = benches(automine=False, max_in_flight=2, max_batch=1)
    for number in range(5):
        bench.chain.submit_job(b"%d" % number)
    bench.chain.mine()
    await bench.read()
    await bench.submitter.step()
    assert (bench.submitter.in_flight, bench.states[CallState.READY]) == (2, 3)
    bench.chain.mine()
    await bench.work()
    assert bench.states == {CallState.DONE: 5}


async def test_a_completed_call_is_closed_quietly(benches: Callable[..., Bench]) -> None:
    """Another operator was faster: benign, no transaction, no error in the log."""
    bench = benches()
    bench.chain.submit_job(b"a")
    bench.chain.service.calls[0].is_completed = True
    with capture_logs() as logs:
        await bench.work()
    assert (bench.states, bench.count("eth_sendRawTransaction")) == ({CallState.CLOSED: 1}, 0)
    assert [entry for entry in logs if entry["log_level"] in {"warning", "error"}] == []


async def test_one_bad_output_does_not_hold_up_the_others(benches: Callable[..., Bench]) -> None:
    """A batch with a refused entry is sent without it, in the same step."""
    bench = benches(automine=False)
    for number in range(4):
        bench.chain.submit_job(b"%d" % number)
    bench.chain.mine()
    bench.chain.service.calls[2].is_completed = True
    await bench.work()
    assert bench.states == {CallState.DONE: 3, CallState.CLOSED: 1}


async def test_a_refusal_for_good_is_loud_and_final(benches: Callable[..., Bench]) -> None:
    """A permanent error closes the call with its name, and an error line tells it."""
    bench = benches()
    bench.chain.submit_job(b"a")
    bench.chain.fail_next("eth_call", revert("SchemaValidationFailed", 0, 1, 2, 3))
    with capture_logs() as logs:
        await bench.work()
    assert bench.states == {CallState.CLOSED: 1}
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["result_refused_for_good"]


async def test_a_refusal_for_now_is_tried_again(benches: Callable[..., Bench]) -> None:
    """An operator who is not in the service yet waits, with pauses that grow, and then answers."""
    bench = benches()
    bench.chain.service.operators.discard(OPERATOR.address)
    bench.chain.submit_job(b"a")
    await bench.work()
    assert (bench.states, bench.count("eth_call")) == ({CallState.READY: 1}, 1)
    await bench.clock.advance(1.0)
    await bench.submitter.step()
    await bench.clock.advance(1.5)
    await bench.submitter.step()
    assert bench.count("eth_call") == 2
    bench.chain.service.operators.add(OPERATOR.address)
    await bench.clock.advance(2.0)
    await bench.work()
    assert bench.states == {CallState.DONE: 1}


async def test_a_lost_reply_is_no_second_transaction(benches: Callable[..., Bench]) -> None:
    """The transaction went through and only the reply is missing: the result log settles it."""
    bench = benches()
    bench.chain.submit_job(b"a")
    bench.chain.lose_reply("eth_sendRawTransaction")
    await bench.work()
    assert (bench.chain.outputs(), bench.states) == ({0: [b"echo a"]}, {CallState.DONE: 1})
    assert bench.submitter.in_flight == 0


async def test_an_unsent_transaction_is_sent_by_the_next_step(benches: Callable[..., Bench]) -> None:
    """Recorded, but the end point failed: the very same transaction goes out later."""
    bench = benches(automine=False)
    bench.chain.submit_job(b"a")
    bench.chain.mine()
    bench.chain.fail_next("eth_sendRawTransaction", RpcError("connection lost"))
    await bench.work()
    assert (bench.chain.outputs(), bench.states) == ({0: [b"echo a"]}, {CallState.DONE: 1})


async def test_a_restart_sends_what_was_recorded(benches: Callable[..., Bench]) -> None:
    """Killed between record and send: the successor sends the recorded bytes, not new ones."""
    bench = benches(automine=False)
    bench.chain.submit_job(b"a")
    bench.chain.mine()
    bench.chain.fail_next("eth_sendRawTransaction", RpcError("connection lost"))
    await bench.read()
    await bench.submitter.step()
    (recorded,) = bench.journal.unconfirmed(0)
    bench.restart()
    await bench.work()
    assert [sent.hash for sent in bench.journal.unconfirmed(0)] == [recorded.hash]
    assert bench.chain.outputs() == {0: [b"echo a"]}


async def test_a_dropped_transaction_is_handed_over_again(benches: Callable[..., Bench]) -> None:
    """A mempool that forgets gets the same transaction again after a while."""
    bench = benches(automine=False, rebroadcast_after_s=5)
    bench.chain.submit_job(b"a")
    bench.chain.mine()
    await bench.read()
    await bench.submitter.step()
    bench.chain.drop_pool()
    bench.chain.mine()
    await bench.work(1)
    assert bench.chain.outputs() == {}
    await bench.clock.advance(6)
    await bench.work(2)
    assert bench.chain.outputs() == {0: [b"echo a"]}


async def test_a_stuck_transaction_is_outbid(benches: Callable[..., Bench]) -> None:
    """A base fee above the offer is answered with a replacement of the same nonce."""
    bench = benches(automine=False)
    bench.chain.submit_job(b"a")
    bench.chain.mine()
    await bench.read()
    await bench.submitter.step()
    bench.chain.base_fee_wei = 10 * GWEI
    bench.chain.mine()
    await bench.work()
    assert (bench.chain.outputs(), bench.submitter.in_flight) == ({0: [b"echo a"]}, 0)
    assert bench.count("eth_sendRawTransaction") == 2


async def test_no_fee_is_offered_above_the_cap(benches: Callable[..., Bench]) -> None:
    """While gas is dearer than the operator allows, outputs wait, and a warning says so."""
    bench = benches(fees=FeePolicy(max_fee_cap_wei=5 * GWEI))
    bench.chain.base_fee_wei = 6 * GWEI
    bench.chain.submit_job(b"a")
    with capture_logs() as logs:
        await bench.work()
    assert (bench.states, bench.count("eth_sendRawTransaction")) == ({CallState.READY: 1}, 0)
    assert "fee_above_cap" in [entry["event"] for entry in logs]
    bench.chain.base_fee_wei = GWEI
    await bench.clock.advance(11)
    await bench.work()
    assert bench.states == {CallState.DONE: 1}


async def test_a_nonce_used_elsewhere_costs_only_time(benches: Callable[..., Bench]) -> None:
    """Somebody else used the key: our transaction cannot land, and its output goes with the next nonce."""
    bench = benches(automine=False)
    bench.chain.submit_job(b"a")
    bench.chain.mine()
    await bench.read()
    await bench.submitter.step()
    bench.chain.drop_pool()
    bench.chain._blocks[-1].nonces[OPERATOR.address] = 1
    bench.chain.mine()
    await bench.work()
    await bench.clock.advance(5)
    await bench.work()
    assert (bench.chain.outputs(), bench.states) == ({0: [b"echo a"]}, {CallState.DONE: 1})


async def test_an_output_waits_for_its_confirmations(benches: Callable[..., Bench]) -> None:
    """With two confirmations nothing is sent until two blocks lie above the call."""
    bench = benches(automine=False, confirmations=2)
    bench.chain.submit_job(b"a")
    bench.chain.mine(2)
    await bench.read()
    await bench.submitter.step()
    assert bench.count("eth_sendRawTransaction") == 0
    bench.chain.mine()
    await bench.work(2)
    assert bench.chain.outputs() == {0: [b"echo a"]}


async def test_an_undone_result_is_sent_again(benches: Callable[..., Bench]) -> None:
    """The block with our result vanishes with its transaction; the answer returns, once."""
    bench = benches()
    bench.chain.submit_job(b"a")
    await bench.work()
    bench.chain.reorg(1)
    assert bench.chain.outputs() == {}
    await bench.work()
    assert (bench.chain.outputs(), bench.states) == ({0: [b"echo a"]}, {CallState.DONE: 1})


async def test_the_output_of_an_undone_call_never_lands_on_another(benches: Callable[..., Bench]) -> None:
    """A pending answer to a call that vanished is replaced before its id can belong to another call."""
    bench = benches(automine=False)
    bench.chain.submit_job(b"old")
    bench.chain.mine()
    await bench.read()
    await bench.submitter.step()
    bench.chain._blocks[-1].entries.clear()
    kept = dict(bench.chain._pool)
    bench.chain.drop_pool()
    bench.chain.reorg(1)
    bench.chain._pool.update(kept)
    await bench.read()
    await bench.submitter.step()
    bench.chain.submit_job(b"new")
    bench.chain.mine()
    await bench.work()
    assert (bench.chain.outputs(), bench.states) == ({0: [b"echo new"]}, {CallState.DONE: 1})


async def test_a_gap_of_nonces_is_filled(benches: Callable[..., Bench]) -> None:
    """A nonce that a reorganisation freed and nothing claims is used up by an empty transaction."""
    bench = benches(automine=False, max_batch=1)
    bench.chain.submit_job(b"a")
    bench.chain.submit_job(b"b")
    bench.chain.mine()
    await bench.read()
    await bench.submitter.step()
    with bench.journal._database.transaction() as db:
        db.execute("UPDATE calls SET nonce = NULL, state = 'closed' WHERE call_id = 0")
        db.execute("DELETE FROM transactions WHERE nonce = 0")
    bench.chain.drop_pool()
    bench.restart()
    await bench.work()
    assert bench.chain.outputs() == {1: [b"echo b"]}
    assert bench.chain._count(OPERATOR.address) == 2


async def test_an_oversized_batch_is_halved(benches: Callable[..., Bench]) -> None:
    """An end point that takes no large transactions gets smaller ones."""
    bench = benches(automine=False)
    for number in range(4):
        bench.chain.submit_job(b"%d" % number)
    bench.chain.mine()
    bench.chain.fail_next("eth_sendRawTransaction", RpcError("oversized data", code=-32000))
    await bench.work(6)
    assert bench.states == {CallState.DONE: 4}


async def test_an_empty_account_is_told_loudly(benches: Callable[..., Bench]) -> None:
    """Without funds the transaction stays recorded, and goes out once there are some."""
    bench = benches(automine=False, rebroadcast_after_s=5)
    bench.chain.submit_job(b"a")
    bench.chain.mine()
    bench.chain.fail_next("eth_sendRawTransaction", RpcError("insufficient funds for gas", code=-32000))
    with capture_logs() as logs:
        await bench.work(1)
    assert "operator_out_of_funds" in [entry["event"] for entry in logs]
    await bench.clock.advance(6)
    await bench.work(2)
    assert bench.chain.outputs() == {0: [b"echo a"]}


async def test_a_dead_end_point_stops_nothing(benches: Callable[..., Bench]) -> None:
    """A step that fails leaves everything as it was, for the next one."""
    bench = benches()
    bench.chain.submit_job(b"a")
    await bench.read()
    bench.chain.fail_next("eth_getTransactionCount", RpcError("down"))
    with pytest.raises(RpcError):
        await bench.submitter.step()
    await bench.work()
    assert bench.states == {CallState.DONE: 1}


async def test_idle_means_nothing_left_to_send(benches: Callable[..., Bench]) -> None:
    """The drain of a stopping node can rely on it."""
    bench = benches()
    bench.chain.submit_job(b"a")
    await bench.read()
    before = bench.submitter.is_idle
    await bench.work()
    assert (before, bench.submitter.is_idle) == (False, True)
