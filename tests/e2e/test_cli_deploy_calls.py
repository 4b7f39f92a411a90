"""Chain, node and caller as processes, and a real Docker engine: what a call deploys, proves and removes."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from blueprint.chain.protocol import TOPICS
from blueprint.chain.wire import to_hex
from jobs.deploy.backends.local.engine import Engine
from jobs.deploy.backends.local.state import StateFolder
from tests.support.docker import IMAGE, PROJECT, engine_of_ours, local

OPERATOR, CALLER = 1, 2
SECRET = "planted secret \u00e9 $HOME"
WAIT_S = 40.0
PAGE = (PROJECT / "docs/how-to/deploy-for-callers.md").read_text()
"""What it tells operators to write, and callers to run, is what these tests use."""
PLAIN = f"""\
services:
  app:
    image: {IMAGE}
    command: [sh, -c, 'printf "<%s> <%s>\\n" "$$TOKEN" "$$OTHER"; exec httpd -f -p 80 -h /']
    environment: ["TOKEN=${{TOKEN}}"]
    ports: ["8080:80"]
    stop_grace_period: 0s
"""
GATED = (
    PLAIN
    + """\
    volumes: ["/gate:/gate"]
    healthcheck: {test: [CMD, test, -e, /gate/open], interval: 200ms, retries: 500}
"""
)
"""It is healthy once somebody has put a file on the machine's own disk."""
pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.slow]


def block(kind: str) -> str:
    """Return what stands in the only block of a kind on the page."""
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


