"""What the cloud gives as evidence is verified as anywhere else: with signatures, log and certificate."""

import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from blueprint.errors import AttestorUnavailableError, PolicyViolationError, QuoteInvalidError
from blueprint.tee.policy import AttestationPolicy
from blueprint.tee.report_data import certificate_report_data
from blueprint.tee.verify import VerifiedQuote, verify_quote
from blueprint.testing.cloud import FakeCloud, FakeMachine, Fault
from jobs.deploy.backends.backend import Evidence, Machine
from jobs.deploy.backends.phala import PhalaBackend
from jobs.deploy.cloud.errors import CloudProtocolError
from tests.support.cloud_world import backend_of, deployed, workload

AGREED = workload()
OTHER = workload(image="nginx:1.26")


def policy_of(cloud: FakeCloud, machine: Machine) -> AttestationPolicy:
    """Exactly the application that was deployed, under the fake's root, which must be named."""
    return AttestationPolicy(
        development_root=cloud.platform.root_ca,
        compose_hash=AGREED.compose_hash,
        app_id=bytes.fromhex(machine.app_id),
        key_providers=frozenset({cloud.kms.key_provider}),
    )


def verify(cloud: FakeCloud, evidence: Evidence, policy: AttestationPolicy) -> VerifiedQuote:
    """Verify what the cloud gave, as what the quote must bind: the key of the application's certificate."""
    now_s = int(time.time())
    return verify_quote(
        evidence.quote,
        collateral=cloud.platform.collateral(now_s),
        event_log=evidence.event_log,
        report_data=certificate_report_data(evidence.certificate),
        policy=policy,
        now_s=now_s,
        app_compose=evidence.app_compose,
    )


async def test_the_clouds_evidence_proves_the_application(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """Signatures, log, compose hash, compose text, app id, key provider and certificate hold together."""
    machine = await deployed(backend)
    evidence = await backend.witness.evidence(machine, b"")
    verified = verify(cloud, evidence, policy_of(cloud, machine))
    assert (bytes.fromhex(machine.app_id), AGREED.compose_hash) == (verified.app_id, verified.compose_hash)
    assert {"report data", "compose hash", "compose text", "app id", "event log", "key provider"} <= {
        check.name for check in verified.checks if check.is_checked
    }


async def test_the_clouds_evidence_is_nothing_without_its_root(
    cloud: FakeCloud, backend: PhalaBackend
) -> None:
    """The fake's root is trusted only where it is named."""
    machine = await deployed(backend)
    evidence = await backend.witness.evidence(machine, b"")
    policy = replace(policy_of(cloud, machine), development_root=None)
    with pytest.raises(QuoteInvalidError, match="signature chain"):
        verify(cloud, evidence, policy)


def run_another_text(machine: FakeMachine) -> None:
    """The cloud boots another compose text under the same app id."""
    machine.prepared = replace(machine.prepared, app_compose=OTHER.app_compose)
    machine.boot()


def run_as_another_application(machine: FakeMachine) -> None:
    """The cloud boots the same text under another app id, without the variables that it cannot open."""
    machine.prepared, machine.sealed = replace(machine.prepared, app_id="ab" * 20), None
    machine.boot()


@pytest.mark.parametrize(
    ("swap", "check"), [(run_another_text, "compose hash"), (run_as_another_application, "app id")]
)
async def test_another_application_than_agreed_is_refused(
    cloud: FakeCloud, backend: PhalaBackend, swap: Callable[[FakeMachine], None], check: str
) -> None:
    """A well-signed quote of a guest that runs something else violates the policy."""
    machine = await deployed(backend)
    swap(cloud.machines[0])
    evidence = await backend.witness.evidence(machine, b"")
    with pytest.raises(PolicyViolationError, match=f"^{check}: expected"):
        verify(cloud, evidence, policy_of(cloud, machine))


async def test_the_agreed_text_beside_another_guests_quote_is_refused(
    cloud: FakeCloud, backend: PhalaBackend
) -> None:
    """A cloud that shows the text that was agreed and runs another one is found out without a stated hash."""
    machine = await deployed(backend)
    run_another_text(cloud.machines[0])
    evidence = await backend.witness.evidence(machine, b"")
    shown = replace(evidence, app_compose=AGREED.app_compose)
    with pytest.raises(PolicyViolationError, match="^compose text: expected"):
        verify(cloud, shown, replace(policy_of(cloud, machine), compose_hash=None))


async def test_a_log_that_was_edited_to_please_is_refused(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """The agreed hash written into another guest's log does not replay to what that guest measured."""
    machine = await deployed(backend)
    run_another_text(cloud.machines[0])
    evidence = await backend.witness.evidence(machine, b"")
    pleasing = evidence.event_log.replace(OTHER.compose_hash.hex(), AGREED.compose_hash.hex())
    assert pleasing != evidence.event_log
    forged = replace(evidence, event_log=pleasing, app_compose=AGREED.app_compose)
    with pytest.raises(PolicyViolationError, match="^event log: replays to"):
        verify(cloud, forged, policy_of(cloud, machine))


async def test_a_quote_without_its_certificate_is_no_evidence() -> None:
    """As documented the cloud tells only a fingerprint: that is said, and nothing is verified by half."""
    async with FakeCloud(tells_certificates=False) as cloud:
        backend = backend_of(cloud)
        machine = await deployed(backend)
        with pytest.raises(
            PolicyViolationError, match=r"without the application's certificate.*fingerprint \([0-9a-f]{64}\)"
        ):
            await backend.witness.evidence(machine, b"")
        await backend.aclose()


async def test_a_machine_that_is_not_up_has_no_evidence_yet() -> None:
    """That passes: the error may be tried again, and has the cloud's reason."""
    async with FakeCloud(boot_s=600.0) as cloud:
        backend = backend_of(cloud)
        machine = await deployed(backend)
        with pytest.raises(AttestorUnavailableError, match="the guest does not answer") as caught:
            await backend.witness.evidence(machine, b"")
        await backend.aclose()
    assert caught.value.retryable


async def test_evidence_that_is_malformed_is_an_error_of_the_cloud(
    cloud: FakeCloud, backend: PhalaBackend
) -> None:
    """Neither a quote that is no hexadecimal nor a certificate that is no certificate is passed on."""
    machine = await deployed(backend)
    for members in ({"quote": "zz", "pem": "x"}, {"quote": "00", "pem": "x"}):
        told = {"app_certificates": [members], "tcb_info": {"app_compose": "{}", "event_log": []}}
        cloud.fail("GET", "/cvms/{id}/attestation", Fault(body=json.dumps(told).encode()))
        with pytest.raises(CloudProtocolError, match="attestation"):
            await backend.witness.evidence(machine, b"")


async def test_the_certificate_of_another_guest_is_refused(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """The quote vouches for one key: a certificate with another one is not the application's."""
    machine = await deployed(backend)
    other = await backend.scaling.replicate(machine, "")
    mine, theirs = [await backend.witness.evidence(found, b"") for found in (machine, other)]
    verify(cloud, theirs, policy_of(cloud, machine))
    with pytest.raises(PolicyViolationError, match="^report data: expected"):
        verify(cloud, replace(mine, certificate=theirs.certificate), policy_of(cloud, machine))
