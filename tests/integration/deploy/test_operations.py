"""Deployments that exist are moved with all their machines, and prove themselves again afterwards."""

import asyncio
from pathlib import Path

import pytest

from blueprint.errors import PolicyViolationError
from blueprint.tee.sealing import SecretVariable
from blueprint.testing.cloud import FakeCloud, Fault
from jobs.deploy import operations
from jobs.deploy.app_compose import AppCompose
from jobs.deploy.backends.backend import MachineState, Placement
from jobs.deploy.cloud.errors import CloudServerError, UnknownChoiceError
from jobs.deploy.errors import NotReadyError
from jobs.deploy.record import Stage
from jobs.deploy.service import DockerDeploymentService, UnknownDeploymentError
from jobs.deploy.wanted import DeploymentConflictError, Wanted
from tests.support.cloud_service import service_at

GREETING = [SecretVariable("GREETING", "hello")]


def wanted(image: str = "nginx:1.25") -> Wanted:
    """A web application that may receive one variable."""
    text = f"services:\n  web:\n    image: {image}\n    environment: [GREETING]\n"
    measured = AppCompose(name="web-app", docker_compose_file=text, allowed_envs=("GREETING",))
    return Wanted(
        workload=measured.workload(), names=("GREETING",), placement=Placement(instance_type="tdx.small")
    )


async def two(service: DockerDeploymentService) -> None:
    """Deploy the application, and a replica of it."""
    await service.up(wanted(), GREETING)
    await operations.replicate(service, "web-app", "", is_verified=True)


def greetings(cloud: FakeCloud) -> list[list[str]]:
    """What reached each machine's guest."""
    return [[each.value for each in machine.guest.variables] for machine in cloud.machines if machine.guest]


async def test_a_replica_is_verified_changed_and_deleted_with_its_deployment(
    cloud: FakeCloud, tmp_path: Path
) -> None:
    """It has the variables, gets new ones and another text with the first, and is not left behind."""
    async with service_at(cloud, tmp_path) as service:
        await two(service)
        assert greetings(cloud) == [["hello"], ["hello"]]
        record = await service.up(wanted("nginx:1.26"), [SecretVariable("GREETING", "new")])
        assert greetings(cloud) == [["new"], ["new"]]
        assert {machine.prepared.compose_hash for machine in cloud.machines} == {record.compose_hash}
        assert record.stage is Stage.VERIFIED
        assert (await service.delete("web-app")).app_id == record.app_id
    assert list(cloud.machines) == []


async def test_a_replica_whose_answer_was_lost_is_found_not_ordered_again(
    cloud: FakeCloud, tmp_path: Path
) -> None:
    """A cut connection after the order was carried out ends with one replica."""
    async with service_at(cloud, tmp_path) as service:
        await service.up(wanted(), GREETING)
        cloud.fail("POST", "/cvms/{id}/replicas", Fault(is_cut=True))
        record, replica = await operations.replicate(service, "web-app", "", is_verified=True)
        assert (len(cloud.machines), replica.app_id) == (2, record.app_id)
        assert replica.id not in ("", record.machine_id)
    assert len([each for each in cloud.requests if each.endswith("/replicas")]) == 1


async def test_an_order_for_a_replica_that_was_not_carried_out_fails(
    cloud: FakeCloud, tmp_path: Path
) -> None:
    """A node that is not there and a failing cloud are told as they are; nothing is recorded or made."""
    async with service_at(cloud, tmp_path) as service:
        await service.up(wanted(), GREETING)
        with pytest.raises(UnknownChoiceError):
            await operations.replicate(service, "web-app", "node-1", is_verified=True)
        cloud.fail("POST", "/cvms/{id}/replicas", Fault(status=500))
        with pytest.raises(CloudServerError):
            await operations.replicate(service, "web-app", "", is_verified=True)
    assert len(cloud.machines) == 1


async def test_a_replica_that_runs_something_else_is_found(cloud: FakeCloud, tmp_path: Path) -> None:
    """One machine that does not prove what was deployed takes the attestation from the record."""
    async with service_at(cloud, tmp_path) as service:
        await two(service)
        (_, replica) = cloud.machines
        evil = wanted("nginx:evil").workload
        replica.prepared.app_compose = evil.app_compose
        replica.boot()
        with pytest.raises(PolicyViolationError, match="compose hash"):
            await service.verify("web-app")
        record = service.records.get("web-app")
    assert record is not None
    assert (record.stage, record.attestation, record.checks) == (Stage.READY, "", ())


