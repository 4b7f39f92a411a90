"""Runs anvil, the fast development chain of Foundry, as a child process.

Invariant: anvil never outlives this process, not even when that is killed; a stop leaves no file behind.

The binary comes from npm (``@foundry-rs/anvil``, pinned in ``contracts/package.json``); version 1.7.1 stalls
under load when it automines, which is why an older one is pinned.
"""

import asyncio
import ctypes
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from blueprint.chain.devaccounts import DevAccount, derive_accounts
from blueprint.errors import ConfigError

__all__ = ["Anvil", "die_with_parent", "find_anvil"]

_PROJECT = Path(__file__).resolve().parents[2]
_NPM_PACKAGES = _PROJECT / "contracts/node_modules/@foundry-rs"
_NPM_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_LOOPBACK = "127.0.0.1"
_PR_SET_PDEATHSIG = 1
_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 5.0
_POLL_S = 0.01
_LAST_WORDS_BYTES = 2_000
_STATES_IN_MEMORY = 8
"""More would make anvil write older states to disk, gigabytes of them under load."""

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> Callable[[], None]:
    """Return a ``preexec_fn`` that has the kernel kill the child when the thread that forked it ends.

    Start the child from a thread that lives as long as the process does (prctl(2), PR_SET_PDEATHSIG).
    """
    parent = os.getpid()

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before the request took hold
            os._exit(1)

    return prepare


def find_anvil() -> Path:
    """Find the anvil binary: the one that npm installed for this project, else the first on PATH.

    Raises:
        ConfigError: there is none; the message says how to get it.
    """
    architecture = _NPM_ARCHITECTURES.get(platform.machine(), platform.machine())
    installed = _NPM_PACKAGES / f"anvil-linux-{architecture}/bin/anvil"
    if os.access(installed, os.X_OK):
        return installed
    on_path = shutil.which("anvil")
    if on_path is not None:
        return Path(on_path)
    raise ConfigError(
        "anvil was not found in contracts/node_modules nor on PATH; "
        "install it with: npm ci --prefix contracts"
    )


class Anvil:
    """A chain in a child process, with the same accounts as the embedded chain.

    ::

        async with Anvil(block_time_s=0.1, ipc=True) as chain:
            print(chain.http_url, chain.ws_url, chain.ipc_path)

    Args:
        port: TCP port on 127.0.0.1; 0 takes a free one.
        block_time_s: seconds between blocks; None mines a block for each transaction as it comes.
        ipc: also listen on a Unix socket.
        chain_id: as EIP-155 has it.
        account_count: how many accounts of the public test mnemonic are funded.
        block_gas_limit: of every block.
        binary: where anvil is; None looks for it.
        extra_args: further arguments of anvil's command line.

    Raises:
        ConfigError: there is no anvil, or it does not start; the message holds its last words.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        block_time_s: float | None = None,
        ipc: bool = False,
        chain_id: int = 31_337,
        account_count: int = 10,
        block_gas_limit: int = 60_000_000,
        binary: Path | None = None,
        extra_args: tuple[str, ...] = (),
    ) -> None:
        if block_time_s is not None and not block_time_s > 0:
            raise ConfigError(f"block_time_s must be positive, received {block_time_s}; omit it to automine")
        self._binary = binary or find_anvil()
        self._block_time_s = block_time_s
        self._wants_ipc = ipc
        self._block_gas_limit = block_gas_limit
        self._extra_args = extra_args
        self.chain_id = chain_id
        self.accounts: tuple[DevAccount, ...] = derive_accounts(account_count)
        self.port = port
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def http_url(self) -> str:
        """Where HTTP requests go."""
        return f"http://{_LOOPBACK}:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where WebSocket clients connect."""
        return f"ws://{_LOOPBACK}:{self.port}"

    @property
    def ipc_path(self) -> Path:
        """The Unix socket; it exists while anvil runs with ``ipc``."""
        return self._path / "anvil.ipc"

    @property
    def pid(self) -> int:
        """The child's process id.

        Raises:
            ConfigError: it does not run.
        """
        if self._process is None:
            raise ConfigError("anvil does not run; enter it with: async with Anvil() as chain")
        return self._process.pid

    @property
    def _path(self) -> Path:
        if self._folder is None:
            raise ConfigError("anvil does not run; enter it with: async with Anvil() as chain")
        return Path(self._folder.name)

    async def __aenter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="anvil-")
        if self.port == 0:
            self.port = _free_port()
        try:
            # From the event loop's own thread: the death signal follows the thread that forks, and a worker
            # thread may end long before the process does.
            self._process = self._spawn()
            await self._wait_until_ready()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stop()

    def _command(self) -> list[str]:
        command = [
            str(self._binary),
            *("--host", _LOOPBACK, "--port", str(self.port)),
            *("--chain-id", str(self.chain_id), "--accounts", str(len(self.accounts))),
            *("--prune-history", str(_STATES_IN_MEMORY), "--cache-path", str(self._path / "cache")),
            *("--gas-limit", str(self._block_gas_limit), "--silent"),
        ]
        if self._block_time_s is not None:
            command += ["--block-time", str(self._block_time_s)]
        if self._wants_ipc:
            command += ["--ipc", str(self.ipc_path)]
        return [*command, *self._extra_args]

    def _spawn(self) -> subprocess.Popen[bytes]:
        with (self._path / "output").open("wb") as output:
            try:
                return subprocess.Popen(
                    self._command(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={"PATH": os.defpath, "HOME": str(self._path)},
                    preexec_fn=die_with_parent(),  # noqa: PLW1509 - two system calls, no lock
                )
            except OSError as exc:
                raise ConfigError(f"anvil cannot be started: {self._binary}: {exc.strerror}") from exc

    async def _wait_until_ready(self) -> None:
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while not await self._answers():
                    if self._process is not None and self._process.poll() is not None:
                        raise ConfigError(f"anvil ended before it listened: {self._last_words()}")
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as exc:
            raise ConfigError(
                f"anvil did not listen on port {self.port} within {_START_TIMEOUT_S:g} s: "
                f"{self._last_words()}"
            ) from exc

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(_LOOPBACK, self.port)
        except ConnectionError:
            return False
        writer.close()
        await writer.wait_closed()
        return not self._wants_ipc or self.ipc_path.exists()

    def _last_words(self) -> str:
        text = (self._path / "output").read_bytes()[-_LAST_WORDS_BYTES:].decode(errors="replace").strip()
        return text or "it said nothing"

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, _STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def _free_port() -> int:
    """A port that is free now; anvil itself does not say which one it took."""
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])
