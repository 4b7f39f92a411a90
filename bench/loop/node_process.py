"""The node as a process of its own, so that its CPU time is its own.

Invariant: the process is gone when the context is left.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from blueprint.chain.anvil import die_with_parent
from blueprint.chain.deployment import Deployment
from blueprint.chain.devaccounts import DevAccount
from blueprint.chain.wire import to_hex

__all__ = ["NodeProcess", "started_node"]

_PROJECT = Path(__file__).resolve().parents[2]
_READY_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProcess:
    """A node that is ready."""

    pid: int

    def cpu_s(self) -> float:
        """CPU time of the node's own process so far, user and system; its sandboxes are not in it."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


@asynccontextmanager
async def started_node(
    *, rpc_url: str, deployment: Deployment, operator: DevAccount, arguments: Sequence[str]
) -> AsyncIterator[NodeProcess]:
    """Start ``blueprint run`` for a service, and wait until it has caught up with the chain."""
    with tempfile.TemporaryDirectory(prefix="bench-loop-") as name:
        folder = Path(name)
        key = folder / "key"
        key.touch(mode=0o600)
        key.write_text(operator.private_key.hex())
        command = [
            *(sys.executable, "-m", "blueprint", "run", "--json", "--log-level", "warning"),
            *("--rpc-url", rpc_url, "--contract", to_hex(deployment.contract)),
            *("--service-ids", str(deployment.service_id), "--private-key-file", str(key)),
            *("--state-dir", str(folder), "--http-port", "0", *arguments),
        ]
        process = _spawn(command, folder / "log")
        try:
            try:
                await _wait_ready(process)
            except (RuntimeError, TimeoutError) as exc:
                words = (folder / "log").read_text(errors="replace").strip()[-2000:]
                raise RuntimeError(f"the node did not become ready: {exc}\n{words}") from exc
            yield NodeProcess(pid=process.pid)
        finally:
            await _stop(process)


def _spawn(command: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
    with log_path.open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=_PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - two system calls, no lock
        )


async def _wait_ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(_READY_TIMEOUT_S):
        first_line = await asyncio.to_thread(process.stdout.readline)
        if not first_line:
            raise RuntimeError("it ended")
        url = json.loads(first_line)["url"]
        async with httpx.AsyncClient() as http:
            while True:
                answer = await http.get(f"{url}/readyz")
                if answer.status_code == httpx.codes.OK:
                    return
                await asyncio.sleep(_POLL_S)


async def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        await asyncio.to_thread(process.wait, _STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
