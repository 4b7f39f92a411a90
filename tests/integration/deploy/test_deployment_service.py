"""The deployment service through the real client against the fake cloud: created once, changed, proved."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from blueprint.errors import AttestationError, PolicyViolationError
from blueprint.tee.sealing import SealingError, SecretVariable, seal
from blueprint.testing.cloud import FakeCloud, Fault
from jobs.deploy.backends.backend import Action, Evidence, Machine, MachineState
from jobs.deploy.cloud.errors import CloudInterruptedError, CloudServerError
from jobs.deploy.cloud.retry import RetryPolicy
from jobs.deploy.errors import ApplicationFailedError, NotReadyError
from jobs.deploy.record import RecordError, Stage
from jobs.deploy.service import UnknownDeploymentError
from jobs.deploy.wanted import DeploymentConflictError, Sealed
from tests.support.cloud_service import GREETING, SECRET, service_at, wanted, workload


def changes(cloud: FakeCloud) -> list[str]:
    """Return the requests that change something."""
    return [request for request in cloud.requests if not request.startswith("GET")]


async def test_an_application_is_created_proved_and_recorded(cloud: FakeCloud, tmp_path: Path) -> None:
    """One call provisions, seals, creates, waits, verifies, and leaves a record without any value in it."""
    said: list[str] = []
    async with service_at(cloud, tmp_path, say=said.append) as service:
        record = await service.up(wanted(), GREETING)
    guest = cloud.machines[0].guest
    assert guest is not None
    assert [(each.key, each.value) for each in guest.variables] == [("GREETING", SECRET)]
    assert (record.stage, len(record.attestation)) == (Stage.VERIFIED, 64)
    assert record.app_compose.encode() == workload().app_compose
    assert record.kms_signer == cloud.kms.root_public_key.hex()
    assert any("trusted from now on" in line for line in said)
    file = tmp_path / "deployments" / "web-app.json"
    assert SECRET not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    assert service.records.get("web-app") == record


async def test_what_stands_still_is_started_when_it_is_wanted_up(cloud: FakeCloud, tmp_path: Path) -> None:
    """A machine that was stopped, or did not boot, is started by the same command and stays the same one."""
    async with service_at(cloud, tmp_path) as service:
        first = await service.up(wanted(), GREETING)
        await service.backend.machines.act((await service.machine("web-app"))[1], Action.SHUTDOWN)
        assert (await service.machine("web-app"))[1].state is MachineState.STOPPED
        assert (await service.up(wanted(), GREETING)).machine_id == first.machine_id
        cloud.machines[0].boot_error = "the disk was full"
        assert (await service.machine("web-app"))[1].state is MachineState.FAILED
        record = await service.up(wanted(), GREETING)
        assert (await service.machine("web-app"))[1].state is MachineState.RUNNING
    assert (record.stage, record.machine_id, len(cloud.machines)) == (Stage.VERIFIED, first.machine_id, 1)


async def test_the_same_again_changes_nothing(cloud: FakeCloud, tmp_path: Path) -> None:
    """A second run of the same command asks and verifies, and sends nothing that changes anything."""
    async with service_at(cloud, tmp_path) as service:
        await service.up(wanted(), GREETING)
        before = changes(cloud)
        record = await service.up(wanted(), GREETING)
    assert changes(cloud) == before
    assert record.stage is Stage.VERIFIED


async def test_a_changed_variable_replaces_all_and_nothing_else(cloud: FakeCloud, tmp_path: Path) -> None:
    """Another value is noticed without the old one being kept; the application itself is not sent again."""
    async with service_at(cloud, tmp_path) as service:
        await service.up(wanted(), GREETING)
        before = len(changes(cloud))
        await service.up(wanted(), [SecretVariable("GREETING", "another")])
    assert [re.sub(r"cvms/[^/]+", "cvms/ID", each) for each in changes(cloud)[before:]] == [
        "PATCH /cvms/ID/envs"
    ]
    guest = cloud.machines[0].guest
    assert guest is not None
    assert guest.variables[0].value == "another"


async def test_another_compose_text_updates_the_machine_by_its_name(cloud: FakeCloud, tmp_path: Path) -> None:
    """The app id stays, the compose hash changes, and the new text is what is proved."""
    async with service_at(cloud, tmp_path) as service:
        first = await service.up(wanted(), GREETING)
        second = await service.up(wanted("nginx:1.26"))
    assert len(cloud.machines) == 1
    assert (second.app_id, second.machine_id) == (first.app_id, first.machine_id)
    assert second.compose_hash == wanted("nginx:1.26").workload.compose_hash.hex() != first.compose_hash
    assert second.stage is Stage.VERIFIED


@pytest.mark.parametrize("answer", [Fault(is_cut=True), Fault(status=500)], ids=["cut", "500"])
@pytest.mark.parametrize("route", ["/cvms/provision", "/cvms"])
async def test_an_interrupted_deployment_goes_on(
    cloud: FakeCloud, tmp_path: Path, route: str, answer: Fault
) -> None:
    """However a request failed, the same command again ends with one machine."""
    async with service_at(cloud, tmp_path) as service:
        # An order is sent once, a commit again and again: it is idempotent.
        cloud.fail("POST", route, answer, times=1 if "provision" in route else RetryPolicy().attempts)
        with pytest.raises((CloudInterruptedError, CloudServerError)):
            await service.up(wanted(), GREETING)
    async with service_at(cloud, tmp_path) as service:
        record = await service.up(wanted(), GREETING)
    assert len(cloud.machines) == 1
    assert record.stage is Stage.VERIFIED


async def test_variables_sealed_by_somebody_else_are_deployed_unseen(
    cloud: FakeCloud, tmp_path: Path
) -> None:
    """The operator prepares, the user seals to the key that was vouched for, the operator commits."""
    async with service_at(cloud, tmp_path) as service:
        prepared = await service.prepare(wanted())
        assert prepared.stage is Stage.PREPARED
        assert await service.prepare(wanted()) == prepared
        sealed = seal(GREETING, bytes.fromhex(prepared.public_key))
        record = await service.up(wanted(), Sealed(ciphertext=sealed, names=("GREETING",)))
    guest = cloud.machines[0].guest
    assert guest is not None
    assert guest.variables[0].value == SECRET
    assert (record.app_id, record.variables) == (prepared.app_id, None)
    assert len([each for each in cloud.requests if each == "POST /cvms/provision"]) == 1


async def test_a_place_that_counts_another_hash_creates_nothing(cloud: FakeCloud, tmp_path: Path) -> None:
    """Both hashes are named, and no machine is made."""
    other = {"app_id": "ab" * 20, "compose_hash": "cd" * 32, "app_env_encrypt_pubkey": "ef" * 32}
    cloud.fail("POST", "/cvms/provision", Fault(body=json.dumps(other).encode()), times=1)
    cloud.fail("GET", "/kms/{kms}/pubkey/{app_id}", Fault(status=404), times=1)
    async with service_at(cloud, tmp_path) as service:
        with pytest.raises(DeploymentConflictError, match=f"{'cd' * 32}, ours is"):
            await service.up(wanted(), GREETING)
    assert not cloud.machines
    assert not (tmp_path / "deployments" / "web-app.json").exists()


async def test_a_name_that_a_stranger_has_is_refused(cloud: FakeCloud, tmp_path: Path) -> None:
    """A machine that was not deployed from here is named, not changed."""
    async with service_at(cloud, tmp_path / "one") as service:
        theirs = await service.up(wanted(), GREETING)
    async with service_at(cloud, tmp_path / "two") as service:
        with pytest.raises(DeploymentConflictError, match=f"not deployed from here .*{theirs.app_id}"):
            await service.up(wanted(), GREETING)
    assert len(cloud.machines) == 1


async def test_variables_are_sealed_to_the_key_that_the_kms_has_now(cloud: FakeCloud, tmp_path: Path) -> None:
    """A key that was rotated is fetched and judged anew with the next change, and the record follows."""
    async with service_at(cloud, tmp_path) as service:
        first = await service.up(wanted(), GREETING)
        cloud.kms.rotate()
        second = await service.up(wanted(), [SecretVariable("GREETING", "another")])
        assert await service.rekey("web-app") == second
    guest = cloud.machines[0].guest
    assert guest is not None
    assert guest.variables[0].value == "another"
    assert second.public_key != first.public_key
    assert second.kms_signer == first.kms_signer


async def test_another_kms_key_is_not_believed(cloud: FakeCloud, tmp_path: Path) -> None:
    """What was trusted on first use stays; a key that another KMS signed seals nothing."""
    (tmp_path / "kms.json").write_text(json.dumps({"phala": "02" + "11" * 32}))
    async with service_at(cloud, tmp_path) as service:
        with pytest.raises(AttestationError, match="is not pinned"):
            await service.up(wanted(), GREETING)
    assert not cloud.machines


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ([], "GREETING"),
        ([*GREETING, SecretVariable("UNUSED", "x")], "UNUSED"),
        ([SecretVariable("GREETING", "x" * (129 * 1024))], "GREETING"),
    ],
    ids=["missing", "unused", "129 KiB"],
)
async def test_variables_that_would_vanish_are_refused_before_anything_is_sent(
    cloud: FakeCloud, tmp_path: Path, variables: list[SecretVariable], named: str
) -> None:
    """Too few, too many or too large: an error that names the variable, and no request."""
    async with service_at(cloud, tmp_path) as service:
        with pytest.raises((DeploymentConflictError, SealingError), match=named):
            await service.up(wanted(), variables)
    assert not cloud.requests


async def test_a_container_that_ends_at_once_fails_the_deployment(cloud: FakeCloud, tmp_path: Path) -> None:
    """A running machine is not enough: the service and its exit code are named."""
    async with service_at(cloud, tmp_path) as service:
        await service.up(wanted(), GREETING)
        for container in cloud.machines[0].containers:
            container.state, container.status = "exited", "Exited (0) 2 seconds ago"
        with pytest.raises(ApplicationFailedError, match="service web ended with exit code 0"):
            await service.up(wanted(), GREETING)


async def test_a_machine_that_never_comes_up_is_given_up(tmp_path: Path) -> None:
    """Waiting ends by its deadline and says what was seen last; the record lets the next run go on."""
    async with FakeCloud(boot_s=600.0) as cloud:
        async with service_at(cloud, tmp_path, timeout_s=0.3) as service:
            with pytest.raises(NotReadyError, match=r"not ready after 0\.3 s; last seen: machine starting"):
                await service.up(wanted(), GREETING)
        record = service.records.get("web-app")
    assert record is not None
    assert record.stage is Stage.COMMITTED


async def test_a_waived_verification_is_recorded(cloud: FakeCloud, tmp_path: Path) -> None:
    """Who asks by name not to verify gets a record that says so, and no attestation."""
    async with service_at(cloud, tmp_path) as service:
        record = await service.up(wanted(), GREETING, is_verified=False)
    assert (record.stage, record.is_verification_waived, record.attestation) == (Stage.READY, True, "")


async def test_evidence_of_another_application_fails_the_deployment(cloud: FakeCloud, tmp_path: Path) -> None:
    """A machine that runs another text than the one deployed is not verified, whatever the place says."""
    async with service_at(cloud, tmp_path) as service:
        record = await service.up(wanted(), GREETING)
        machine = await service.backend.machines.get(record.machine_id)
        assert machine is not None
        evil = wanted("nginx:evil").workload.app_compose
        for app_id, text in ((record.app_id, evil), ("00" * 20, workload().app_compose)):
            with pytest.raises(PolicyViolationError):
                await service._verifier.attest(
                    service.backend.witness, machine, app_id=app_id, app_compose=text
                )


async def test_a_machine_of_another_application_is_not_verified_by_its_own_word(
    cloud: FakeCloud, tmp_path: Path
) -> None:
    """The cloud runs the same text under another app id, and tells that app id with the machine."""
    async with service_at(cloud, tmp_path) as service:
        await service.up(wanted(), GREETING)
        (machine,) = cloud.machines
        machine.prepared, machine.sealed = replace(machine.prepared, app_id="ab" * 20), None
        machine.boot()
        assert (await service.machine("web-app"))[1].app_id == "ab" * 20
        with pytest.raises(PolicyViolationError, match="^app id: expected"):
            await service.verify("web-app")


async def test_the_recorded_instance_is_the_one_that_was_proved(cloud: FakeCloud, tmp_path: Path) -> None:
    """What the cloud tells of it is replaced by what the guest measured."""
    async with service_at(cloud, tmp_path) as service:
        await service.up(wanted(), GREETING)
        (machine,) = cloud.machines
        assert machine.guest is not None
        machine.instance_id = "no instance at all"
        record, attestation = await service.verify("web-app")
    assert record.instance_id == machine.guest.instance_id.hex()
    assert attestation.verified.instance_id == machine.guest.instance_id


class Witnessed:
    """A witness whose evidence is changed."""

    def __init__(self, inner: object, **changed: object) -> None:
        self._inner = inner
        self._changed = changed

    async def public_key(self, app_id: str, kms: str) -> object:
        return await self._inner.public_key(app_id, kms)  # type: ignore[attr-defined]

    async def evidence(self, machine: Machine, nonce: bytes) -> Evidence:
        return replace(await self._inner.evidence(machine, nonce), **self._changed)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"nonce": hashlib.sha512(b"older").digest()}, "another nonce than ours"),
        ({"certificate": b""}, "without the application's certificate"),
    ],
    ids=["another nonce", "no certificate"],
)
async def test_evidence_for_another_nonce_or_nobody_is_refused(
    cloud: FakeCloud, tmp_path: Path, changed: dict[str, object], says: str
) -> None:
    """A quote that binds neither our nonce nor a certificate could be anybody's, or old."""
    async with service_at(cloud, tmp_path) as service:
        record = await service.up(wanted(), GREETING)
        machine = await service.backend.machines.get(record.machine_id)
        assert machine is not None
        witness = Witnessed(service.backend.witness, **changed)
        with pytest.raises(PolicyViolationError, match=says):
            await service._verifier.attest(
                witness,  # type: ignore[arg-type]
                machine,
                app_id=record.app_id,
                app_compose=workload().app_compose,
            )


async def test_delete_removes_the_machine_and_forgets_it(cloud: FakeCloud, tmp_path: Path) -> None:
    """Deleted twice, the second time there is nothing of this name; a machine gone already is no failure."""
    async with service_at(cloud, tmp_path) as service:
        await service.up(wanted(), GREETING)
        await service.delete("web-app")
        assert not await service.backend.machines.list()
        with pytest.raises(UnknownDeploymentError):
            await service.delete("web-app")


async def test_two_commands_do_not_work_on_one_deployment(cloud: FakeCloud, tmp_path: Path) -> None:
    """The second is told to wait."""
    async with service_at(cloud, tmp_path) as service:
        with service.records.locked("web-app"), pytest.raises(RecordError, match="another command"):
            await service.up(wanted(), GREETING)
