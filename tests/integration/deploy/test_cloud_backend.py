"""The client and the adapter against the fake cloud, and every fault that it can make."""

import hashlib
import json
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from blueprint.tee.kms_key import verify_public_key
from blueprint.tee.sealing import SecretVariable, seal
from blueprint.testing.cloud import FakeCloud, Fault
from jobs.deploy.backends.backend import Action, Health, Machine, MachineState, Placement, Workload
from jobs.deploy.backends.phala import PhalaBackend
from jobs.deploy.cloud import errors
from jobs.deploy.cloud.client import CloudClient
from jobs.deploy.cloud.retry import Retrier
from jobs.deploy.errors import DeployError


def workload(*, name: str = "web-app", image: str = "nginx:1.25") -> Workload:
    """A measured application with one service and one variable."""
    compose = {
        "manifest_version": 2,
        "name": name,
        "runner": "docker-compose",
        "docker_compose_file": f"services:\n  web:\n    image: {image}\n    environment: [GREETING]\n",
        "kms_enabled": True,
        "gateway_enabled": True,
        "public_logs": True,
        "public_sysinfo": False,
        "allowed_envs": ["GREETING"],
    }
    made = json.dumps(compose, sort_keys=True, separators=(",", ":")).encode()
    return Workload(name=name, app_compose=made, compose_hash=hashlib.sha256(made).digest())


async def no_wait(seconds: float) -> None:
    """Do not wait."""


def backend_of(cloud: FakeCloud, *, key: str | None = None) -> PhalaBackend:
    """Our adapter, which waits for nothing."""
    retrier = Retrier(sleep=no_wait, jitter=lambda: 0.0)
    client = CloudClient(
        api_key=SecretStr(key or cloud.api_key), base_url=cloud.url, retrier=retrier, timeout_s=5
    )
    return PhalaBackend(client, poll_s=0.01)


@pytest.fixture
async def cloud() -> AsyncIterator[FakeCloud]:
    """A cloud of its own for each test."""
    async with FakeCloud() as made:
        yield made


@pytest.fixture
async def backend(cloud: FakeCloud) -> AsyncIterator[PhalaBackend]:
    """The adapter to it."""
    made = backend_of(cloud)
    yield made
    await made.aclose()


async def deployed(backend: PhalaBackend, value: str = "hello") -> Machine:
    """A machine with one variable."""
    made = workload()
    placement = Placement(instance_type="tdx.small")
    provision = await backend.provisioning.provision(made, placement)
    assert provision.compose_hash == made.compose_hash
    assert provision.public_key is not None
    sealed = seal([SecretVariable("GREETING", value)], provision.public_key.key)
    return await backend.provisioning.commit(made, placement, provision, sealed, ["GREETING"])


