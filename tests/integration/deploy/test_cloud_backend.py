"""The client and the adapter against the fake cloud, and every fault that it can make."""

import json

import pytest
from pydantic import SecretStr

from blueprint.tee.kms_key import verify_public_key
from blueprint.tee.sealing import SecretVariable, seal
from blueprint.testing.cloud import FakeCloud, Fault
from jobs.deploy.backends.backend import Action, Health, MachineState, Placement
from jobs.deploy.backends.phala import PhalaBackend
from jobs.deploy.cloud import errors
from jobs.deploy.cloud.client import CloudClient
from jobs.deploy.cloud.retry import Retrier, RetryPolicy
from jobs.deploy.errors import DeployError
from tests.support.cloud_world import backend_of, deployed, no_wait, workload


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


async def test_variables_are_replaced_alone(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """Without a revision only the variables change: what runs and how it is addressed stays."""
    machine = await deployed(backend)
    key = await backend.witness.public_key(machine.app_id, "")
    sealed = seal([SecretVariable("GREETING", "bye")], key.key)
    await backend.provisioning.apply(machine, None, sealed, ["GREETING"])
    guest = cloud.machines[0].guest
    assert guest is not None
    assert [SecretVariable("GREETING", "bye")] == list(guest.variables)
    assert workload().compose_hash == guest.compose_hash
    assert [f"PATCH /cvms/{machine.id}/envs"] == [sent for sent in cloud.requests if "PATCH" in sent]


async def test_a_revision_alone_leaves_the_variables(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """Another text without a new ciphertext boots with the old one."""
    machine = await deployed(backend)
    changed = workload(image="nginx:1.26")
    revision = await backend.provisioning.revise(machine, changed)
    await backend.provisioning.apply(machine, revision, None, [])
    guest = cloud.machines[0].guest
    assert guest is not None
    assert (changed.compose_hash, "hello") == (guest.compose_hash, guest.variables[0].value)


async def test_nothing_to_apply_sends_nothing(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """Neither a revision nor variables is no request."""
    machine = await deployed(backend)
    before = list(cloud.requests)
    await backend.provisioning.apply(machine, None, None, [])
    assert before == cloud.requests


@pytest.mark.parametrize("node", ["", "1"])
async def test_a_replica_is_another_machine_of_the_same_application(
    cloud: FakeCloud, backend: PhalaBackend, node: str
) -> None:
    """It has its own id and instance, and opens the same variables."""
    machine = await deployed(backend)
    replica = await backend.scaling.replicate(machine, node)
    assert machine.app_id == replica.app_id
    assert machine.id != replica.id
    assert machine.instance_id != replica.instance_id
    guests = [made.guest for made in cloud.machines]
    assert [["hello"], ["hello"]] == [[found.value for found in guest.variables] for guest in guests if guest]


async def test_a_replica_on_an_unknown_node_is_found_before_the_order(
    cloud: FakeCloud, backend: PhalaBackend
) -> None:
    """The error lists the nodes, whatever was written, and nothing was ordered."""
    machine = await deployed(backend)
    with pytest.raises(errors.UnknownChoiceError, match="no node 'node-1'; offered: 1"):
        await backend.scaling.replicate(machine, "node-1")
    assert 1 == len(cloud.machines)


async def test_all_pages_of_machines_are_read() -> None:
    """Each machine is listed once, however many pages they fill."""
    async with FakeCloud(max_machines=120, slots=120) as cloud:
        backend = backend_of(cloud)
        machine = await deployed(backend)
        made = [machine, *[await backend.scaling.replicate(machine, "") for _ in range(100)]]
        listed = await backend.machines.list()
        await backend.aclose()
    assert [found.id for found in made] == [found.id for found in listed]
    assert 3 == cloud.requests.count("GET /cvms/paginated")


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
        cloud.fail("POST", "/cvms/provision", fault, times=RetryPolicy().attempts)
        retrier = Retrier(sleep=no_wait)
        client = CloudClient(
            api_key=SecretStr(cloud.api_key), base_url=cloud.url, timeout_s=0.5, retrier=retrier
        )
        async with client:
            with pytest.raises(kind) as caught:
                await PhalaBackend(client).provisioning.provision(workload(), Placement())
        assert caught.value.advice
        assert cloud.api_key not in str(caught.value)
        assert [] == cloud.machines


@pytest.mark.parametrize("fault", [Fault(status=409), Fault(status=429, retry_after="0")], ids=["409", "429"])
async def test_what_the_cloud_has_not_begun_is_asked_again(cloud: FakeCloud, fault: Fault) -> None:
    """A conflict without a code, and too many requests, pass: the order is repeated, and made once."""
    cloud.fail("POST", "/cvms/provision", fault)
    backend = backend_of(cloud)
    await deployed(backend)
    cloud.fail("PATCH", "/cvms/{id}/resources", fault)
    await backend.scaling.resize((await backend.machines.list())[0], Placement(disk_gb=50))
    await backend.aclose()
    assert 2 == cloud.requests.count("POST /cvms/provision")
    assert [50] == [machine.disk_gb for machine in cloud.machines]


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


@pytest.mark.parametrize(
    ("placement", "said"),
    [
        (Placement(instance_type="tdx.small", disk_gb=19), "nothing has a disk of 19 GB; offered: tdx.small"),
        (Placement(disk_gb=1), r"a disk of 1 GB; offered: tdx\.small .*disk from 20 GB\), tdx\.medium"),
        (Placement(vcpu=5), "nothing has 5 vCPU and any MB of memory"),
        (Placement(vcpu=1, memory_mb=8193), "nothing has 1 vCPU and 8193 MB"),
        (Placement(instance_type="tdx.small", memory_mb=4096), r"4096 MB of memory; .*tdx\.small \(1 vCPU"),
    ],
)
async def test_a_size_that_is_not_offered_is_found_before_anything_is_sent(
    cloud: FakeCloud, backend: PhalaBackend, placement: Placement, said: str
) -> None:
    """For a new machine, for its price, and for one that exists, whose disk is compared by the service."""
    for ask in (backend.scaling.price(placement), backend.provisioning.provision(workload(), placement)):
        with pytest.raises(errors.UnknownChoiceError, match=said):
            await ask
    assert {"GET /instance-types"} == set(cloud.requests)


async def test_sizes_that_the_cloud_does_not_tell_are_not_judged(
    cloud: FakeCloud, backend: PhalaBackend
) -> None:
    """An answer of another version without figures, or without types, refuses nothing."""
    asked = Placement(vcpu=64, memory_mb=1 << 20, disk_gb=1)
    for items in ([{"id": "tdx.small"}], []):
        told = {"result": [{"name": "cpu", "items": items}]}
        cloud.fail("GET", "/instance-types", Fault(body=json.dumps(told).encode()))
        await backend.scaling.price(asked)


@pytest.mark.parametrize(
    ("instance_type", "price"), [("", "0.06 USD/h"), ("tdx.small", "0.06 USD/h"), ("tdx.large", "0.24 USD/h")]
)
async def test_the_price_is_known_before_anything_runs(
    cloud: FakeCloud, backend: PhalaBackend, instance_type: str, price: str
) -> None:
    """What is prepared tells the hourly rate of its size, also of one that the cloud chose."""
    provision = await backend.provisioning.provision(workload(), Placement(instance_type=instance_type))
    assert price == provision.price
    assert [] == cloud.machines


async def test_a_price_that_the_cloud_does_not_tell_is_empty(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """A size without a rate, or with a number for one, stops no deployment."""
    for rate, price in (({}, ""), ({"hourly_rate": None}, ""), ({"hourly_rate": 0.5}, "0.5 USD/h")):
        told = {"result": [{"name": "cpu", "items": [{"id": "tdx.small", **rate}]}]}
        cloud.fail("GET", "/instance-types", Fault(body=json.dumps(told).encode()))
        provision = await backend.provisioning.provision(workload(), Placement(instance_type="tdx.small"))
        assert price == provision.price


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
