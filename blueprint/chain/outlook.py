"""What one look at the chain tells the submitter: how many nonces are used, and what gas costs.

Invariant: the count is not newer than the block, so that once the logs of that block are read, the fate
of every nonce below the count is known.
"""

from dataclasses import dataclass

from blueprint.chain.rpc import Rpc
from blueprint.chain.wire import JsonValue, parse_object, parse_quantity, to_hex
from blueprint.errors import ChainError
from blueprint.types import Address

__all__ = ["Outlook", "read_outlook"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """The chain as it was when it was last asked."""

    count: int
    """How many of the operator's nonces are used."""
    block_number: int
    base_fee_wei: int
    tip_wei: int
    """The priority fee that the end point suggests; 0 where it suggests none."""
    gas_limit: int
    """Of a block."""


async def read_outlook(rpc: Rpc, operator: Address) -> Outlook:
    """Ask for the operator's count of transactions, the newest block and the usual tip, in this order.

    Raises:
        ChainError: the end point failed.
    """
    count, block, tip = await rpc.batch(
        [
            ("eth_getTransactionCount", [to_hex(operator), "latest"]),
            ("eth_getBlockByNumber", ["latest", False]),
            ("eth_maxPriorityFeePerGas", []),
        ]
    )
    header = parse_object(_value(block), what="eth_getBlockByNumber")
    return Outlook(
        count=parse_quantity(_value(count), what="eth_getTransactionCount"),
        block_number=parse_quantity(header.get("number"), what="block.number"),
        base_fee_wei=parse_quantity(header.get("baseFeePerGas", "0x0"), what="block.baseFeePerGas"),
        tip_wei=0 if isinstance(tip, ChainError) else parse_quantity(tip, what="eth_maxPriorityFeePerGas"),
        gas_limit=parse_quantity(header.get("gasLimit"), what="block.gasLimit"),
    )


def _value(answer: JsonValue | ChainError) -> JsonValue:
    if isinstance(answer, ChainError):
        raise answer
    return answer
