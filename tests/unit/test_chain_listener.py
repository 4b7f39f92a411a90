"""The listener on a scripted chain: every lie that an end point can tell, without a network."""

import asyncio
import itertools
from collections.abc import Callable

import eth_abi
import pytest
from structlog.testing import capture_logs

from blueprint.chain import events
from blueprint.chain.header import BloomFilter
from blueprint.chain.listener import Listener, verify_contract
from blueprint.errors import ConfigError, JournalError, RpcError
from blueprint.types import Address, BlockRef, Hash
from tests.support.chain_view import ChainView

CONTRACT = Address(b"\x0c" * 20)
CALLER = "0x" + "ca" * 20
OPERATOR = b"\x01" * 20
SERVICE = 4


def _word(value):
    return "0x" + value.to_bytes(32, "big").hex()


class ScriptedChain:
    """A chain in memory that answers like an end point; ``distort`` may change any answer."""

    def __init__(self, length=1):
        self.serial = itertools.count(1)
        self.blocks = []
        self.distort: Callable = lambda method, params, answer: answer
        self.round_trips = 0
        self.asked = []
        self.mine(length)

    def mine(self, count=1, *, calls=(), results=(), extra=()):
        for _ in range(count):
            number = len(self.blocks)
            block_hash = _word(next(self.serial) + (1 << 200))
            parent = self.blocks[-1]["hash"] if self.blocks else _word(0)
            logs = [self._call_log(call_id) for call_id in calls]
            logs += [self._result_log(call_id) for call_id in results] + [dict(log) for log in extra]
            for index, log in enumerate(logs):
                log.update(
                    address="0x" + CONTRACT.hex(),
                    blockNumber=hex(number),
                    blockHash=block_hash,
                    transactionHash=_word(next(self.serial)),
                    logIndex=hex(index),
                )
            self.blocks.append(
                {"number": hex(number), "hash": block_hash, "parentHash": parent, "logs": logs}
            )

    def reorg(self, depth):
        """Undo blocks; what is mined next differs."""
        del self.blocks[len(self.blocks) - depth :]

    def refs(self, first=0):
        return [self._ref(block) for block in self.blocks[first:]]

    async def call(self, method, *params):
        (answer,) = await self.batch([(method, params)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def batch(self, calls):
        await asyncio.sleep(0)
        self.round_trips += 1
        answers = []
        for method, params in calls:
            self.asked.append((method, params))
            answer = self.distort(method, params, getattr(self, method)(*params))
            if isinstance(answer, ConnectionError):
                raise RpcError(str(answer))
            answers.append(answer)
        return answers

    async def wait_head(self, timeout_s):
        await asyncio.sleep(0)
        return True

    def eth_chainId(self):  # noqa: N802 - the method's name
        return "0x7a69"

    def eth_getCode(self, address, _tag):  # noqa: N802
        return "0x60" if address == "0x" + CONTRACT.hex() else "0x"

    def eth_getBlockByNumber(self, tag, _whole):  # noqa: N802
        number = len(self.blocks) - 1 if tag == "latest" else int(tag, 16)
        if number >= len(self.blocks):
            return None
        block = self.blocks[number]
        bloom = 0
        for log in block["logs"]:
            for value in [log["address"], *log["topics"]]:
                bloom |= BloomFilter([[bytes.fromhex(value[2:])]])._masks[0][0]
        return {**block, "logsBloom": "0x" + bloom.to_bytes(256, "big").hex()}

    def eth_getLogs(self, query):  # noqa: N802
        first, last = query["fromBlock"], query["toBlock"]
        blocks = self.blocks[int(first, 16) : None if last == "latest" else int(last, 16) + 1]
        return [
            dict(log) for block in blocks for log in block["logs"] if log["topics"][0] in query["topics"][0]
        ]

    def eth_getBlockReceipts(self, tag):  # noqa: N802
        return [{"logs": [log]} for log in self.blocks[int(tag, 16)]["logs"]]

    def _call_log(self, call_id, service=SERVICE):
        data = eth_abi.encode(["uint8", "address", "bytes"], [0, CALLER, b"in%d" % call_id])
        topics = ["0x" + events.JOB_SUBMITTED.hex(), _word(service), _word(call_id)]
        return {"topics": topics, "data": "0x" + data.hex()}

    def _result_log(self, call_id):
        topics = ["0x" + events.JOB_RESULT_SUBMITTED.hex(), _word(SERVICE), _word(call_id)]
        operator = _word(int.from_bytes(OPERATOR, "big"))
        return {"topics": [*topics, operator], "data": "0x"}

    def _ref(self, block):
        return BlockRef(
            number=int(block["number"], 16),
            hash=Hash(bytes.fromhex(block["hash"][2:])),
            parent_hash=Hash(bytes.fromhex(block["parentHash"][2:])),
        )


class Follower(ChainView):
    """Runs a listener until its view is that of the chain."""

    def __init__(self, chain, **options):
        super().__init__()
        self.chain = chain
        self.pauses = []
        self.now_s = 0.0
        defaults = {"contract": CONTRACT, "chain_id": 31337, "service_ids": [SERVICE], "window_blocks": 8}
        self.listener = Listener(
            chain, clock=lambda: self.now_s, sleep=self._sleep, **{**defaults, **options}
        )

    async def _sleep(self, delay_s):
        self.pauses.append(delay_s)
        self.now_s += delay_s
        await asyncio.sleep(0)

    def is_caught_up(self):
        return bool(self.blocks) and self.blocks[-1] == self.chain.refs()[-1]

    async def follow(self, until=None, *, turns=3000):
        """Run the listener until ``until()``, by default until it has seen the newest block."""
        until = until or self.is_caught_up
        task = asyncio.create_task(self.listener.run(self.apply))
        try:
            for _ in range(turns):
                if until() or task.done():
                    break
                await asyncio.sleep(0)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if task.done() and not task.cancelled() and task.exception():
            raise task.exception()
        assert until(), f"not reached after {len(self.updates)} updates and pauses {self.pauses}"


async def test_calls_and_results_are_delivered_in_order():
    """From the start block on, each call and result comes once, in the chain's order."""
    chain = ScriptedChain()
    chain.mine(calls=[0, 1])
    chain.mine(results=[0])
    chain.mine(calls=[2])
    follower = Follower(chain, start_block=0)
    await follower.follow()
    assert list(follower.calls) == [0, 1, 2]
    assert follower.calls[2].inputs == b"in2"
    assert follower.results[0].operator == OPERATOR
    assert follower.blocks == chain.refs()


async def test_one_round_trip_a_head():
    """At the head, a new block costs one batch of two calls."""
    chain = ScriptedChain(5)
    follower = Follower(chain, start_block=0)
    await follower.follow()
    before = chain.round_trips
    chain.mine(calls=[7])
    await follower.follow(lambda: 7 in follower.calls)
    assert chain.round_trips == before + 1


async def test_the_first_start_begins_at_the_head():
    """Without a cursor and a start block, what was before is not read, but the blocks are known."""
    chain = ScriptedChain(3)
    chain.mine(calls=[0])
    chain.mine(calls=[1])
    follower = Follower(chain)
    await follower.follow()
    assert list(follower.calls) == [1]
    assert follower.blocks == chain.refs()


async def test_a_start_block_ahead_of_the_chain_is_waited_for():
    """Nothing is delivered before the chain reaches the start block."""
    chain = ScriptedChain(3)
    follower = Follower(chain, start_block=4)
    await follower.follow(lambda: chain.round_trips > 5)
    assert follower.updates == []
    chain.mine(calls=[0])
    chain.mine(calls=[1])
    await follower.follow()
    assert list(follower.calls) == [1]


async def test_a_restart_reads_what_was_missed():
    """With the journal's window, exactly the blocks after the cursor are read."""
    chain = ScriptedChain(3)
    chain.mine(calls=[0])
    window = chain.refs()
    chain.mine(20)
    chain.mine(calls=[1])
    follower = Follower(chain, window=window)
    await follower.follow()
    assert list(follower.calls) == [1]


async def test_a_long_backfill_asks_for_few_headers():
    """Old blocks are read by range; only the newest get a header each."""
    chain = ScriptedChain(3000)
    chain.mine(calls=[5])
    chain.mine(100)
    follower = Follower(chain, start_block=1)
    await follower.follow()
    assert list(follower.calls) == [5]
    headers = [params for method, params in chain.asked if method == "eth_getBlockByNumber"]
    assert len(headers) < 80
    assert follower.blocks[-8:] == chain.refs()[-8:]


@pytest.mark.parametrize("depth", [1, 3, 7])
async def test_a_reorganisation_is_undone_to_its_fork(depth):
    """Calls of lost blocks go, those of the new ones come, whatever the ids."""
    chain = ScriptedChain(3)
    chain.mine(calls=[0])
    for call_id in range(1, 8):
        chain.mine(calls=[call_id])
    follower = Follower(chain, start_block=0)
    await follower.follow()
    chain.reorg(depth)
    chain.mine(depth - 1)
    chain.mine(calls=[100])
    chain.mine()
    await follower.follow()
    assert list(follower.calls) == [*range(8 - depth), 100]
    assert follower.forks == [10 - depth]


async def test_a_reorganisation_of_the_same_length_is_seen():
    """A head with the same number and another hash is another chain."""
    chain = ScriptedChain(3)
    chain.mine(calls=[0])
    follower = Follower(chain, start_block=0)
    await follower.follow()
    chain.reorg(1)
    chain.mine(calls=[9])
    await follower.follow()
    assert list(follower.calls) == [9]


async def test_a_reorganisation_beyond_the_window_is_read_again_from_the_oldest_known():
    """Deeper than the window: an error says so, and every block that is known of is read again."""
    chain = ScriptedChain(5)
    for call_id in range(15):
        chain.mine(calls=[call_id])
    follower = Follower(chain, start_block=0)
    await follower.follow()
    chain.reorg(12)
    chain.mine(13)
    chain.mine(calls=[50])
    with capture_logs() as logs:
        await follower.follow()
    assert 50 in follower.calls
    (error,) = [entry for entry in logs if entry["event"] == "reorg_exceeded_window"]
    assert error["read_again_from"] == 12
    assert "block 12" in error["cause"]


async def test_a_slow_end_point_undoes_nothing():
    """A head that goes back along our own chain for a moment is a slow end point."""
    chain = ScriptedChain(6)
    chain.mine(calls=[0])
    follower = Follower(chain, start_block=0)
    await follower.follow()
    updates = len(follower.updates)
    slow = chain.blocks[4]
    chain.distort = lambda method, params, answer: (
        {**slow, "logsBloom": None} if params and params[0] == "latest" else answer
    )
    before = chain.round_trips
    await follower.follow(lambda: chain.round_trips > before + 5)
    assert len(follower.updates) == updates
    chain.distort = lambda method, params, answer: answer
    chain.mine(calls=[1])
    await follower.follow()
    assert list(follower.calls) == [0, 1]
    assert follower.forks == []


async def test_a_rollback_that_stays_is_believed():
    """A head that stays back means that the blocks are gone, even if nothing is mined."""
    chain = ScriptedChain(6)
    chain.mine(calls=[0])
    chain.mine(calls=[1])
    follower = Follower(chain, start_block=0, rollback_patience_s=3.0)
    await follower.follow()
    chain.reorg(1)
    before = chain.round_trips
    await follower.follow(lambda: chain.round_trips > before + 3)
    assert list(follower.calls) == [0, 1]
    follower.now_s += 3.5
    await follower.follow(lambda: list(follower.calls) == [0])
    assert follower.updates[-1].fork_number == 6


async def test_a_head_below_everything_known_undoes_nothing():
    """A chain that was started anew is not followed blindly: an error says what to do, once."""
    chain = ScriptedChain(40)
    follower = Follower(chain, start_block=35)
    await follower.follow()
    updates = len(follower.updates)
    chain.reorg(38)
    chain.mine()
    with capture_logs() as logs:
        before = chain.round_trips
        await follower.follow(lambda: chain.round_trips > before + 5)
    assert len(follower.updates) == updates
    assert [entry["event"] for entry in logs] == ["head_below_window"]
    assert "new state directory" in logs[0]["cause"]


async def test_a_torn_read_is_taken_again():
    """A log whose block hash is not that of the header is never delivered."""
    chain = ScriptedChain(4)
    follower = Follower(chain, start_block=0)
    await follower.follow()
    chain.mine(calls=[3])
    lies = iter([True, True])

    def distort(method, params, answer):
        if method == "eth_getLogs" and answer and next(lies, False):
            return [{**log, "blockHash": _word(666)} for log in answer]
        return answer

    chain.distort = distort
    await follower.follow()
    assert list(follower.calls) == [3]
    assert follower.pauses == [0.01, 0.02]


async def test_unlinked_headers_are_taken_again():
    """Headers that do not follow from each other are two chains seen at once."""
    chain = ScriptedChain(6)
    lies = iter([True])

    def distort(method, params, answer):
        if method == "eth_getBlockByNumber" and params[0] == "0x3" and next(lies, False):
            return {**answer, "hash": _word(5)}
        return answer

    chain.distort = distort
    follower = Follower(chain, start_block=0)
    await follower.follow()
    assert follower.blocks == chain.refs()


async def test_an_empty_answer_that_the_bloom_contradicts_is_asked_again():
    """A log index that trails its blocks loses no call."""
    chain = ScriptedChain(4)
    follower = Follower(chain, start_block=0)
    await follower.follow()
    chain.mine(calls=[3])
    lies = iter([True, True])
    chain.distort = lambda method, params, answer: (
        [] if method == "eth_getLogs" and next(lies, False) else answer
    )
    await follower.follow()
    assert list(follower.calls) == [3]


async def test_withheld_logs_are_found_in_the_receipts():
    """An end point whose log index never has them is contradicted by its own receipts."""
    chain = ScriptedChain(4)
    follower = Follower(chain, start_block=0)
    await follower.follow()
    chain.distort = lambda method, params, answer: [] if method == "eth_getLogs" else answer
    chain.mine(calls=[3])
    with capture_logs() as logs:
        await follower.follow()
    assert list(follower.calls) == [3]
    assert "logs_withheld" in [entry["event"] for entry in logs]


async def test_a_bloom_that_is_wrong_does_not_stop_the_chain():
    """Where receipts cannot be read either, the block is taken as empty, aloud."""
    chain = ScriptedChain(4)
    follower = Follower(chain, start_block=0)
    await follower.follow()

    def distort(method, params, answer):
        if method == "eth_getBlockByNumber" and answer:
            return {**answer, "logsBloom": "0x" + "ff" * 256}
        return RpcError("no such method") if method == "eth_getBlockReceipts" else answer

    chain.distort = distort
    chain.mine()
    with capture_logs() as logs:
        await follower.follow()
    assert "empty_logs_unverified" in [entry["event"] for entry in logs]


async def test_logs_come_doubled_shuffled_and_foreign():
    """Doubled, removed, foreign and unordered logs are put right."""
    chain = ScriptedChain(2)
    chain.mine(calls=[0, 1, 2])

    def distort(method, params, answer):
        if method != "eth_getLogs":
            return answer
        foreign = [{**log, "address": "0x" + "99" * 20} for log in answer]
        other = [{**log, "topics": [log["topics"][0], _word(77), _word(1)]} for log in answer]
        removed = [{**log, "logIndex": "0x9", "removed": True} for log in answer]
        return [*reversed(answer), *answer, *foreign, *other, *removed]

    chain.distort = distort
    follower = Follower(chain, start_block=0)
    await follower.follow()
    assert list(follower.calls) == [0, 1, 2]


async def test_a_malformed_event_is_named_and_passed_over():
    """What the contract emits wrongly is logged with its transaction, and the rest goes on."""
    chain = ScriptedChain(2)
    garbage = {"topics": ["0x" + events.JOB_SUBMITTED.hex(), _word(SERVICE), _word(8)], "data": "0x1234"}
    chain.mine(calls=[0], extra=[garbage])
    chain.mine(calls=[1])
    follower = Follower(chain, start_block=0)
    with capture_logs() as logs:
        await follower.follow()
    assert list(follower.calls) == [0, 1]
    (entry,) = [entry for entry in logs if entry["event"] == "event_malformed"]
    assert chain.blocks[2]["logs"][1]["transactionHash"] in entry["cause"]


async def test_a_range_that_is_too_large_shrinks_and_grows():
    """The range halves until the end point answers, and every call is still delivered."""
    chain = ScriptedChain(700)
    chain.mine(calls=[1])
    chain.mine(500)
    chain.mine(calls=[2])

    def distort(method, params, answer):
        if method == "eth_getLogs":
            first, last = int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16)
            if last - first >= 100:
                return RpcError("query exceeds max block range 100", code=-32005)
        return answer

    chain.distort = distort
    follower = Follower(chain, start_block=0)
    await follower.follow()
    assert list(follower.calls) == [1, 2]
    assert follower.pauses == []


async def test_an_outage_is_outlived():
    """Calls made while the end point was unreachable come after it; the pauses grow up to a limit."""
    chain = ScriptedChain(4)
    follower = Follower(chain, start_block=0)
    await follower.follow()
    chain.distort = lambda method, params, answer: ConnectionError("refused")
    with capture_logs() as logs:
        await follower.follow(lambda: len(follower.pauses) >= 9)
    assert follower.pauses[:3] == [0.1, 0.2, 0.4]
    assert max(follower.pauses) == 5.0
    assert logs[0]["event"] == "chain_read_failed"
    chain.mine(30)
    chain.mine(calls=[8])
    chain.distort = lambda method, params, answer: answer
    await follower.follow()
    assert list(follower.calls) == [8]


async def test_a_server_that_asks_for_time_gets_it():
    """Retry-After is obeyed."""
    chain = ScriptedChain(2)
    chain.distort = lambda method, params, answer: RpcError("busy", code=429, retry_after_s=17.0)
    follower = Follower(chain, start_block=0)
    await follower.follow(lambda: bool(follower.pauses))
    assert follower.pauses[0] == 17.0


@pytest.mark.parametrize("answer", [None, {}, "0x", {"number": "0x1"}, []])
async def test_nonsense_in_place_of_a_block_is_an_outage(answer):
    """An end point that talks nonsense is waited for, like one that is silent."""
    chain = ScriptedChain(2)
    chain.distort = lambda method, params, _: answer
    follower = Follower(chain, start_block=0)
    await follower.follow(lambda: len(follower.pauses) > 2)
    assert follower.updates == []


async def test_a_failing_sink_ends_the_listener_and_keeps_the_cursor():
    """The journal's failure is not the chain's: it propagates, and nothing is skipped."""
    chain = ScriptedChain(2)
    chain.mine(calls=[0])
    follower = Follower(chain, start_block=0)

    async def refuse(update):
        raise JournalError("disk full")

    with pytest.raises(JournalError, match="disk full"):
        await follower.listener.run(refuse)
    await follower.follow()
    assert list(follower.calls) == [0]


async def test_verify_contract_accepts_the_right_one():
    """The right chain with code at the address passes."""
    await verify_contract(ScriptedChain(), CONTRACT, 31337)


async def test_verify_contract_names_what_is_wrong():
    """A wrong chain id and an address without code are configuration errors with a fix."""
    with pytest.raises(ConfigError, match="expected 1, but the end point serves chain 31337"):
        await verify_contract(ScriptedChain(), CONTRACT, 1)
    with pytest.raises(ConfigError, match="no code at 0x0909"):
        await verify_contract(ScriptedChain(), Address(b"\x09" * 20), 31337)


def test_bad_arguments_are_refused_at_once():
    """No service, or a window that is not linked, is refused before anything is read."""
    chain = ScriptedChain(5)
    with pytest.raises(ConfigError, match="at least one service"):
        Follower(chain, service_ids=[])
    refs = chain.refs()
    with pytest.raises(ConfigError, match="damaged"):
        Follower(chain, window=[refs[2], refs[1]])
