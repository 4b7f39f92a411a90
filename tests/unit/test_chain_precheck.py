"""Packing outputs into batches, and asking the chain about them before anything is paid for."""

import pytest

from blueprint.chain.batch import Batch, pack
from blueprint.chain.precheck import Precheck
from blueprint.chain.protocol import RevertClass
from blueprint.chain.wire import to_quantity
from blueprint.errors import ChainError, RevertedError, RpcError
from blueprint.testing.tangle import revert
from blueprint.types import Address, CallKey, Hash, ReadyResult

CONTRACT = Address(b"\x7a" * 20)
OPERATOR = Address(b"\x01" * 20)
BLOCK_GAS = 60_000_000
OUT_OF_GAS = RpcError("out of gas", code=-32000)


def result(call_id: int, *, service_id: int = 0, size: int = 10) -> ReadyResult:
    """An output that waits."""
    key = CallKey(chain_id=1, contract=CONTRACT, service_id=service_id, call_id=call_id)
    return ReadyResult(key=key, inputs_hash=Hash(bytes(32)), output=bytes(size))


class ScriptedRpc:
    """Answers ``eth_call`` by a rule on the call ids in the data, and estimates a fixed gas."""

    def __init__(
        self, refuse: dict[int, ChainError] | None = None, *, gas: int | ChainError = 100_000
    ) -> None:
        self.refuse = refuse or {}
        self.gas = gas
        self.whole: ChainError | None = None
        self.asked: list[str] = []

    async def call(self, method: str, *params: object) -> object:
        (answer,) = await self.batch([(method, params)])
        if isinstance(answer, ChainError):
            raise answer
        return answer

    async def batch(self, calls: list[tuple[str, object]]) -> list[object]:
        return [self._answer(method, params) for method, params in calls]

    def _answer(self, method: str, params: object) -> object:
        self.asked.append(method)
        if method == "eth_estimateGas":
            return self.gas if isinstance(self.gas, ChainError) else to_quantity(self.gas)
        data = bytes.fromhex(params[0]["data"][2:])  # type: ignore[index]
        if data[:4].hex() == "2d07e655":
            ids = [int.from_bytes(data[36:68], "big")]
        else:
            count = int.from_bytes(data[100:132], "big")
            ids = [int.from_bytes(data[132 + 32 * n : 164 + 32 * n], "big") for n in range(count)]
        if self.whole is not None and len(ids) > 1:
            return self.whole
        return next((self.refuse[call_id] for call_id in ids if call_id in self.refuse), "0x")

    async def wait_head(self, timeout_s: float) -> bool:
        return False


def precheck(rpc: ScriptedRpc) -> Precheck:
    """The subject."""
    return Precheck(rpc, contract=CONTRACT, operator=OPERATOR)  # type: ignore[arg-type]  # a looser fake


def ids(batches: list[Batch]) -> list[list[int]]:
    """Call ids, batch by batch."""
    return [[one.key.call_id for one in batch.results] for batch in batches]


def packed(waiting: list[ReadyResult], *, max_gas: int = 10**9, **bounds: int) -> list[Batch]:
    """Pack outputs that need as much gas as they have bytes."""
    return list(pack(waiting, max_gas=max_gas, gas_of=lambda one: len(one.output), **bounds))


def test_batches_keep_services_apart() -> None:
    """One transaction answers one service, in the order of the outputs."""
    waiting = [result(0), result(0, service_id=1), result(1), result(1, service_id=1)]
    assert ids(packed(waiting, max_count=10)) == [[0, 1], [0, 1]]


def test_batches_are_bounded_in_count_bytes_and_gas() -> None:
    """No limit is exceeded, and an output beyond one travels alone."""
    waiting = [result(n, size=400) for n in range(5)] + [result(5, size=5_000), result(6)]
    assert ids(packed(waiting, max_count=2)) == [[0, 1], [2, 3], [4, 5], [6]]
    assert ids(packed(waiting, max_count=9, max_bytes=1_200)) == [[0, 1], [2, 3], [4], [5], [6]]
    assert ids(packed(waiting, max_count=9, max_gas=900)) == [[0, 1], [2, 3], [4], [5], [6]]


async def test_a_full_batch_is_sent_without_an_estimate() -> None:
    """What is packed by the precheck's own measure has room in a transaction, so nothing is asked twice."""
    rpc = ScriptedRpc()
    subject = precheck(rpc)
    waiting = [result(n, size=200) for n in range(60)]
    room = subject.gas_room(BLOCK_GAS)
    batches = list(pack(waiting, max_count=128, max_gas=room, gas_of=subject.gas_of))
    passed, refused = await subject.check(batches, BLOCK_GAS)
    assert [one.batch for one in passed] == batches
    assert not refused
    assert "eth_estimateGas" not in rpc.asked


