"""What a TDX quote says about itself, before anyone has checked it.

Invariant: a :class:`ParsedQuote` is a claim; only :func:`blueprint.tee.verify.verify_quote` makes evidence
of it. Source of the rule: Intel TDX DCAP, quote format (versions 4 and 5), and TDX module specification,
TDREPORT.
"""

from dataclasses import dataclass, field

import dcap_qvl

from blueprint.errors import PolicyViolationError, QuoteInvalidError

__all__ = ["ParsedQuote", "parse_quote"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedQuote:
    """The fields of a TDX quote, unverified; measurements have 48 bytes each."""

    raw: bytes = field(repr=False)
    """The whole quote."""
    mr_td: bytes
    """The initial memory: the virtual firmware."""
    rt_mr0: bytes
    """The virtual hardware's configuration."""
    rt_mr1: bytes
    """The kernel."""
    rt_mr2: bytes
    """The kernel's command line and initial file system."""
    rt_mr3: bytes
    """What the guest measured while it booted the application: see :mod:`blueprint.tee.event_log`."""
    mr_config_id: bytes
    """Set by the host: zero, or ``01 || compose hash || 00 * 15``."""
    mr_signer_seam: bytes
    """Zero when Intel signed the TDX module."""
    td_attributes: bytes
    """8 bytes; bit 0 of the first is the debug bit."""
    report_data: bytes
    """64 bytes that the guest chose."""

    @property
    def os_image(self) -> str:
        """The measurements of the guest's system, as `OsImage.parse` reads them."""
        return ":".join(value.hex() for value in (self.mr_td, self.rt_mr0, self.rt_mr1, self.rt_mr2))

    @property
    def is_debug(self) -> bool:
        """Whether the host can read and write the guest's memory."""
        return bool(self.td_attributes[0] & 1)


def parse_quote(raw: bytes) -> ParsedQuote:
    """Read a quote without checking any signature.

    Args:
        raw: the quote's bytes.

    Raises:
        QuoteInvalidError: these bytes are no quote.
        PolicyViolationError: a quote, but one of SGX: an enclave's, which says nothing about a CVM.
    """
    try:
        quote = dcap_qvl.parse_quote(raw)
    except ValueError as error:
        raise QuoteInvalidError(f"attestation quote: {error}") from error
    report = quote.report
    # SECURITY: an SGX quote verifies with the same library (test_a_real_sgx_quote_is_refused).
    if isinstance(report, dcap_qvl.SgxEnclaveReport):
        raise PolicyViolationError("TEE type: expected a TDX quote, received one of SGX")
    return ParsedQuote(
        raw=raw,
        mr_td=report.mr_td,
        rt_mr0=report.rt_mr0,
        rt_mr1=report.rt_mr1,
        rt_mr2=report.rt_mr2,
        rt_mr3=report.rt_mr3,
        mr_config_id=report.mr_config_id,
        mr_signer_seam=report.mr_signer_seam,
        td_attributes=report.td_attributes,
        report_data=report.report_data,
    )
