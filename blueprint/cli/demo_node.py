"""The demonstration's node: a real ``blueprint run`` in a child process that cannot outlive us.

Invariant: when `running_node` is left, in whatever way, the child is gone; if this process is killed instead,
the kernel ends the child.
"""

import asyncio
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from blueprint.cli.exits import ExitCode
from blueprint.errors import BlueprintError
from sandbox.errors import SandboxUnavailableError

__all__ = ["NodeProcess", "running_node"]

_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 15.0
_LAST_LINES: Final = 3
_COMPLAINTS: Final = 5
_COMPLAINT: Final = re.compile(r'"level": ?"(warning|error|critical)"')
_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProcess:
    """A node that has started."""

    process: asyncio.subprocess.Process
    facts: dict[str, Any]
    """What the node said of itself: services, back end, what is not enforced, languages, HTTP address."""
    log: Path

    def complaints(self) -> list[str]:
        """The newest warnings and errors of its log, each as it stands there."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if _COMPLAINT.search(line)][-_COMPLAINTS:]

    async def fail_when_it_ends(self) -> None:
        """Wait for the process; its end before it was asked to stop is an error.

        Raises:
            BlueprintError: always, with the node's last words.
        """
        code = await self.process.wait()
        raise BlueprintError(f"the node ended with exit code {code}: {_last_words(self.log)}")


@asynccontextmanager
async def running_node(arguments: Sequence[str], *, key: bytes, folder: Path) -> AsyncIterator[NodeProcess]:
    """Start ``blueprint run`` with these arguments, hand it out once it serves, stop it at the end.

    Args:
        arguments: flags of ``blueprint run``.
        key: the operator's private key, passed in the child's environment.
        folder: where its log goes.

    Raises:
        BlueprintError: it does not start; the message holds its last words.
        SandboxUnavailableError: it does not start because nothing here can isolate programs.
    """
    log = folder / "node.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BLUEPRINT_")}
    with log.open("wb") as log_file:
        # A session of its own: Ctrl-C reaches the demonstration alone, which then stops the node in order.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "blueprint", "run", "--json", *arguments),
            env=environment | {"BLUEPRINT_PRIVATE_KEY": key.hex()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log_file,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        yield NodeProcess(process=process, facts=await _read_facts(process, log), log=log)
    finally:
        await _stop(process)


async def _read_facts(process: asyncio.subprocess.Process, log: Path) -> dict[str, Any]:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            line = await process.stdout.readline()
    except TimeoutError as error:
        raise BlueprintError(
            f"the node did not start in {_START_TIMEOUT_S:.0f} s: {_last_words(log)}"
        ) from error
    facts = json.loads(line) if line else {"error": _last_words(log)}
    if "error" in facts:
        message = f"the node did not start: {facts['error']}"
        if facts.get("exit_code") == ExitCode.SANDBOX_UNAVAILABLE:
            raise SandboxUnavailableError(message)
        raise BlueprintError(message)
    assert isinstance(facts, dict)
    return facts


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ask it to stop, then insist, then kill it."""
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        process.send_signal(number)
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            continue


def _die_with_parent() -> None:
    """Runs in the child before the program starts: the kernel sends SIGTERM when the parent dies."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return " | ".join(lines[-_LAST_LINES:]) or "it said nothing"