class World:
    """A chain, a node with a place to deploy to, and a caller; each a process of its own."""

    def __init__(self, folder: Path, engine: Path) -> None:
        self.folder, self.engine, self.state = folder, engine, folder / "state"
        self.chain = self._start("chain", "--port", "0")
        self.facts = self._read(self.chain)
        where = ["--rpc-url", self.facts["ws_url"], "--contract", self.facts["contract"]]
        self.where = [*where, "--service-ids", "0"]
        table, mounts = block("toml"), ('allow = ["tag"]', 'allow = ["tag", "host-mount"]')
        assert mounts[0] in table
        (folder / "blueprint.toml").write_text(table.replace(*mounts))
        (folder / "examples").symlink_to(PROJECT / "examples")
        (folder / "vars").write_text(f"TOKEN='{SECRET}'\n")
        self.start_node()
        self.place = StateFolder(self.state / "local")

    def start_node(self) -> None:
        """Start the node and wait until it serves; what it says of itself is kept."""
        self.node = self._start(
            *("run", *self.where, "--tree", "host", "--state-dir", str(self.state), "--http-port", "0"),
            *("--grace-s", "1"),
            key=OPERATOR,
        )
        self.said = self._read(self.node)
        self.url: str = self.said["url"]

    @staticmethod
    def end(process: subprocess.Popen[str], number: signal.Signals) -> int:
        """End a process by a signal; returns its exit code."""
        process.send_signal(number)
        code = process.wait(timeout=40)
        assert process.stdout is not None
        process.stdout.close()
        return code

    def request(self, action: str, *arguments: str) -> subprocess.Popen[str]:
        """Start ``blueprint deploy request`` as the caller."""
        line = ("deploy", "request", action, *arguments, "--state-dir", str(self.folder / "caller"))
        return self._start(*line, *self.where, key=CALLER, log=f"{action}.log")

    def prepare(self, text: str, name: str) -> dict[str, Any]:
        """Prepare an application with its variable, to be sealed under the place's own KMS key."""
        (self.folder / f"{name}.yml").write_text(text)
        files = ("--name", name, "--env-file", "vars", "--kms-key", self.kms_key)
        return self.answer_of(self.request("prepare", f"{name}.yml", *files))

    def commit(self, name: str) -> subprocess.Popen[str]:
        """Begin to commit what was prepared under a name."""
        files = ("--env-file", "vars", "--kms-key", self.kms_key)
        return self.request("commit", f"{name}.ticket.json", *files)

    def remove(self, name: str) -> dict[str, Any]:
        """Have an application removed."""
        return self.answer_of(self.request("remove", f"{name}.ticket.json", "--yes"))

    def verify(self, answer: dict[str, Any], *arguments: str) -> dict[str, Any]:
        """Have a stranger verify what an answer names, by the evidence that the node serves."""
        (self.folder / "root.der").write_bytes(self.place.platform().root_ca)
        about = ("--app-id", answer["app_id"], "--compose-hash", answer["compose_hash"])
        url = f"{self.url}/outputs/{answer['evidence_digest']}"
        line = (
            "deploy",
            "verify",
            "--url",
            url,
            *about,
            *arguments,
            "--state-dir",
            str(self.folder / "else"),
        )
        return self.answer_of(self._start(*line, log="verify.log"))

    def answer_of(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """Wait for a request's end; returns what it printed."""
        out, _ = process.communicate(timeout=WAIT_S)
        told: dict[str, Any] = json.loads(out)
        assert process.returncode == 0, told
        return told

    @property
    def kms_key(self) -> str:
        """What the caller pins."""
        return self.place.kms().root_public_key.hex()

    def answered(self, *, since: int) -> list[int]:
        """Return the call id of each answer on the chain from a block on."""
        query = {
            "address": self.facts["contract"],
            "fromBlock": hex(since),
            "topics": [to_hex(TOPICS["JobResultSubmitted(uint64,uint64,address,bytes)"])],
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": "eth_getLogs", "params": [query]}
        logs = httpx.post(self.facts["http_url"], json=body, trust_env=False).json()["result"]
        return [int(log["topics"][2], 16) for log in logs]

    def ready(self) -> dict[str, Any]:
        """Return what the node says at ``/readyz``."""
        body: dict[str, Any] = httpx.get(f"{self.url}/readyz", trust_env=False).json()
        return body

    def engine_holds(self) -> dict[str, str]:
        """Return the projects of machines on the engine, each with what its container printed."""

        async def look() -> dict[str, str]:
            async with Engine(self.engine) as engine:
                found = {}
                for project in await engine.projects("cvm-"):
                    printed = b""
                    for container in await engine.containers(project):
                        pieces = engine.logs(container, follow=False, tail=None)
                        printed += b"".join([piece async for piece in pieces])
                    found[project] = printed.decode()
                return found

        return asyncio.run(look())

    def environment(self, key: int | None) -> dict[str, str]:
        """Return what a process is started with: an account's key, and the engine."""
        kept = {n: v for n, v in os.environ.items() if not n.startswith("BLUEPRINT_")}
        secret = {} if key is None else {"BLUEPRINT_PRIVATE_KEY": self.facts["accounts"][key]["private_key"]}
        return kept | {"PYTHONPATH": str(PROJECT), "DOCKER_HOST": f"unix://{self.engine}"} | secret

    def _start(self, *arguments: str, key: int | None = None, log: str = "") -> subprocess.Popen[str]:
        with (self.folder / (log or f"{arguments[0]}.log")).open("a") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "blueprint", *arguments, "--json"], cwd=self.folder,
                env=self.environment(key), stdout=subprocess.PIPE, stderr=file, text=True,
            )  # fmt: skip

    @staticmethod
    def _read(process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        facts: dict[str, Any] = json.loads(process.stdout.readline())
        return facts


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world; at the end its processes leave with 0, and no log of theirs holds the value."""
    with engine_of_ours() as engine:
        folder = tmp_path_factory.mktemp("world")
        made = World(folder, engine.socket)
        yield made
        codes = [made.end(process, signal.SIGTERM) for process in (made.node, made.chain)]
        asyncio.run(nothing_is_left(folder / "state" / "local", engine.socket))
        assert codes == [0, 0]
        for file in (*folder.glob("*.log"), *folder.glob("*.ticket.json"), *folder.glob("state/**/*.json")):
            assert "planted secret" not in file.read_text()


async def nothing_is_left(state: Path, engine: Path) -> None:
    """Delete what a failed test has left, and look that nothing of these machines is there."""
    async with local(state, engine):
        pass


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_call_deploys_an_application_that_anybody_can_verify(world: World) -> None:
    """Prepared, sealed, committed, proved: the answer names it, and its evidence verifies once more."""
    assert world.said["deployments"] == {"place": "local"}
    assert world.ready()["deployments"] == {"place": "local", "applications": {}}
    prepared = world.prepare(PLAIN, "first-app")
    assert world.ready()["deployments"]["applications"] == {"prepared": 1}
    answer = world.answer_of(world.commit("first-app"))["answer"]
    assert (answer["status"], answer["app_id"]) == ("success", prepared["answer"]["app_id"])
    assert answer["compose_hash"] == prepared["answer"]["compose_hash"]
    assert len(answer["instance_id"]) == 40
    assert answer["endpoint"].startswith("http://127.0.0.1:")
    until(lambda: any(world.engine_holds().values()))
    assert list(world.engine_holds().values()) == [f"<{SECRET}> <>\n"]
    proved = world.verify(answer, "--development-root", "root.der")
    assert proved["attestation_digest"] == answer["attestation_digest"]
    world.remove("first-app")
    assert (world.engine_holds(), world.place.records()) == ({}, ())
    assert world.ready()["deployments"]["applications"] == {}
    lines = [json.loads(line) for line in (world.folder / "run.log").read_text().splitlines()]
    steps = {line["step"]: line["call_id"] for line in lines if line["event"] == "deployment_advanced"}
    assert steps["verifying the attestation"] == prepared["call_id"] + 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_a_node_that_ends_before_its_answer_deploys_once_and_answers_once(
    world: World, number: signal.Signals
) -> None:
    """Its successor waits for the machine that is already there; removed, nothing of it is left."""
    name = f"gated-{number.name.lower()}"
    prepared = world.prepare(GATED, name)
    committing = world.commit(name)
    until(lambda: any(world.engine_holds().values()))
    assert world.end(world.node, number) == (0 if number == signal.SIGTERM else -number)
    world.start_node()
    (machine,) = world.place.records()
    until(lambda: world.ready()["deployments"]["applications"] == {"committing": 1})
    (world.place.folder(machine.id).disk / "gate/open").touch()
    committed = world.answer_of(committing)
    answer = committed["answer"]
    assert (answer["status"], answer["app_id"]) == ("success", machine.app_id)
    assert (len(world.place.records()), world.place.records()[0].boot) == (1, 1)
    assert list(world.engine_holds().values()) == [f"<{SECRET}> <>\n"]
    answered = world.answered(since=prepared["block_number"])
    assert answered == [prepared["call_id"], committed["call_id"]]
    world.remove(name)
    assert (world.engine_holds(), world.place.records()) == ({}, ())
    assert list((world.state / "deployments").glob("*.json")) == []


def test_what_the_table_does_not_name_is_refused(world: World) -> None:
    """Another image is answered on chain as rejected, and nothing is prepared."""
    (world.folder / "other-app.yml").write_text("services: {app: {image: 'busybox:1'}}\n")
    process = world.request("prepare", "other-app.yml", "--name", "other-app")
    told = json.loads(process.communicate(timeout=WAIT_S)[0])
    assert (process.returncode, told["answer"]["status"]) == (6, "rejected")
    assert "not among those that are allowed: tee-job-node/hello:1" in told["answer"]["error_message"]
    assert world.place.records() == ()


def test_what_the_page_tells_callers_to_run_runs(world: World) -> None:
    """Prepared, committed and removed by the page's own commands, on the node of the page's own table."""
    where = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BLUEPRINT_RPC_URL": world.facts["ws_url"],
        "BLUEPRINT_CONTRACT": world.facts["contract"],
        "BLUEPRINT_STATE_DIR": str(world.folder / "reader"),
    }
    ran = subprocess.run(
        ["sh", "-e", "-c", block("sh caller")], cwd=world.folder, env=world.environment(CALLER) | where,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("status: success") == 3
    assert "attestation_digest: " in ran.stdout
    assert (world.engine_holds(), world.place.records()) == ({}, ())
