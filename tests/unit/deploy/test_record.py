"""The file of a deployment: what is written comes back, and what cannot be read stops with its name."""

import json
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

import pytest

from blueprint.tee.sealing import SecretVariable
from jobs.deploy.backends.backend import Placement
from jobs.deploy.record import DeploymentRecord, RecordError, RecordStore, Stage, VariablesDigest

SECRET = "s3cret"
RECORD = DeploymentRecord(
    name="web-app",
    place="phala",
    stage=Stage.VERIFIED,
    app_id="ab" * 20,
    app_compose='{"name":"web-app","note":"größer\\u2028"}',
    compose_hash="cd" * 32,
    names=("TOKEN", "OTHER"),
    variables=VariablesDigest.of([SecretVariable("TOKEN", SECRET)]),
    sealed="ef" * 32,
    one_shots=("migrate",),
    public_key="01" * 32,
    public_key_signature="02" * 65,
    public_key_timestamp_s=1_700_000_000,
    kms="kms_1",
    kms_signer="03" * 33,
    machine_id="m1",
    instance_id="04" * 20,
    endpoints=("https://one.test", "https://two.test"),
    placement=Placement(instance_type="tdx.small", disk_gb=40),
    os_image_hash="05" * 32,
    price="0.06 USD/h",
    order="06" * 32,
    prepared_at_s=1.5,
    updated_at_s=2.5,
    attestation="07" * 32,
    checks=("debug: off",),
    is_verification_waived=True,
)


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    """A folder that does not exist yet."""
    return RecordStore(tmp_path / "state" / "deployments")


def written(store: RecordStore, record: DeploymentRecord = RECORD) -> Path:
    """Write a record as a command does."""
    with store.locked(record.name) as entry:
        entry.write(record)
        return entry.path


def test_every_member_comes_back(store: RecordStore) -> None:
    """None is forgotten, none changes its type, and each differs here from what it is by default."""
    bare = DeploymentRecord(
        name="", place="", stage=Stage.PREPARED, app_id="", app_compose="", compose_hash=""
    )
    assert not [each.name for each in fields(bare) if getattr(bare, each.name) == getattr(RECORD, each.name)]
    written(store)
    assert store.get("web-app") == RECORD
    assert store.all() == [RECORD]


def test_the_file_is_its_accounts_alone(store: RecordStore) -> None:
    """Nobody else reads what is deployed where; no value of a variable is in it."""
    path = written(store)
    assert {path.stat().st_mode & 0o777, path.with_name(".web-app.lock").stat().st_mode & 0o777} == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert SECRET not in path.read_text()


def test_members_of_a_later_version_are_left_out(store: RecordStore) -> None:
    """Also inside of a member: an older version still reads the file."""
    path = written(store)
    content = json.loads(path.read_text())
    content["mood"] = "fine"
    content["placement"]["rack"] = 7
    path.write_text(json.dumps(content))
    assert store.get("web-app") == RECORD


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "record of format 1"),
        ({"format": None}, "record of format 1"),
        ({"stage": "flying"}, "the member stage"),
        ({"app_id": 7}, "the member app_id"),
        ({"names": "TOKEN"}, "the member names"),
        ({"placement": {"disk_gb": "large"}}, r"the member placement\.disk_gb"),
        ({"app_compose": None}, "the member app_compose"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    store: RecordStore, change: dict[str, object], said: str
) -> None:
    """Another format, and members of another kind: nothing is guessed, and the file stays as it is."""
    path = written(store)
    text = json.dumps(json.loads(path.read_text()) | change)
    path.write_text(text)
    with pytest.raises(RecordError, match=f"{path}: .*{said}.*; move the file away"), store.locked("web-app"):
        pytest.fail("it was opened")
    with pytest.raises(RecordError, match=said):
        store.all()
    assert path.read_text() == text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000], ids=str)
def test_a_file_that_is_none_is_named(store: RecordStore, content: bytes) -> None:
    """Half a file, another kind of JSON, none at all."""
    path = written(store)
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"web-app\.json: "):
        store.get("web-app")


def test_a_write_that_fails_leaves_the_old_file(store: RecordStore) -> None:
    """A record is replaced as a whole or not at all, and nothing half written stays."""
    path = written(store)
    bad = replace(RECORD, price="\ud800")  # no UTF-8: the write fails in its middle
    with store.locked("web-app") as entry, pytest.raises(UnicodeEncodeError):
        entry.write(bad)
    assert store.get("web-app") == RECORD
    assert sorted(each.name for each in path.parent.iterdir()) == [".web-app.lock", "web-app.json"]


def test_one_command_at_a_time_works_on_a_deployment(store: RecordStore) -> None:
    """A second one is told at once; one on another deployment goes on, and so does the next one."""
    with ExitStack() as held:
        held.enter_context(store.locked("web-app"))
        held.enter_context(store.locked("other-app"))
        with pytest.raises(RecordError, match="another command is at work on web-app"):
            held.enter_context(store.locked("web-app"))
    with store.locked("web-app") as entry:
        assert entry.record is None


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "1app", "a" * 64, "a\n"])
def test_a_name_does_not_lead_out_of_the_folder(store: RecordStore, name: str) -> None:
    """It is a file's name too."""
    with pytest.raises(RecordError, match="cannot be the name"):
        store.get(name)
    with pytest.raises(RecordError, match="cannot be the name"), store.locked(name):
        pytest.fail("it was opened")
    assert not store.folder.exists()


def test_a_change_of_variables_is_noticed_without_keeping_them() -> None:
    """In whatever order they come; each digest has a salt of its own."""
    one, two = SecretVariable("A", "1"), SecretVariable("B", "2")
    digest = VariablesDigest.of([one, two])
    assert digest.matches([two, one])
    for other in (
        [one],
        [one, SecretVariable("B", "3")],
        [SecretVariable("A", "12"), SecretVariable("B", "")],
    ):
        assert not digest.matches(other)
    assert VariablesDigest.of([one, two]) != digest
