"""Why an end point did not take a transaction, by the words that clients use.

Source of the rule: go-ethereum ``core/txpool/errors.go`` and ``core/error.go``; Nethermind, Besu, reth and
anvil differ in wording only. There are no codes for this, hence the words.
Invariant: an unknown wording is OTHER, and never taken as a success.
"""

import re
from enum import StrEnum
from typing import Final

from blueprint.errors import ChainError

__all__ = ["Refusal", "classify_refusal"]


class Refusal(StrEnum):
    """What stands in the way of a transaction."""

    ALREADY_KNOWN = "already_known"  # it is in the pool: as good as accepted
    NONCE_TOO_LOW = "nonce_too_low"  # the nonce is spent, perhaps by this very transaction
    UNDERPRICED = "underpriced"  # a higher fee is needed, or another transaction holds the nonce
    NO_FUNDS = "no_funds"  # the operator's account cannot pay
    TOO_LARGE = "too_large"  # too many bytes or too much gas: this transaction is never accepted
    OTHER = "other"  # unknown; the same bytes may be accepted later


# The order matters: the first that is found decides.
_WORDS: Final = {
    Refusal.ALREADY_KNOWN: "already known|already.?imported|already.?exists|known transaction|alreadyknown",
    Refusal.NONCE_TOO_LOW: "nonce.{0,20}too low|oldnonce|invalid nonce|nonce has already been",
    Refusal.UNDERPRICED: "underpriced|fee too low|feetoolow|less than block base fee|max fee per gas less"
    "|lower than the current base fee|gas price too low|below the minimum|fee cap",
    Refusal.NO_FUNDS: "insufficient funds|insufficient balance|upfront cost exceeds|insufficientfunds",
    Refusal.TOO_LARGE: "oversized|gas limit (is )?too high|exceeds.{0,30}gas limit|gas limit exceeds"
    "|gaslimitexceeded|intrinsic gas too low|gas floor|too large|exceeds transaction gas",
}
_PATTERNS: Final = tuple((refusal, re.compile(words, re.IGNORECASE)) for refusal, words in _WORDS.items())


def classify_refusal(error: ChainError) -> Refusal:
    """Return what an error of ``eth_sendRawTransaction`` means."""
    text = str(error)
    for refusal, pattern in _PATTERNS:
        if pattern.search(text):
            return refusal
    return Refusal.OTHER
