"""What the local place keeps: records that survive, bytes that are checked, a folder that is private."""

import asyncio
import hashlib
import json
from pathlib import Path

import pytest
from typing_extensions import override

from blueprint.tee.sealing import SecretVariable
from jobs.deploy.backends.backend import Placement, Workload
from jobs.deploy.backends.local import DEFAULT_SOCKET, engine_socket
from jobs.deploy.backends.local.compose_program import ComposeProgram
from jobs.deploy.backends.local.disk import MachineFolder, Record, Status, Wanted
from jobs.deploy.backends.local.engine import Engine
from jobs.deploy.backends.local.place import Place
from jobs.deploy.backends.local.provisioning import LocalProvisioning
from jobs.deploy.backends.local.state import StateFolder
from jobs.deploy.errors import DeployError

RECORD = Record(
    id="m1",
    name="hello",
    app_id="aa" * 20,
    instance_id="bb" * 20,
    index=0,
    app_compose="",
    sealed="",
    placement=Placement(memory_mb=64),
)


class Answering(Engine):
    """An engine that is there, and is asked nothing else."""

    @override
    async def check(self) -> str:
        return "20.10"


def test_a_record_comes_back_as_it_was() -> None:
    """What is written is what is read, with the size and what is wanted."""
    record = RECORD.rebooted(sealed="cc")
    assert Record.parse(record.text()) == record
    assert (record.boot, record.wanted) == (2, Wanted.RUNNING)


def test_a_machine_appears_whole_and_keeps_only_what_its_record_names(tmp_path: Path) -> None:
    """The folder comes with its bytes under their digests; bytes that are no longer named go."""
    folder = MachineFolder(tmp_path / "m1")
    (tmp_path / ".new-m1").mkdir()
    (tmp_path / ".new-m1/of-a-killed-try").touch()
    record = folder.create(RECORD, b"{}", b"sealed")
    assert record.app_compose == hashlib.sha256(b"{}").hexdigest()
    assert folder.record() == record
    assert folder.read(record.sealed) == b"sealed"
    assert [path.name for path in tmp_path.iterdir()] == ["m1"]
    assert not (folder.path / "of-a-killed-try").exists()
    newer = record.rebooted(sealed=folder.keep(b"newer"))
    folder.write(newer)
    assert folder.read(newer.sealed) == b"newer"
    assert {path.stem for path in folder.path.glob("*.bytes")} == {newer.app_compose, newer.sealed}


def test_changed_bytes_are_refused(tmp_path: Path) -> None:
    """What is booted is what was committed."""
    folder = MachineFolder(tmp_path / "m1")
    record = folder.create(RECORD, b"{}", b"")
    (folder.path / f"{record.app_compose}.bytes").write_bytes(b"{ }")
    with pytest.raises(DeployError, match="changed"):
        folder.read(record.app_compose)


def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    """The reason is told before anything is made."""
    with pytest.raises(DeployError, match="shorter"):
        MachineFolder(tmp_path / ("x" * 100)).create(RECORD, b"{}", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_guest_that_has_said_nothing_is_starting(tmp_path: Path) -> None:
    """Before the first word of a guest, it is starting."""
    folder = MachineFolder(tmp_path)
    assert folder.status().phase == "starting"
    folder.report(Status(boot=3, phase="running", since_s=1.5))
    assert folder.status() == Status(boot=3, phase="running", since_s=1.5)


def test_the_state_folder_is_private(tmp_path: Path) -> None:
    """Nobody else on the host reaches seed, sockets and machines."""
    state = StateFolder(tmp_path / "state")
    state.folder("m1").create(RECORD, b"{}", b"")
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert [path for path in files if path.stat().st_mode & 0o077] == []


def test_keys_and_root_are_the_same_after_a_restart(tmp_path: Path) -> None:
    """A root that was trusted by name, and a pinned KMS key, stay good; another folder has others."""
    first, again, other = (StateFolder(tmp_path / name) for name in ("a", "a", "b"))
    assert first.platform().root_ca == again.platform().root_ca != other.platform().root_ca
    assert first.kms().root_public_key == again.kms().root_public_key != other.kms().root_public_key
    assert first.project("m") == again.project("m") != other.project("m")
    assert first.machine_of(first.project("m")) == "m"


async def test_one_command_at_a_time_changes_machines(tmp_path: Path) -> None:
    """The second waits until the first is done."""
    state = StateFolder(tmp_path)
    order: list[str] = []

    async def change(name: str) -> None:
        async with state.locked():
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")

    await asyncio.gather(change("a"), change("b"))
    assert sorted(order[:2]) == ["a begins", "a ends"] or sorted(order[:2]) == ["b begins", "b ends"]


@pytest.mark.parametrize(
    ("docker_host", "socket"),
    [("", DEFAULT_SOCKET), ("unix:///x/docker.sock", Path("/x/docker.sock"))],
)
def test_the_engines_socket_is_named_as_for_docker(docker_host: str, socket: Path) -> None:
    """DOCKER_HOST names a Unix socket, or nothing does and the usual one is taken."""
    assert engine_socket(docker_host) == socket


@pytest.mark.parametrize("docker_host", ["tcp://127.0.0.1:2375", "ssh://host", "unix://relative", "nonsense"])
def test_an_engine_elsewhere_is_refused(docker_host: str) -> None:
    """An engine on another machine could not mount the guest agent's socket."""
    with pytest.raises(DeployError, match="on this machine"):
        engine_socket(docker_host)


async def test_an_engine_that_does_not_answer_is_named_with_what_to_do(tmp_path: Path) -> None:
    """The error has the socket and the fix."""
    async with Engine(tmp_path / "no.sock") as engine:
        with pytest.raises(DeployError, match=r"no\.sock does not answer.*DOCKER_HOST"):
            await engine.check()


@pytest.mark.parametrize("name", ["COMPOSE_ENV_FILES", "COMPOSE_PROFILES", "DOCKER_HOST", "LD_PRELOAD"])
async def test_variables_that_steer_compose_are_refused(tmp_path: Path, name: str) -> None:
    """Compose would read the host's files, or ask another engine, because a sealed variable says so."""
    program = ComposeProgram(path=tmp_path / "absent", engine=DEFAULT_SOCKET, project="p", folder=tmp_path)
    with pytest.raises(DeployError, match=f"{name}.*steer"):
        await program.resolve("services: {}", [SecretVariable(name, "x")])


@pytest.mark.parametrize(
    "script", [{"pre_launch_script": "rm -rf /"}, {"init_script": "id"}, {"runner": "bash"}]
)
async def test_scripts_of_the_guest_are_refused(tmp_path: Path, script: dict[str, str]) -> None:
    """What a real guest would run as its root is not run as this host's."""
    engine = Answering(tmp_path / "no.sock")
    place = Place(state=StateFolder(tmp_path / "state"), engine=engine, compose=tmp_path)
    content = json.dumps({"docker_compose_file": "services: {}", **script}).encode()
    workload = Workload(name="hello", app_compose=content, compose_hash=hashlib.sha256(content).digest())
    with pytest.raises(DeployError, match=next(iter(script))):
        await LocalProvisioning(place).provision(workload, Placement())
    await engine.aclose()
