"""The execute job: on-chain forms, mapping, answers for every kind of failure."""

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import eth_abi
import pytest
import structlog
from calls import make_call
from shapes import damaged

from blueprint.errors import InputsInvalidError, InputsUndecodableError, PostponedError
from blueprint.extract.abi import abi_type
from blueprint.extract.annotations import bind_type
from blueprint.job import Handler
from jobs import build_router
from jobs.execute import MAX_STREAM_BYTES, to_execution_request
from jobs.execute_codec import (
    ChainDependency,
    ChainFile,
    ChainLimits,
    ChainPair,
    ExecuteRequest,
    ExecuteResult,
    decode_request,
    decode_result,
    encode_request,
    encode_result,
)
from jobs.output_bundle import decode_bundle
from sandbox.errors import BusyError, RequestError, SandboxUnavailableError, SystemFailureError
from sandbox.request import ExecutionRequest, Limits
from sandbox.result import ExecutionResult, ExecutionStatus, LimitKind, OutputFile, ProcessStats
from sandbox.testing import FakeExecutor, captured, fake_result

SOLIDITY = Path(__file__).resolve().parents[2] / "contracts/src/libraries/ExecuteJob.sol"
SNIPPET = ExecuteRequest(language="python", files=(ChainFile("", b"print(1)"),))
FULL = ExecuteRequest(
    language="python",
    runtime="3.13",
    files=(ChainFile("main.py", b"import lib"), ChainFile("lib.py", b"x = 1")),
    entry_point="main.py",
    stdin=b"in\0",
    args=("a", "b"),
    dependencies=(ChainDependency("requests", ">=2", ""),),
    env_vars=(ChainPair("KEY", "value"),),
    limits=ChainLimits(timeout_ms=1500, memory_bytes=1 << 20, processes=2),
    options=(ChainPair("check", "off"),),
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep log lines off the terminal."""
    with structlog.testing.capture_logs():
        yield


def serving(
    answer: Callable[[ExecutionRequest], ExecutionResult] | None = None,
) -> tuple[Handler, FakeExecutor]:
    """Return the node's handler over a fake executor, and that executor."""
    executor = FakeExecutor(answer)
    return build_router(executor).bind({}), executor


def raising(error: Exception) -> Callable[[ExecutionRequest], ExecutionResult]:
    """Return an answer of the fake executor that raises."""

    def answer(request: ExecutionRequest) -> ExecutionResult:
        raise error

    return answer


def solidity_type(name: str) -> str:
    """Return the ABI type of a struct in ``ExecuteJob.sol``."""
    body = re.search(rf"struct {name} {{(.*?)}}", SOLIDITY.read_text(), re.DOTALL)
    assert body is not None
    types = []
    for line in body[1].split(";")[:-1]:
        base, suffix = re.fullmatch(r"\s*(\w+)((?:\[\])?) \w+", line).groups()  # type: ignore[union-attr] # it matches
        types.append((solidity_type(base) if base[0].isupper() else base) + suffix)
    return f"({','.join(types)})"


def solidity_members(name: str) -> list[str]:
    """Return the names of a struct's members in ``ExecuteJob.sol``."""
    body = re.search(rf"struct {name} {{(.*?)}}", SOLIDITY.read_text(), re.DOTALL)
    assert body is not None
    return re.findall(r" (\w+);", body[1])


@pytest.mark.parametrize(("struct", "name"), [(ExecuteRequest, "Request"), (ExecuteResult, "Result")])
def test_execute_structs_are_those_of_the_solidity_library(struct: type, name: str) -> None:
    """Types, order and names agree with the library that owns them."""
    shape = bind_type(struct, name).shape
    assert abi_type(shape) == solidity_type(name)
    assert [child.name.replace("_", "") for child in shape.children] == [
        m.lower() for m in solidity_members(name)
    ]


@pytest.mark.parametrize("request_", [SNIPPET, FULL])
def test_execute_request_round_trips_with_and_without_the_outer_offset(request_: ExecuteRequest) -> None:
    """Both forms of the ABI encoding are the same request."""
    data = encode_request(request_)
    assert decode_request(data) == request_
    assert decode_request(data[32:]) == request_


@pytest.mark.parametrize("outer", [True, False])
def test_execute_accepts_the_ancestors_form_as_version_0(*, outer: bool) -> None:
    """Three strings, or two, are a snippet with its input."""

    def encode(*texts: str) -> bytes:
        types = ["string"] * len(texts)
        return eth_abi.encode([f"({','.join(types)})"], [texts]) if outer else eth_abi.encode(types, texts)

    file = ChainFile("", b"x = 1")
    for inputs, stdin in (
        (encode("python", "x = 1", "in"), b"in"),
        (encode("python", "x = 1", ""), b""),
        (encode("python", "x = 1"), b""),
    ):
        expected = ExecuteRequest(version=0, language="python", files=(file,), stdin=stdin)
        assert decode_request(inputs) == expected


@pytest.mark.parametrize(
    "inputs", [b"", b"\0", bytes(32), b"\xff" * 64, (2).to_bytes(32, "big"), (32).to_bytes(32, "big")]
)
def test_execute_inputs_of_no_known_version_say_what_is_expected(inputs: bytes) -> None:
    """Junk is refused with the forms that are understood."""
    with pytest.raises(InputsUndecodableError, match="execute request of version 1, or of"):
        decode_request(inputs)


def test_execute_decoder_raises_nothing_else_on_damaged_inputs() -> None:
    """Whatever is done to the bytes, they decode or are InputsUndecodableError."""
    rng = random.Random(8)
    whole = encode_request(FULL)
    old = eth_abi.encode(["(string,string,string)"], [("python", "x" * 40, "in")])
    for _ in range(1500):
        try:
            decode_request(damaged(rng, rng.choice([whole, old])))
        except InputsUndecodableError:
            continue


async def test_execute_maps_every_member_to_the_executors_request() -> None:
    """What the chain says reaches the executor: milliseconds as seconds, pairs as mappings."""
    handler, executor = serving()
    assert decode_result(await handler(make_call(0, encode_request(FULL)))).status == 0
    (got,) = executor.requests
    assert [file.path for file in got.files] == ["main.py", "lib.py"]
    assert (got.language, got.runtime, got.entry_point, got.stdin) == ("python", "3.13", "main.py", b"in\0")
    assert (got.args, got.env_vars, got.options) == (("a", "b"), {"KEY": "value"}, {"check": "off"})
    assert got.dependencies[0].requirement == ">=2"
    assert got.timeout_s == 1.5
    assert got.limits == replace(Limits(), memory_bytes=1 << 20, processes=2)


@pytest.mark.parametrize(
    ("language", "path"),
    [("python", "main.py"), ("Java", "Main.java"), ("C++", "main.cpp"), ("ts", "main.ts")],
)
async def test_execute_names_a_lone_snippet_as_its_language_does(language: str, path: str) -> None:
    """A snippet has no path on chain; the default timeout and limits are the operator's."""
    handler, executor = serving()
    await handler(make_call(0, encode_request(replace(SNIPPET, language=language))))
    assert executor.requests[0].files[0].path == path
    assert executor.requests[0].timeout_s is None
    assert executor.requests[0].limits is None


PAIRS = tuple(ChainPair(f"V{number}", "") for number in range(10_000))


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (replace(SNIPPET, language="cobol"), "language: expected one of python"),
        (replace(SNIPPET, language=""), "language: "),
        (replace(SNIPPET, files=()), "files: at least one"),
        (replace(SNIPPET, files=(ChainFile("", b"a\0b"),)), "source code must not hold a NUL"),
        (replace(SNIPPET, files=(ChainFile("../x", b""),)), "files: no part"),
        (replace(SNIPPET, files=(ChainFile("", b""), ChainFile("", b""))), "a path is expected"),
        (
            replace(SNIPPET, limits=ChainLimits(timeout_ms=300_001)),
            "timeoutMs: the operator allows at most 300000.*300001",
        ),
        (
            replace(SNIPPET, limits=ChainLimits(timeout_ms=(1 << 64) - 1)),
            "timeoutMs: the operator allows at most 300000",
        ),
        (
            replace(SNIPPET, limits=ChainLimits(memory_bytes=1 << 40)),
            "memoryBytes: the operator allows at most",
        ),
        (replace(SNIPPET, limits=ChainLimits(disk_bytes=1 << 40)), "diskBytes: the operator allows at most"),
        (replace(SNIPPET, limits=ChainLimits(processes=11)), "processes: the operator allows at most 10"),
        (replace(SNIPPET, env_vars=PAIRS[:400]), "envVars: at most 128 entries are accepted, received 400"),
        (replace(SNIPPET, env_vars=(ChainPair("A", "1"), ChainPair("A", "2"))), "envVars: 'A' comes twice"),
        (replace(SNIPPET, env_vars=(ChainPair("A", "\0"),)), "env_vars.A: a NUL"),
        (replace(SNIPPET, options=(ChainPair("a", "1"), ChainPair("a", "1"))), "options: 'a' comes twice"),
    ],
)
async def test_execute_rejects_what_is_malformed_in_the_answer(
    request_: ExecuteRequest, problem: str
) -> None:
    """The caller is told in a result with status 20; nothing is run."""
    handler, executor = serving()
    with pytest.raises(InputsInvalidError, match=problem):
        to_execution_request(request_, Limits())
    result = decode_result(await handler(make_call(0, encode_request(request_))))
    assert result.status == 20
    assert re.search(problem, result.error_message)
    assert executor.requests == []