async def test_a_deployment_boots_with_what_was_sealed(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """The guest opens exactly the variables that were sealed to the key that the pinned KMS vouches for."""
    machine = await deployed(backend)
    guest = cloud.machines[0].guest
    assert guest is not None
    assert [("GREETING", "hello")] == [(found.key, found.value) for found in guest.variables]
    key = await backend.witness.public_key(machine.app_id, "phala")
    verified = verify_public_key(
        app_id=bytes.fromhex(machine.app_id),
        public_key=key.key,
        signature=key.signature,
        pinned_keys=[cloud.kms.root_public_key],
    )
    assert cloud.kms.root_public_key == verified.signer


async def test_the_same_commit_again_gives_the_same_machine(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """A commit whose answer is cut off is sent again, and one machine exists."""
    cloud.fail("POST", "/cvms", Fault(is_cut=True))
    machine = await deployed(backend)
    assert [machine.id] == [made.vm_uuid for made in cloud.machines]
    assert 2 == cloud.requests.count("POST /cvms")


async def test_an_order_is_sent_once(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """A provision whose answer is cut off is not sent again by itself."""
    cloud.fail("POST", "/cvms/provision", Fault(is_cut=True))
    with pytest.raises(errors.CloudInterruptedError):
        await backend.provisioning.provision(workload(), Placement())
    assert 1 == cloud.requests.count("POST /cvms/provision")


async def test_watching_ends_when_the_machine_runs() -> None:
    """Events tell of the boot until its end."""
    async with FakeCloud(boot_s=0.2) as cloud:
        backend = backend_of(cloud)
        machine = await deployed(backend)
        seen = [now.state async for now in backend.observation.watch(machine, MachineState.RUNNING)]
        await backend.aclose()
    assert MachineState.RUNNING == seen[-1]


async def test_a_watch_without_events_asks(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """A stream that breaks is replaced by a question."""
    machine = await deployed(backend)
    cloud.fail("GET", "/cvms/{id}/state", Fault(body=b"no events"))
    seen = [now.state async for now in backend.observation.watch(machine, MachineState.RUNNING)]
    assert [MachineState.RUNNING] == seen


async def test_a_boot_that_fails_ends_the_watch(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """What was not sealed for the application fails its boot, and the watcher is told why."""
    made = workload()
    provision = await backend.provisioning.provision(made, Placement())
    machine = await backend.provisioning.commit(made, Placement(), provision, b"\x09" * 100, ["GREETING"])
    seen = [now async for now in backend.observation.watch(machine, MachineState.RUNNING)]
    assert MachineState.FAILED == seen[-1].state
    assert "sealed variables" in seen[-1].said


async def test_containers_logs_stats_and_evidence_are_told(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """What is inside is seen; the guest's own server never gets the API key."""
    machine = await deployed(backend)
    containers = await backend.observation.containers(machine)
    assert [("web", True, Health.HEALTHY)] == [
        (found.service, found.is_running, found.health) for found in containers
    ]
    log = [piece async for piece in backend.observation.logs(machine, "web", follow=False, tail=5)]
    assert b"started\n" == b"".join(log)
    assert 60 == (await backend.observation.stats(machine)).uptime_s
    evidence = await backend.witness.evidence(machine, b"")
    assert workload().app_compose == evidence.app_compose
    assert evidence.quote
    assert evidence.certificate


async def test_a_container_that_exited_is_not_running(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """A machine that runs says nothing about a container that ended at once."""
    machine = await deployed(backend)
    container = cloud.machines[0].containers[0]
    container.state, container.status = "exited", "Exited (0) 1 second ago"
    (found,) = await backend.observation.containers(machine)
    assert (False, 0) == (found.is_running, found.exit_code)


async def test_a_log_of_an_unknown_service_names_the_known(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """The error lists what runs."""
    machine = await deployed(backend)
    with pytest.raises(DeployError, match="take one of: web"):
        _ = [piece async for piece in backend.observation.logs(machine, "db", follow=False, tail=None)]


async def test_an_update_changes_compose_and_variables(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """The app id stays, and the variables are replaced."""
    machine = await deployed(backend)
    changed = workload(image="nginx:1.26")
    revision = await backend.provisioning.revise(machine, changed)
    assert (machine.app_id, changed.compose_hash) == (revision.app_id, revision.compose_hash)
    assert revision.public_key is not None
    sealed = seal([SecretVariable("GREETING", "bye")], revision.public_key.key)
    await backend.provisioning.apply(machine, revision, sealed, ["GREETING"])
    guest = cloud.machines[0].guest
    assert guest is not None
    assert (changed.compose_hash, "bye") == (guest.compose_hash, guest.variables[0].value)


async def test_a_machine_is_found_moved_and_deleted(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """By each of its names; deleting what is gone is no failure."""
    machine = await deployed(backend)
    for ref in (machine.id, machine.app_id, machine.name):
        found = await backend.machines.get(ref)
        assert found is not None
        assert machine.id == found.id
    assert await backend.machines.get("no-such-app") is None
    await backend.machines.act(machine, Action.STOP)
    assert [MachineState.STOPPED] == [found.state for found in await backend.machines.list()]
    await backend.scaling.resize(machine, Placement(instance_type="tdx.large"))
    assert "tdx.large" == cloud.machines[0].prepared.size["instance_type"]
    await backend.machines.delete(machine)
    await backend.machines.delete(machine)
    assert [] == cloud.machines


FAULTS = [
    (Fault(status=401), errors.UnauthorizedError),
    (Fault(status=403), errors.ForbiddenError),
    (Fault(status=409, code="ERR-03-007"), errors.AppConflictError),
    (Fault(status=409), errors.BusyError),
    (Fault(status=422), errors.InvalidRequestError),
    (Fault(status=429, retry_after="1000"), errors.RateLimitedError),
    (Fault(status=465), errors.HashUnregisteredError),
    (Fault(status=466), errors.HashExpiredError),
    (Fault(status=500), errors.CloudServerError),
    (Fault(status=409, code="ERR-02-005"), errors.NoRoomError),
    (Fault(status=403, code="ERR-04-002"), errors.QuotaError),
    (Fault(status=409, code="ERR-01-004"), errors.NameTakenError),
    (Fault(status=302, headers={"Location": "https://elsewhere.test/"}), errors.CloudProtocolError),
    (Fault(body=b"<html>"), errors.CloudProtocolError),
    (Fault(body=b'{"hash": 1}'), errors.CloudProtocolError),
    (Fault(is_cut=True), errors.CloudInterruptedError),
    (Fault(delay_s=6), errors.CloudInterruptedError),
]


@pytest.mark.parametrize(("fault", "kind"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_fault_is_an_error_with_advice(fault: Fault, kind: type[errors.CloudError]) -> None:
    """Each fault of an order becomes its own class, with what to do, and no machine exists."""
    async with FakeCloud() as cloud:
        cloud.fail("POST", "/cvms/provision", fault)
        client = CloudClient(api_key=SecretStr(cloud.api_key), base_url=cloud.url, timeout_s=0.5)
        async with client:
            with pytest.raises(kind) as caught:
                await PhalaBackend(client).provisioning.provision(workload(), Placement())
        assert caught.value.advice
        assert cloud.api_key not in str(caught.value)
        assert [] == cloud.machines


async def test_full_nodes_quota_and_a_taken_name_are_told() -> None:
    """The cloud's own state makes these, without a fault."""
    for limits, kind in (
        ({"slots": 0}, errors.NoRoomError),
        ({"max_machines": 0}, errors.QuotaError),
    ):
        async with FakeCloud(**limits) as cloud:
            backend = backend_of(cloud)
            with pytest.raises(kind):
                await backend.provisioning.provision(workload(), Placement())
            await backend.aclose()
    async with FakeCloud() as cloud:
        backend = backend_of(cloud)
        await deployed(backend)
        with pytest.raises(errors.NameTakenError):
            await backend.provisioning.provision(workload(), Placement())
        await backend.aclose()


async def test_an_unknown_instance_type_is_found_before_the_order(
    cloud: FakeCloud, backend: PhalaBackend
) -> None:
    """The error lists what is offered, and nothing was ordered."""
    with pytest.raises(errors.UnknownChoiceError, match=r"tdx\.medium"):
        await backend.provisioning.provision(workload(), Placement(instance_type="tdx.huge"))
    assert "POST /cvms/provision" not in cloud.requests


async def test_two_different_public_keys_stop_the_deployment(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """The key of the order must be the key of the KMS."""
    other = json.dumps({"public_key": "11" * 32, "signature": ""}).encode()
    cloud.fail("GET", "/kms/{kms}/pubkey/{app_id}", Fault(body=other))
    with pytest.raises(errors.CloudProtocolError, match="its KMS's"):
        await backend.provisioning.provision(workload(), Placement())


async def test_a_wrong_key_is_refused(cloud: FakeCloud) -> None:
    """401 is not retried."""
    backend = backend_of(cloud, key="wrong")
    with pytest.raises(errors.UnauthorizedError, match="request id req_1"):
        await backend.machines.list()
    await backend.aclose()
    assert 1 == len(cloud.requests)