def test_a_lone_output_uses_the_plain_function() -> None:
    """``submitResult`` for one, ``submitResults`` for several."""
    assert Batch.of([result(0)]).data[:4].hex() == "2d07e655"
    assert Batch.of([result(0), result(1)]).data[:4].hex() == "aacdba9f"


async def test_a_good_batch_needs_one_question() -> None:
    """The generous limit was enough, so nothing is estimated."""
    rpc = ScriptedRpc()
    passed, refused = await precheck(rpc).check([Batch.of([result(0), result(1)])], BLOCK_GAS)
    assert (ids([one.batch for one in passed]), refused, rpc.asked) == ([[0, 1]], [], ["eth_call"])
    assert passed[0].gas > 2 * 500_000


async def test_bad_entries_are_taken_out() -> None:
    """Two of five are refused, each with its own class; the other three travel together."""
    rpc = ScriptedRpc({1: revert("JobAlreadyCompleted", 0, 1), 3: revert("OperatorNotActive", OPERATOR)})
    passed, refused = await precheck(rpc).check([Batch.of([result(n) for n in range(5)])], BLOCK_GAS)
    assert ids([one.batch for one in passed]) == [[0, 2, 4]]
    assert [(one.result.key.call_id, one.revert_class) for one in refused] == [
        (1, RevertClass.BENIGN),
        (3, RevertClass.RETRY),
    ]


async def test_entries_that_fail_only_together_travel_alone() -> None:
    """What joins them cannot be seen, so they are parted."""
    rpc = ScriptedRpc()
    rpc.whole = revert("ManagerReverted", CONTRACT, b"")
    passed, refused = await precheck(rpc).check([Batch.of([result(0), result(1)])], BLOCK_GAS)
    assert (ids([one.batch for one in passed]), refused) == ([[0], [1]], [])


async def test_more_gas_than_usual_is_estimated() -> None:
    """Out of gas at the generous limit: the estimate and room for the hook are used."""
    rpc = ScriptedRpc({0: OUT_OF_GAS}, gas=3_000_000)
    passed, refused = await precheck(rpc).check([Batch.of([result(0)])], BLOCK_GAS)
    assert ([one.gas for one in passed], refused) == ([3_510_000], [])


async def test_a_batch_that_needs_too_much_gas_is_halved() -> None:
    """Until it fits, or until it is one."""
    rpc = ScriptedRpc(gas=16_000_000)
    rpc.whole = OUT_OF_GAS
    passed, refused = await precheck(rpc).check([Batch.of([result(n) for n in range(4)])], BLOCK_GAS)
    assert (ids([one.batch for one in passed]), refused) == ([[0], [1], [2], [3]], [])


async def test_a_result_that_no_block_can_hold_is_refused() -> None:
    """The operator learns how much it needs; nothing is sent for ever in vain."""
    rpc = ScriptedRpc({0: OUT_OF_GAS}, gas=50_000_000)
    passed, refused = await precheck(rpc).check([Batch.of([result(0)])], BLOCK_GAS)
    assert passed == []
    assert "needs 50000000 gas" in str(refused[0].error)


async def test_a_revert_without_data_is_looked_into() -> None:
    """The estimate of the same call tells the reason."""
    rpc = ScriptedRpc({0: RevertedError("reverted")}, gas=revert("ServiceNotActive", 0))
    _, refused = await precheck(rpc).check([Batch.of([result(0)])], BLOCK_GAS)
    assert [(one.error.name, one.revert_class) for one in refused] == [
        ("ServiceNotActive", RevertClass.PERMANENT)
    ]


async def test_an_end_point_that_fails_says_nothing_about_outputs() -> None:
    """A failure that is not the contract's is raised, and no output is given up."""
    rpc = ScriptedRpc({0: RpcError("connection lost")})
    with pytest.raises(RpcError, match="connection lost"):
        await precheck(rpc).check([Batch.of([result(0)])], BLOCK_GAS)


def test_a_transaction_leaves_half_a_block_free() -> None:
    """The count follows the block's gas, and a transaction's own limit (EIP-7825)."""
    subject = precheck(ScriptedRpc())
    assert subject.largest_count(2_000_000) == 1
    assert subject.largest_count(30_000_000) == 21
    assert subject.largest_count(300_000_000) == 23
