"""Asks the chain, before anything is paid for, whether it would accept an output.

Source of the rule: Tangle EVM job protocol, ``submitResults``: all or nothing. So one bad entry is found here
and taken out, and the rest goes on.
Invariant: every output that goes in comes out once: in a batch that may be sent, or as refused. When the
end point fails, nothing is known and nothing comes out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from blueprint.chain.batch import BYTES_AN_ENTRY, Batch
from blueprint.chain.protocol import RevertClass, classify_revert
from blueprint.chain.rpc import Rpc
from blueprint.chain.wire import JsonValue, parse_quantity, to_hex, to_quantity
from blueprint.errors import ChainError, RevertedError
from blueprint.types import Address, ReadyResult

__all__ = ["HOOK_GAS", "Checked", "Precheck", "Refused"]

HOOK_GAS: Final = 510_000
"""What one result may need for the manager's hook: it is capped at 500,000 gas, and the caller keeps one part
in 64 (EIP-150). A hook that starves is swallowed, so no estimate shows that it did."""

_ENTRY_GAS: Final = 200_000  # one result without its hook; a plain one takes 60,000 to 180,000
_BYTE_GAS: Final = 64  # 40 for call data (EIP-7623), 8 for the log, the rest for copies in memory
_BASE_GAS: Final = 21_000 + 256 * _BYTE_GAS  # the transaction itself, and the head of its call data
_MAX_TRANSACTION_GAS: Final = 1 << 24  # EIP-7825


@dataclass(frozen=True, slots=True)
class Checked:
    """A batch that the chain would accept now, and the gas limit to send it with."""

    batch: Batch
    gas: int


@dataclass(frozen=True, slots=True)
class Refused:
    """An output that the contract does not accept."""

    result: ReadyResult
    error: RevertedError
    revert_class: RevertClass


class Precheck:
    """Checks batches by ``eth_call``, as the operator and with the gas limit that they will be sent with.

    The limit is generous, for what is not used is not paid. Where it is not enough, the end point estimates,
    which costs it twenty times as much.

    Args:
        rpc: the end point.
        contract: the job contract.
        operator: the account that sends.
        hook_gas: gas that each output may need for the manager's hook.
    """

    def __init__(self, rpc: Rpc, *, contract: Address, operator: Address, hook_gas: int = HOOK_GAS) -> None:
        self._rpc = rpc
        self._to = to_hex(contract)
        self._sender = to_hex(operator)
        self._hook_gas = hook_gas

    def gas_room(self, block_gas_limit: int) -> int:
        """How much gas the outputs of one transaction may need together: half a block stays free."""
        return _gas_cap(block_gas_limit) - _BASE_GAS

    def largest_count(self, block_gas_limit: int) -> int:
        """How many outputs may travel together if they are short."""
        return max(1, self.gas_room(block_gas_limit) // (_ENTRY_GAS + self._hook_gas))

    def gas_of(self, result: ReadyResult) -> int:
        """What one output may need, its hook and its call data included."""
        return _ENTRY_GAS + self._hook_gas + _BYTE_GAS * (len(result.output) + BYTES_AN_ENTRY)

    async def check(
        self, batches: Sequence[Batch], block_gas_limit: int
    ) -> tuple[list[Checked], list[Refused]]:
        """Sort outputs into those to send and those that the contract refuses.

        Raises:
            RpcError: the end point failed; nothing is known.
        """
        cap = _gas_cap(block_gas_limit)
        passed: list[Checked] = []
        refused: list[Refused] = []
        waiting = [Checked(batch, self._generous_gas(batch)) for batch in batches]
        while waiting:
            again: list[Batch] = []
            for one, failure in zip(waiting, await self._try(waiting), strict=True):
                if failure is None and one.gas <= cap:
                    passed.append(one)
                elif isinstance(failure, RevertedError) and failure.data:
                    again += await self._take_out(one.batch, failure, refused)
                else:
                    checked = await self._estimate(one.batch, cap, refused)
                    passed += checked
                    again += one.batch.split() if not checked and len(one.batch.results) > 1 else ()
            waiting = [Checked(batch, self._generous_gas(batch)) for batch in again]
        return passed, refused

    def _generous_gas(self, batch: Batch) -> int:
        return _BASE_GAS + sum(self.gas_of(result) for result in batch.results)

    async def _try(self, waiting: Sequence[Checked]) -> list[ChainError | None]:
        """Return for each batch why the contract does not take it, or None."""
        answers = await self._rpc.batch(
            [("eth_call", [self._message(one.batch, one.gas), "latest"]) for one in waiting]
        )
        return [self._failure(answer) for answer in answers]

    def _failure(self, answer: JsonValue | ChainError) -> ChainError | None:
        """Return what an answer says against a batch; raise what it says against the end point."""
        if not isinstance(answer, ChainError):
            return None
        if isinstance(answer, RevertedError) or "gas" in str(answer).lower():
            return answer
        raise answer

    async def _estimate(self, batch: Batch, cap: int, refused: list[Refused]) -> list[Checked]:
        """Ask what a batch needs that failed for no reason that the contract gave: usually more gas.

        Returns:
            The batch with its gas, or nothing when it cannot travel as it is; alone, it is refused then.
        """
        try:
            needed = parse_quantity(await self._rpc.call("eth_estimateGas", self._message(batch)))
        except ChainError as exc:
            failure = self._failure(exc)
        else:
            gas = needed + self._hook_gas * len(batch.results)
            if gas <= cap or (len(batch.results) == 1 and needed <= cap):
                return [Checked(batch, min(gas, cap))]
            failure = RevertedError(
                f"the result needs {needed} gas, more than the {cap} that a block leaves for it"
            )
        if len(batch.results) == 1:
            error = failure if isinstance(failure, RevertedError) else RevertedError(str(failure))
            refused.append(Refused(batch.results[0], error, classify_revert(error)))
        return []

    async def _take_out(
        self, batch: Batch, failure: RevertedError, refused: list[Refused]
    ) -> Sequence[Batch]:
        """Check each entry of a refused batch alone; return what is worth another try."""
        if len(batch.results) == 1:
            refused.append(Refused(batch.results[0], failure, classify_revert(failure)))
            return []
        singles = [Batch.of([result]) for result in batch.results]
        failures = await self._try([Checked(one, self._generous_gas(one)) for one in singles])
        good: list[ReadyResult] = []
        for one, found in zip(singles, failures, strict=True):
            if isinstance(found, RevertedError) and found.data:
                refused.append(Refused(one.results[0], found, classify_revert(found)))
            else:
                good.append(one.results[0])
        if len(good) == len(batch.results):
            return singles  # each passes alone, so something joins them that cannot be seen from here
        return [Batch.of(good)] if good else []

    def _message(self, batch: Batch, gas: int | None = None) -> dict[str, JsonValue]:
        message: dict[str, JsonValue] = {"from": self._sender, "to": self._to, "data": to_hex(batch.data)}
        return message if gas is None else {**message, "gas": to_quantity(gas)}


def _gas_cap(block_gas_limit: int) -> int:
    return min(block_gas_limit // 2, _MAX_TRANSACTION_GAS)
