"""The local place with a real Docker engine: real containers, a real socket, quotes that verify."""

import asyncio
import hashlib
import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from blueprint.errors import AttestationError
from blueprint.tee.kms_key import verify_public_key
from blueprint.tee.policy import AttestationPolicy
from blueprint.tee.sealing import SecretVariable
from blueprint.tee.verify import verify_quote
from jobs.deploy.attestation import Verifier
from jobs.deploy.backends.backend import Action, Health, Machine, MachineState, Placement
from jobs.deploy.backends.local import LocalBackend
from jobs.deploy.errors import DeployError
from jobs.deploy.record import RecordStore, Stage
from jobs.deploy.service import DockerDeploymentService
from jobs.deploy.trust import KmsTrust
from jobs.deploy.wanted import Wanted
from tests.support.docker import (
    IMAGE,
    SECRET,
    TWO_SERVICES,
    App,
    compose,
    everything_of,
    printed,
    reached,
)

pytestmark = [pytest.mark.docker, pytest.mark.root]


def policy(place: LocalBackend, app: App, machine: Machine) -> AttestationPolicy:
    return AttestationPolicy(
        compose_hash=app.workload.compose_hash,
        app_id=bytes.fromhex(machine.app_id),
        development_root=place.root_ca,
    )


async def test_two_services_get_what_was_sealed_and_a_quote_of_their_own(place: LocalBackend) -> None:
    """The containers' answers hold what was sealed and a quote that verifies, not what is not allowed."""
    nonce = os.urandom(64)
    app = App(
        text=TWO_SERVICES,
        variables=(("TOKEN", SECRET), ("NONCE", nonce.hex()), ("FORBIDDEN", "x")),
        allowed=("TOKEN", "NONCE"),
    )
    machine = await app.deploy(place)
    assert "FORBIDDEN" in machine.said
    answer = await printed(
        place, machine, r"\[token\]\n(.*)\n\[forbidden\]\n(.*)\n\[quote\]\n(\{.*\})", "reader"
    )
    assert answer[1] == SECRET
    assert answer[2] == "<>"
    containers = {one.service: one for one in await place.observation.containers(machine)}
    assert containers["web"].health is Health.HEALTHY
    assert containers["reader"].health is Health.NONE
    assert all(one.is_running and one.exit_code is None for one in containers.values())
    given = json.loads(answer[3])
    verified = verify_quote(
        bytes.fromhex(given["quote"]),
        collateral=(await place.witness.evidence(machine, b"")).collateral,
        event_log=given["event_log"],
        report_data=nonce,
        policy=policy(place, app, machine),
        now_s=int(time.time()),
        app_compose=app.workload.app_compose,
    )
    assert verified.root == "development"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", machine.endpoints[0])


async def test_evidence_binds_our_nonce_and_needs_the_root_by_name(place: LocalBackend) -> None:
    """The guest's quote verifies with nonce, compose hash and app id under the place's root, not without."""
    app = App(text=compose("sleep 600"))
    machine = await app.deploy(place)
    nonce = os.urandom(64)
    evidence = await place.witness.evidence(machine, nonce)
    assert evidence.nonce == nonce
    assert hashlib.sha256(evidence.app_compose).digest() == app.workload.compose_hash == machine.compose_hash
    assert evidence.root == place.root_ca

    def verify(trusted: AttestationPolicy, expected: bytes) -> str:
        return verify_quote(
            evidence.quote,
            collateral=evidence.collateral,
            event_log=evidence.event_log,
            report_data=expected,
            policy=trusted,
            now_s=int(time.time()),
            app_compose=evidence.app_compose,
        ).root

    assert verify(policy(place, app, machine), nonce) == "development"
    with pytest.raises(AttestationError):
        verify(policy(place, app, machine), os.urandom(64))
    with pytest.raises(AttestationError):
        verify(replace(policy(place, app, machine), development_root=None), nonce)
    stated = await place.witness.public_key(machine.app_id, "")
    verified = verify_public_key(
        app_id=bytes.fromhex(machine.app_id),
        public_key=stated.key,
        signature=stated.signature,
        timestamp_s=stated.timestamp_s,
        now_s=int(time.time()),
        pinned_keys=[place.kms_key],
    )
    assert verified.public_key == stated.key


