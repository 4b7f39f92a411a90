"""Outputs packed into result transactions.

Invariant: a batch answers calls of one service, each at most once, within the limits on bytes and count;
the order of the outputs is kept.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from blueprint.chain.protocol import encode_submit_result, encode_submit_results
from blueprint.types import CallKey, ReadyResult

__all__ = ["BYTES_AN_ENTRY", "MAX_BATCH_BYTES", "Batch", "pack"]

MAX_BATCH_BYTES: Final = 100_000
"""Call data of one batch; public nodes refuse transactions of more than 128 KiB."""

BYTES_AN_ENTRY: Final = 128
"""Call data that an output needs beside its own bytes, at most: call id, offset, length and padding."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Outputs that travel in one transaction: ``submitResult`` for one, ``submitResults`` for several."""

    results: Sequence[ReadyResult]
    data: bytes = field(repr=False)
    """The call data."""

    @classmethod
    def of(cls, results: Sequence[ReadyResult]) -> "Batch":
        """Encode outputs of one service."""
        first = results[0]
        if len(results) == 1:
            data = encode_submit_result(first.key.service_id, first.key.call_id, first.output)
        else:
            data = encode_submit_results(
                first.key.service_id,
                [result.key.call_id for result in results],
                [result.output for result in results],
            )
        return cls(results, data)

    @property
    def keys(self) -> tuple[CallKey, ...]:
        """The calls that it answers."""
        return tuple(result.key for result in self.results)

    def split(self) -> "tuple[Batch, Batch]":
        """Return two halves of a batch of several."""
        middle = len(self.results) // 2
        return Batch.of(self.results[:middle]), Batch.of(self.results[middle:])


def pack(
    results: Sequence[ReadyResult],
    *,
    max_count: int,
    max_gas: int,
    gas_of: Callable[[ReadyResult], int],
    max_bytes: int = MAX_BATCH_BYTES,
) -> Iterator[Batch]:
    """Yield batches within bounds of count, gas and about of bytes.

    An output that is beyond a bound by itself travels alone.

    Args:
        results: what waits, in order.
        max_count: outputs in one batch.
        max_gas: for the outputs of one batch together.
        gas_of: what an output may need.
        max_bytes: call data of one batch.
    """
    services: dict[int, list[ReadyResult]] = {}
    for result in results:
        services.setdefault(result.key.service_id, []).append(result)
    for waiting in services.values():
        portion: list[ReadyResult] = []
        size = gas = 0
        for result in waiting:
            size += len(result.output) + BYTES_AN_ENTRY
            gas += gas_of(result)
            if portion and (len(portion) >= max_count or size > max_bytes or gas > max_gas):
                yield Batch.of(portion)
                portion, size, gas = [], len(result.output) + BYTES_AN_ENTRY, gas_of(result)
            portion.append(result)
        yield Batch.of(portion)
