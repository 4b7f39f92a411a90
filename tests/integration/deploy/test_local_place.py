"""The local place with a real Docker engine: real containers, a real socket, quotes that verify."""

import asyncio
import contextlib
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blueprint.errors import AttestationError
from blueprint.tee.kms_key import verify_public_key
from blueprint.tee.policy import AttestationPolicy
from blueprint.tee.verify import verify_quote
from jobs.deploy.backends.backend import Action, Health, Machine, MachineState, Placement
from jobs.deploy.backends.local import LocalBackend
from jobs.deploy.backends.local.engine import Engine
from jobs.deploy.backends.local.private_engine import PrivateEngine, find_engine
from jobs.deploy.errors import DeployError
from tests.support.docker import IMAGE, PROJECT, App, compose, engine_of_ours, everything_of, local, reached

pytestmark = [pytest.mark.docker, pytest.mark.root]

SECRET = "ein \"Geheimnis\" mit $HOME, 'Zeichen' und\nzwei Zeilen: ü"
TWO_SERVICES = f"""
services:
  web:
    image: {IMAGE}
    container_name: a-fixed-name
    command:
      - sh
      - -c
      - |
        printf '%s' "$$TOKEN" > /data/token
        printf '<%s>' "$$FORBIDDEN" > /data/forbidden
        ask-agent GetQuote '{{"report_data":"'"$$NONCE"'"}}' > /data/quote && exec httpd -f -p 80 -h /data
    stop_grace_period: 0s
    environment:
      TOKEN: ${{TOKEN}}
      NONCE: ${{NONCE}}
      FORBIDDEN: ${{FORBIDDEN:-}}
    ports: ["8080:80"]
    volumes:
      - data:/data
      - /var/run/dstack.sock:/var/run/dstack.sock
    healthcheck:
      test: [CMD, wget, -q, -O, /tmp/quote, "http://127.0.0.1/quote"]
      interval: 200ms
      retries: 50
  reader:
    image: {IMAGE}
    command:
      - sh
      - -c
      - |
        for file in token forbidden quote; do echo [$$file]; wget -q -O - http://web/$$file; echo; done
        sleep 600
    stop_grace_period: 0s
    depends_on: {{web: {{condition: service_healthy}}}}
volumes:
  data:
    name: a-fixed-volume
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    with engine_of_ours() as started:
        yield started


@pytest.fixture
async def backend(engine: PrivateEngine, tmp_path: Path) -> AsyncIterator[LocalBackend]:
    async with local(tmp_path / "state", engine.socket) as opened:
        yield opened


async def logs_of(backend: LocalBackend, machine: Machine, service: str = "app") -> str:
    pieces = [piece async for piece in backend.observation.logs(machine, service, follow=False, tail=None)]
    return b"".join(pieces).decode()


async def printed(
    backend: LocalBackend, machine: Machine, pattern: str, service: str = "app"
) -> re.Match[str]:
    """Wait until a service has printed something."""
    async with asyncio.timeout(20):
        while (match := re.search(pattern, await logs_of(backend, machine, service), re.DOTALL)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return match


def policy(backend: LocalBackend, app: App, machine: Machine) -> AttestationPolicy:
    return AttestationPolicy(
        compose_hash=app.workload.compose_hash,
        app_id=bytes.fromhex(machine.app_id),
        development_root=backend.root_ca,
    )


async def test_two_services_get_what_was_sealed_and_a_quote_of_their_own(backend: LocalBackend) -> None:
    """The containers' own answers hold what was sealed and a quote that verifies, and not what is not allowed."""
    nonce = os.urandom(64)
    app = App(
        text=TWO_SERVICES,
        variables=(("TOKEN", SECRET), ("NONCE", nonce.hex()), ("FORBIDDEN", "x")),
        allowed=("TOKEN", "NONCE"),
    )
    machine = await app.deploy(backend)
    assert "FORBIDDEN" in machine.said
    answer = await printed(
        backend, machine, r"\[token\]\n(.*)\n\[forbidden\]\n(.*)\n\[quote\]\n(\{.*\})", "reader"
    )
    assert answer[1] == SECRET
    assert answer[2] == "<>"
    containers = {one.service: one for one in await backend.observation.containers(machine)}
    assert containers["web"].health is Health.HEALTHY
    assert containers["reader"].health is Health.NONE
    assert all(one.is_running and one.exit_code is None for one in containers.values())
    given = json.loads(answer[3])
    verified = verify_quote(
        bytes.fromhex(given["quote"]),
        collateral=(await backend.witness.evidence(machine, b"")).collateral,
        event_log=given["event_log"],
        report_data=nonce,
        policy=policy(backend, app, machine),
        now_s=int(time.time()),
        app_compose=app.workload.app_compose,
    )
    assert verified.root == "development"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", machine.endpoints[0])