async def test_one_guest_does_not_prove_two_machines(cloud: FakeCloud, tmp_path: Path) -> None:
    """The cloud shows the first machine's evidence for the replica too, which may then run anything."""
    async with service_at(cloud, tmp_path) as service:
        await two(service)
        first, replica = cloud.machines
        replica.guest = first.guest
        with pytest.raises(PolicyViolationError, match="one instance"):
            await service.verify("web-app")
        record = service.records.get("web-app")
    assert record is not None
    assert (record.stage, record.attestation) == (Stage.READY, "")


async def test_all_machines_stop_and_start_together(cloud: FakeCloud, tmp_path: Path) -> None:
    """After `stop` none runs, and after `start` all run and are verified; again, nothing is asked."""
    async with service_at(cloud, tmp_path) as service:
        await two(service)
        stopped = await operations.stop(service, "web-app", is_forced=False)
        assert [machine.state for machine in stopped] == [MachineState.STOPPED] * 2
        assert [machine.status for machine in cloud.machines] == ["stopped"] * 2
        record = await operations.start(service, "web-app", is_verified=True)
        assert (record.stage, [each.status for each in cloud.machines]) == (Stage.VERIFIED, ["running"] * 2)
        asked = len([each for each in cloud.requests if each.startswith("POST")])
        await operations.start(service, "web-app", is_verified=True)
        assert len([each for each in cloud.requests if each.startswith("POST")]) == asked
    acted = [each.rpartition("/")[2] for each in cloud.requests if each.startswith("POST /cvms/")]
    assert acted[-4:] == ["shutdown", "shutdown", "start", "start"]


async def test_force_cuts_the_power(cloud: FakeCloud, tmp_path: Path) -> None:
    """A guest that does not end is waited for, then given up with that advice; force does not ask it."""
    async with service_at(cloud, tmp_path, timeout_s=0.3) as service:
        await service.up(wanted(), GREETING)
        cloud.fail("POST", "/cvms/{id}/shutdown", Fault(status=202))
        with pytest.raises(NotReadyError, match="had not stopped after 0.3 s; .* stop --force web-app"):
            await operations.stop(service, "web-app", is_forced=False)
        await operations.stop(service, "web-app", is_forced=True)
    assert cloud.requests[-1].startswith("GET")
    assert [each for each in cloud.requests if each.endswith("/stop")]


async def test_a_machine_that_is_still_stopping_is_started_afterwards(
    cloud: FakeCloud, tmp_path: Path
) -> None:
    """It is waited for until it has stopped: a start in between would be refused or lost."""
    async with service_at(cloud, tmp_path) as service:
        await service.up(wanted(), GREETING)
        (machine,) = cloud.machines
        machine.wanted = "stopping"
        asyncio.get_running_loop().call_later(0.05, setattr, machine, "wanted", "stopped")
        await operations.start(service, "web-app", is_verified=True)
        assert machine.status == "running"


async def test_a_restart_boots_what_runs_and_starts_what_does_not(cloud: FakeCloud, tmp_path: Path) -> None:
    """One machine is restarted, the stopped replica is started."""
    async with service_at(cloud, tmp_path) as service:
        await two(service)
        cloud.machines[1].wanted = "stopped"
        before = len(cloud.requests)
        await operations.restart(service, "web-app", is_verified=True)
    acted = [each.rpartition("/")[2] for each in cloud.requests[before:] if each.startswith("POST")]
    assert acted == ["restart", "start"]


async def test_a_replica_is_deleted_even_where_the_first_machine_is_gone(
    cloud: FakeCloud, tmp_path: Path
) -> None:
    """Somebody removed the first elsewhere: nothing else works on it, but delete removes all that is left."""
    async with service_at(cloud, tmp_path) as service:
        await two(service)
        cloud.machines.pop(0)
        with pytest.raises(DeploymentConflictError, match="is gone from phala; .* delete web-app"):
            await operations.restart(service, "web-app", is_verified=True)
        await service.delete("web-app")
        assert service.records.all() == []
    assert list(cloud.machines) == []


async def test_what_is_only_prepared_or_unknown_cannot_be_moved(cloud: FakeCloud, tmp_path: Path) -> None:
    """The errors say what to do instead, and name a deployment that may have been meant."""
    async with service_at(cloud, tmp_path) as service:
        await service.prepare(wanted())
        for move in (operations.start, operations.restart):
            with pytest.raises(DeploymentConflictError, match="only prepared: nothing runs; .* up"):
                await move(service, "web-app", is_verified=True)
        with pytest.raises(UnknownDeploymentError, match="did you mean 'web-app'"):
            await operations.stop(service, "webapp", is_forced=False)
    assert list(cloud.machines) == []
