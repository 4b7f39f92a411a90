"""Verifying: every way in which well-signed evidence can be wrong is refused, by name."""

import dataclasses
import hashlib
import json

import dcap_qvl
import pytest

from blueprint.errors import PolicyViolationError, QuoteInvalidError
from blueprint.tee.policy import AttestationPolicy, KeyProvider, OsImage
from blueprint.tee.quote import parse_quote
from blueprint.tee.report_data import certificate_report_data
from blueprint.tee.simulator.cvm import SimulatedCvm
from blueprint.tee.simulator.kms import SimulatedKms
from blueprint.tee.simulator.platform import MockPlatform
from blueprint.tee.verify import VerifiedQuote, attestation_digest, verify_quote

NOW = 1_750_000_000
APP_ID = bytes(range(20))
INSTANCE = bytes(range(20, 40))
COMPOSE = b'{"name":"app","kms_enabled":true,"allowed_envs":[]}'
DATA = b"\x42" * 64
KMS = SimulatedKms(b"k" * 32)
PLATFORM = MockPlatform(seed=b"p")
CVM = SimulatedCvm(
    app_compose=COMPOSE, sealed=None, app_id=APP_ID, kms=KMS, platform=PLATFORM, instance_id=INSTANCE
)
POLICY = AttestationPolicy(
    development_root=PLATFORM.root_ca,
    compose_hash=hashlib.sha256(COMPOSE).digest(),
    app_id=APP_ID,
    os_images=frozenset({CVM.os_image}),
    key_providers=frozenset({KMS.key_provider}),
    max_collateral_age_s=86_400,
)


def verify(platform=PLATFORM, now_s=NOW, issued_s=NOW, policy=POLICY, **changes):
    fields = {
        "quote": CVM.quote(DATA),
        "collateral": platform.collateral(issued_s),
        "event_log": CVM.event_log,
        "report_data": DATA,
        "app_compose": COMPOSE,
    }
    return verify_quote(policy=policy, now_s=now_s, **{**fields, **changes})


def relaxed(**changes):
    return dataclasses.replace(POLICY, **changes)


def quote_of(platform=PLATFORM, **changes):
    measured = parse_quote(CVM.quote(DATA)).rt_mr3
    return platform.quote(**{"report_data": DATA, "rt_mr3": measured, **changes})


def test_a_mock_quote_passes_every_check():
    """Under its own root and a full policy only the configuration id has nothing to compare with."""
    verified = verify()
    assert (verified.app_id, verified.instance_id, verified.root) == (APP_ID, INSTANCE, "development")
    assert [check.name for check in verified.checks if not check.is_checked] == ["configuration id"]
    assert len(verified.checks) == 14


def test_a_mock_quote_is_refused_under_intels_root():
    """Without the development root given by name the same evidence is worth nothing."""
    with pytest.raises(QuoteInvalidError, match="signature chain"):
        verify(policy=relaxed(development_root=None))


def test_another_development_root_does_not_serve():
    """Trusting one root trusts no other."""
    with pytest.raises(QuoteInvalidError, match="signature chain"):
        verify(policy=relaxed(development_root=MockPlatform(seed=b"q").root_ca))


def test_a_seed_makes_the_same_root():
    """A platform that starts again with its seed stays trusted."""
    again = MockPlatform(seed=b"p")
    assert verify(quote=quote_of(again), collateral=again.collateral(NOW)).root == "development"


def test_version_2_of_the_event_log_replays():
    """A guest with canonical JSON digests verifies too."""
    cvm = SimulatedCvm(
        app_compose=COMPOSE, sealed=None, app_id=APP_ID, kms=KMS, platform=PLATFORM, event_version=2
    )
    assert verify(quote=cvm.quote(DATA), event_log=cvm.event_log).app_id == APP_ID


@pytest.mark.parametrize("position", [20, 100, 600, 640, 700, 800, 1200])
def test_a_changed_byte_breaks_the_signature(position):
    """Header, report, signature, key and the quoting enclave's report are all signed."""
    quote = bytearray(CVM.quote(DATA))
    quote[position] ^= 1
    with pytest.raises((QuoteInvalidError, PolicyViolationError)):
        verify(quote=bytes(quote), policy=relaxed(os_images=None))


def test_expired_collateral_is_refused():
    """What the vendor said more than 30 days ago does not count."""
    with pytest.raises(QuoteInvalidError, match="signature chain"):
        verify(now_s=NOW + 31 * 86_400)


@pytest.mark.parametrize("age_s", [-3600, 86_401])
def test_collateral_of_another_age_is_refused(age_s):
    """The policy can ask for fresher statements than the vendor's own expiry."""
    with pytest.raises((QuoteInvalidError, PolicyViolationError)):
        verify(now_s=NOW + age_s)


