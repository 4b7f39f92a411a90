"""Watching a machine of the fake cloud: slow boots, failed ones, and streams of events that break."""

import asyncio
import json

import pytest
from pydantic import SecretStr

from blueprint.testing.cloud import FakeCloud, FakeContainer, Fault
from jobs.deploy.backends.backend import Health, Machine, MachineState, Placement
from jobs.deploy.backends.phala import PhalaBackend
from jobs.deploy.cloud import errors
from jobs.deploy.cloud.client import CloudClient
from tests.support.cloud_world import backend_of, deployed, workload

EVENTS = {"Content-Type": "text/event-stream"}


class Clock:
    """The fake cloud's time, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def asked(cloud: FakeCloud) -> int:
    """How often a state was asked for, by either way."""
    return len([sent for sent in cloud.requests if sent.endswith("/state")])


def told(**members: str) -> bytes:
    """One event of a machine that starts."""
    state = {"name": "web-app", "status": "starting", **members}
    return f"event: state\ndata: {json.dumps(state)}\n\n".encode()


async def watched(backend: PhalaBackend, machine: Machine) -> list[MachineState]:
    """What a watcher sees until the machine runs."""
    return [now.state async for now in backend.observation.watch(machine, MachineState.RUNNING)]


async def test_a_slow_boot_is_watched_to_its_end() -> None:
    """Until the machine runs nothing inside is told; the stream tells when it does, unasked."""
    clock = Clock()
    async with FakeCloud(boot_s=600.0, clock=clock) as cloud:
        backend = backend_of(cloud)
        machine = await deployed(backend)
        assert MachineState.STARTING == machine.state
        assert [] == list(await backend.observation.containers(machine))
        clock.now = 599.0
        found = await backend.machines.get(machine.id)
        assert found is not None
        assert MachineState.STARTING == found.state
        watch = asyncio.create_task(watched(backend, machine))
        done, _ = await asyncio.wait([watch], timeout=0.2)
        assert not done
        clock.now = 600.0
        assert [MachineState.RUNNING] == await watch
        assert ["web"] == [found.service for found in await backend.observation.containers(machine)]
        await backend.aclose()
    assert 1 == asked(cloud)


@pytest.mark.parametrize(
    ("status", "health"),
    [
        ("Up 9 minutes (unhealthy)", Health.UNHEALTHY),
        ("Up 9 minutes (health: starting)", Health.STARTING),
        ("Up 9 minutes", Health.NONE),
    ],
)
async def test_a_machine_that_runs_may_never_be_healthy(status: str, health: Health) -> None:
    """The machine's word is running at once, and again after a restart; its containers tell otherwise."""
    async with FakeCloud(container=lambda service: FakeContainer(service, status=status)) as cloud:
        backend = backend_of(cloud)
        machine = await deployed(backend)
        assert MachineState.RUNNING == machine.state
        cloud.machines[0].boot()
        found = await backend.observation.containers(machine)
        await backend.aclose()
    assert [(True, health)] == [(container.is_running, container.health) for container in found]


async def test_a_container_that_ends_at_once_is_told_with_its_code() -> None:
    """A machine that runs says nothing about a container that ended."""
    ended = {"state": "exited", "status": "Exited (0) 1 second ago"}
    async with FakeCloud(container=lambda service: FakeContainer(service, **ended)) as cloud:
        backend = backend_of(cloud)
        (found,) = await backend.observation.containers(await deployed(backend))
        await backend.aclose()
    assert (False, 0) == (found.is_running, found.exit_code)


async def test_a_stream_that_is_cut_in_an_event_is_replaced_by_a_question(
    cloud: FakeCloud, backend: PhalaBackend
) -> None:
    """What arrived whole is told, the event that was cut is not, and the question after it is right."""
    machine = await deployed(backend)
    whole, cut = told(boot_progress="pulling images"), told(boot_progress="starting containers")
    body = whole + cut + b":" * (len(whole) - 10)
    assert whole in body[: len(body) // 2]
    assert body[: len(body) // 2] < whole + cut
    cloud.fail("GET", "/cvms/{id}/state", Fault(body=body, headers=EVENTS, is_cut=True))
    seen = [now async for now in backend.observation.watch(machine, MachineState.RUNNING)]
    assert ["pulling images", "running"] == [now.said for now in seen]
    assert MachineState.RUNNING == seen[-1].state
    assert 2 == asked(cloud)


async def test_a_cut_stream_is_an_interruption(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """The client does not take a stream that was cut for one that ended."""
    machine = await deployed(backend)
    cloud.fail("GET", "/cvms/{id}/state", Fault(body=told() * 3, headers=EVENTS, is_cut=True))
    async with CloudClient(api_key=SecretStr(cloud.api_key), base_url=cloud.url) as client:
        states = client.states(machine.id, target="running")
        assert "starting" == (await anext(states)).status
        with pytest.raises(errors.CloudInterruptedError):
            await anext(states)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(body=b"no events"),
        Fault(body=told(), headers=EVENTS),
        Fault(body=b"event: state\ndata: {}\n\n", headers=EVENTS),
        Fault(body=b"event: error\ndata: gone\n\n", headers=EVENTS),
        Fault(status=500),
    ],
    ids=["another type", "no end", "another shape", "an error", "none at all"],
)
async def test_a_stream_that_fails_is_replaced_by_a_question(
    cloud: FakeCloud, backend: PhalaBackend, fault: Fault
) -> None:
    """However a stream disappoints, the machine's state is asked for and told."""
    machine = await deployed(backend)
    cloud.fail("GET", "/cvms/{id}/state", fault)
    assert MachineState.RUNNING == (await watched(backend, machine))[-1]
    assert 2 == asked(cloud)


async def test_a_machine_that_is_deleted_ends_its_watch(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """A watcher of what is gone is told so, and does not ask for ever."""
    machine = await deployed(backend)
    await backend.machines.delete(machine)
    with pytest.raises(errors.NotFoundError):
        await watched(backend, machine)


@pytest.mark.parametrize(
    ("text", "services"),
    [
        ("services: {web: {image: a}, db: {image: b}}", ["web", "db"]),
        ("volumes:\n  data:\nservices:\n    web:\n        image: a\nnetworks:\n  net:\n", ["web"]),
        ("services:\n\tweb:\n", None),
        ("services: []\n", None),
        ("- web\n", None),
    ],
    ids=["in one line", "between others", "tabs", "a list", "no mapping"],
)
async def test_the_fake_runs_the_services_of_the_file(
    cloud: FakeCloud, backend: PhalaBackend, text: str, services: list[str] | None
) -> None:
    """Whatever the spelling, each service has a container; a file that no engine takes fails the boot."""
    made = workload(text=text)
    provision = await backend.provisioning.provision(made, Placement())
    machine = await backend.provisioning.commit(made, Placement(), provision, b"", [])
    if services is None:
        assert MachineState.FAILED == (await watched(backend, machine))[-1]
        assert cloud.machines[0].boot_error.startswith("docker-compose.yaml: ")
    else:
        assert services == [found.service for found in await backend.observation.containers(machine)]


async def test_a_boot_that_fails_ends_the_watch(cloud: FakeCloud, backend: PhalaBackend) -> None:
    """What was not sealed for the application fails its boot, and the watcher is told why."""
    made = workload()
    provision = await backend.provisioning.provision(made, Placement())
    machine = await backend.provisioning.commit(made, Placement(), provision, b"\x09" * 100, ["GREETING"])
    seen = [now async for now in backend.observation.watch(machine, MachineState.RUNNING)]
    assert MachineState.FAILED == seen[-1].state
    assert "sealed variables" in seen[-1].said