async def test_evidence_binds_our_nonce_and_needs_the_root_by_name(backend: LocalBackend) -> None:
    """The guest's quote verifies with nonce, compose hash and app id under the place's root, not without."""
    app = App(text=compose("sleep 600"))
    machine = await app.deploy(backend)
    nonce = os.urandom(64)
    evidence = await backend.witness.evidence(machine, nonce)
    assert evidence.nonce == nonce
    assert hashlib.sha256(evidence.app_compose).digest() == app.workload.compose_hash == machine.compose_hash
    assert evidence.root == backend.root_ca

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

    assert verify(policy(backend, app, machine), nonce) == "development"
    with pytest.raises(AttestationError):
        verify(policy(backend, app, machine), os.urandom(64))
    with pytest.raises(AttestationError):
        verify(replace(policy(backend, app, machine), development_root=None), nonce)
    stated = await backend.witness.public_key(machine.app_id, "")
    verified = verify_public_key(
        app_id=bytes.fromhex(machine.app_id),
        public_key=stated.key,
        signature=stated.signature,
        timestamp_s=stated.timestamp_s,
        now_s=int(time.time()),
        pinned_keys=[backend.kms_key],
    )
    assert verified.public_key == stated.key


async def test_an_update_keeps_the_volume_and_replaces_the_variables(backend: LocalBackend) -> None:
    """After an update the named volume's file is there; instance and app id stay; variables are the new."""
    mounts = ["environment: {A: '${A:-}', B: '${B:-}'}", "volumes: [data:/data]"]
    text = (
        compose("cat /data/kept; echo A=$$A B=$$B; echo old > /data/kept; sleep 600", *mounts)
        + "volumes: {data: {}}\n"
    )
    app = App(text=text, variables=(("A", "1"),), allowed=("A", "B"))
    machine = await app.deploy(backend)
    await printed(backend, machine, "A=1 B=\n")
    newer = replace(app, text=text.replace("600", "601"), variables=(("B", "2"),))
    revised = await backend.provisioning.revise(machine, newer.workload)
    assert revised.app_id == machine.app_id
    assert revised.public_key is not None
    await backend.provisioning.apply(machine, revised, newer.sealed(revised.public_key.key), ["B"])
    updated = await reached(backend, machine, MachineState.RUNNING)
    assert updated.compose_hash == newer.workload.compose_hash
    assert updated.instance_id == machine.instance_id
    await printed(backend, machine, "old\nA= B=2\n")
    await backend.provisioning.apply(machine, None, newer.sealed(revised.public_key.key), ["B"])
    await reached(backend, machine, MachineState.RUNNING)
    with pytest.raises(DeployError, match="another update"):
        await backend.provisioning.apply(machine, replace(revised, compose_hash=bytes(32)), None, ())


async def test_a_container_that_ends_and_one_that_is_never_healthy_are_told(backend: LocalBackend) -> None:
    """Exit code and health are the containers' own; what waits for health in vain fails with its name."""
    ending = await App(name="ending", text=compose("exit 0")).deploy(backend)
    async with asyncio.timeout(10):
        while (container := (await backend.observation.containers(ending))[0]).is_running:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert container.exit_code == 0
    check = "healthcheck: {test: [CMD, test, -e, /never], interval: 100ms, retries: 2}"
    waiting = f"  other: {{image: '{IMAGE}', command: sleep 600, depends_on: {{app: {{condition: service_healthy}}}}}}\n"
    ill = await App(name="never-healthy", text=compose("sleep 600", check) + waiting).create(backend)
    ill = await reached(backend, ill, MachineState.FAILED)
    assert "unhealthy" in ill.said
    containers = {one.service: one for one in await backend.observation.containers(ill)}
    assert containers["app"].health is Health.UNHEALTHY
    assert not containers["other"].is_running


