"""Every bad input through the whole loop: a real chain, a real node, the real `execute` job and sandbox.

What is asserted is what the caller reads on chain; after each of them the same node answers a good call.
"""

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_abi.abi import encode

from blueprint.chain.deployment import (
    Deployment,
    deploy_contract,
    submit_job,
    transact,
    wait_result,
)
from blueprint.chain.protocol import TOPICS
from blueprint.chain.rpc import RpcClient
from blueprint.chain.signer import Signer
from blueprint.chain.wire import parse_address
from blueprint.errors import RevertedError
from blueprint.keccak import keccak256
from blueprint.types import CallKey
from jobs.deploy.codec import decode_result as decode_deploy_result
from jobs.execute_codec import (
    ChainFile,
    ChainLimits,
    ChainPair,
    ExecuteRequest,
    ExecuteResult,
    decode_result,
    encode_request,
)
from jobs.output_bundle import decode_bundle
from sandbox.result import ExecutionStatus, LimitKind
from tests.support.two_faced import garbage_call, two_faced

PROJECT = Path(__file__).resolve().parents[2]
OWNER, OPERATOR, SECOND_OPERATOR = 0, 1, 3
WAIT_S = 60.0
SUBMITTED = TOPICS["JobSubmitted(uint64,uint64,uint8,address,bytes)"]
RESULT = TOPICS["JobResultSubmitted(uint64,uint64,address,bytes)"]
pytestmark = [pytest.mark.root, pytest.mark.slow]


class World:
    """A chain and a node in processes of their own, and their caller, which is this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.chain = start("chain", "--port", "0", "--bare", folder=folder)
        self.facts = first_line(self.chain)
        self.caller = Signer(bytes.fromhex(self.facts["accounts"][OWNER]["private_key"][2:]))
        self.deployment = asyncio.run(self._deploy())
        self.state = folder / "state"
        self.node = self.start_node("--limit-wall-time-s", "4", "--grace-s", "1")
        self.url: str = first_line(self.node)["url"]

    async def _deploy(self) -> Deployment:
        async with RpcClient(self.facts["ws_url"]) as rpc:
            behind = await deploy_contract(rpc, self.caller, "LocalTangle")
            receipt = await transact(rpc, self.caller, to=None, data=two_faced(behind))
            contract = parse_address(receipt["contractAddress"])
            manager = await deploy_contract(
                rpc, self.caller, "CodeExecutionManager", ("address",), (contract,)
            )
            jobs = [("execute", b"", b""), ("deploy", b"", b"")]
            register = encode(
                ("address", "(string,bytes,bytes)[]", "uint8", "uint256"), (manager, jobs, 0, 0)
            )
            services = [
                encode(
                    ("uint64", "address[]", "address[]", "uint64"),
                    (0, [self.facts["accounts"][operator]["address"]], [], 0),
                )
                for operator in (OPERATOR, SECOND_OPERATOR)
            ]
            for signature, arguments in (
                (b"registerBlueprint(address,(string,bytes,bytes)[],uint8,uint256)", register),
                *((b"activateService(uint64,address[],address[],uint64)", service) for service in services),
            ):
                await transact(rpc, self.caller, to=contract, data=keccak256(signature)[:4] + arguments)
        return Deployment(
            chain_id=self.facts["chain_id"],
            contract=contract,
            manager=manager,
            blueprint_id=0,
            service_id=0,
        )

    def where(self, service_id: int = 0) -> list[str]:
        """Return the flags that name a service."""
        contract = "0x" + self.deployment.contract.hex()
        return ["--rpc-url", self.facts["ws_url"], "--contract", contract, "--service-ids", str(service_id)]

    def start_node(
        self, *arguments: str, state: Path | None = None, service_id: int = 0
    ) -> subprocess.Popen[str]:
        """Start a node for a service."""
        operator = (OPERATOR, SECOND_OPERATOR)[service_id]
        return start(
            *("run", *self.where(service_id), "--tree", "host", "--languages", "python", "--http-port", "0"),
            *("--state-dir", str(state or self.state), "--start-block", "0", *arguments),
            folder=self.folder,
            BLUEPRINT_PRIVATE_KEY=self.facts["accounts"][operator]["private_key"],
        )

    async def ask(self, inputs: bytes, *, job_index: int = 0) -> bytes:
        """Submit inputs and return the bytes of the answer."""
        async with RpcClient(self.facts["ws_url"]) as rpc:
            key = await submit_job(rpc, self.caller, self.deployment, job_index, inputs)
            return (await wait_result(rpc, key, WAIT_S)).output

    async def execute(self, request: ExecuteRequest) -> ExecuteResult:
        """Submit a request and return the answer."""
        return decode_result(await self.ask(encode_request(request)))

    async def output(self, answer: ExecuteResult) -> bytes:
        """Fetch what the node keeps of an output, and check it against the digest on chain."""
        async with httpx.AsyncClient(trust_env=False) as client:
            response = await client.get(f"{self.url}/outputs/{answer.output_digest.hex()}")
        assert sha256(response.content).digest() == answer.output_digest
        return response.content

    async def emit(self, topics: Sequence[bytes], data: bytes) -> None:
        """Have the contract that the node follows emit anything."""
        async with RpcClient(self.facts["ws_url"]) as rpc:
            await transact(rpc, self.caller, to=self.deployment.contract, data=garbage_call(topics, data))

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the node's log lines of one event."""
        lines = (self.folder / "run.log").read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line["event"] == name]


