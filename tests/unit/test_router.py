"""The router: checks at registration and at binding, and an answer to every call."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import eth_abi
import pytest
import structlog
from calls import make_call

from blueprint.errors import (
    BlueprintError,
    ConfigError,
    InputsInvalidError,
    JobTimeoutError,
    JournalError,
    RegistrationError,
    RpcError,
)
from blueprint.extract import U8, U64, RawResult, Void
from blueprint.extract.shape import Kind, Shape
from blueprint.extract.tlv import decode_payload, encode_payload
from blueprint.extract.tlv_schema import parse_schema, serialise_schema
from blueprint.job import Failure, Handler, JobSchema
from blueprint.router import MAX_MESSAGE_BYTES, Router
from blueprint.types import JobCall

ERROR = ["(uint16,uint8,string)"]
TEXT = Shape(kind=Kind.STRING)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep log lines off the terminal; rendering their tracebacks takes longer than the tests."""
    with structlog.testing.capture_logs():
        yield


def error_of(output: bytes) -> tuple[int, str]:
    """Decode a generic error answer to its status and message."""
    ((version, status, message),) = eth_abi.decode(ERROR, output)
    assert version == 1
    return status, message


def failing(error: BaseException) -> Router:
    """Return a router whose job 0 raises."""
    router = Router()

    @router.job(0)
    async def fail() -> None:
        raise error

    return router


@dataclass(frozen=True)
class Sum:
    """A result with its own error field."""

    total: U64
    error_message: str


def summing() -> Router:
    """Return a router whose job 0 adds up two numbers."""
    router = Router()

    @router.job(0)
    async def add(left: U8, right: U8) -> Sum:
        return Sum(left + right, "")

    return router


async def test_router_gives_typed_parameters_and_the_call() -> None:
    """Inputs become parameters, the call comes where it is asked for, the return value becomes the result."""
    router = Router()

    @router.job(5)
    async def join(text: str, call: JobCall, times: U8) -> str:
        return text * times + str(call.key.call_id)

    output = await router.bind({})(make_call(5, eth_abi.encode(["(string,uint8)"], [("ab", 2)])))
    assert eth_abi.decode(["string"], output) == ("abab7",)


async def test_router_speaks_the_schema_that_the_chain_declares() -> None:
    """The same handler is served over ABI and over TLV, by what is declared."""
    router = summing()
    over_abi = await router.bind({})(make_call(0, eth_abi.encode(["uint8", "uint8"], [2, 3])))
    assert eth_abi.decode(["(uint64,string)"], over_abi) == ((5, ""),)
    over_tlv = await router.bind(router.schemas())(make_call(0, b"\x02\x03"))
    assert over_tlv == (5).to_bytes(8, "big") + b"\0"


async def test_router_answers_an_unknown_index() -> None:
    """A call of an index without a handler is answered with a rejection that lists what is served."""
    status, message = error_of(await summing().bind({})(make_call(9)))
    assert status == 20
    assert "job index 9 has no handler; this node serves 0 (add)" in message


async def test_router_answers_inputs_over_the_cap() -> None:
    """Inputs one byte over the cap are rejected; the cap itself is decoded."""
    handler = summing().bind({}, max_inputs_bytes=64)
    output = await handler(make_call(0, bytes(65)))
    assert error_of(output) == (20, "inputs have 65 bytes; at most 64 are accepted")
    assert len(await handler(make_call(0, bytes(64)))) > 0


async def test_router_answers_undecodable_inputs() -> None:
    """Inputs that are no encoding are rejected with the place of the fault."""
    status, message = error_of(await summing().bind({})(make_call(0, b"\xff" * 64)))
    assert status == 20
    assert message.startswith("left: the number does not fit uint8")


async def test_router_answers_what_a_handler_rejects() -> None:
    """A handler's own rejection reaches the caller in its words."""
    output = await failing(InputsInvalidError("times: at most 3")).bind({})(make_call(0))
    assert error_of(output) == (20, "times: at most 3")


class QuotaError(BlueprintError):
    """An error of a job author's own."""


@pytest.mark.parametrize("error", [JobTimeoutError("not within 3 s"), QuotaError("come back tomorrow")])
async def test_router_answers_errors_meant_for_callers_in_their_words(error: Exception) -> None:
    """An error that a handler raises on purpose is answered as a system error, by class and message."""
    output = await failing(error).bind({}, new_incident=lambda: "abcd")(make_call(0))
    assert error_of(output) == (21, f"{type(error).__name__}: {error} (incident abcd)")