async def test_a_missing_image_fails_with_its_name_and_a_second_try_goes_on(backend: LocalBackend) -> None:
    """What stops the start is told in the engine's words; the same commit again starts what failed."""
    text = compose("sleep 600").replace(IMAGE, "tee-job-node/absent:1")
    failed = await reached(backend, await App(text=text).create(backend), MachineState.FAILED)
    assert "app Error" in failed.said
    again = await App(text=text).create(backend)
    assert again.state in {MachineState.STARTING, MachineState.FAILED}
    assert again.id == failed.id


async def test_a_refused_value_is_not_repeated(backend: LocalBackend) -> None:
    """Compose repeats a port that is none; the place says the variable's name instead."""
    app = App(text=compose("true", "ports: ['${PORT}:80']"), variables=(("PORT", "s3cret-port"),))
    failed = await reached(backend, await app.create(backend), MachineState.FAILED)
    assert "<PORT>" in failed.said
    assert "s3cret" not in failed.said


async def test_values_are_nowhere_on_the_disk_of_the_place(backend: LocalBackend, tmp_path: Path) -> None:
    """No file of the place, and no command line on this machine, holds a sealed value."""
    value = "value-" + os.urandom(8).hex()
    app = App(text=compose("echo $$A; sleep 600", "environment: ['A']"), variables=(("A", value),))
    machine = await app.create(backend)
    seen: list[str] = []
    while machine.state is MachineState.STARTING:
        seen += everything_of(value)
        machine = (await backend.machines.get(machine.id)) or machine
    assert machine.state is MachineState.RUNNING
    assert seen == []
    await printed(backend, machine, value)
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert len(files) > 4
    assert [path for path in files if value.encode() in path.read_bytes()] == []


async def test_lifecycle(backend: LocalBackend) -> None:
    """Shut down, start, restart, stop: each is reached, twice is no failure; agent and machine live together."""
    text = compose(
        "ask-agent Info > /dev/null && echo asked; sleep 600",
        "volumes: ['/var/run/dstack.sock:/var/run/dstack.sock']",
    )
    machine = await App(text=text).deploy(backend)
    for action in (Action.SHUTDOWN, Action.SHUTDOWN):
        await backend.machines.act(machine, action)
        await reached(backend, machine, MachineState.STOPPED)
    with pytest.raises(DeployError, match="start the machine"):
        await backend.witness.evidence(machine, b"")
    for action in (Action.START, Action.START, Action.RESTART):
        await backend.machines.act(machine, action)
        await reached(backend, machine, MachineState.RUNNING)
    await printed(backend, machine, "(asked\n.*){3}")
    stats = await backend.observation.stats(await reached(backend, machine, MachineState.RUNNING))
    assert stats.memory_used_bytes
    assert stats.uptime_s is not None
    assert 0 <= stats.uptime_s < 60
    await backend.machines.act(machine, Action.STOP)
    stopped = await reached(backend, machine, MachineState.STOPPED)
    assert not any(one.is_running for one in await backend.observation.containers(stopped))


async def test_a_killed_guest_is_told_and_revived(backend: LocalBackend, tmp_path: Path) -> None:
    """After kill -9 of the guest the machine has failed, with what to do; a start revives all of it."""
    text = compose(
        "ask-agent Info > /dev/null && echo asked; sleep 600",
        "volumes: ['/run/dstack.sock:/var/run/dstack.sock']",
    )
    machine = await App(text=text).deploy(backend)
    await printed(backend, machine, "asked")
    lock = tmp_path / "state/machines" / machine.id / "guest.lock"
    os.kill(int(lock.read_text()), signal.SIGKILL)
    failed = await reached(backend, machine, MachineState.FAILED)
    assert "start" in failed.said
    await backend.machines.act(machine, Action.START)
    await reached(backend, machine, MachineState.RUNNING)
    await printed(backend, machine, "asked\n.*asked\n")
    assert (await backend.witness.evidence(machine, b"x")).nonce == b"x"


