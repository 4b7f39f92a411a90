"""``blueprint submit``: a program in, the answer out, through a job call on the chain."""

import asyncio
import hashlib
from typing import Any

import click
import httpx

from blueprint.chain.deployment import CallResult
from blueprint.cli.answer import answer_json, answer_summary, read_answer
from blueprint.cli.caller import CALLER_SETTINGS, submit_and_wait
from blueprint.cli.exits import ExitCode
from blueprint.cli.outcome import bytes_json, write_streams
from blueprint.cli.program import program_options, read_program
from blueprint.cli.session import Session, node_command
from blueprint.errors import BlueprintError, Rejection
from jobs.execute import EXECUTE_INDEX
from jobs.execute_codec import (
    ChainDependency,
    ChainFile,
    ChainLimits,
    ChainPair,
    ExecuteRequest,
    ExecuteResult,
    encode_request,
)
from jobs.output_bundle import OutputBundle, bundle_digest, decode_bundle
from sandbox.request import ExecutionRequest
from sandbox.result import ExecutionStatus

__all__ = ["command", "to_chain"]

_FETCH_TIMEOUT_S = 30.0
_MAX_FETCH_BYTES = 64 * 1024 * 1024


@click.command("submit", help="Submit a program (a file or a folder) as a job call and print the answer.")
@program_options
@click.option(
    "--watch", is_flag=True, help="Say each step as it happens: submitted, answered, by whom, where."
)
@click.option(
    "--wait-s",
    type=click.FloatRange(min=0, min_open=True),
    default=360.0,
    show_default=True,
    help="Longest wait for the answer.",
)
@click.option(
    "--value-wei", type=click.IntRange(min=0), default=0, help="What the service charges for a job, in wei."
)
@click.option(
    "--outputs-url", metavar="URL", help="The node's HTTP address, to fetch what was too long for the chain."
)
@node_command(settings=CALLER_SETTINGS)
def command(
    session: Session, *, watch: bool, wait_s: float, value_wei: int, outputs_url: str | None, **program: Any
) -> int:
    """Submit, wait, print; a program that failed is exit code 6."""
    request = read_program(**program)
    inputs = encode_request(to_chain(request))
    found = asyncio.run(
        submit_and_wait(session, EXECUTE_INDEX, inputs, watch=watch, wait_s=wait_s, value_wei=value_wei)
    )
    answer = read_answer(found.output)
    whole = None if answer is None or outputs_url is None else fetch_bundle(outputs_url, answer)
    session.emit(_as_json(found, answer, whole))
    if not session.is_json:
        _show(session, found, answer, whole)
    is_success = answer is not None and answer.status == ExecutionStatus.SUCCESS
    return ExitCode.OK if is_success else ExitCode.JOB_FAILED


def to_chain(request: ExecutionRequest) -> ExecuteRequest:
    """Return a request in its on-chain form; what is not set is zero there."""
    limits = request.limits
    options = {**request.options, **({"network": request.network} if request.network else {})}
    return ExecuteRequest(
        language=request.language,
        runtime=request.runtime,
        files=tuple(ChainFile(file.path, file.content) for file in request.files),
        entry_point=request.entry_point,
        stdin=request.stdin,
        args=tuple(request.args),
        dependencies=tuple(
            ChainDependency(each.name, each.requirement, each.source) for each in request.dependencies
        ),
        env_vars=tuple(ChainPair(key, value) for key, value in request.env_vars.items()),
        limits=ChainLimits(
            timeout_ms=0 if request.timeout_s is None else max(1, round(request.timeout_s * 1000)),
            memory_bytes=0 if limits is None else limits.memory_bytes,
        ),
        options=tuple(ChainPair(key, value) for key, value in options.items()),
    )


def fetch_bundle(
    outputs_url: str, answer: ExecuteResult, *, max_bytes: int = _MAX_FETCH_BYTES
) -> OutputBundle:
    """Fetch the whole output from a node and check it against the digest in the answer.

    Raises:
        BlueprintError: the node does not have it, cannot be reached, or sent other bytes.
    """
    url = f"{outputs_url.rstrip('/')}/outputs/{answer.output_digest.hex()}"
    received = bytearray()
    try:
        with httpx.stream("GET", url, timeout=_FETCH_TIMEOUT_S) as response:
            response.raise_for_status()
            for piece in response.iter_bytes():
                received += piece
                if len(received) > max_bytes:
                    raise BlueprintError(f"{url} sends more than {max_bytes} bytes: it was given up")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BlueprintError(
            f"cannot fetch the whole output: {error}; is this the node's HTTP address?"
        ) from error
    content = bytes(received)
    if bundle_digest(content) != answer.output_digest:
        got = hashlib.sha256(content).hexdigest()
        raise BlueprintError(
            f"{url} sent bytes with digest {got}: they are not the output and were discarded"
        )
    try:
        return decode_bundle(content)
    except Rejection as error:
        raise BlueprintError(f"{url} is no output bundle of this version: {error}") from error


def _as_json(found: CallResult, answer: ExecuteResult | None, whole: OutputBundle | None) -> dict[str, Any]:
    return {
        "service_id": found.key.service_id,
        "call_id": found.key.call_id,
        "operator": "0x" + found.operator.hex(),
        "block_number": found.block_number,
        "transaction": "0x" + found.transaction_hash.hex(),
        "answer": None if answer is None else answer_json(answer),
        "output": "0x" + found.output.hex(),
        "whole_output": None
        if whole is None
        else {"stdout": bytes_json(whole.stdout), "stderr": bytes_json(whole.stderr)},
    }


def _show(
    session: Session, found: CallResult, answer: ExecuteResult | None, whole: OutputBundle | None
) -> None:
    if answer is None:
        session.say(f"the answer is no answer of the execute job: 0x{found.output.hex()}", "red")
        return
    source = whole or answer
    write_streams(session, source.stdout, source.stderr)
    for name, kept, size in (
        ("stdout", len(source.stdout), source.stdout_size),
        ("stderr", len(source.stderr), source.stderr_size),
    ):
        if size > kept:
            session.say(f"{name}: {kept} of {size} bytes are here; fetch more with --outputs-url", "yellow")
    session.say(answer_summary(answer), "green" if answer.status == ExecutionStatus.SUCCESS else "red")
    session.suggest(f"blueprint calls show {found.key.service_id}/{found.key.call_id}")
