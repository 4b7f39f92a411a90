"""The local place when commands, guests and engines are killed, and when applications reach for the host."""

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.deploy.backends.backend import Action, MachineState, Placement
from jobs.deploy.backends.local import LocalBackend
from jobs.deploy.backends.local.engine import Engine
from jobs.deploy.backends.local.private_engine import PrivateEngine, find_engine
from jobs.deploy.errors import DeployError
from tests.support.docker import (
    IMAGE,
    PROJECT,
    TWO_SERVICES,
    App,
    compose,
    everything_of,
    printed,
    reached,
)

pytestmark = [pytest.mark.docker, pytest.mark.root]


async def test_a_missing_image_fails_with_its_name_and_a_second_try_goes_on(place: LocalBackend) -> None:
    """What stops the start is told in the engine's words; the same commit again starts what failed."""
    text = compose("sleep 600").replace(IMAGE, "tee-job-node/absent:1")
    failed = await reached(place, await App(text=text).create(place), MachineState.FAILED)
    assert "app Error" in failed.said
    again = await App(text=text).create(place)
    assert again.state in {MachineState.STARTING, MachineState.FAILED}
    assert again.id == failed.id


async def test_a_value_that_no_process_can_be_given_is_told(place: LocalBackend) -> None:
    """The guest takes 128 KiB, Linux a little less in an environment: the machine fails with that reason."""
    app = App(text=compose("true", "environment: [A]"), variables=(("A", "x" * 128 * 1024),))
    failed = await reached(place, await app.create(place), MachineState.FAILED)
    assert "longer than Linux allows" in failed.said


async def test_a_refused_value_is_not_repeated(place: LocalBackend) -> None:
    """Compose repeats a port that is none; the place says the variable's name instead."""
    app = App(text=compose("true", "ports: ['${PORT}:80']"), variables=(("PORT", "s3cret-port"),))
    failed = await reached(place, await app.create(place), MachineState.FAILED)
    assert "<PORT>" in failed.said
    assert "s3cret" not in failed.said


async def test_a_killed_guest_is_told_and_revived(place: LocalBackend, tmp_path: Path) -> None:
    """After kill -9 of the guest the machine has failed, with what to do; a start revives all of it."""
    text = compose(
        "ask-agent Info > /dev/null && echo asked; sleep 600",
        "volumes: ['/run/dstack.sock:/var/run/dstack.sock']",
    )
    machine = await App(text=text).deploy(place)
    await printed(place, machine, "asked")
    lock = tmp_path / "state/machines" / machine.id / "guest.lock"
    os.kill(int(lock.read_text()), signal.SIGKILL)
    failed = await reached(place, machine, MachineState.FAILED)
    assert "start" in failed.said
    await place.machines.act(machine, Action.START)
    await reached(place, machine, MachineState.RUNNING)
    await printed(place, machine, "asked\n.*asked\n")
    assert (await place.witness.evidence(machine, b"x")).nonce == b"x"


async def test_the_same_commit_again_is_the_same_machine(place: LocalBackend) -> None:
    """Commit twice is one machine; another application under its name or app id is a conflict."""
    app = App(text=compose("sleep 600"))
    machine = await app.create(place)
    assert (await app.create(place)).id == machine.id
    assert len(await place.machines.list()) == 1
    for ref in (machine.id, machine.app_id, f"app_{machine.app_id}", machine.instance_id, machine.name):
        found = await place.machines.get(ref)
        assert found is not None
        assert found.id == machine.id
    assert await place.machines.get("another") is None
    other = App(text=compose("sleep 601"))
    with pytest.raises(DeployError, match="name hello belongs to app"):
        await other.create(place)
    provision = await place.provisioning.provision(other.workload, Placement())
    with pytest.raises(DeployError, match="exists as hello"):
        await place.provisioning.commit(
            other.workload, Placement(), replace(provision, app_id=machine.app_id), b"", ()
        )
    with pytest.raises(DeployError, match="provision again"):
        await place.provisioning.commit(app.workload, Placement(), provision, b"", ())