@pytest.mark.parametrize(
    "error", [RpcError("wss://x/key123"), JournalError("/var/lib/x"), ConfigError("KEY=1")]
)
async def test_router_answers_errors_of_the_nodes_own_parts_by_class_alone(error: Exception) -> None:
    """What such an error says is for the operator: an end point's address may hold a key."""
    output = await failing(error).bind({}, new_incident=lambda: "abcd")(make_call(0))
    assert error_of(output) == (
        21,
        f"the job failed on this node with {type(error).__name__} (incident abcd)",
    )


@pytest.mark.parametrize(
    "error",
    [
        ValueError("/etc/secret key=hunter2"),
        SystemExit(3),
        RecursionError("deep"),
        MemoryError(),
        ExceptionGroup("several", [OSError("hunter2")]),
        asyncio.CancelledError(),
    ],
)
async def test_router_answer_to_an_unexpected_error_leaks_nothing(error: BaseException) -> None:
    """Whatever else a handler raises, sys.exit() and a stray cancellation too, is a short, blank answer."""
    handler = failing(error).bind({}, new_incident=lambda: "abcd")
    with structlog.testing.capture_logs() as logs:
        status, message = error_of(await handler(make_call(0)))
    assert status == 21
    assert message == "the job failed on this node (incident abcd); the inputs are not known to be wrong"
    assert [(log["event"], log["incident"], log["call_id"]) for log in logs] == [("job_failed", "abcd", 7)]
    assert logs[0]["exc_info"] is error


async def test_router_lets_the_cancellation_of_its_task_escape() -> None:
    """When the node stops, a call is not answered: it runs again after the next start."""
    router = Router()
    started = asyncio.Event()

    @router.job(0)
    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    handler = router.bind({})

    async def run() -> bytes:
        return await handler(make_call(0))

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run())
        await started.wait()
        task.cancel()
    assert task.cancelled()


async def test_router_replaces_an_output_over_the_cap() -> None:
    """A result that is too large is a system error: the caller is not to blame."""
    router = Router()

    @router.job(0)
    async def flood(size: U64) -> RawResult:
        return bytes(size)

    handler = router.bind({}, max_output_bytes=100)
    assert await handler(make_call(0, eth_abi.encode(["uint64"], [100]))) == bytes(100)
    output = await handler(make_call(0, eth_abi.encode(["uint64"], [101])))
    assert error_of(output) == (21, "the result has 101 bytes; this node sends at most 100")


async def test_router_cuts_long_messages_and_repairs_broken_text() -> None:
    """Messages fit in a kilobyte and are valid UTF-8, whatever was raised."""
    _, message = error_of(await failing(InputsInvalidError("é" * 5000)).bind({})(make_call(0)))
    assert len(message.encode()) <= MAX_MESSAGE_BYTES
    assert message.endswith("é...")
    _, message = error_of(await failing(InputsInvalidError("a\ud800b")).bind({})(make_call(0)))
    assert message == "a?b"


async def test_router_answers_a_result_of_the_wrong_type() -> None:
    """A handler that does not return what it says is answered as a system error."""
    router = Router()

    @router.job(0)
    async def wrong() -> U8:
        return 256

    @router.job(1)
    async def raw(call: JobCall) -> RawResult:
        return "text"  # type: ignore[return-value] # wrong on purpose

    for index in (0, 1):
        assert error_of(await router.bind({})(make_call(index)))[0] == 21


async def test_router_uses_a_jobs_own_error_answer() -> None:
    """``on_error`` encodes every failure of its job, and only of that job."""
    router = Router()

    @router.job(0, on_error=lambda failure: f"{failure.status}:{failure.message}".encode())
    async def fail() -> None:
        raise InputsInvalidError("no")

    handler = router.bind({})
    assert await handler(make_call(0)) == b"20:no"
    assert await handler(make_call(0, b"junk")) == b"20:inputs: this job takes none, received 4 bytes"
    assert error_of(await handler(make_call(1)))[0] == 20


async def test_router_falls_back_when_a_jobs_own_error_answer_fails() -> None:
    """An ``on_error`` that raises at run time costs its form, not the answer."""
    messages = []

    def fragile(failure: Failure) -> bytes:
        messages.append(failure.message)
        return {"a message": b"ok"}[failure.message]

    router = Router()

    @router.job(0, on_error=fragile)
    async def fail() -> None:
        raise InputsInvalidError("no")

    assert error_of(await router.bind({})(make_call(0))) == (20, "no")
    assert messages == ["a message", "a message", "no"]


