"""Asks the chain, before anything is paid for, whether it would accept an output.

Source of the rule: Tangle EVM job protocol, ``submitResults``: all or nothing. So one bad entry is found here
and taken out, and the rest goes on.
Invariant: every output that goes in comes out once: in a batch that may be sent, or as refused. When the
end point fails, nothing is known and nothing comes out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from blueprint.chain.batch import Batch
from blueprint.chain.protocol import RevertClass, classify_revert
from blueprint.chain.rpc import Rpc
from blueprint.chain.wire import JsonValue, parse_quantity, to_hex
from blueprint.errors import ChainError, RevertedError
from blueprint.types import Address, ReadyResult

__all__ = ["HOOK_GAS", "Checked", "Precheck", "Refused"]

HOOK_GAS: Final = 510_000
"""What one result may need above the estimate: the manager's hook is capped at 500,000 gas, its failure is
swallowed, and the caller keeps one part in 64 (EIP-150). An estimate may find a limit at which it starves."""

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
    """Checks batches by ``eth_call`` and ``eth_estimateGas``, as the operator.

    Args:
        rpc: the end point.
        contract: the job contract.
        operator: the account that sends.
        hook_gas: gas added to the estimate for each output.
    """

    def __init__(self, rpc: Rpc, *, contract: Address, operator: Address, hook_gas: int = HOOK_GAS) -> None:
        self._rpc = rpc
        self._to = to_hex(contract)
        self._sender = to_hex(operator)
        self._hook_gas = hook_gas

    def largest_count(self, block_gas_limit: int) -> int:
        """How many outputs may travel together, so that each hook has its gas and half a block stays free."""
        return max(1, _gas_cap(block_gas_limit) // (self._hook_gas + 60_000))

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
        waiting = list(batches)
        while waiting:
            again: list[Batch] = []
            for batch, verdict in zip(waiting, await self._ask(waiting), strict=True):
                if isinstance(verdict, RevertedError):
                    if len(batch.results) == 1:
                        refused.append(Refused(batch.results[0], verdict, classify_revert(verdict)))
                    else:
                        again += await self._take_out(batch, refused)
                    continue
                gas = verdict + self._hook_gas * len(batch.results)
                if gas <= cap or len(batch.results) == 1:
                    passed.append(Checked(batch, min(gas, max(cap, verdict))))
                else:
                    again += batch.split()
            waiting = again
        return passed, refused

    async def _ask(self, batches: Sequence[Batch]) -> list[int | RevertedError]:
        """Return for each batch the gas it was estimated to need, or why the contract refuses it."""
        calls: list[tuple[str, Sequence[JsonValue]]] = []
        for batch in batches:
            message = self._message(batch)
            calls += [("eth_call", [message, "latest"]), ("eth_estimateGas", [message])]
        answers = await self._rpc.batch(calls)
        verdicts: list[int | RevertedError] = []
        for called, estimated in zip(answers[::2], answers[1::2], strict=True):
            failure = called if isinstance(called, ChainError) else estimated
            if isinstance(failure, RevertedError):
                verdicts.append(failure)
            elif isinstance(failure, ChainError):
                raise failure
            else:
                verdicts.append(parse_quantity(failure, what="eth_estimateGas"))
        return verdicts

    async def _take_out(self, batch: Batch, refused: list[Refused]) -> Sequence[Batch]:
        """Check each entry of a refused batch alone; return what is worth another try."""
        singles = [Batch.of([result]) for result in batch.results]
        answers = await self._rpc.batch([("eth_call", [self._message(one), "latest"]) for one in singles])
        good: list[ReadyResult] = []
        for one, answer in zip(singles, answers, strict=True):
            if isinstance(answer, RevertedError):
                refused.append(Refused(one.results[0], answer, classify_revert(answer)))
            elif isinstance(answer, ChainError):
                raise answer
            else:
                good.append(one.results[0])
        if len(good) == len(batch.results):
            return singles  # each passes alone, so something joins them that we cannot see
        return [Batch.of(good)] if good else []

    def _message(self, batch: Batch) -> dict[str, JsonValue]:
        return {"from": self._sender, "to": self._to, "data": to_hex(batch.data)}


def _gas_cap(block_gas_limit: int) -> int:
    return min(block_gas_limit // 2, _MAX_TRANSACTION_GAS)