async def test_replicas_and_size(backend: LocalBackend) -> None:
    """A replica has the application and its variables but its own instance; a size limits each container."""
    app = App(
        text=compose("echo A=$$A; sleep 600", "environment: ['A=${A}']", "ports: ['8080:80']"),
        variables=(("A", "1"),),
        placement=Placement(memory_mb=64),
    )
    first = await app.deploy(backend)
    second = await backend.scaling.replicate(first, "")
    second = await reached(backend, second, MachineState.RUNNING)
    assert (second.app_id, second.name) == (first.app_id, first.name)
    assert second.id != first.id
    assert second.instance_id != first.instance_id
    assert second.endpoints != first.endpoints
    await printed(backend, second, "A=1")
    assert [one.id for one in await backend.machines.list()] == [first.id, second.id]
    await backend.scaling.resize(second, Placement(memory_mb=128))
    resized = await reached(backend, second, MachineState.RUNNING)
    assert resized.placement == Placement(memory_mb=128)
    totals = [(await backend.observation.stats(one)).memory_total_bytes for one in (first, resized)]
    assert totals == [64 * 1024**2, 128 * 1024**2]
    with pytest.raises(DeployError, match="no node"):
        await backend.scaling.replicate(first, "node-2")


async def test_the_same_commit_again_is_the_same_machine(backend: LocalBackend) -> None:
    """Commit twice is one machine; another application under its name or app id is a conflict."""
    app = App(text=compose("sleep 600"))
    machine = await app.create(backend)
    assert (await app.create(backend)).id == machine.id
    assert len(await backend.machines.list()) == 1
    for ref in (machine.id, machine.app_id, f"app_{machine.app_id}", machine.instance_id, machine.name):
        found = await backend.machines.get(ref)
        assert found is not None
        assert found.id == machine.id
    assert await backend.machines.get("another") is None
    other = App(text=compose("sleep 601"))
    with pytest.raises(DeployError, match="name hello belongs to app"):
        await other.create(backend)
    provision = await backend.provisioning.provision(other.workload, Placement())
    with pytest.raises(DeployError, match="exists as hello"):
        await backend.provisioning.commit(
            other.workload, Placement(), replace(provision, app_id=machine.app_id), b"", ()
        )
    with pytest.raises(DeployError, match="provision again"):
        await backend.provisioning.commit(app.workload, Placement(), provision, b"", ())


CREATING = """
import asyncio, sys
from pathlib import Path
from tests.support.docker import App, compose, local
from jobs.deploy.backends.local import LocalBackend

async def create():
    backend = LocalBackend(state_dir=Path(sys.argv[1]), engine=Path(sys.argv[2]))
    print("begun", flush=True)
    await App(text=compose("sleep 600")).create(backend)
    print("done", flush=True)

asyncio.run(create())
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.05, 0.1, 0.2])
async def test_a_killed_command_leaves_one_machine_or_none(
    backend: LocalBackend, engine: PrivateEngine, tmp_path: Path, delay_s: float
) -> None:
    """A command that is killed at any moment and run again makes one machine, and one project on the engine."""
    command = [sys.executable, "-c", CREATING, str(tmp_path / "state"), str(engine.socket)]
    process = await asyncio.create_subprocess_exec(*command, cwd=PROJECT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"begun\n"
    await asyncio.sleep(delay_s)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    machine = await App(text=compose("sleep 600")).deploy(backend)
    assert [one.id for one in await backend.machines.list()] == [machine.id]
    async with Engine(engine.socket) as asked:
        assert len(await asked.projects("cvm-")) == 1


async def test_a_half_deleted_machine_is_finished_by_the_next_command(
    backend: LocalBackend, engine: PrivateEngine, tmp_path: Path
) -> None:
    """What a killed delete left, and a project whose folder is gone, are removed by the next command."""
    first = await App(name="first", text=compose("sleep 600")).deploy(backend)
    second = await App(name="second", text=compose("sleep 600")).deploy(backend)
    record = tmp_path / "state/machines" / first.id / "machine.json"
    record.write_text(record.read_text().replace('"wanted": "running"', '"wanted": "deleted"'))
    assert [one.id for one in await backend.machines.list()] == [second.id]
    os.kill(int((tmp_path / "state/machines" / second.id / "guest.lock").read_text()), signal.SIGKILL)
    (tmp_path / "state/machines" / second.id).rename(tmp_path / "lost")
    third = await App(name="third", text=compose("sleep 600")).deploy(backend)
    assert [one.id for one in await backend.machines.list()] == [third.id]
    async with Engine(engine.socket) as asked:
        assert len(await asked.projects("cvm-")) == 1
    await backend.machines.delete(first)
    await backend.machines.delete(second)


async def test_what_is_not_ours_on_the_engine_stays(
    backend: LocalBackend, engine: PrivateEngine, tmp_path: Path
) -> None:
    """Another place's machine, with the same application on the same engine, is not seen and not touched."""
    app = App(text=TWO_SERVICES.replace("ask-agent", "true"), variables=(("TOKEN", "1"), ("NONCE", "2")))
    async with local_of_another(tmp_path / "other", engine) as other:
        theirs = await app.deploy(other)
        ours = await app.deploy(backend)
        assert await backend.machines.get(theirs.app_id) is None
        await backend.machines.delete(ours)
        kept = await other.observation.containers(theirs)
        assert sorted((one.service, one.is_running) for one in kept) == [("reader", True), ("web", True)]
        await other.machines.delete(theirs)


