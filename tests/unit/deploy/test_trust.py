"""Which KMS is believed: the pinned one, else the first, and never another one after that."""

import json
from pathlib import Path

import pytest

from blueprint.errors import AttestationError, PolicyViolationError
from blueprint.tee.simulator.kms import SimulatedKms
from jobs.deploy.backends.backend import PublicKey
from jobs.deploy.errors import DeployError
from jobs.deploy.trust import KmsTrust

KMS, OTHER = SimulatedKms(b"k" * 32), SimulatedKms(b"o" * 32)
APP_ID = bytes(range(20))
NOW_S = 1_800_000_000


def stated(by: SimulatedKms = KMS, *, timestamp_s: int | None = NOW_S, kms: str = "kms") -> PublicKey:
    """What a KMS says of the application's key."""
    signature = by.sign_public_key(APP_ID, timestamp_s=timestamp_s)
    return PublicKey(key=by.env_public_key(APP_ID), signature=signature, timestamp_s=timestamp_s, kms=kms)


def trust(file: Path | None = None, *pinned: SimulatedKms, said: list[str] | None = None) -> KmsTrust:
    """Decides about keys at a given time."""
    announce = (lambda _: None) if said is None else said.append
    return KmsTrust(
        pinned=[kms.root_public_key for kms in pinned],
        remembered=file,
        announce=announce,
        now_s=lambda: NOW_S,
    )


def test_the_first_key_is_recorded_and_announced_once(tmp_path: Path) -> None:
    """What is trusted without having been compared is said, with where it stands and what to do."""
    file, said = tmp_path / "state" / "kms.json", list[str]()
    for _ in range(2):
        assert trust(file, said=said).verify(APP_ID.hex(), stated()).signer == KMS.root_public_key
    (line,) = said
    assert KMS.root_public_key.hex() in line
    assert str(file) in line
    assert "--kms-key" in line
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text()) == {"kms": KMS.root_public_key.hex()}


def test_another_key_than_the_first_is_refused_for_ever(tmp_path: Path) -> None:
    """Also when it is said to be of another KMS: whoever offers a key also chooses that name."""
    file = tmp_path / "kms.json"
    trust(file).verify(APP_ID.hex(), stated())
    for kms in ("kms", "two", ""):
        with pytest.raises(AttestationError, match="is not pinned"):
            trust(file).verify(APP_ID.hex(), stated(OTHER, kms=kms))
    assert json.loads(file.read_text()) == {"kms": KMS.root_public_key.hex()}
    assert trust(file, OTHER).verify(APP_ID.hex(), stated(OTHER, kms="two")).signer == OTHER.root_public_key
    assert trust(file).verify(APP_ID.hex(), stated(kms="three")).signer == KMS.root_public_key
    assert trust(file).verify(APP_ID.hex(), stated()).signer == KMS.root_public_key


def test_a_pinned_key_is_the_only_one(tmp_path: Path) -> None:
    """What was believed before counts no more, and nothing new is remembered."""
    file = tmp_path / "kms.json"
    trust(file).verify(APP_ID.hex(), stated())
    with pytest.raises(AttestationError, match="is not pinned"):
        trust(file, OTHER).verify(APP_ID.hex(), stated())
    assert trust(file, OTHER).verify(APP_ID.hex(), stated(OTHER)).signer == OTHER.root_public_key
    assert json.loads(file.read_text()) == {"kms": KMS.root_public_key.hex()}


@pytest.mark.parametrize("age_s", [301, -61])
def test_a_statement_that_is_refused_makes_nobody_trusted(tmp_path: Path, age_s: int) -> None:
    """An old statement, or one from the future, is not what a KMS becomes known by."""
    file, said = tmp_path / "kms.json", list[str]()
    with pytest.raises(AttestationError, match="accepted"):
        trust(file, said=said).verify(APP_ID.hex(), stated(timestamp_s=NOW_S - age_s))
    assert not file.exists()
    assert not said


def test_without_a_signature_nothing_is_sealed(tmp_path: Path) -> None:
    """Not on first use either."""
    bare = PublicKey(key=KMS.env_public_key(APP_ID), signature=b"", kms="kms")
    with pytest.raises(PolicyViolationError, match="without the KMS's signature"):
        trust(tmp_path / "kms.json").verify(APP_ID.hex(), bare)
    assert not (tmp_path / "kms.json").exists()


def test_without_a_pin_and_without_a_memory_nobody_is_believed() -> None:
    """The error says how to name a key."""
    with pytest.raises(AttestationError, match="--kms-key"):
        trust().verify(APP_ID.hex(), stated())


@pytest.mark.parametrize("content", ["{", "[]", '{"kms": ""}', '{"kms": "zz"}', '{"kms": 5}'])
def test_a_damaged_memory_is_named_not_passed_over(tmp_path: Path, content: str) -> None:
    """Otherwise whoever can damage the file makes the next key the first one."""
    file = tmp_path / "kms.json"
    file.write_text(content)
    with pytest.raises(DeployError, match=r"kms\.json is no file .*move it away"):
        trust(file).verify(APP_ID.hex(), stated())
    assert file.read_text() == content