async def test_execute_answers_ten_thousand_variables() -> None:
    """They exceed the cap on inputs; where an operator raises that, they exceed the cap on variables."""
    inputs = encode_request(replace(SNIPPET, env_vars=PAIRS))
    handler, _ = serving()
    result = decode_result(await handler(make_call(0, inputs)))
    assert (result.status, result.exit_code) == (20, -1)
    assert "at most 98304 are accepted" in result.error_message
    generous = build_router(FakeExecutor()).bind({}, max_inputs_bytes=len(inputs))
    assert "envVars: at most 128" in decode_result(await generous(make_call(0, inputs))).error_message


async def test_execute_answers_undecodable_inputs_in_its_own_form() -> None:
    """A consumer decodes one kind of result, whatever happened."""
    handler, _ = serving()
    result = decode_result(await handler(make_call(0, b"junk")))
    assert result.status == 20
    assert "received 4 bytes" in result.error_message


async def test_execute_answers_what_the_executor_refuses() -> None:
    """A RequestError of the executor (an unknown version, say) is a rejection with its words."""
    handler, executor = serving(raising(RequestError("runtime: no python 9 here")))
    result = decode_result(await handler(make_call(0, encode_request(SNIPPET))))
    assert (result.status, result.error_message) == (20, "runtime: no python 9 here")
    assert len(executor.requests) == 1