async def test_an_update_keeps_the_volume_and_replaces_the_variables(place: LocalBackend) -> None:
    """After an update the named volume's file is there; instance and app id stay; variables are the new."""
    mounts = ["environment: {A: '${A:-}', B: '${B:-}'}", "volumes: [data:/data]"]
    text = (
        compose("cat /data/kept; echo A=$$A B=$$B; echo old > /data/kept; sleep 600", *mounts)
        + "volumes: {data: {}}\n"
    )
    app = App(text=text, variables=(("A", "1"),), allowed=("A", "B"))
    machine = await app.deploy(place)
    await printed(place, machine, "A=1 B=\n")
    newer = replace(app, text=text.replace("600", "601"), variables=(("B", "2"),))
    revised = await place.provisioning.revise(machine, newer.workload)
    assert revised.app_id == machine.app_id
    assert revised.public_key is not None
    await place.provisioning.apply(machine, revised, newer.sealed(revised.public_key.key), ["B"])
    updated = await reached(place, machine, MachineState.RUNNING)
    assert updated.compose_hash == newer.workload.compose_hash
    assert updated.instance_id == machine.instance_id
    await printed(place, machine, "old\nA= B=2\n")
    await place.provisioning.apply(machine, None, newer.sealed(revised.public_key.key), ["B"])
    await reached(place, machine, MachineState.RUNNING)
    with pytest.raises(DeployError, match="another update"):
        await place.provisioning.apply(machine, replace(revised, compose_hash=bytes(32)), None, ())


async def test_a_container_that_ends_and_one_that_is_never_healthy_are_told(place: LocalBackend) -> None:
    """Exit code and health are the containers' own; what waits for health in vain fails with its name."""
    ending = await App(name="ending", text=compose("exit 0")).deploy(place)
    async with asyncio.timeout(10):
        while (container := (await place.observation.containers(ending))[0]).is_running:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert container.exit_code == 0
    check = "healthcheck: {test: [CMD, test, -e, /never], interval: 100ms, retries: 2}"
    other = f"image: '{IMAGE}', command: sleep 600, depends_on: {{app: {{condition: service_healthy}}}}"
    waiting = f"  other: {{{other}}}\n"
    ill = await App(name="never-healthy", text=compose("sleep 600", check) + waiting).create(place)
    ill = await reached(place, ill, MachineState.FAILED)
    assert "unhealthy" in ill.said
    containers = {one.service: one for one in await place.observation.containers(ill)}
    assert containers["app"].health is Health.UNHEALTHY
    assert not containers["other"].is_running


async def test_values_are_nowhere_on_the_disk_of_the_place(place: LocalBackend, tmp_path: Path) -> None:
    """No file of the place, and no command line on this machine, holds a sealed value."""
    value = "value-" + os.urandom(8).hex()
    app = App(text=compose("echo $$A; sleep 600", "environment: ['A']"), variables=(("A", value),))
    machine = await app.create(place)
    seen: list[str] = []
    while machine.state is MachineState.STARTING:
        seen += everything_of(value)
        machine = (await place.machines.get(machine.id)) or machine
    assert machine.state is MachineState.RUNNING
    assert seen == []
    await printed(place, machine, value)
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert len(files) > 4
    assert [path for path in files if value.encode() in path.read_bytes()] == []


async def test_lifecycle(place: LocalBackend) -> None:
    """Shut down, start, restart, stop: each is reached, twice is no failure; the agent lives with it."""
    text = compose(
        "ask-agent Info > /dev/null && echo asked; sleep 600",
        "volumes: ['/var/run/dstack.sock:/var/run/dstack.sock']",
    )
    machine = await App(text=text).deploy(place)
    await printed(place, machine, "asked")
    for action in (Action.SHUTDOWN, Action.SHUTDOWN):
        await place.machines.act(machine, action)
        await reached(place, machine, MachineState.STOPPED)
    with pytest.raises(DeployError, match="start the machine"):
        await place.witness.evidence(machine, b"")
    for action, boots in ((Action.START, 2), (Action.START, 2), (Action.RESTART, 3)):
        await place.machines.act(machine, action)
        await reached(place, machine, MachineState.RUNNING)
        await printed(place, machine, f"^(asked\n){{{boots}}}$")
    stats = await place.observation.stats(await reached(place, machine, MachineState.RUNNING))
    assert stats.memory_used_bytes
    assert stats.uptime_s is not None
    assert 0 <= stats.uptime_s < 60
    await place.machines.act(machine, Action.STOP)
    stopped = await reached(place, machine, MachineState.STOPPED)
    assert not any(one.is_running for one in await place.observation.containers(stopped))