CREATING = """
import asyncio, sys
from pathlib import Path
from tests.support.docker import App, compose, local
from jobs.deploy.backends.local import LocalBackend

async def create():
    place = LocalBackend(state_dir=Path(sys.argv[1]), engine=Path(sys.argv[2]))
    print("begun", flush=True)
    await App(text=compose("sleep 600")).create(place)
    print("done", flush=True)

asyncio.run(create())
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.03, 0.15])
async def test_a_killed_command_leaves_one_machine_or_none(
    place: LocalBackend, engine: PrivateEngine, tmp_path: Path, delay_s: float
) -> None:
    """A command that is killed at any moment and run again makes one machine, one project on the engine."""
    command = [sys.executable, "-c", CREATING, str(tmp_path / "state"), str(engine.socket)]
    process = await asyncio.create_subprocess_exec(*command, cwd=PROJECT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"begun\n"
    await asyncio.sleep(delay_s)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    machine = await App(text=compose("sleep 600")).deploy(place)
    assert [one.id for one in await place.machines.list()] == [machine.id]
    async with Engine(engine.socket) as asked:
        assert len(await asked.projects("cvm-")) == 1


async def test_a_half_deleted_machine_is_finished_by_the_next_command(
    place: LocalBackend, engine: PrivateEngine, tmp_path: Path
) -> None:
    """What a killed delete left, and a project whose folder is gone, are removed by the next command."""
    first = await App(name="first", text=compose("sleep 600")).deploy(place)
    second = await App(name="second", text=compose("sleep 600")).deploy(place)
    record = tmp_path / "state/machines" / first.id / "machine.json"
    record.write_text(record.read_text().replace('"wanted": "running"', '"wanted": "deleted"'))
    assert [one.id for one in await place.machines.list()] == [second.id]
    os.kill(int((tmp_path / "state/machines" / second.id / "guest.lock").read_text()), signal.SIGKILL)
    (tmp_path / "state/machines" / second.id).rename(tmp_path / "lost")
    third = await App(name="third", text=compose("sleep 600")).deploy(place)
    assert [one.id for one in await place.machines.list()] == [third.id]
    async with Engine(engine.socket) as asked:
        assert len(await asked.projects("cvm-")) == 1
    await place.machines.delete(first)
    await place.machines.delete(second)


async def test_what_is_not_ours_on_the_engine_stays(
    place: LocalBackend, engine: PrivateEngine, tmp_path: Path
) -> None:
    """Another place's machine, with the same application on the same engine, is not seen and not touched."""
    app = App(text=TWO_SERVICES.replace("ask-agent", "true"), variables=(("TOKEN", "1"), ("NONCE", "2")))
    async with local_of_another(tmp_path / "other", engine) as other:
        theirs = await app.deploy(other)
        ours = await app.deploy(place)
        assert await place.machines.get(theirs.app_id) is None
        await place.machines.delete(ours)
        kept = await other.observation.containers(theirs)
        assert sorted((one.service, one.is_running) for one in kept) == [("reader", True), ("web", True)]
        await other.machines.delete(theirs)


@contextlib.asynccontextmanager
async def local_of_another(state_dir: Path, engine: PrivateEngine) -> AsyncIterator[LocalBackend]:
    place = LocalBackend(state_dir=state_dir, engine=engine.socket)
    try:
        yield place
    finally:
        await place.aclose()


async def test_a_host_mount_shows_the_machines_own_disk(place: LocalBackend, tmp_path: Path) -> None:
    """A mount of /etc is a folder of the machine, empty at first; what is written there stays there."""
    text = compose("ls /host; touch /host/mark; echo end; sleep 600", "volumes: ['/etc:/host', './own:/own']")
    machine = await App(text=text).deploy(place)
    assert (await printed(place, machine, r"^(.*)end"))[1] == ""
    disk = tmp_path / "state/machines" / machine.id / "disk"
    assert sorted(str(path.relative_to(disk)) for path in disk.rglob("*")) == ["etc", "etc/mark", "own"]
    assert not os.path.exists("/etc/mark")  # noqa: ASYNC240, PTH110


async def test_a_link_does_not_lead_out_of_the_disk(place: LocalBackend) -> None:
    """A container leaves a link to the host in a mounted folder; a later mount of the link is refused."""
    app = App(
        text=compose("rm -f /shared/out; ln -s / /shared/out; echo end; sleep 600", "volumes: ['/a:/shared']")
    )
    machine = await app.deploy(place)
    await printed(place, machine, "end")
    newer = replace(app, text=compose("ls /host; sleep 600", "volumes: ['/a/out/etc:/host']"))
    revised = await place.provisioning.revise(machine, newer.workload)
    await place.provisioning.apply(machine, revised, None, ())
    failed = await reached(place, machine, MachineState.FAILED)
    assert "leads out of the machine" in failed.said


async def test_a_link_that_is_left_while_others_start_is_not_followed(place: LocalBackend) -> None:
    """One container puts a link to the host where another one's mount was looked for a moment ago."""
    text = compose(
        "rm -r /outer/sub && ln -s / /outer/sub && echo end",
        "volumes: ['/data:/outer']",
        "restart: 'no'",
    ) + compose(
        "ls /host; echo end; sleep 600",
        "volumes: ['/data/sub/etc:/host']",
        "depends_on: {app: {condition: service_completed_successfully}}",
    ).partition("\n")[2].replace("app:", "late:", 1)
    failed = await reached(place, await App(text=text).create(place), MachineState.FAILED)
    assert "is mounted from within" in failed.said


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
        said: list[str] = []
        for _ in range(2):
            assert await find_engine(engine.socket, engine.folder, said.append) == engine.socket
        assert len(said) == 1
        assert "it reaches no network" in said[0]
        async with Engine(engine.socket) as asked:
            assert "empty:1" in await asked.images()
    finally:
        await engine.remove()
    assert everything_of(str(tmp_path)) == []


async def test_a_private_engine_does_not_live_below_run() -> None:
    """Its /run is its own, so that nobody would see its socket there."""
    with pytest.raises(DeployError, match="another folder"):
        await PrivateEngine(Path("/run/engine")).start()
