"""What transactions offer, what outbids them, and what refusals mean."""

import pytest

from blueprint.chain.fees import FeePolicy, Fees
from blueprint.chain.refusals import Refusal, classify_refusal
from blueprint.errors import RpcError

GWEI = 10**9


def test_an_offer_is_twice_the_base_fee_and_the_tip() -> None:
    """The headroom outlasts several full blocks."""
    offer = FeePolicy().offer(10 * GWEI, 2 * GWEI)
    assert offer == Fees(max_fee_wei=22 * GWEI, max_priority_fee_wei=2 * GWEI)


def test_an_offer_never_exceeds_the_cap() -> None:
    """Near the cap the headroom shrinks; at the cap nothing is offered."""
    policy = FeePolicy(max_fee_cap_wei=15 * GWEI)
    assert policy.offer(10 * GWEI, 20 * GWEI) == Fees(max_fee_wei=15 * GWEI, max_priority_fee_wei=15 * GWEI)
    assert policy.offer(15 * GWEI, 0) is None


def test_a_tip_has_a_floor() -> None:
    """Where the end point suggests nothing, the operator's least tip counts."""
    offer = FeePolicy(min_priority_fee_wei=7).offer(0, 0)
    assert offer == Fees(max_fee_wei=7, max_priority_fee_wei=7)


@pytest.mark.parametrize("old", [0, 1, 7, 10**9, 3 * 10**9 + 1])
def test_a_raise_is_an_eighth_on_both_fields(old: int) -> None:
    """Both fields rise by at least 12.5 %, whatever their size, as nodes demand of a replacement."""
    raised = FeePolicy().raise_offer(Fees(max_fee_wei=old, max_priority_fee_wei=old), 0, 0)
    assert raised is not None
    assert raised.max_fee_wei * 8 >= old * 9
    assert raised.max_priority_fee_wei * 8 >= old * 9
    assert raised.max_fee_wei > old


def test_a_raise_follows_the_base_fee() -> None:
    """A replacement is worth its while only if it can be mined now."""
    raised = FeePolicy().raise_offer(Fees(max_fee_wei=GWEI, max_priority_fee_wei=1), 50 * GWEI, 0)
    assert raised is not None
    assert raised.max_fee_wei >= 100 * GWEI


def test_a_raise_stops_at_the_cap() -> None:
    """An eighth more than allowed is not offered, nor less than an eighth more."""
    policy = FeePolicy(max_fee_cap_wei=10 * GWEI)
    assert policy.raise_offer(Fees(max_fee_wei=9 * GWEI, max_priority_fee_wei=1), GWEI, 0) is None


@pytest.mark.parametrize(
    ("message", "refusal"),
    [
        ("already known", Refusal.ALREADY_KNOWN),
        ("ALREADY_EXISTS: already known", Refusal.ALREADY_KNOWN),
        ("transaction already imported", Refusal.ALREADY_KNOWN),
        ("AlreadyKnown", Refusal.ALREADY_KNOWN),
        ("nonce too low: next nonce 5, tx nonce 3", Refusal.NONCE_TOO_LOW),
        ("OldNonce", Refusal.NONCE_TOO_LOW),
        ("replacement transaction underpriced", Refusal.UNDERPRICED),
        ("max fee per gas less than block base fee: address 0x0, maxFeePerGas: 1", Refusal.UNDERPRICED),
        ("transaction underpriced: tip needed 1", Refusal.UNDERPRICED),
        ("FeeTooLow, MaxFeePerGas too low", Refusal.UNDERPRICED),
        ("insufficient funds for gas * price + value", Refusal.NO_FUNDS),
        ("Insufficient funds for gas * price + value", Refusal.NO_FUNDS),
        ("oversized data: transaction size 131200, limit 131072", Refusal.TOO_LARGE),
        ("exceeds block gas limit", Refusal.TOO_LARGE),
        ("intrinsic gas too low: gas 21000", Refusal.TOO_LARGE),
        ("the sky is falling", Refusal.OTHER),
    ],
)
def test_refusals_are_known_by_their_words(message: str, refusal: Refusal) -> None:
    """The wordings of the common clients, each read for what it means."""
    assert classify_refusal(RpcError(message)) is refusal
