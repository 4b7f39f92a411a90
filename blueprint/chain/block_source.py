"""Reads headers and the logs of the followed services from an end point, in few round trips.

Invariant: logs are returned only for the blocks that were asked for, in the chain's order and each once;
whether they belong to the blocks that the caller has seen is for the caller to check by their hashes.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from blueprint.chain.events import (
    JOB_RESULT_SUBMITTED,
    JOB_SUBMITTED,
    JOB_SUBMITTED_FROM_QUOTE,
    RawLog,
    parse_log,
)
from blueprint.chain.header import BloomFilter, Header, parse_header
from blueprint.chain.rpc import Rpc
from blueprint.chain.wire import JsonValue, parse_object, to_hex, to_quantity
from blueprint.errors import ChainError, RpcError
from blueprint.types import Address

__all__ = ["BlockSource", "RangeAnswer"]

_TOPICS = (JOB_SUBMITTED, JOB_SUBMITTED_FROM_QUOTE, JOB_RESULT_SUBMITTED)
_WORD = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeAnswer:
    """What one batch said about a range of blocks."""

    headers: Sequence[Header | None]
    """The headers that were asked for, in that order; None: no such block."""
    logs: Sequence[RawLog] | ChainError = field(repr=False)
    """The logs, or why there are none: only they fail alone."""


class BlockSource:
    """The blocks and logs of one contract, as one end point tells them.

    Args:
        rpc: the end point.
        contract: the job contract.
        service_ids: the services whose jobs and results are wanted.
    """

    def __init__(self, rpc: Rpc, *, contract: Address, service_ids: Collection[int]) -> None:
        services = tuple(service_id.to_bytes(_WORD, "big") for service_id in sorted(service_ids))
        self._rpc = rpc
        self._contract = contract
        self._services = frozenset(services)
        self._filter: dict[str, JsonValue] = {
            "address": to_hex(contract),
            "topics": [[to_hex(topic) for topic in _TOPICS], [to_hex(service) for service in services]],
        }
        self.bloom_filter = BloomFilter([(contract,), _TOPICS, services])
        """Tells whether a block may hold logs of this source."""

    async def poll(self, first: int | None) -> tuple[Header, Sequence[RawLog] | ChainError | None]:
        """Return the newest header, with the logs from block ``first`` on unless that is None.

        Raises:
            RpcError: the header cannot be read.
        """
        calls: list[tuple[str, Sequence[JsonValue]]] = [("eth_getBlockByNumber", ("latest", False))]
        if first is not None:
            calls.append(self._log_call(first, "latest"))
        answers = await self._rpc.batch(calls)
        header = parse_header(_value(answers[0]))
        if header is None:
            raise RpcError("the end point knows no latest block; is it still starting?")
        return header, self._logs(answers[1], first, None) if first is not None else None

    async def read_range(self, first: int, last: int, *, numbers: Sequence[int]) -> RangeAnswer:
        """Return the logs of blocks ``first`` to ``last``, and the headers of ``numbers``, in one go."""
        *answers, logs = await self._rpc.batch(
            [*map(_header_call, numbers), self._log_call(first, to_quantity(last))]
        )
        return RangeAnswer(
            headers=[parse_header(_value(answer)) for answer in answers], logs=self._logs(logs, first, last)
        )

    async def headers(self, numbers: Sequence[int]) -> list[Header | None]:
        """Return headers by number; None where the end point knows no such block."""
        answers = await self._rpc.batch([_header_call(number) for number in numbers])
        return [parse_header(_value(answer)) for answer in answers]

    async def logs_of_receipts(self, header: Header) -> Sequence[RawLog]:
        """Return the logs of one block by way of its receipts, which do not depend on the log index.

        Raises:
            RpcError: the end point cannot tell, or answers for another block.
        """
        number = header.block.number
        receipts = await self._rpc.call("eth_getBlockReceipts", to_quantity(number))
        if not isinstance(receipts, list):
            raise RpcError(f"the end point has no receipts for block {number}")
        logs: list[JsonValue] = []
        for receipt in receipts:
            of_receipt = parse_object(receipt, what="a receipt").get("logs")
            logs += of_receipt if isinstance(of_receipt, list) else []
        parsed = self._select(logs, number, number)
        if any(log.block_hash != header.block.hash for log in parsed):
            raise RpcError(f"the end point has receipts for another block {number}")
        return parsed

    def _log_call(self, first: int, last: str) -> tuple[str, Sequence[JsonValue]]:
        return "eth_getLogs", ({**self._filter, "fromBlock": to_quantity(first), "toBlock": last},)

    def _logs(
        self, answer: JsonValue | ChainError, first: int, last: int | None
    ) -> Sequence[RawLog] | ChainError:
        if isinstance(answer, ChainError):
            return answer
        if not isinstance(answer, list):
            raise RpcError(
                f"the end point answered eth_getLogs with {type(answer).__name__}, expected a list"
            )
        return self._select(answer, first, last)

    def _select(self, values: Iterable[JsonValue], first: int, last: int | None) -> Sequence[RawLog]:
        """Parse logs, keep what was asked for, and put it in the chain's order without repetitions."""
        found: dict[tuple[int, bytes, int], RawLog] = {}
        for value in values:
            if parse_object(value, what="a log").get("removed") is True:
                continue
            log = parse_log(value)
            if (
                self._is_wanted(log)
                and first <= log.block_number
                and (last is None or log.block_number <= last)
            ):
                found[log.block_number, log.block_hash, log.log_index] = log
        return sorted(found.values(), key=lambda log: (log.block_number, log.log_index))

    def _is_wanted(self, log: RawLog) -> bool:
        return (
            log.address == self._contract
            and len(log.topics) > 1
            and log.topics[0] in _TOPICS
            and log.topics[1] in self._services
        )


def _header_call(number: int) -> tuple[str, Sequence[JsonValue]]:
    return "eth_getBlockByNumber", (to_quantity(number), False)


def _value(answer: JsonValue | ChainError) -> JsonValue:
    if isinstance(answer, ChainError):
        raise answer
    return answer