async def test_router_error_answer_fits_the_declared_result_schema() -> None:
    """Under a TLV schema the error field carries the message and every other field is zero."""
    fields = [
        Shape(kind=Kind.U64, name="result"),
        Shape(kind=Kind.OPTIONAL, name="error", children=(TEXT,)),
    ]
    router = Router()

    @router.job(0)
    async def fail() -> U64:
        raise InputsInvalidError("no")

    output = await router.bind({0: JobSchema(result=serialise_schema(fields))})(make_call(0))
    assert decode_payload(fields, output) == (0, "no")


async def test_router_answers_an_unregistered_job_by_its_schema() -> None:
    """A job that the chain declares and nobody registered is answered in a form that the chain accepts."""
    fields = [Shape(kind=Kind.STRING, name="error"), Shape(kind=Kind.ADDRESS, name="who")]
    output = await Router().bind({4: JobSchema(result=serialise_schema(fields))})(make_call(4, b"x"))
    message, who = decode_payload(fields, output)
    assert (message, who) == ("job index 4 has no handler; this node serves none", bytes(20))


@pytest.mark.parametrize("index", [-1, 256, "0", True, 1.0])
def test_router_refuses_an_index_that_is_no_uint8(index: object) -> None:
    """A job index is 0 to 255."""
    with pytest.raises(RegistrationError, match="the index must be 0 to 255"):
        Router().job(index)(good)  # type: ignore[arg-type] # wrong on purpose


async def good() -> None:
    """Do nothing."""


def test_router_refuses_an_index_twice() -> None:
    """Two handlers under one index clash when the second is registered."""
    router = Router()
    router.job(1, name="first")(good)
    with pytest.raises(RegistrationError, match="job 'good': index 1 is taken by 'first'"):
        router.job(1)(good)


def fields_of(*shapes: Shape) -> bytes:
    """Return a schema."""
    return serialise_schema(shapes)


U8_LEFT, U8_RIGHT = Shape(kind=Kind.U8, name="left"), Shape(kind=Kind.U8, name="right")
TOTAL = Shape(kind=Kind.U64, name="total")
ERROR_FIELD = Shape(kind=Kind.STRING, name="errorMessage")


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (
            JobSchema(params=fields_of(U8_LEFT)),
            r"the handler has 2 \(left: U8, right: U8\), the chain 1 \(left: U8\)",
        ),
        (
            JobSchema(params=fields_of(U8_RIGHT, U8_LEFT)),
            "the chain calls field 0 'right'; rename or reorder",
        ),
        (
            JobSchema(params=fields_of(U8_LEFT, Shape(kind=Kind.U16, name="right"))),
            "right: the handler has U8, the chain U16",
        ),
        (JobSchema(params=b"\x01\x00\x00"), "version 1"),
        (JobSchema(result=fields_of(TOTAL)), "result schema.*the handler has 2"),
        (JobSchema(result=fields_of(TOTAL, Shape(kind=Kind.STRING, name="oops"))), "'oops'"),
        (JobSchema(result=b"\x02\x00\x00"), "the handler has 2 .*the chain 0"),
    ],
)
def test_router_refuses_a_schema_that_differs_from_the_handler(schema: JobSchema, problem: str) -> None:
    """Binding names the job and the first difference."""
    with pytest.raises(RegistrationError, match=rf"job 0 \(add\): .*{problem}"):
        summing().bind({0: schema})


def test_router_accepts_names_in_another_style() -> None:
    """Case and underscores do not count in names, and a field without a name matches by its place."""
    params = fields_of(Shape(kind=Kind.U8, name="LEFT"), Shape(kind=Kind.U8))
    assert summing().bind({0: JobSchema(params=params, result=fields_of(TOTAL, ERROR_FIELD))})


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        ((Shape(kind=Kind.U64, name="result"),), "cannot carry an error answer"),
        ((Shape(kind=Kind.U64, name="error"),), "cannot carry an error answer"),
        (
            (
                Shape(
                    kind=Kind.ARRAY,
                    name="x",
                    length=65_535,
                    children=(Shape(kind=Kind.ARRAY, length=65_535, children=(TEXT,)),),
                ),
                ERROR_FIELD,
            ),
            "zero values, more than 100000",
        ),
    ],
)
def test_router_refuses_a_schema_that_cannot_answer_an_error(shapes: tuple[Shape, ...], problem: str) -> None:
    """A job whose failure could not be answered is not served, registered or not."""
    with pytest.raises(RegistrationError, match=problem):
        Router().bind({3: JobSchema(result=fields_of(*shapes))})