def start(*arguments: str, folder: Path, **variables: str) -> subprocess.Popen[str]:
    """Start a command whose log goes to a file of its name, appended."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BLUEPRINT_")}
    with (folder / f"{arguments[0]}.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "blueprint", *arguments, "--json"],
            cwd=folder, env=kept | {"PYTHONPATH": str(PROJECT)} | variables,
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip


def first_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what a command says of itself once it serves, or why it does not."""
    assert process.stdout is not None
    facts: dict[str, Any] = json.loads(process.stdout.readline())
    return facts


def end(process: subprocess.Popen[str]) -> int:
    """Ask a command to end; returns its exit code."""
    process.send_signal(signal.SIGTERM)
    code = process.wait(timeout=40)
    assert process.stdout is not None
    process.stdout.close()
    return code


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The chain and the node; at the end both leave in order, after all that they were given."""
    made = World(tmp_path_factory.mktemp("bad"))
    yield made
    assert [end(made.node), end(made.chain)] == [0, 0]


@pytest.fixture
def lives_on(world: World) -> Iterator[None]:
    """After the test the node is alive and answers a good call."""
    yield
    answer = asyncio.run(world.execute(program("print(6 * 7)")))
    assert (answer.status, answer.stdout) == (ExecutionStatus.SUCCESS, b"42\n"), answer
    assert httpx.get(f"{world.url}/healthz", trust_env=False).status_code == 200


def program(code: str, **members: Any) -> ExecuteRequest:
    """Return the request of a lone Python program."""
    return ExecuteRequest(language="python", files=(ChainFile("", code.encode()),), **members)


GOOD = encode_request(program("print(1)"))
UNDECODABLE = {
    "empty": b"",
    "text": b"junk",
    "one word": bytes(32),
    "cut": GOOD[:-32],
    "offset outside": GOOD[:64] + b"\xff" * 32 + GOOD[96:],
    "noise": sha256(b"noise").digest() * 40,
    "version 7": encode_request(replace(program("print(1)"), version=7)),
    "no utf-8": GOOD.replace(b"python", b"pyth\xff\xfe"),
}


@pytest.mark.usefixtures("lives_on")
async def test_undecodable_inputs_are_answered_in_the_jobs_own_form(world: World) -> None:
    """Bytes that are no request are answered with a result that says rejected, and what was expected."""
    for name, inputs in UNDECODABLE.items():
        answer = decode_result(await world.ask(inputs))
        assert (answer.status, answer.exit_code, answer.stdout) == (ExecutionStatus.REJECTED, -1, b""), name
        assert re.search("received|UTF-8|left: ", answer.error_message), (name, answer.error_message)


BAD_REQUESTS = [
    pytest.param(
        replace(program("1"), language="cobol"),
        "expected one of python, .*received 'cobol'",
        id="unknown language",
    ),
    pytest.param(
        program("1", runtime="2.7"),
        "runtime of python: expected one of 3.*received '2.7'",
        id="unknown version",
    ),
    pytest.param(replace(program("1"), language="Python\0"), "language", id="NUL in the language"),
    pytest.param(program("print(1)\0"), "must not hold a NUL.*at byte 8", id="NUL in the code"),
    pytest.param(program("1", args=("a\0b",)), "args.*a NUL", id="NUL in an argument"),
    pytest.param(
        program("1", limits=ChainLimits(timeout_ms=300_001)),
        "the operator allows at most 4000",
        id="timeout",
    ),
    pytest.param(
        program("1", limits=ChainLimits(timeout_ms=(1 << 64) - 1)),
        "the operator allows at most 4000",
        id="timeout of ages",
    ),
    pytest.param(
        program("1", env_vars=tuple(ChainPair(f"V{at}", "") for at in range(400))),
        "envVars: at most 128 entries are accepted, received 400",
        id="400 variables",
    ),
    pytest.param(
        replace(program("1"), files=(ChainFile("../../etc/passwd", b"x"),)), "'..'", id="path outside"
    ),
    pytest.param(replace(program("1"), files=()), "files", id="no file"),
]


@pytest.mark.usefixtures("lives_on")
@pytest.mark.parametrize(("request_", "words"), BAD_REQUESTS)
async def test_malformed_request_is_answered_as_rejected(
    world: World, request_: ExecuteRequest, words: str
) -> None:
    """Each way that a request can be wrong is told on chain, with the member, the bound and what came."""
    answer = await world.execute(request_)
    assert answer.status == ExecutionStatus.REJECTED
    assert re.search(words, answer.error_message), answer.error_message


@pytest.mark.usefixtures("lives_on")
async def test_inputs_over_the_cap_are_answered(world: World) -> None:
    """The chain takes 110 KiB, the node 96: the caller is told both sizes."""
    inputs = encode_request(program("#" * 110 * 1024))
    answer = decode_result(await world.ask(inputs))
    assert answer.status == ExecutionStatus.REJECTED
    assert f"inputs have {len(inputs)} bytes; at most 98304 are accepted" in answer.error_message


async def test_ten_thousand_variables_cost_more_than_a_block(world: World) -> None:
    """They are more than any block takes: the caller's own end point refuses, and nothing is sent."""
    request = program("1", env_vars=tuple(ChainPair(f"V{at}", "") for at in range(10_000)))
    with pytest.raises(RevertedError, match="the contract reverted"):
        await world.execute(request)


