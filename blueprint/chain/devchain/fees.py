"""The methods that price a transaction: gas estimates and fees (EIP-1559).

Invariant: an estimate is a gas limit that was tried on the newest block and sufficed.
"""

from collections.abc import Mapping
from dataclasses import replace

from eth.abc import BlockHeaderAPI

from blueprint.chain.devchain.errors import INVALID_PARAMS, SERVER_ERROR, JsonRpcError, reverted
from blueprint.chain.devchain.evm import CallOutcome, CallRequest, SealedBlock, base_fee_wei
from blueprint.chain.devchain.formats import quantity
from blueprint.chain.devchain.ledger import Ledger
from blueprint.chain.devchain.params import Params
from blueprint.chain.devchain.queries import Method, resolve_block

__all__ = ["Fees"]

_SUGGESTED_TIP_WEI = 10**9
_CALL_STIPEND_GAS = 2_300
_ESTIMATE_ERROR_RATIO = 0.015
"""geth stops its search at the same precision."""
_MAX_FEE_HISTORY_BLOCKS = 1024
_MAX_PERCENTILES = 100


class Fees:
    """Estimates and fee suggestions over one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def methods(self) -> Mapping[str, Method]:
        """The methods by name."""
        return {
            "eth_blobBaseFee": lambda _: "0x1",
            "eth_estimateGas": self._estimate,
            "eth_feeHistory": self._history,
            "eth_gasPrice": lambda _: quantity(self.next_base_fee_wei() + _SUGGESTED_TIP_WEI),
            "eth_maxPriorityFeePerGas": lambda _: quantity(_SUGGESTED_TIP_WEI),
        }

    def next_base_fee_wei(self) -> int:
        """The base fee of the block to come."""
        return base_fee_wei(self._ledger.next_header())

    def suggest_wei(self) -> tuple[int, int]:
        """A maximum fee that outlives a few full blocks, and a tip."""
        return 2 * self.next_base_fee_wei() + _SUGGESTED_TIP_WEI, _SUGGESTED_TIP_WEI

    def estimate(self, request: CallRequest, header: BlockHeaderAPI) -> int:
        """The least gas limit, within 1.5 %, with which the call succeeds on the state after the block.

        Raises:
            JsonRpcError: it fails with any gas limit.
        """
        most = int(header.gas_limit) if request.gas is None else min(request.gas, int(header.gas_limit))
        outcome = self._try(request, header, most)
        if outcome.is_revert:
            raise reverted(outcome.output)
        if outcome.failure is not None:
            raise JsonRpcError(
                SERVER_ERROR, f"gas required exceeds allowance ({most}) or the call fails: {outcome.failure}"
            )
        enough, too_little = most, outcome.gas_used - 1
        # A call may use up to 63/64 of what its caller has left (EIP-150): this guess is nearly always right.
        first_guess = (outcome.gas_used + outcome.gas_refund + _CALL_STIPEND_GAS) * 64 // 63
        guess = min(first_guess, most)
        while too_little + 1 < enough:
            if guess >= enough or (enough - too_little) / enough < _ESTIMATE_ERROR_RATIO:
                break
            if self._try(request, header, guess).failure is None:
                enough = guess
            else:
                too_little = guess
            guess = min((enough + too_little) // 2, too_little * 2)
        return enough

    def _try(self, request: CallRequest, header: BlockHeaderAPI, gas: int) -> CallOutcome:
        outcome = self._ledger.evm.simulate(replace(request, gas=gas), header)
        if outcome.failure is None and outcome.gas_used > gas:
            # The calldata floor is above the limit: such a transaction would not be accepted.
            return replace(outcome, failure="gas limit below the calldata floor")
        return outcome

    def _estimate(self, params: Params) -> object:
        header = resolve_block(self._ledger, params.block(1)).header
        return quantity(self.estimate(params.call(0), header))

    def _history(self, params: Params) -> object:
        count = min(params.count(0), _MAX_FEE_HISTORY_BLOCKS)
        newest = resolve_block(self._ledger, params.block(1))
        percentiles = _percentiles(params.raw(2))
        if count == 0:
            return {"oldestBlock": "0x0", "gasUsedRatio": []}
        blocks = self._ledger.blocks[max(0, newest.number - count + 1) : newest.number + 1]
        is_head = newest is self._ledger.head
        following = (
            self.next_base_fee_wei()
            if is_head
            else base_fee_wei(self._ledger.blocks[newest.number + 1].header)
        )
        answer: dict[str, object] = {
            "oldestBlock": quantity(blocks[0].number),
            "baseFeePerGas": [quantity(base_fee_wei(block.header)) for block in blocks]
            + [quantity(following)],
            "gasUsedRatio": [block.header.gas_used / block.header.gas_limit for block in blocks],
            "baseFeePerBlobGas": ["0x1"] * (len(blocks) + 1),
            "blobGasUsedRatio": [0.0] * len(blocks),
        }
        if percentiles:
            answer["reward"] = [_rewards(block, percentiles) for block in blocks]
        return answer


def _percentiles(value: object) -> list[float]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > _MAX_PERCENTILES:
        raise JsonRpcError(INVALID_PARAMS, f"expected at most {_MAX_PERCENTILES} reward percentiles")
    numbers = [float(entry) for entry in value if isinstance(entry, int | float)]
    is_valid = len(numbers) == len(value) and numbers == sorted(numbers)
    if not is_valid or any(not 0 <= number <= 100 for number in numbers):  # noqa: PLR2004 - per cent
        raise JsonRpcError(INVALID_PARAMS, "reward percentiles must ascend from 0 to 100")
    return numbers


def _rewards(block: SealedBlock, percentiles: list[float]) -> list[str]:
    """The tip per gas at each percentile of the gas that the block used."""
    base_fee = base_fee_wei(block.header)
    cumulative = [0, *(receipt.gas_used for receipt in block.receipts)]
    shares = sorted(
        (
            int(min(transaction.max_fee_per_gas - base_fee, transaction.max_priority_fee_per_gas)),
            cumulative[index + 1] - cumulative[index],
        )
        for index, transaction in enumerate(block.block.transactions)
    )
    if not shares:
        return ["0x0"] * len(percentiles)
    rewards = []
    for percentile in percentiles:
        threshold, reached = block.header.gas_used * percentile / 100, 0
        tip = shares[-1][0]
        for candidate, gas in shares:
            reached += gas
            if reached >= threshold:
                tip = candidate
                break
        rewards.append(quantity(tip))
    return rewards
