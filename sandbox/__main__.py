"""``python -m sandbox``: run one program, or check this machine, with nothing but this package.

Everything is printed as JSON on stdout. Exit codes: 0 the program succeeded, 1 it did not, 2 bad request,
5 sandbox unavailable, 130 interrupted.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import IntEnum, IntFlag
from pathlib import Path

from sandbox.backends.backend import Backend
from sandbox.backends.bubblewrap import BubblewrapBackend
from sandbox.backends.slot import SlotBackend
from sandbox.bounds import StageBounds
from sandbox.check import Level, check
from sandbox.errors import RequestError, SandboxError, SandboxUnavailableError
from sandbox.executor import CodeExecutor
from sandbox.languages import find
from sandbox.live import watched
from sandbox.request import ExecutionRequest, Limits, SourceFile
from sandbox.result import ExecutionStatus
from sandbox.rootfs import find_trees, host_tree
from sandbox.tree import LanguageTree

EXIT_OK, EXIT_FAILURE, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_INTERRUPTED = 0, 1, 2, 5, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="try every mechanism and name the fix for what is missing")
    run = commands.add_parser("run", help="run one program")
    run.add_argument("file", type=Path, help="the program; - reads it from stdin")
    run.add_argument("--language", required=True)
    run.add_argument("--runtime", default="", help="a version, its beginning, or a range")
    run.add_argument("--arg", action="append", default=[], help="an argument of the program; repeatable")
    run.add_argument("--stdin", type=Path, help="a file that the program reads as its standard input")
    run.add_argument(
        "--output", action="append", default=[], help="a file or folder to bring back; repeatable"
    )
    run.add_argument("--live", action="store_true", help="print a line for each sample while it runs")
    run.add_argument("--timeout-s", type=float, help="wall clock of the run stage")
    run.add_argument("--memory-bytes", type=int, default=Limits().memory_bytes)
    run.add_argument("--tree", choices=("auto", "host"), default="auto", help="host: the machine's own /usr")
    run.add_argument("--state-dir", type=Path, default=_state_dir(), help="where language trees lie")
    options = parser.parse_args(arguments)
    try:
        return asyncio.run(_check() if options.command == "check" else _run(options))
    except KeyboardInterrupt:  # by now the program is dead and its sandbox removed
        return EXIT_INTERRUPTED
    except RequestError as exc:
        return _fail(exc, EXIT_USAGE)
    except SandboxUnavailableError as exc:
        return _fail(exc, EXIT_UNAVAILABLE)
    except (SandboxError, OSError) as exc:
        return _fail(exc, EXIT_FAILURE)


async def _check() -> int:
    findings = await check()
    _print(findings)
    return EXIT_UNAVAILABLE if any(each.level == Level.MISSING for each in findings) else EXIT_OK


async def _run(options: argparse.Namespace) -> int:
    language = find(options.language)
    source = sys.stdin.buffer.read() if str(options.file) == "-" else options.file.read_bytes()
    request = ExecutionRequest(
        language=language.name,
        files=[SourceFile(path=language.default_file, content=source)],
        runtime=options.runtime,
        args=options.arg,
        stdin=options.stdin.read_bytes() if options.stdin else b"",
        outputs=options.output,
        timeout_s=options.timeout_s,
    )
    backend: Backend = SlotBackend() if os.geteuid() == 0 else BubblewrapBackend()
    executor = CodeExecutor(
        _trees(options),
        backend,
        bounds=StageBounds(run=Limits(memory_bytes=options.memory_bytes)),
        max_concurrent=1,
    )
    try:
        async with watched(executor, request) as live:
            async for sample in live:
                if options.live:
                    _print({"sample": sample}, indent=None)
    finally:
        await executor.aclose()
    result = live.result
    _print(result, indent=None if options.live else 2)
    return EXIT_OK if result.status == ExecutionStatus.SUCCESS else EXIT_FAILURE


def _trees(options: argparse.Namespace) -> Sequence[LanguageTree]:
    found = () if options.tree == "host" else find_trees(options.state_dir)
    return found or (host_tree(),)


def _state_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/tee-job-node")
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local/share")) / "tee-job-node"


def _fail(error: Exception, code: int) -> int:
    sys.stderr.write(f"error: {error}\n")
    return code


def _print(value: object, *, indent: int | None = 2) -> None:
    sys.stdout.write(json.dumps(_plain(value), indent=indent) + "\n")
    sys.stdout.flush()


def _plain(value: object) -> object:
    """Turn results into what JSON knows: bytes become text, enumerations their names, sets sorted lists."""
    if isinstance(value, bytes):
        plain: object = value.decode(errors="backslashreplace")
    elif isinstance(value, IntFlag):
        plain = [each.name for each in value]
    elif isinstance(value, IntEnum):
        plain = value.name
    elif isinstance(value, frozenset):
        plain = sorted(str(each) for each in value)
    elif isinstance(value, Mapping):
        plain = {str(key): _plain(each) for key, each in value.items()}
    elif isinstance(value, list | tuple):
        plain = [_plain(each) for each in value]
    elif is_dataclass(value):
        plain = {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    else:
        plain = value
    return plain


if __name__ == "__main__":
    sys.exit(main())
