"""The router: from a job call to the handler registered for its index, and always back with an answer.

A handler is an async function whose annotations say what it takes and gives (`blueprint.extract`)::

    router = Router()

    @router.job(0)
    async def square(number: U64) -> U128:
        return number * number

Invariant: a bound router answers every call with bytes that the chain accepts, or says that it is to be asked
again later. Wrong inputs, an unknown
index, a handler that fails: each becomes an error answer, because a call without one keeps its payment for
ever.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import structlog

from blueprint.errors import (
    AttestationError,
    BlueprintError,
    ChainError,
    ConfigError,
    InputsTooLargeError,
    JournalError,
    PostponedError,
    RegistrationError,
    Rejection,
    UnencodableError,
    UnknownJobError,
)
from blueprint.extract import (
    Signature,
    declared_schema,
    failure_encoder,
    inputs_decoder,
    read_signature,
    result_encoder,
    result_validator,
)
from blueprint.extract.signature import TypedFunction
from blueprint.job import MAX_JOB_INDEX, Failure, FailureEncoder, FailureStatus, Handler, JobSchema, Layer
from blueprint.types import JobCall

__all__ = ["MAX_INPUTS_BYTES", "MAX_MESSAGE_BYTES", "MAX_OUTPUT_BYTES", "Job", "Router"]

MAX_INPUTS_BYTES = 96 * 1024
"""Public nodes refuse transactions of over 128 KiB."""
MAX_OUTPUT_BYTES = 96 * 1024
MAX_MESSAGE_BYTES = 1024
"""Longer messages of error answers are cut: each byte costs gas."""

F = TypeVar("F", bound=TypedFunction)

_INTERNAL = (AttestationError, ChainError, ConfigError, JournalError, RegistrationError, UnencodableError)
"""Errors of the node's own parts: their messages are for the operator."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One registered job."""

    index: int
    name: str
    signature: Signature
    layers: tuple[Layer, ...]
    """Around this job's handler, the first one outermost."""
    on_error: FailureEncoder | None


class Router:
    """Registers handlers under job indices, and binds them to what the chain declares."""

    def __init__(self) -> None:
        self._jobs: dict[int, Job] = {}

    @property
    def jobs(self) -> Mapping[int, Job]:
        """The registered jobs by index."""
        return dict(self._jobs)

    def job(
        self,
        index: int,
        *,
        name: str = "",
        layers: Iterable[Layer] = (),
        on_error: FailureEncoder | None = None,
    ) -> Callable[[F], F]:
        """Register an async function for a job index.

        Args:
            index: the job's number on chain, 0 to 255.
            name: for logs and messages; the function's own name if empty.
            layers: wrapped around this job's handler alone, the first one outermost. They see what it raises.
            on_error: encodes an error answer in the job's own form; without it the generic one is sent.

        Raises:
            RegistrationError: the index is taken or out of range, or the signature cannot be served.
        """

        def register(function: F) -> F:
            title = name or getattr(function, "__name__", "job")
            if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index <= MAX_JOB_INDEX:
                raise RegistrationError(
                    f"job {title!r}: the index must be 0 to {MAX_JOB_INDEX}, received {index!r}"
                )
            if index in self._jobs:
                raise RegistrationError(
                    f"job {title!r}: index {index} is taken by {self._jobs[index].name!r}"
                )
            signature = read_signature(function, name=title)
            self._jobs[index] = Job(
                index=index, name=title, signature=signature, layers=tuple(layers), on_error=on_error
            )
            return function

        return register

    def schemas(self) -> dict[int, JobSchema]:
        """Return the TLV schemas that describe the registered jobs, for a deployment to declare on chain.

        A job that reads or writes bytes itself gets the empty schema.

        Raises:
            RegistrationError: a job has a type that no schema can say.
        """
        return {index: self._schema_of(job) for index, job in self._jobs.items()}

    @staticmethod
    def _schema_of(job: Job) -> JobSchema:
        if job.signature.reads_call_only or job.signature.result is None:
            return JobSchema()
        return declared_schema(job.signature)

    def bind(
        self,
        schemas: Mapping[int, JobSchema],
        *,
        layers: Iterable[Layer] = (),
        max_inputs_bytes: int = MAX_INPUTS_BYTES,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
        new_incident: Callable[[], str] = lambda: secrets.token_hex(4),
    ) -> Handler:
        """Check every job against what the chain declares, and return the handler of all calls.

        The handler returned always returns bytes; only the cancellation of its own task escapes, and
        PostponedError: the call is to be taken up again later, and so is not answered now.

        Args:
            schemas: by job index, as declared on chain. An index that is not in it is served with ABI.
            layers: around all jobs, the first one outermost. They see what is raised, unlike the caller.
            max_inputs_bytes: larger inputs are rejected (status 20).
            max_output_bytes: a larger output is replaced by an error answer (status 21): what the caller
            sent is not
                at fault.
            new_incident: names an unexpected failure in the answer and in the log.

        Raises:
            RegistrationError: a schema does not match its handler, or cannot carry an error answer.
        """
        bound = {index: _Bound(job, schemas.get(index, JobSchema())) for index, job in self._jobs.items()}
        answers = {index: job.encode_failure for index, job in bound.items()}
        for index in schemas.keys() - bound.keys():
            answers[index] = _explained(f"job {index} (not registered here)", schemas[index].result)
        dispatch = _dispatcher(bound, max_inputs_bytes)
        for layer in reversed(tuple(layers)):
            dispatch = layer(dispatch)
        return _Answering(dispatch, answers, max_output_bytes, new_incident)


