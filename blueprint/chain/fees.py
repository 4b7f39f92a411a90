"""What a transaction offers to pay, and by how much a replacement must offer more.

Source of the rule: EIP-1559; nodes accept a replacement that raises both fields by 10 to 12.5 %.
Invariant: no offer is above the cap, and the priority fee is never above the maximum fee.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["FeePolicy", "Fees"]

_GWEI: Final = 10**9
# 12.5 %, the most that any common node asks of a replacement, as a fraction of integers.
_BUMP_NUMERATOR: Final = 9
_BUMP_DENOMINATOR: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Fees:
    """The two fee fields of an EIP-1559 transaction, in wei for each unit of gas."""

    max_fee_wei: int
    max_priority_fee_wei: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeePolicy:
    """How much the operator is willing to pay."""

    max_fee_cap_wei: int = 500 * _GWEI
    """No transaction offers more than this for a unit of gas; above it, results wait."""
    min_priority_fee_wei: int = 1
    """The least tip, where the end point suggests less or nothing."""
    base_fee_headroom: int = 2
    """The maximum fee is so many times the base fee, and the tip; 2 outlasts six full blocks in a row."""

    def offer(self, base_fee_wei: int, suggested_tip_wei: int) -> Fees | None:
        """Return the fees of a new transaction, or None while the base fee leaves no room below the cap."""
        if base_fee_wei >= self.max_fee_cap_wei:
            return None
        tip = max(self.min_priority_fee_wei, suggested_tip_wei)
        max_fee = min(self.base_fee_headroom * base_fee_wei + tip, self.max_fee_cap_wei)
        return Fees(max_fee_wei=max_fee, max_priority_fee_wei=min(tip, max_fee))

    def raise_offer(self, old: Fees, base_fee_wei: int, suggested_tip_wei: int) -> Fees | None:
        """Return fees that replace ``old``, or None when the cap leaves no room for that."""
        fresh = self.offer(base_fee_wei, suggested_tip_wei)
        if fresh is None:
            return None
        raised = Fees(
            max_fee_wei=max(_bump(old.max_fee_wei), fresh.max_fee_wei),
            max_priority_fee_wei=max(_bump(old.max_priority_fee_wei), fresh.max_priority_fee_wei),
        )
        return raised if raised.max_fee_wei <= self.max_fee_cap_wei else None


def _bump(wei: int) -> int:
    return -(-wei * _BUMP_NUMERATOR // _BUMP_DENOMINATOR) + 1
