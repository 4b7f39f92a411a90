"""What a KMS says counts only when a pinned key said it."""

import coincurve
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blueprint.errors import AttestationError
from blueprint.keccak import keccak256
from blueprint.tee.kms_key import (
    VerifiedPublicKey,
    signer_of_public_key,
    verify_key_chain,
    verify_public_key,
)

ROOT = coincurve.PrivateKey(b"\x11" * 32)
OTHER = coincurve.PrivateKey(b"\x22" * 32)
APP = coincurve.PrivateKey(b"\x33" * 32)
PINNED = frozenset({ROOT.public_key.format()})
APP_ID = bytes(range(20))
KEY = bytes(range(32))
NOW = 1_750_000_000
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def signed(message, key=ROOT):
    return key.sign_recoverable(bytes(keccak256(message)), hasher=None)


def statement(timestamp_s=None, key=ROOT, app_id=APP_ID, public_key=KEY):
    time = b"" if timestamp_s is None else timestamp_s.to_bytes(8, "big")
    return signed(b"dstack-env-encrypt-pubkey" + b":" + app_id + time + public_key, key)


def verify(signature, **changes):
    fields = {"app_id": APP_ID, "public_key": KEY, "signature": signature, "pinned_keys": PINNED}
    return verify_public_key(**{**fields, **changes})


def chain(root=ROOT, purpose="signing", derived=OTHER, app_id=APP_ID):
    public = derived.public_key.format()
    return [
        signed(f"{purpose}:{public.hex()}".encode(), APP),
        signed(b"dstack-kms-issued:" + app_id + APP.public_key.format(), root),
    ]


def verify_chain(signatures, **changes):
    fields = {
        "app_id": APP_ID,
        "purpose": "signing",
        "public_key": OTHER.public_key.format(),
        "signature_chain": signatures,
        "pinned_keys": PINNED,
    }
    return verify_key_chain(**{**fields, **changes})


def test_a_pinned_signer_is_accepted():
    """The statement without a time names its signer."""
    expected = VerifiedPublicKey(public_key=KEY, signer=ROOT.public_key.format(), timestamp_s=None)
    assert verify(statement()) == expected


@pytest.mark.parametrize("age_s", [-60, 0, 300])
def test_a_fresh_timestamp_is_accepted(age_s):
    """Up to 300 seconds old and 60 seconds ahead."""
    assert verify(statement(NOW - age_s), timestamp_s=NOW - age_s, now_s=NOW).timestamp_s == NOW - age_s


@pytest.mark.parametrize(("age_s", "expected"), [(301, "301 s ago"), (-61, "61 s in the future")])
def test_a_stale_timestamp_is_refused(age_s, expected):
    """One second beyond the bounds is too much, although the signature is good."""
    with pytest.raises(AttestationError, match=expected):
        verify(statement(NOW - age_s), timestamp_s=NOW - age_s, now_s=NOW)


def test_a_timestamp_without_a_clock_is_a_mistake_of_the_caller():
    """Freshness is never assumed."""
    with pytest.raises(ValueError, match="now_s"):
        verify(statement(NOW), timestamp_s=NOW)


def test_another_signer_is_refused():
    """A signature that recovers to some key proves nothing."""
    with pytest.raises(AttestationError, match=f"{OTHER.public_key.format().hex()}, which is not pinned"):
        verify(statement(key=OTHER))


@pytest.mark.parametrize(
    "changes",
    [
        {"app_id": b"\xff" * 20},
        {"public_key": b"\xff" * 32},
        {"timestamp_s": NOW, "now_s": NOW},
    ],
    ids=["app id", "key", "timestamp added"],
)
def test_a_statement_about_something_else_is_refused(changes):
    """A good signature for another app, key or form does not serve."""
    with pytest.raises(AttestationError, match="not pinned"):
        verify(statement(), **changes)


def test_a_timestamp_cannot_be_left_out():
    """The form with a time does not pass for the one without, which would be valid for ever."""
    with pytest.raises(AttestationError, match="not pinned"):
        verify(statement(NOW))


@pytest.mark.parametrize(
    "changes",
    [
        {"app_id": b"x" * 19},
        {"public_key": b"x" * 31},
        {"signature": b"x" * 64},
        {"signature": b"\x01" * 64 + b"\x04"},
        {"signature": bytes(65)},
        {"signature": ORDER.to_bytes(32, "big") * 2 + b"\x00"},
        {"pinned_keys": ()},
        {"pinned_keys": (b"x" * 32,)},
        {"timestamp_s": -1, "now_s": NOW},
        {"timestamp_s": 2**64, "now_s": NOW},
    ],
    ids=min,
)
def test_malformed_statements_are_refused(changes):
    """Wrong lengths, impossible signatures and an empty list of pins are errors of attestation."""
    with pytest.raises(AttestationError):
        verify(**{"signature": statement(), **changes})


@given(st.binary(min_size=65, max_size=65))
def test_no_signature_makes_another_error(signature):
    """Whatever 65 bytes come, they are refused as what they are."""
    with pytest.raises(AttestationError):
        verify(signature)


def test_trust_on_first_use_shows_the_signer():
    """The recovered key can be shown and recorded."""
    shown = signer_of_public_key(app_id=APP_ID, public_key=KEY, signature=statement(key=OTHER))
    assert shown == OTHER.public_key.format()


def test_a_chain_to_the_pinned_root_is_accepted():
    """Application key, then KMS: the root that vouches is returned."""
    assert verify_chain(chain()) == ROOT.public_key.format()


def test_a_chain_to_another_root_is_refused():
    """Anyone can make a chain; only the pinned root makes it mean something."""
    with pytest.raises(AttestationError, match="not pinned"):
        verify_chain(chain(root=OTHER))


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "other"},
        {"app_id": b"\xff" * 20},
        {"public_key": APP.public_key.format()},
        {"pinned_keys": ()},
    ],
    ids=str,
)
def test_a_chain_for_something_else_is_refused(changes):
    """Purpose, application and key are all bound."""
    with pytest.raises(AttestationError):
        verify_chain(chain(), **changes)


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_chain_of_another_length_is_refused(length):
    """Two signatures, neither more nor fewer."""
    with pytest.raises(AttestationError, match="expected 2 signatures"):
        verify_chain((chain() * 2)[:length])