@pytest.mark.parametrize("status", ["OutOfDate", "SWHardeningNeeded", "ConfigurationNeeded"])
def test_another_tcb_status_is_refused_and_can_be_accepted_by_name(status):
    """The library accepts these; the policy decides."""
    platform = MockPlatform(tcb_status=status, seed=b"p")
    with pytest.raises(PolicyViolationError, match=f"TCB status: {status}, accepted: UpToDate"):
        verify(platform)
    assert verify(platform, policy=relaxed(tcb_statuses=frozenset({status}))).tcb_status == status


def test_a_revoked_platform_is_refused():
    """No policy accepts what the vendor has revoked."""
    with pytest.raises(QuoteInvalidError):
        verify(MockPlatform(tcb_status="Revoked", seed=b"p"))


def test_an_advisory_is_refused_and_can_be_accepted_by_name():
    """Known weaknesses of the platform are nobody's default."""
    platform = MockPlatform(advisory_ids=["INTEL-SA-00289", "INTEL-SA-00615"], seed=b"p")
    with pytest.raises(PolicyViolationError, match="advisories: INTEL-SA-00615 apply"):
        verify(platform, policy=relaxed(allowed_advisories=frozenset({"INTEL-SA-00289"})))
    both = frozenset({"INTEL-SA-00289", "INTEL-SA-00615"})
    assert set(verify(platform, policy=relaxed(allowed_advisories=both)).advisory_ids) == both


WRONG = {
    "report data": {"report_data": b"\x43" * 64},
    "report data: expected": {"report_data": DATA[:-1]},
    "event log: replays to": {"quote": quote_of(rt_mr3=bytes(48))},
    "compose text": {"app_compose": COMPOSE + b" "},
    "compose hash": {"policy": relaxed(compose_hash=bytes(32))},
    "app id": {"policy": relaxed(app_id=bytes(20))},
    "key provider": {"policy": relaxed(key_providers=frozenset({KeyProvider(name="kms", id="00")}))},
    "OS image": {"policy": relaxed(os_images=frozenset())},
    "OS image: MRTD": {
        "policy": relaxed(
            os_images=frozenset(
                {OsImage(name="x", mr_td=b"", rt_mr0=b"", rt_mr1=b"", rt_mr2=CVM.os_image.rt_mr2)}
            )
        )
    },
    "configuration id": {"quote": quote_of(mr_config_id=b"\x01" + bytes(47))},
}


@pytest.mark.parametrize(("name", "changes"), WRONG.items(), ids=WRONG)
def test_each_check_refuses_by_name(name, changes):
    """Evidence that is well signed and wrong in one thing is refused, and the message names the check."""
    with pytest.raises(PolicyViolationError, match=name):
        verify(**changes)


def test_a_guest_system_is_pinned_by_what_a_quote_shows():
    """What one verification tells is what the next one is given, and nothing else is taken for it."""
    shown = parse_quote(CVM.quote(DATA)).os_image
    verified = verify(policy=relaxed(os_images=frozenset({OsImage.parse(shown)})))
    assert {check.name: check.is_checked for check in verified.checks}["OS image"]
    for other in ("00" * 48 + shown[96:], shown[:-96] + "00" * 48):
        with pytest.raises(PolicyViolationError, match=f"no known one: {shown}"):
            verify(policy=relaxed(os_images=frozenset({OsImage.parse(other)})))
    for wrong in ("", "00", shown + ":", shown[:-2], "x" + shown[1:]):
        with pytest.raises(ValueError, match="expected MRTD|hexadecimal"):
            OsImage.parse(wrong)


UNSAFE = {"debug bit": {"is_debug": True}, "TDX module signer": {"mr_signer_seam": b"\x01" * 48}}


@pytest.mark.parametrize(("name", "changes"), UNSAFE.items(), ids=UNSAFE)
def test_unsafe_guests_are_refused_twice(monkeypatch, name, changes):
    """The library of today refuses them; with one that does not, our own check does."""
    with pytest.raises(QuoteInvalidError, match="signature chain"):
        verify(quote=quote_of(**changes))
    collateral = dcap_qvl.QuoteCollateralV3.from_json(PLATFORM.collateral(NOW))
    report = dcap_qvl.verify_with_root_ca(CVM.quote(DATA), collateral, PLATFORM.root_ca, NOW)
    monkeypatch.setattr(dcap_qvl, "verify_with_root_ca", lambda *_: report)
    with pytest.raises(PolicyViolationError, match=name):
        verify(quote=quote_of(**changes))


def test_a_configuration_id_that_agrees_is_checked():
    """Where the host names the compose hash in the quote, it must be the measured one."""
    quote = quote_of(mr_config_id=b"\x01" + hashlib.sha256(COMPOSE).digest() + bytes(15))
    assert [check.is_checked for check in verify(quote=quote).checks] == [True] * 14


def _log():
    return json.loads(CVM.event_log)


def test_a_forged_payload_changes_the_register():
    """A log with another compose hash beside the digest that replays is refused."""
    log = _log()
    log[2]["event_payload"] = "ab" * 32
    with pytest.raises(PolicyViolationError, match="event log: replays to"):
        verify(event_log=json.dumps(log), policy=relaxed(compose_hash=b"\xab" * 32), app_compose=None)


