"""``blueprint exec``: run one program in the sandbox, with no chain involved."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from blueprint.cli.exits import ExitCode
from blueprint.cli.live import LiveLine, sample_json
from blueprint.cli.outcome import as_json, contact_lines, counted, not_enforced_lines, summary, write_streams
from blueprint.cli.output_files import left_out, made_folder, write_files
from blueprint.cli.program import program_options, read_program
from blueprint.cli.sandboxes import SANDBOX_SETTINGS, opened_sandbox
from blueprint.cli.session import Session, node_command
from sandbox.live import watched
from sandbox.request import ExecutionRequest
from sandbox.result import ExecutionResult, ExecutionStatus

__all__ = ["command"]

_SETTINGS = ("state_dir", "trees_dir", *SANDBOX_SETTINGS)


@click.command("exec", help="Run a program (a file or a folder) in the sandbox, without any chain.")
@program_options
@click.option(
    "--live",
    "is_live",
    is_flag=True,
    help="Show memory, CPU, processes and disk while it runs; with --json one line for each sample.",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="PATH",
    help="File or folder that the program leaves and that is to be kept; may be repeated.",
)
@click.option(
    "--outputs-to",
    type=click.Path(path_type=Path),
    default="outputs",
    metavar="FOLDER",
    help="Where they are written; nothing that is there is replaced. [outputs]",
)
@node_command(settings=_SETTINGS)
def command(
    session: Session, *, is_live: bool, outputs: tuple[str, ...], outputs_to: Path, **program: Any
) -> int:
    """Run it; its output is passed on, its outcome is a line on stderr, a failure is exit code 6."""
    request = replace(read_program(**program), outputs=outputs)
    folder = made_folder(outputs_to) if outputs else None
    result = asyncio.run(_execute(session, request, is_live=is_live))
    session.emit(as_json(result))
    if not session.is_json:
        write_streams(session, result.stdout.data, result.stderr.data)
        for line in not_enforced_lines(result.guarantees.not_enforced):
            session.say(line, "yellow")
        for name, stream in (("stdout", result.stdout), ("stderr", result.stderr)):
            if stream.is_truncated:
                session.say(
                    f"{name}: {len(stream.data)} of {counted(stream.size_bytes, 'byte')} kept", "yellow"
                )
        for line in contact_lines(result.contacts):
            session.say(line)
        session.say(summary(result), "green" if result.status == ExecutionStatus.SUCCESS else "red")
        if result.error_message:
            session.say(result.error_message)
    if folder is not None:
        for path in left_out(outputs, result.files):
            session.say(f"output {path}: the program left no file there", "yellow")
        write_files(folder, result.files)
        session.say(f"{counted(len(result.files), 'file')} written to {folder}")
    return ExitCode.OK if result.status == ExecutionStatus.SUCCESS else ExitCode.JOB_FAILED


async def _execute(session: Session, request: ExecutionRequest, *, is_live: bool) -> ExecutionResult:
    async with opened_sandbox(session, [request.language]) as sandbox:
        if not is_live:
            return await sandbox.executor.execute(request)
        async with watched(sandbox.executor, request) as live:
            with LiveLine(session.stderr) as line:
                async for sample in live:
                    if session.is_json:
                        session.emit(sample_json(sample))
                    else:
                        line(sample)
        return live.result
