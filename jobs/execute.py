"""The `execute` job (index 0): decodes a request, has it executed, encodes how it ended.

Invariant: a program that fails is a result with its status; only a request that cannot be served is answered
with 20, and only a failure of the node, after retries, with 21.
"""

import asyncio
from dataclasses import replace
from typing import Protocol

from blueprint.errors import InputsInvalidError, PostponedError
from blueprint.extract import RawResult
from blueprint.job import Failure, Layer
from blueprint.layers import retry
from blueprint.router import Router
from blueprint.types import JobCall
from jobs.execute_codec import (
    NO_EXIT_CODE,
    ChainFile,
    ChainLimits,
    ChainPair,
    ChainStats,
    ExecuteRequest,
    ExecuteResult,
    decode_request,
    encode_result,
)
from jobs.output_bundle import bundle_digest, encode_bundle
from sandbox import languages
from sandbox.errors import BusyError, RequestError
from sandbox.executor import Executor
from sandbox.request import Dependency, ExecutionRequest, Limits, SourceFile
from sandbox.result import ExecutionResult, ProcessStats
from sandbox.wellformed import MAX_ENV_VARS, MAX_OPTIONS

__all__ = ["EXECUTE_INDEX", "MAX_STREAM_BYTES", "OutputStore", "add_execute", "to_execution_request"]

EXECUTE_INDEX = 0
MAX_STREAM_BYTES = 8 * 1024
"""What a result on chain holds of stdout, and of stderr; the rest is served by digest."""
MAX_ERROR_BYTES = 1024
_U32_MAX, _U64_MAX = (1 << 32) - 1, (1 << 64) - 1


class OutputStore(Protocol):
    """Keeps whole outputs for those who ask for them by digest."""

    def put(self, data: bytes) -> str:
        """Keep bytes, if there is room, and return their SHA-256 in hexadecimal; called from a thread."""


def add_execute(
    router: Router,
    executor: Executor,
    *,
    outputs: OutputStore | None = None,
    limits: Limits | None = None,
    retries: Layer | None = None,
) -> None:
    """Register the `execute` job.

    Args:
        router: where to.
        executor: runs the programs.
        outputs: keeps whole outputs; without it only their digest is made.
        limits: the operator's; a request may lower them. The defaults of `Limits` if None.
        retries: the layer that repeats what failed by the node's fault; three attempts if None.
    """
    operator_limits = limits or Limits()

    @router.job(EXECUTE_INDEX, name="execute", layers=[retries or retry()], on_error=_encode_failure)
    async def execute(call: JobCall) -> RawResult:
        request = to_execution_request(decode_request(call.inputs), operator_limits, caller=call.caller.hex())
        try:
            result = await executor.execute(request)
        except RequestError as exc:
            raise InputsInvalidError(str(exc)) from exc
        except BusyError as exc:
            raise PostponedError(str(exc), retry_after_s=exc.retry_after_s) from exc
        digest = await asyncio.to_thread(_keep, result, outputs)
        return encode_result(_to_chain(result, digest))


def _keep(result: ExecutionResult, outputs: OutputStore | None) -> bytes:
    """Bundle what was printed, keep it, and return its digest; runs in a thread, for it may be megabytes."""
    bundle = encode_bundle(result)
    if outputs is not None:
        outputs.put(bundle)
    return bundle_digest(bundle)


def _encode_failure(failure: Failure) -> bytes:
    return encode_result(ExecuteResult(status=int(failure.status), error_message=failure.message))