def test_a_name_that_occurs_twice_is_refused():
    """Even a guest that measured two app ids is not believed."""
    log = _log()
    with pytest.raises(QuoteInvalidError, match="'app-id' occurs twice"):
        verify(event_log=json.dumps([*log[:3], log[1], *log[3:]]))


def test_a_name_with_a_colon_is_refused():
    """The log replays, but who gave the keys has vanished: its name is another one."""
    log = _log()
    provider = next(entry for entry in log if entry["event"] == "key-provider")
    head, _, rest = bytes.fromhex(provider["event_payload"]).partition(b":")
    provider |= {"event": f"key-provider:{head.decode()}", "event_payload": rest.hex()}
    with pytest.raises(QuoteInvalidError, match="is no name"):
        verify(event_log=json.dumps(log), policy=relaxed(key_providers=None))


def test_an_identity_after_the_boot_is_refused():
    """App id, compose hash and instance id are fixed before boot-mr-done."""
    log = _log()
    with pytest.raises(QuoteInvalidError, match="'app-id' comes after 'boot-mr-done'"):
        verify(event_log=json.dumps([log[0], *log[2:5], log[1], *log[5:]]))


@pytest.mark.parametrize(
    "entry",
    [
        "x",
        {},
        {"imr": 3},
        {"imr": 3, "event_type": 1, "event": "a", "event_payload": ""},
        {"imr": 3, "event_type": 0x08000001, "event": "a", "event_payload": "zz"},
        {"imr": 3, "event_type": 0x08000001, "event": "a", "event_payload": "", "version": 3},
    ],
    ids=str,
)
def test_a_malformed_log_is_refused(entry):
    """Nothing in RTMR3 is skipped because it is not understood."""
    with pytest.raises(QuoteInvalidError, match="event log: .*entry 0"):
        verify(event_log=json.dumps([entry]))


@pytest.mark.parametrize(
    "text", ["", "{}", "[" * 9000, "[" + "1," * 20_000 + "1]"], ids=["empty", "object", "deep", "long"]
)
def test_a_log_that_is_no_list_is_refused(text):
    """Neither JSON of another shape nor a bomb."""
    with pytest.raises(QuoteInvalidError, match="event log"):
        verify(event_log=text)


def test_events_of_other_registers_are_left_out():
    """The firmware's events do not count for RTMR3."""
    log = [{"imr": 0, "event_type": 1, "digest": "00", "event": "", "event_payload": ""}, *_log()]
    assert verify(event_log=json.dumps(log)).app_id == APP_ID


@pytest.mark.parametrize("quote", [b"", b"x" * 100, CVM.quote(DATA)[:600]], ids=len)
def test_bytes_that_are_no_quote_are_refused(quote):
    """A truncated quote is an error of attestation."""
    with pytest.raises(QuoteInvalidError, match="attestation quote"):
        verify(quote=quote)


@pytest.mark.parametrize("collateral", ["", "{}", "null"])
def test_malformed_collateral_is_refused(collateral):
    """What is no collateral proves nothing."""
    with pytest.raises(QuoteInvalidError, match="signature chain"):
        verify(collateral=collateral)


def test_nobody_else_builds_a_verified_quote():
    """The type itself is the proof that verify_quote has run."""
    verified = verify()
    fields = {field.name: getattr(verified, field.name) for field in dataclasses.fields(verified)}
    with pytest.raises(TypeError, match="comes from verify_quote"):
        VerifiedQuote(**fields, built_here=object())


def test_the_certificate_is_bound_by_its_key():
    """The cloud's quote vouches for the key of the application's certificate, and for no other."""
    expected = certificate_report_data(CVM.certificate.encode())
    assert verify(quote=CVM.certificate_quote(), report_data=expected).app_id == APP_ID
    other = SimulatedCvm(app_compose=COMPOSE, sealed=None, app_id=APP_ID, kms=KMS, platform=PLATFORM)
    with pytest.raises(PolicyViolationError, match="report data"):
        verify(quote=CVM.certificate_quote(), report_data=certificate_report_data(other.certificate.encode()))


@pytest.mark.parametrize("certificate", [b"", b"x", b"-----BEGIN CERTIFICATE-----\nx"])
def test_bytes_that_are_no_certificate_are_refused(certificate):
    """A certificate that cannot be read binds nothing."""
    with pytest.raises(QuoteInvalidError, match="certificate"):
        certificate_report_data(certificate)


def test_the_digest_names_the_evidence_and_the_root():
    """The same evidence has the same digest; another quote has another."""
    quote = CVM.quote(DATA)
    first, again, other = verify(quote=quote), verify(quote=quote), verify()
    assert attestation_digest(first) == attestation_digest(again) != attestation_digest(other)
    assert len(attestation_digest(first)) == 32