@contextlib.asynccontextmanager
async def local_of_another(state_dir: Path, engine: PrivateEngine) -> AsyncIterator[LocalBackend]:
    backend = LocalBackend(state_dir=state_dir, engine=engine.socket)
    try:
        yield backend
    finally:
        await backend.aclose()


async def test_a_host_mount_shows_the_machines_own_disk(backend: LocalBackend, tmp_path: Path) -> None:
    """A mount of /etc is a folder of the machine, empty at first; what is written there is not on the host."""
    text = compose("ls /host; touch /host/mark; echo end; sleep 600", "volumes: ['/etc:/host', './own:/own']")
    machine = await App(text=text).deploy(backend)
    assert (await printed(backend, machine, r"^(.*)end"))[1] == ""
    disk = tmp_path / "state/machines" / machine.id / "disk"
    assert sorted(str(path.relative_to(disk)) for path in disk.rglob("*")) == ["etc", "etc/mark", "own"]
    assert not os.path.exists("/etc/mark")  # noqa: ASYNC240, PTH110


async def test_a_link_does_not_lead_out_of_the_disk(backend: LocalBackend) -> None:
    """A container leaves a link to the host in a mounted folder; a later mount of the link is refused."""
    app = App(
        text=compose("rm -f /shared/out; ln -s / /shared/out; echo end; sleep 600", "volumes: ['/a:/shared']")
    )
    machine = await app.deploy(backend)
    await printed(backend, machine, "end")
    newer = replace(app, text=compose("ls /host; sleep 600", "volumes: ['/a/out/etc:/host']"))
    revised = await backend.provisioning.revise(machine, newer.workload)
    await backend.provisioning.apply(machine, revised, None, ())
    failed = await reached(backend, machine, MachineState.FAILED)
    assert "leads out of the machine" in failed.said


async def test_logs_are_streamed(backend: LocalBackend) -> None:
    """Following yields what is printed while it is printed, on both streams; a wrong service names a close one."""
    machine = await App(text=compose("echo one; sleep 0.3; echo two >&2; sleep 600")).deploy(backend)
    seen = b""
    async with asyncio.timeout(10):
        async for piece in backend.observation.logs(machine, "app", follow=True, tail=None):
            seen += piece
            if b"two" in seen:
                break
    assert seen == b"one\ntwo\n"
    last = [piece async for piece in backend.observation.logs(machine, "app", follow=False, tail=1)]
    assert last == [b"two\n"]
    with pytest.raises(DeployError, match="did you mean 'app'"):
        await anext(aiter(backend.observation.logs(machine, "ap", follow=False, tail=None)))


async def test_a_private_engine_starts_again_after_a_kill(tmp_path: Path) -> None:
    """An engine that was killed with its containers starts again in the same folder, with its images."""
    engine = PrivateEngine(tmp_path / "engine")
    try:
        await engine.start()
        async with Engine(engine.socket) as asked:
            empty = io.BytesIO()
            with tarfile.open(fileobj=empty, mode="w"):
                pass
            await asked.import_image(empty.getvalue(), "empty", "1")
        os.kill(int((tmp_path / "engine/engine.lock").read_text()), signal.SIGKILL)
        await engine.stop()
        assert await find_engine(engine.socket, engine.folder) == engine.socket
        async with Engine(engine.socket) as asked:
            assert "empty:1" in await asked.images()
    finally:
        await engine.remove()
    assert everything_of(str(tmp_path)) == []