def to_execution_request(request: ExecuteRequest, limits: Limits, *, caller: str = "") -> ExecutionRequest:
    """Turn the on-chain form into the executor's.

    Args:
        request: as decoded.
        limits: the operator's.
        caller: whose turn the execution uses when it must wait.

    Raises:
        InputsInvalidError: a member is outside what is allowed; the message names it.
    """
    options = _mapping("options", request.options, MAX_OPTIONS)
    network = options.pop("network", "")  # of the node, whatever the language
    try:
        return ExecutionRequest(
            language=request.language,
            runtime=request.runtime,
            files=[SourceFile(path=_path(request, file), content=file.content) for file in request.files],
            entry_point=request.entry_point,
            stdin=request.stdin,
            args=request.args,
            dependencies=[
                Dependency(name=each.name, requirement=each.requirement, source=each.source)
                for each in request.dependencies
            ],
            env_vars=_mapping("envVars", request.env_vars, MAX_ENV_VARS),
            timeout_s=_timeout_s(request.limits.timeout_ms, limits),
            limits=_limits(request.limits, limits),
            options=options,
            network=network,
            caller=caller,
        )
    except RequestError as exc:
        raise InputsInvalidError(str(exc)) from exc


def _path(request: ExecuteRequest, file: ChainFile) -> str:
    """A lone file without a path gets the one that its language starts from."""
    if file.path or len(request.files) > 1:
        return file.path
    return request.entry_point or languages.find(request.language).default_file


def _mapping(field: str, pairs: tuple[ChainPair, ...], most: int) -> dict[str, str]:
    if len(pairs) > most:
        raise InputsInvalidError(f"{field}: at most {most} entries are accepted, received {len(pairs)}")
    mapping: dict[str, str] = {}
    for pair in pairs:
        if pair.key in mapping:
            raise InputsInvalidError(f"{field}: {pair.key[:64]!r} comes twice")
        mapping[pair.key] = pair.value
    return mapping


def _timeout_s(timeout_ms: int, operator: Limits) -> float | None:
    most_ms = int(operator.wall_time_s * 1000)
    if timeout_ms > most_ms:
        raise InputsInvalidError(
            f"limits.timeoutMs: the operator allows at most {most_ms}, or 0 for that; received {timeout_ms}"
        )
    return timeout_ms / 1000 if timeout_ms else None


def _limits(asked: ChainLimits, operator: Limits) -> Limits | None:
    """Lower the operator's limits where the request says so; None where it does not."""
    wanted = {
        "memoryBytes": (asked.memory_bytes, operator.memory_bytes),
        "diskBytes": (asked.disk_bytes, operator.disk_bytes),
        "processes": (asked.processes, operator.processes),
    }
    for name, (value, most) in wanted.items():
        if value > most:
            raise InputsInvalidError(f"limits.{name}: the operator allows at most {most}, received {value}")
    if not any(value for value, _ in wanted.values()):
        return None
    return replace(
        operator,
        memory_bytes=asked.memory_bytes or operator.memory_bytes,
        disk_bytes=asked.disk_bytes or operator.disk_bytes,
        processes=asked.processes or operator.processes,
    )


def _to_chain(result: ExecutionResult, digest: bytes) -> ExecuteResult:
    return ExecuteResult(
        status=int(result.status),
        limits_hit=int(result.limits_hit),
        exit_code=NO_EXIT_CODE if result.exit_code is None else result.exit_code,
        signal=result.signal or 0,
        stdout=result.stdout.data[:MAX_STREAM_BYTES],
        stderr=result.stderr.data[:MAX_STREAM_BYTES],
        stdout_size=result.stdout.size_bytes,
        stderr_size=result.stderr.size_bytes,
        stats=_stats(result.process_stats),
        runtime=f"{result.runtime.language} {result.runtime.version}",
        output_digest=digest,
        error_message=result.error_message.encode("utf-8", "replace")[:MAX_ERROR_BYTES].decode(
            "utf-8", "ignore"
        ),
    )


def _stats(stats: ProcessStats) -> ChainStats:
    return ChainStats(
        wall_us=_microseconds(stats.wall_time_s),
        user_us=_microseconds(stats.user_time_s),
        system_us=_microseconds(stats.system_time_s),
        memory_peak_bytes=min(stats.memory_peak_bytes or 0, _U64_MAX),
        disk_bytes=min(stats.disk_bytes or 0, _U64_MAX),
        processes=min(stats.processes_peak or 0, _U32_MAX),
    )


def _microseconds(seconds: float) -> int:
    return min(max(0, round(seconds * 1_000_000)), _U64_MAX)