async def test_execute_repeats_our_own_failure_and_then_says_so() -> None:
    """A failure of the node is tried three times, then answered with 21, without details of it."""
    handler, executor = serving(raising(SystemFailureError("cannot write /var/lib/secret")))
    result = decode_result(await handler(make_call(0, encode_request(SNIPPET))))
    assert result.status == 21
    assert "secret" not in result.error_message
    assert len(executor.requests) == 3


async def test_execute_recovers_when_a_retry_works() -> None:
    """One failure of the node costs time, not the answer."""
    failures = [SystemFailureError("once")]

    def answer(request: ExecutionRequest) -> ExecutionResult:
        if failures:
            raise failures.pop()
        return fake_result(stdout=b"ok")

    handler, executor = serving(answer)
    assert decode_result(await handler(make_call(0, encode_request(SNIPPET)))).stdout == b"ok"
    assert len(executor.requests) == 2


async def test_execute_postpones_a_call_for_which_there_is_no_room() -> None:
    """A full queue is no answer: the node is told when to take the call up again, and nothing is repeated."""
    handler, executor = serving(raising(BusyError("the queue is full", retry_after_s=7.0)))
    with pytest.raises(PostponedError) as postponed:
        await handler(make_call(0, encode_request(SNIPPET)))
    assert (postponed.value.retry_after_s, len(executor.requests)) == (7.0, 1)


async def test_execute_waits_in_the_turns_of_its_caller() -> None:
    """The account that made the call is whose fairness the execution uses up."""
    handler, executor = serving()
    await handler(make_call(0, encode_request(SNIPPET)))
    assert executor.requests[0].caller == make_call(0).caller.hex()


async def test_execute_does_not_repeat_a_missing_mechanism() -> None:
    """What this machine lacks does not come by trying again."""
    handler, executor = serving(raising(SandboxUnavailableError("no user namespaces")))
    assert decode_result(await handler(make_call(0, encode_request(SNIPPET)))).status == 21
    assert len(executor.requests) == 1