@pytest.mark.usefixtures("lives_on")
async def test_zero_timeout_is_the_operators(world: World) -> None:
    """Zero means the default: the program is ended by the operator's four seconds, not at once."""
    answer = await world.execute(program("while True: pass", limits=ChainLimits(timeout_ms=0)))
    assert answer.status == ExecutionStatus.TIMEOUT
    assert 3_900_000 < answer.stats.wall_us < 30_000_000


@pytest.mark.usefixtures("lives_on")
async def test_long_output_is_cut_on_chain_and_whole_by_its_digest(world: World) -> None:
    """8 KiB are on chain, with the full size; the node serves what it kept under the digest on chain."""
    code = "import sys; print('o' * 300_000); print('e' * 20_000, file=sys.stderr)"
    answer = await world.execute(program(code))
    assert answer.status == ExecutionStatus.SUCCESS
    assert (len(answer.stdout), len(answer.stderr)) == (8192, 8192)
    assert (answer.stdout_size, answer.stderr_size) == (300_001, 20_001)
    bundle = decode_bundle(await world.output(answer))
    assert (bundle.stdout, bundle.stderr) == (b"o" * 300_000 + b"\n", b"e" * 20_000 + b"\n")


@pytest.mark.usefixtures("lives_on")
async def test_output_beyond_the_sandboxs_cap_is_counted_and_digested(world: World) -> None:
    """What nobody keeps is still counted, named by its digest, and told as a limit that was touched."""
    answer = await world.execute(program("for _ in range(64): print('x' * 262_143)"))
    total = 64 * 262_144
    assert (answer.status, answer.stdout_size) == (ExecutionStatus.SUCCESS, total)
    assert LimitKind.STDOUT in LimitKind(answer.limits_hit)
    bundle = decode_bundle(await world.output(answer))
    assert len(bundle.stdout) < total
    assert bundle.stdout_sha256 == sha256(("x" * 262_143 + "\n").encode() * 64).digest()


@pytest.mark.usefixtures("lives_on")
async def test_job_that_the_operator_does_not_offer_is_answered(world: World) -> None:
    """The blueprint declares `deploy` as job 1; a node without a place to deploy to says so, in its form."""
    answer = decode_deploy_result(await world.ask(b"compose", job_index=1))
    assert answer.status == ExecutionStatus.REJECTED
    assert answer.error_message == "job 1 (deploy): this operator offers no deployments"