class _Bound:
    """One job with its codecs."""

    def __init__(self, job: Job, schema: JobSchema) -> None:
        self.job = job
        title = f"job {job.index} ({job.name})"
        try:
            self._decode = inputs_decoder(job.signature, schema.params)
            self._encode = result_encoder(job.signature, schema.result)
        except RegistrationError as exc:
            raise RegistrationError(f"{title}: {exc}") from exc
        self.encode_failure = job.on_error or _explained(title, schema.result)
        if job.on_error:
            _check_on_error(title, job.on_error, schema.result)
        handler: Handler = self._run
        for layer in reversed(job.layers):
            handler = layer(handler)
        self.handler = handler

    async def _run(self, call: JobCall) -> bytes:
        values = self._decode(call.inputs)
        return self._encode(await self.job.signature.invoke(call, values))


def _explained(title: str, schema: bytes) -> FailureEncoder:
    try:
        return failure_encoder(schema)
    except RegistrationError as exc:
        raise RegistrationError(f"{title}: {exc}") from exc


def _check_on_error(title: str, on_error: FailureEncoder, schema: bytes) -> None:
    """Try a job's own error answer once, at start, against the schema that the chain will hold it to."""
    for status in FailureStatus:
        try:
            result_validator(schema)(on_error(Failure(status=status, message="a message")))
        except (BlueprintError, ValueError, TypeError) as exc:
            raise RegistrationError(
                f"{title}: its own error answer does not match the result schema: {exc}"
            ) from exc


def _dispatcher(bound: Mapping[int, _Bound], max_inputs_bytes: int) -> Handler:
    async def dispatch(call: JobCall) -> bytes:
        if call.job_index not in bound:
            known = ", ".join(f"{index} ({bound[index].job.name})" for index in sorted(bound)) or "none"
            raise UnknownJobError(f"job index {call.job_index} has no handler; this node serves {known}")
        if len(call.inputs) > max_inputs_bytes:
            raise InputsTooLargeError(
                f"inputs have {len(call.inputs)} bytes; at most {max_inputs_bytes} are accepted"
            )
        return await bound[call.job_index].handler(call)

    return dispatch


class _Answering:
    """The outermost handler: turns whatever is raised into an error answer."""

    def __init__(
        self,
        dispatch: Handler,
        answers: Mapping[int, FailureEncoder],
        max_output_bytes: int,
        new_incident: Callable[[], str],
    ) -> None:
        self._dispatch = dispatch
        self._answers = answers
        self._generic = failure_encoder(b"")
        self._max_output_bytes = max_output_bytes
        self._new_incident = new_incident

    async def __call__(self, call: JobCall) -> bytes:
        try:
            output = _checked(await self._dispatch(call))
        except Rejection as exc:
            _log.info("call_rejected", **_keys(call), reason=type(exc).__name__)
            return self._answer(call, FailureStatus.REJECTED, str(exc))
        except PostponedError:
            raise
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Something inside the handler was cancelled, not this call: the node goes on and answers it.
            return self._failed(call, exc)
        except SystemExit as exc:
            # A handler that calls sys.exit() would stop the node, and after each restart once more.
            return self._failed(call, exc)
        except Exception as exc:  # noqa: BLE001 - the one place around a handler; every call gets an answer
            return self._failed(call, exc)
        if len(output) > self._max_output_bytes:
            _log.warning(
                "output_too_large", **_keys(call), output_bytes=len(output), max_bytes=self._max_output_bytes
            )
            text = f"the result has {len(output)} bytes; this node sends at most {self._max_output_bytes}"
            return self._answer(call, FailureStatus.SYSTEM_ERROR, text)
        return output

    def _failed(self, call: JobCall, exc: BaseException) -> bytes:
        incident = self._new_incident()
        _log.error("job_failed", **_keys(call), incident=incident, exc_info=exc)
        # SECURITY: what goes on chain is public. An unexpected error, and one of the node's own parts, may
        # hold paths, addresses with keys in them, or data of others: only the log has it;
        # test_router_answer_to_an_unexpected_error_leaks_nothing
        if not isinstance(exc, BlueprintError):
            text = f"the job failed on this node (incident {incident}); the inputs are not known to be wrong"
        elif isinstance(exc, _INTERNAL):
            text = f"the job failed on this node with {type(exc).__name__} (incident {incident})"
        else:
            text = f"{type(exc).__name__}: {exc} (incident {incident})"
        return self._answer(call, FailureStatus.SYSTEM_ERROR, text)

    def _answer(self, call: JobCall, status: FailureStatus, message: str) -> bytes:
        failure = Failure(status=status, message=_fitted(message))
        encode = self._answers.get(call.job_index, self._generic)
        try:
            return encode(failure)
        except Exception as exc:  # noqa: BLE001 - a job's own on_error is part of its handler
            _log.error("error_answer_failed", **_keys(call), exc_info=exc)
            return self._generic(failure)


def _checked(output: object) -> bytes:
    """Hold handlers and layers that no type checker has seen to their type."""
    if not isinstance(output, bytes):
        raise TypeError(f"a handler or a layer returned {type(output).__name__} where bytes are expected")
    return output


def _keys(call: JobCall) -> dict[str, int]:
    return {"service_id": call.key.service_id, "call_id": call.key.call_id, "job_index": call.job_index}


def _fitted(message: str) -> str:
    """Make a message fit for an answer: valid UTF-8, at most `MAX_MESSAGE_BYTES`."""
    encoded = message.encode("utf-8", "replace")
    if len(encoded) <= MAX_MESSAGE_BYTES:
        return encoded.decode()
    return encoded[: MAX_MESSAGE_BYTES - 3].decode("utf-8", "ignore") + "..."