@pytest.mark.parametrize("status", [status for status in ExecutionStatus if status < 20])
async def test_execute_passes_every_status_on(status: ExecutionStatus) -> None:
    """How the program ended is the caller's to know, by the fixed number."""
    handler, _ = serving(lambda _: fake_result(status=status, error_message="because"))
    result = decode_result(await handler(make_call(0, encode_request(SNIPPET))))
    assert (result.status, result.error_message) == (int(status), "because")


async def test_execute_result_says_signal_limits_and_costs() -> None:
    """A killed program has no exit code (-1), but its signal, the limits that it touched, and its times."""
    killed = replace(
        fake_result(status=ExecutionStatus.MEMORY_LIMIT, exit_code=None, signal=9),
        limits_hit=LimitKind.MEMORY | LimitKind.STDOUT,
        process_stats=ProcessStats(
            wall_time_s=1.25, user_time_s=0.5, system_time_s=0.25, memory_peak_bytes=7, processes_peak=3
        ),
    )
    handler, _ = serving(lambda _: killed)
    result = decode_result(await handler(make_call(0, encode_request(SNIPPET))))
    assert (result.exit_code, result.signal, result.limits_hit) == (-1, 9, 4 | 64)
    stats = result.stats
    assert (stats.wall_us, stats.user_us, stats.system_us) == (1_250_000, 500_000, 250_000)
    assert (stats.memory_peak_bytes, stats.disk_bytes, stats.processes) == (7, 0, 3)
    assert (result.runtime, result.receipt) == ("python 3.13.5", b"")


class KeptOutputs:
    """An output store in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.kept[digest] = data
        return digest


async def test_execute_cuts_streams_on_chain_and_keeps_the_whole_by_digest() -> None:
    """The chain holds the first 8 KiB and the size; the digest leads to all that was kept, files included."""
    printed = random.Random(3).randbytes(100_000)
    file = OutputFile(
        path="out.bin", content=b"\0\1", size_bytes=2, sha256=hashlib.sha256(b"\0\1").hexdigest()
    )
    whole = replace(fake_result(files=[file]), stdout=captured(printed, keep_bytes=50_000))
    outputs = KeptOutputs()
    handler = build_router(FakeExecutor(lambda _: whole), outputs).bind({})
    result = decode_result(await handler(make_call(0, encode_request(SNIPPET))))
    assert result.stdout == printed[:MAX_STREAM_BYTES]
    assert result.stdout_size == 100_000
    kept = outputs.kept[result.output_digest.hex()]
    assert hashlib.sha256(kept).digest() == result.output_digest
    bundle = decode_bundle(kept)
    assert bundle.stdout == printed[:50_000]
    assert bundle.stdout_sha256 == hashlib.sha256(printed).digest()
    assert [(f.path, f.content) for f in bundle.files] == [("out.bin", b"\0\1")]


async def test_execute_digest_is_the_same_with_and_without_a_store() -> None:
    """The digest names the output, whether this node serves it or not."""
    results = []
    for outputs in (None, KeptOutputs()):
        handler = build_router(FakeExecutor(), outputs).bind({})
        results.append(decode_result(await handler(make_call(0, encode_request(SNIPPET)))).output_digest)
    assert results[0] == results[1] != bytes(32)


def test_execute_result_round_trips_and_matches_eth_abi() -> None:
    """A consumer with any ABI library reads the result."""
    result = ExecuteResult(status=1, exit_code=-5, stdout=b"out", error_message="é")
    data = encode_result(result)
    assert decode_result(data) == result
    ((version, status, _, exit_code, _, stdout, *_),) = eth_abi.decode([solidity_type("Result")], data)
    assert (version, status, exit_code, stdout) == (1, 1, -5, b"out")


async def test_execute_takes_the_egress_policy_from_the_options() -> None:
    """The option `network` names the node's policy and is no option of the language."""
    handler, executor = serving()
    options = (ChainPair("network", "api"), ChainPair("check", "off"))
    await handler(make_call(0, encode_request(replace(SNIPPET, options=options))))
    (request,) = executor.requests
    assert (request.network, request.options) == ("api", {"check": "off"})