async def test_job_that_the_blueprint_lacks_is_refused_by_the_contract(world: World) -> None:
    """An index that no job has never becomes a call; the caller gets the contract's own error."""
    with pytest.raises(RevertedError, match="InvalidJobIndex"):
        await world.ask(b"", job_index=9)


def word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def body(job_index: int = 0, caller: int = 1, inputs: bytes = b"", *, offset: int = 96) -> bytes:
    return word(job_index) + word(caller) + word(offset) + word(len(inputs)) + inputs.ljust(32, b"\0")


SERVICE = word(0)
MALFORMED = {
    "no data": ([SUBMITTED, SERVICE, word(70)], b""),
    "offset outside": ([SUBMITTED, SERVICE, word(71)], body(offset=1 << 255)),
    "job index 256": ([SUBMITTED, SERVICE, word(72)], body(job_index=256)),
    "caller of 32 bytes": ([SUBMITTED, SERVICE, word(73)], body(caller=1 << 200)),
    "call id of 256 bits": ([SUBMITTED, SERVICE, word((1 << 256) - 1)], body()),
    "two topics": ([SUBMITTED, SERVICE], body()),
    "length beyond": ([SUBMITTED, SERVICE, word(74)], body()[:96] + word(1 << 64)),
}


@pytest.mark.parametrize(("topics", "data"), MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_event_is_named_and_passed_over(
    world: World, topics: list[bytes], data: bytes
) -> None:
    """The contract itself emits garbage under a known topic: it is in the log with its place, and no more."""
    before = len(world.events("event_malformed"))
    await world.emit(topics, data)
    assert (await world.execute(program("print(1)"))).status == ExecutionStatus.SUCCESS
    (told,) = world.events("event_malformed")[before:]
    assert "of transaction 0x" in told["cause"]


@pytest.mark.usefixtures("lives_on")
async def test_event_of_a_call_that_does_not_exist_holds_up_nobody(world: World) -> None:
    """The contract refuses the result of a call that it does not know; it can be retried; others go on."""
    await world.emit([SUBMITTED, SERVICE, word(900)], body(inputs=GOOD))
    assert (await world.execute(program("print(1)"))).status == ExecutionStatus.SUCCESS
    async with asyncio.timeout(20):
        while not (told := world.events("result_refused_for_now")):  # noqa: ASYNC110 - a log in a file
            await asyncio.sleep(0.1)
    assert (told[0]["call_id"], "JobCallNotFound" in told[0]["reason"]) == (900, True)
    retry = start("calls", "retry", "0/900", "--state-dir", str(world.state), folder=world.folder)
    assert first_line(retry) == {"call": "0/900", "state": "ready"}
    retry.communicate()
    assert retry.returncode == 0


def mount(folder: Path, options: str) -> None:
    """Mount a disk in memory, or change its size."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A state folder on a disk of 1 MiB."""
    state = tmp_path / "state"
    state.mkdir()
    mount(state, "size=1m")
    try:
        yield state
    finally:
        subprocess.run(["umount", state], check=True)


async def test_full_disk_stops_the_node_and_loses_no_call(world: World, small_disk: Path) -> None:
    """A node whose disk is full says so and ends; with room again it answers every call, each once."""
    node = world.start_node(state=small_disk, service_id=1)
    assert "url" in first_line(node)
    target = replace(world.deployment, service_id=1)
    keys: list[CallKey] = []
    async with RpcClient(world.facts["ws_url"]) as rpc:
        while node.poll() is None and len(keys) < 40:
            source = "#" * 80_000 + f"\nprint({len(keys)})"
            keys.append(await submit_job(rpc, world.caller, target, 0, encode_request(program(source))))
        assert node.wait(timeout=20) == 1
        await asyncio.to_thread(mount, small_disk, "remount,size=64m")
        again = world.start_node(state=small_disk, service_id=1)
        answers = [decode_result((await wait_result(rpc, key, WAIT_S)).output) for key in keys]
        results = await rpc.call(
            "eth_getLogs", {"fromBlock": "0x0", "topics": ["0x" + RESULT.hex(), "0x" + word(1).hex()]}
        )
    assert end(again) == 0
    node.communicate()
    assert [answer.stdout for answer in answers] == [b"%d\n" % at for at in range(len(keys))]
    assert isinstance(results, list)
    assert len(results) == len(keys)
    assert "the disk is full" in (world.folder / "run.log").read_text()


def refuse(world: World, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run a command that must fail; returns its exit code and its error."""
    process = start(*arguments, folder=world.folder, **variables)
    try:
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()  # one that was not refused would answer the calls of other tests
        process.communicate()
    return process.returncode, json.loads(out.splitlines()[-1])["error"]


def whole_journal(world: World, copy: Path) -> bytes:
    """Return the running node's journal as one file, what is still in its log included."""
    with (
        closing(sqlite3.connect(world.state / "journal.sqlite")) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
        target.execute("PRAGMA journal_mode=WAL")
    return copy.read_bytes()


def operator_key(world: World) -> dict[str, str]:
    """Return the variable with the operator's key."""
    return {"BLUEPRINT_PRIVATE_KEY": world.facts["accounts"][OPERATOR]["private_key"]}


def test_journal_of_a_running_node_is_locked(world: World) -> None:
    """A second node on the same state is told who holds it, and the first goes on."""
    code, error = refuse(
        world, "run", *world.where(), "--state-dir", str(world.state), "--tree", "host", "--http-port", "0",
        **operator_key(world),
    )  # fmt: skip
    assert (code, f"in use by the process with pid {world.node.pid}" in error) == (1, True), error


@pytest.mark.parametrize(
    ("damage", "expected"),
    [(lambda _: b"a diary " * 4096, "not a journal"), (lambda old: old[:4096] + b"\xff" * 8192, "damaged")],
    ids=["foreign", "overwritten"],
)
def test_corrupt_journal_is_refused_and_left_as_it_is(
    world: World, tmp_path: Path, damage: Callable[[bytes], bytes], expected: str
) -> None:
    """A node does not start on a journal that it cannot trust, and does not touch it."""
    journal = tmp_path / "journal.sqlite"
    content = damage(whole_journal(world, tmp_path / "copy.sqlite"))
    journal.write_bytes(content)
    code, error = refuse(
        world, "run", *world.where(), "--state-dir", str(tmp_path), "--tree", "host", "--http-port", "0",
        **operator_key(world),
    )  # fmt: skip
    assert (code, expected in error) == (1, True), error
    assert journal.read_bytes() == content


def test_address_that_speaks_no_json_rpc_is_told(world: World) -> None:
    """A URL at which something else listens is named with what to check."""
    code, error = refuse(
        world, "run", "--rpc-url", world.url, *world.where()[2:], "--state-dir", str(world.folder / "s"),
        **operator_key(world),
    )  # fmt: skip
    assert (code, "check the URL" in error, world.url in error) == (3, True, True), error


def test_ten_thousand_variables_are_refused_before_they_are_sent(world: World) -> None:
    """The command line counts them itself."""
    (world.folder / "a.py").write_text("print(1)")
    flags = [flag for at in range(10_000) for flag in ("--env", f"V{at}=")]
    code, error = refuse(world, "submit", "a.py", *world.where(), *flags, **operator_key(world))
    assert (code, "at most 128" in error, "10000" in error) == (2, True, True), error


def test_keystore_opens_with_its_password_alone(world: World) -> None:
    """A wrong password is an error that does not repeat it; the right one serves as the key does."""
    state = world.folder / "keys-state"
    key = world.folder / "secret"
    key.write_text(world.facts["accounts"][OPERATOR]["private_key"])
    key.chmod(0o600)
    where = {"BLUEPRINT_STATE_DIR": str(state), "BLUEPRINT_KEYSTORE_PASSWORD": "correct horse"}
    made = start("keys", "import", str(key), folder=world.folder, **where)
    out, _ = made.communicate(timeout=60)
    path = json.loads(out)["path"]
    (world.folder / "a.py").write_text("print(1)")
    submit = ("submit", "a.py", *world.where(), "--keystore", path)
    code, error = refuse(world, *submit, BLUEPRINT_KEYSTORE_PASSWORD="battery staple")
    assert (code, "the password is wrong" in error, "battery" in error) == (2, True, False), error
    code, error = refuse(world, *submit, BLUEPRINT_KEYSTORE_PASSWORD="correct horse")
    assert (code, "NotPermittedCaller" in error) == (1, True), error
