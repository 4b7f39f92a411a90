"""Decides whether an attestation quote is evidence.

Invariant: a :class:`VerifiedQuote` exists only after every check of the policy has passed. The library that
checks the signatures accepts every TCB status but ``Revoked``, debug guests and any measurement; all of that
is judged here.
Source of the rule: Intel TDX DCAP (quote, collateral); dstack (measurements of the guest).
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field
from datetime import datetime

import dcap_qvl

from blueprint.errors import PolicyViolationError, QuoteInvalidError
from blueprint.foreign_json import parse_json
from blueprint.tee.event_log import boot_events, parse_event_log, replay
from blueprint.tee.policy import AttestationPolicy, KeyProvider
from blueprint.tee.quote import ParsedQuote, parse_quote

__all__ = ["Check", "VerifiedQuote", "attestation_digest", "configuration_id", "verify_quote"]

_BUILT_HERE = object()
_DIGEST_DOMAIN = b"tee-job-node attestation v1"
_CONFIG_V1 = b"\x01"
_CONFIG_PADDING = bytes(15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at, for a command to show."""

    name: str
    is_checked: bool
    """False where there is nothing to compare with; a check that fails raises, so others have passed."""
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedQuote:
    """A quote that its signatures and a policy vouch for; made by :func:`verify_quote` alone."""

    quote: ParsedQuote
    tcb_status: str
    """In Intel's words."""
    advisory_ids: tuple[str, ...]
    root: str
    """Who vouches for the hardware: ``intel``, or ``development``, which proves nothing about hardware."""
    app_id: bytes | None
    """20 bytes; None when the guest measured none."""
    compose_hash: bytes | None
    """32 bytes; None when the guest measured none."""
    instance_id: bytes | None
    """20 bytes or none at all; None when the guest measured none."""
    key_provider: KeyProvider | None
    checks: tuple[Check, ...] = field(repr=False)
    """Everything that was looked at, in order."""
    built_here: InitVar[object]

    def __post_init__(self, built_here: object) -> None:
        # SECURITY: evidence is not made by hand (test_nobody_else_builds_a_verified_quote).
        if built_here is not _BUILT_HERE:
            raise TypeError("a VerifiedQuote comes from verify_quote")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    """All that the checks look at."""

    quote: ParsedQuote
    report_data: bytes
    app_compose: bytes | None
    now_s: int
    tcb_status: str
    advisory_ids: tuple[str, ...]
    tcb_issued_s: int
    replayed: bytes
    measured: Mapping[str, bytes]
    policy: AttestationPolicy


def verify_quote(
    quote: bytes,
    *,
    collateral: str,
    event_log: str | bytes,
    report_data: bytes,
    policy: AttestationPolicy,
    now_s: int,
    app_compose: bytes | None = None,
) -> VerifiedQuote:
    """Verify a TDX quote, what the guest measured, and what it binds.

    Args:
        quote: the quote's bytes.
        collateral: Intel's statements about the platform, as the JSON of ``QuoteCollateralV3``.
        event_log: the guest's log, a JSON list.
        report_data: the 64 bytes that the quote must carry.
        policy: what must hold.
        now_s: a trusted Unix time; collateral must be valid then.
        app_compose: the raw app-compose bytes that the guest is said to run; their hash must be measured.

    Raises:
        QuoteInvalidError: quote, collateral or log is malformed, or a signature does not hold.
        PolicyViolationError: all is well signed, but says what the policy does not accept.
    """
    parsed = parse_quote(quote)
    status, advisories, issued_s = _verify_signatures(quote, collateral, policy, now_s)
    events = parse_event_log(event_log)
    evidence = _Evidence(
        quote=parsed,
        report_data=report_data,
        app_compose=app_compose,
        now_s=now_s,
        tcb_status=status,
        advisory_ids=advisories,
        tcb_issued_s=issued_s,
        replayed=replay(events),
        measured=boot_events(events),
        policy=policy,
    )
    root = "intel" if policy.development_root is None else "development"
    signatures = Check(name="signature chain", is_checked=True, detail=f"up to the {root} root")
    checks = (signatures, *(_run(name, check, evidence) for name, check in _CHECKS.items()))
    provider = evidence.measured.get("key-provider")
    return VerifiedQuote(
        quote=parsed,
        tcb_status=status,
        advisory_ids=advisories,
        root=root,
        app_id=evidence.measured.get("app-id"),
        compose_hash=evidence.measured.get("compose-hash"),
        instance_id=evidence.measured.get("instance-id"),
        key_provider=None if provider is None else KeyProvider.from_payload(provider),
        checks=checks,
        built_here=_BUILT_HERE,
    )