def test_router_refuses_a_handler_result_without_an_error_field() -> None:
    """The schema of a served job needs an error field too, and the message says how to add it."""
    router = Router()

    @router.job(2)
    async def number() -> U64:
        return 1

    with pytest.raises(RegistrationError, match=r"job 2 \(number\).*named 'error' or 'error_message'"):
        router.bind({2: JobSchema(result=fields_of(Shape(kind=Kind.U64, name="result")))})


def test_router_tries_a_jobs_own_error_answer_when_it_binds() -> None:
    """An ``on_error`` whose bytes the chain would refuse is found at start."""
    router = Router()
    router.job(0, on_error=lambda _: b"\xff")(good)
    with pytest.raises(RegistrationError, match="its own error answer does not match"):
        router.bind({0: JobSchema(result=fields_of(ERROR_FIELD))})


def test_router_refuses_raw_handlers_under_a_schema() -> None:
    """A handler that reads or writes bytes itself cannot be held to a declared schema."""

    async def raw(call: JobCall) -> RawResult:
        return call.inputs

    router = Router()
    router.job(0)(raw)
    with pytest.raises(RegistrationError, match="reads its inputs itself"):
        router.bind({0: JobSchema(params=fields_of(U8_LEFT))})
    with pytest.raises(RegistrationError, match="encodes its result itself"):
        router.bind({0: JobSchema(result=fields_of(ERROR_FIELD))})
    assert router.schemas() == {0: JobSchema()}


def test_router_schemas_describe_the_jobs() -> None:
    """A deployment gets the fields of the parameters and of the result, with an error field in any case."""
    router = summing()

    @router.job(1)
    async def nothing(call: JobCall, left: U8) -> Void:
        return None

    schemas = router.schemas()
    assert [s.name for s in parse_schema(schemas[0].params)] == ["left", "right"]
    assert [s.name for s in parse_schema(schemas[0].result)] == ["total", "error_message"]
    assert [s.name for s in parse_schema(schemas[1].result)] == ["error"]
    assert router.bind(schemas)


def marking(mark: str, seen: list[str]) -> Callable[[Handler], Handler]:
    """Return a layer that notes when it is entered and left."""

    def layer(handler: Handler) -> Handler:
        async def marked(call: JobCall) -> bytes:
            seen.append(f"{mark} in")
            try:
                return await handler(call)
            finally:
                seen.append(f"{mark} out")

        return marked

    return layer


async def test_router_applies_layers_from_the_outside_in_and_survives_their_failure() -> None:
    """Layers of the router stand around those of a job; one that fails is answered like a handler."""
    seen: list[str] = []
    router = Router()
    router.job(0, layers=[marking("c", seen), marking("d", seen)])(good)
    handler = router.bind({}, layers=[marking("a", seen), marking("b", seen)])
    assert await handler(make_call(0)) == b""
    assert seen == ["a in", "b in", "c in", "d in", "d out", "c out", "b out", "a out"]

    def broken(handler: Handler) -> Handler:
        async def answer(call: JobCall) -> bytes:
            return None  # type: ignore[return-value] # wrong on purpose

        return answer

    assert error_of(await router.bind({}, layers=[broken])(make_call(0)))[0] == 21


async def test_router_carries_a_lone_dataclass_as_the_inputs_themselves() -> None:
    """A handler of one dataclass takes its members as the inputs, flat or nested, in TLV."""
    router = Router()

    @router.job(0)
    async def total(both: Sum) -> U64:
        return both.total

    flat = router.schemas()[0]
    nested = fields_of(Shape(kind=Kind.STRUCT, name="both", children=parse_schema(flat.params)))
    assert (
        await router.bind({0: flat})(make_call(0, (9).to_bytes(8, "big") + b"\0"))
        == (9).to_bytes(8, "big") + b"\0"
    )
    payload = encode_payload(parse_schema(nested), [(9, "")])
    output = await router.bind({0: JobSchema(params=nested, result=flat.result)})(make_call(0, payload))
    assert output == (9).to_bytes(8, "big") + b"\0"
