"""Real evidence takes the same path as the mock platform's."""

import os
from pathlib import Path

import pytest

from blueprint.errors import PolicyViolationError, QuoteInvalidError
from blueprint.tee.policy import AttestationPolicy
from blueprint.tee.quote import parse_quote
from blueprint.tee.verify import verify_quote

pytestmark = pytest.mark.vectors
TDX_TIME_S = 1_750_329_147
SGX_TIME_S = 1_750_330_581


def _folder():
    return Path(os.environ["BLUEPRINT_TEST_VECTORS"])


def _verify(kind, now_s, quote=None):
    raw = (_folder() / f"{kind}_quote").read_bytes() if quote is None else quote
    return verify_quote(
        raw,
        collateral=(_folder() / f"{kind}_quote_collateral.json").read_text(),
        event_log="[]",
        report_data=raw[568:632],
        policy=AttestationPolicy(),
        now_s=now_s,
    )


def test_a_real_tdx_quote_verifies():
    """Under Intel's root, at the time of its collateral, with no advisories."""
    verified = _verify("tdx", TDX_TIME_S)
    assert (verified.root, verified.tcb_status, verified.advisory_ids) == ("intel", "UpToDate", ())


def test_a_real_tdx_quote_is_refused_once_its_collateral_has_expired():
    """Time is part of the evidence."""
    with pytest.raises(QuoteInvalidError, match="signature chain"):
        _verify("tdx", TDX_TIME_S + 366 * 86_400)


def test_a_real_tdx_quote_with_one_bit_changed_is_refused():
    """The measurements are signed."""
    raw = bytearray((_folder() / "tdx_quote").read_bytes())
    raw[200] ^= 1
    with pytest.raises(QuoteInvalidError, match="signature chain"):
        _verify("tdx", TDX_TIME_S, bytes(raw))


def test_a_real_sgx_quote_is_refused():
    """An enclave's quote says nothing about a CVM, though the library verifies it."""
    with pytest.raises(PolicyViolationError, match="TEE type: expected a TDX quote"):
        _verify("sgx", SGX_TIME_S)
    with pytest.raises(PolicyViolationError, match="TEE type"):
        parse_quote((_folder() / "sgx_quote").read_bytes())