def attestation_digest(verified: VerifiedQuote) -> bytes:
    """Return a digest that names a verified attestation, 32 bytes.

    It is SHA-256 over these parts, each after its length as four bytes, big endian: ``tee-job-node
    attestation v1``, the quote, the root (``intel`` or ``development``), the TCB status, the advisories
    joined by commas in their order, app id, compose hash and instance id (empty where none was measured).
    """
    parts = (
        _DIGEST_DOMAIN,
        verified.quote.raw,
        verified.root.encode(),
        verified.tcb_status.encode(),
        ",".join(verified.advisory_ids).encode(),
        verified.app_id or b"",
        verified.compose_hash or b"",
        verified.instance_id or b"",
    )
    return hashlib.sha256(b"".join(len(part).to_bytes(4) + part for part in parts)).digest()


def _verify_signatures(
    quote: bytes, collateral: str, policy: AttestationPolicy, now_s: int
) -> tuple[str, tuple[str, ...], int]:
    """Return TCB status, advisories, and when the TCB information was issued."""
    try:
        parsed = dcap_qvl.QuoteCollateralV3.from_json(collateral)
        # SECURITY: another root only if it was given (test_a_mock_quote_is_refused_under_intels_root).
        if policy.development_root is None:
            report = dcap_qvl.verify(quote, parsed, now_s)
        else:
            report = dcap_qvl.verify_with_root_ca(quote, parsed, policy.development_root, now_s)
        issued_s = _issued_s(parsed.tcb_info)
    except (ValueError, OverflowError) as error:
        raise QuoteInvalidError(f"signature chain: {error}") from error
    return report.status, tuple(report.advisory_ids), issued_s


def _issued_s(tcb_info: str) -> int:
    match parse_json(tcb_info):
        case {"issueDate": str(date)}:
            return int(datetime.fromisoformat(date).timestamp())
    raise ValueError("the TCB information has no issue date")


def _run(name: str, check: Callable[[_Evidence], str | None], evidence: _Evidence) -> Check:
    try:
        detail = check(evidence)
    except PolicyViolationError as error:
        raise PolicyViolationError(f"{name}: {error}") from error
    return Check(name=name, is_checked=detail is not None, detail=detail or "nothing to compare with")


def _tcb_status(evidence: _Evidence) -> str:
    accepted = evidence.policy.tcb_statuses
    if evidence.tcb_status not in accepted:
        raise PolicyViolationError(f"{evidence.tcb_status}, accepted: {', '.join(sorted(accepted))}")
    return evidence.tcb_status


def _advisories(evidence: _Evidence) -> str:
    refused = sorted(set(evidence.advisory_ids) - evidence.policy.allowed_advisories)
    if refused:
        raise PolicyViolationError(f"{', '.join(refused)} apply to this platform and are not accepted")
    return ", ".join(evidence.advisory_ids) or "none"


def _collateral_age(evidence: _Evidence) -> str | None:
    limit_s = evidence.policy.max_collateral_age_s
    if limit_s is None:
        return None
    age_s = evidence.now_s - evidence.tcb_issued_s
    if not 0 <= age_s <= limit_s:
        raise PolicyViolationError(f"issued {age_s} s ago, accepted: 0 to {limit_s} s; fetch it again")
    return f"issued {age_s} s ago"


def _debug_bit(evidence: _Evidence) -> str:
    if evidence.quote.is_debug:
        raise PolicyViolationError("set: the host can read this guest's memory")
    return "not set"