async def test_replicas_and_size(place: LocalBackend) -> None:
    """A replica has the application and its variables but its own instance; a size limits each container."""
    app = App(
        text=compose("echo A=$$A; sleep 600", "environment: ['A=${A}']", "ports: ['8080:80']"),
        variables=(("A", "1"),),
        placement=Placement(memory_mb=64),
    )
    first = await app.deploy(place)
    second = await place.scaling.replicate(first, "")
    second = await reached(place, second, MachineState.RUNNING)
    assert (second.app_id, second.name) == (first.app_id, first.name)
    assert second.id != first.id
    assert second.instance_id != first.instance_id
    assert second.endpoints != first.endpoints
    await printed(place, second, "A=1")
    assert [one.id for one in await place.machines.list()] == [first.id, second.id]
    await place.scaling.resize(second, Placement(memory_mb=128))
    resized = await reached(place, second, MachineState.RUNNING)
    assert resized.placement == Placement(memory_mb=128)
    totals = [(await place.observation.stats(one)).memory_total_bytes for one in (first, resized)]
    assert totals == [64 * 1024**2, 128 * 1024**2]
    with pytest.raises(DeployError, match="no node"):
        await place.scaling.replicate(first, "node-2")


async def test_logs_are_streamed(place: LocalBackend) -> None:
    """Following yields what both streams print, while they do; a wrong service names a close one."""
    machine = await App(text=compose("echo one; sleep 0.3; echo two >&2; sleep 600")).deploy(place)
    seen = b""
    async with asyncio.timeout(10):
        async for piece in place.observation.logs(machine, "app", follow=True, tail=None):
            seen += piece
            if b"two" in seen:
                break
    assert seen == b"one\ntwo\n"
    last = [piece async for piece in place.observation.logs(machine, "app", follow=False, tail=1)]
    assert last == [b"two\n"]
    with pytest.raises(DeployError, match="did you mean 'app'"):
        await anext(aiter(place.observation.logs(machine, "ap", follow=False, tail=None)))


async def test_the_service_deploys_verifies_and_changes_nothing_twice(
    place: LocalBackend, tmp_path: Path
) -> None:
    """The whole service runs on this place: created and verified at first, left alone when asked again."""

    async def no_collateral(quote: bytes) -> str:
        raise AssertionError(f"the place offers its own; {len(quote)}")

    service = DockerDeploymentService(
        place,
        RecordStore(tmp_path / "deployments"),
        KmsTrust(pinned=[place.kms_key]),
        Verifier(policy=AttestationPolicy(development_root=place.root_ca), collateral=no_collateral),
        ready_timeout_s=60,
        look_s=0.05,
    )
    app = App(text=compose("echo A=$$A; sleep 600", "environment: [A]"), variables=(("A", "1"),))
    wanted = Wanted(workload=app.workload, names=("A",))
    record = await service.up(wanted, [SecretVariable("A", "1")])
    assert (record.stage, record.place) == (Stage.VERIFIED, "local")
    before = (tmp_path / "state/machines" / record.machine_id / "machine.json").read_text()
    assert (await service.up(wanted, [SecretVariable("A", "1")])).stage is Stage.VERIFIED
    assert (tmp_path / "state/machines" / record.machine_id / "machine.json").read_text() == before
    await service.up(wanted, [SecretVariable("A", "2")])
    await printed(place, (await service.machine("hello"))[1], "A=2")
    await service.delete("hello")
    assert await place.machines.list() == []
