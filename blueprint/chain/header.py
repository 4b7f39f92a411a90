"""Block headers as the listener needs them: linkage, and the bloom that tells when an empty answer is a lie.

Source of the rule: Ethereum Yellow Paper, section 4.3.1 (logs bloom): each address and topic of a log sets
three of 2048 bits.
Invariant: a bloom may say "perhaps" where there is nothing, and never "nothing" where there is a log; a bloom
that is absent or zero is not relied on, because some chains leave it so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from blueprint.chain.wire import JsonValue, parse_bytes, parse_hash, parse_object, parse_quantity
from blueprint.keccak import keccak256
from blueprint.types import BlockRef

__all__ = ["BloomFilter", "Header", "parse_header"]

_BLOOM_BITS = 2048
_BLOOM_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A block's reference, and its logs bloom as an integer (zero: not known)."""

    block: BlockRef
    bloom: int = field(repr=False)


class BloomFilter:
    """Asks blooms for logs with one of some values at each place.

    Args:
        places: for each place (address, topics in order) the values of which a log has one.
    """

    def __init__(self, places: Sequence[Sequence[bytes]]) -> None:
        self._masks = [[_mask(value) for value in values] for values in places]

    def may_match(self, bloom: int) -> bool:
        """Return whether a block with this bloom may hold a log that matches at every place."""
        return bloom != 0 and all(any(bloom & mask == mask for mask in masks) for masks in self._masks)


def parse_header(value: JsonValue) -> Header | None:
    """Return the header that a JSON-RPC block states, or None for a block that the end point does not know.

    Raises:
        RpcError: it is not a block, or not a mined one.
    """
    if value is None:
        return None
    block = parse_object(value, what="a block")
    bloom = block.get("logsBloom")
    return Header(
        block=BlockRef(
            number=parse_quantity(block.get("number"), what="a block's number"),
            hash=parse_hash(block.get("hash"), what="a block's hash"),
            parent_hash=parse_hash(block.get("parentHash"), what="a block's parentHash"),
        ),
        bloom=0
        if bloom is None
        else int.from_bytes(parse_bytes(bloom, what="a block's logsBloom", length=_BLOOM_BYTES), "big"),
    )


def _mask(value: bytes) -> int:
    digest = keccak256(value)
    bits = (int.from_bytes(digest[index : index + 2], "big") % _BLOOM_BITS for index in (0, 2, 4))
    mask = 0
    for bit in bits:
        mask |= 1 << bit
    return mask