def _module_signer(evidence: _Evidence) -> str:
    if any(evidence.quote.mr_signer_seam):
        raise PolicyViolationError(
            f"{evidence.quote.mr_signer_seam.hex()}, expected zero, which stands for Intel"
        )
    return "the vendor"


def _os_image(evidence: _Evidence) -> str | None:
    images, quote = evidence.policy.os_images, evidence.quote
    if images is None:
        return None
    found = (quote.mr_td, quote.rt_mr0, quote.rt_mr1, quote.rt_mr2)
    for image in images:
        if (image.mr_td, image.rt_mr0, image.rt_mr1, image.rt_mr2) == found:
            return image.name
    raise PolicyViolationError(f"MRTD:RTMR0:RTMR1:RTMR2 are those of no known one: {quote.os_image}")


def _report_data(evidence: _Evidence) -> str:
    if not hmac.compare_digest(evidence.quote.report_data, evidence.report_data):
        raise PolicyViolationError(
            f"expected {evidence.report_data.hex()}, the quote carries {evidence.quote.report_data.hex()}"
        )
    return evidence.report_data.hex()


def _event_log(evidence: _Evidence) -> str:
    if evidence.replayed != evidence.quote.rt_mr3:
        raise PolicyViolationError(
            f"replays to {evidence.replayed.hex()}, but RTMR3 is {evidence.quote.rt_mr3.hex()}: "
            "the log is not what the guest measured"
        )
    return "replays to RTMR3"


def _expected_event(evidence: _Evidence, name: str, expected: bytes | None) -> str | None:
    if expected is None:
        return None
    measured = evidence.measured.get(name)
    if measured != expected:
        shown = "none" if measured is None else measured.hex()
        raise PolicyViolationError(f"expected {expected.hex()}, the guest measured {shown}")
    return expected.hex()


def _compose_hash(evidence: _Evidence) -> str | None:
    return _expected_event(evidence, "compose-hash", evidence.policy.compose_hash)


def _compose_text(evidence: _Evidence) -> str | None:
    if evidence.app_compose is None:
        return None
    return _expected_event(evidence, "compose-hash", hashlib.sha256(evidence.app_compose).digest())


def _app_id(evidence: _Evidence) -> str | None:
    return _expected_event(evidence, "app-id", evidence.policy.app_id)


def _key_provider(evidence: _Evidence) -> str | None:
    accepted = evidence.policy.key_providers
    if accepted is None:
        return None
    payload = evidence.measured.get("key-provider")
    if payload is None:
        raise PolicyViolationError("the guest measured none")
    provider = KeyProvider.from_payload(payload)
    if provider not in accepted:
        raise PolicyViolationError(f"{provider.name} {provider.id} is not among the accepted ones")
    return f"{provider.name} {provider.id}"


def configuration_id(compose_hash: bytes) -> bytes:
    """Return the MRCONFIGID, 48 bytes, of a machine that names its compose hash there."""
    return _CONFIG_V1 + compose_hash + _CONFIG_PADDING


def _configuration_id(evidence: _Evidence) -> str | None:
    """MRCONFIGID may name the compose hash too; where it does, the two must agree."""
    stated, measured = evidence.quote.mr_config_id, evidence.measured.get("compose-hash")
    if not stated.startswith(_CONFIG_V1):
        return None
    if measured is None or stated != configuration_id(measured):
        raise PolicyViolationError(f"{stated.hex()} does not name the compose hash that the guest measured")
    return "names the compose hash"


_CHECKS: Mapping[str, Callable[[_Evidence], str | None]] = {
    "TCB status": _tcb_status,
    "advisories": _advisories,
    "collateral age": _collateral_age,
    "debug bit": _debug_bit,
    "TDX module signer": _module_signer,
    "OS image": _os_image,
    "report data": _report_data,
    "event log": _event_log,
    "compose hash": _compose_hash,
    "compose text": _compose_text,
    "app id": _app_id,
    "key provider": _key_provider,
    "configuration id": _configuration_id,
}
"""Name and check, in the order in which they are made; None means that there was nothing to compare with."""
