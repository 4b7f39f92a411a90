"""The embedded chain: starts it, says where it is, stops it.

Invariant: after ``__aexit__`` no task, thread or socket of it is left; its state is gone with it.
"""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from blueprint.chain.devaccounts import TEST_MNEMONIC, DevAccount, derive_accounts
from blueprint.chain.devchain.engine import Engine
from blueprint.chain.devchain.server import RpcServer
from blueprint.errors import ConfigError

__all__ = ["DevChain"]

_DEFAULT_CHAIN_ID = 31_337
_ONE_ETHER_WEI = 10**18


class DevChain:
    """A whole chain in this process, for tests, demos and local work.

    ::

        async with DevChain(port=0) as chain:
            print(chain.http_url, chain.ws_url, chain.accounts[0].address_hex)

    Args:
        port: TCP port on 127.0.0.1; 0 takes a free one.
        block_time_s: seconds between blocks; None mines a block for each transaction as it comes.
        chain_id: as EIP-155 has it.
        account_count: how many accounts of ``mnemonic`` are funded and unlocked.
        mnemonic: BIP-39 words.
        balance_ether: what each account owns at genesis.
        block_gas_limit: of every block.
        max_request_bytes: of one HTTP body or WebSocket message.
        clock: seconds since the epoch, for block timestamps.

    Raises:
        ConfigError: an argument is out of range, or the port is taken.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        block_time_s: float | None = None,
        chain_id: int = _DEFAULT_CHAIN_ID,
        account_count: int = 10,
        mnemonic: str = TEST_MNEMONIC,
        balance_ether: int = 10_000,
        block_gas_limit: int = 60_000_000,
        max_request_bytes: int = 16 * 1024 * 1024,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if block_time_s is not None and not block_time_s > 0:
            raise ConfigError(f"block_time_s must be positive, received {block_time_s}; omit it to automine")
        if chain_id < 1:
            raise ConfigError(f"chain_id must be at least 1, received {chain_id}")
        self._wanted_port = port
        self.chain_id = chain_id
        self.accounts: tuple[DevAccount, ...] = derive_accounts(account_count, mnemonic=mnemonic)
        self._engine = Engine(
            chain_id=chain_id,
            accounts=self.accounts,
            balance_wei=balance_ether * _ONE_ETHER_WEI,
            gas_limit=block_gas_limit,
            block_time_s=block_time_s,
            clock=clock,
        )
        self._server = RpcServer(self._engine, max_request_bytes=max_request_bytes)
        self._group = asyncio.TaskGroup()
        self._miner: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port in use; 0 before the start."""
        return self._server.port

    @property
    def http_url(self) -> str:
        """Where HTTP requests go."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where WebSocket clients connect."""
        return f"ws://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        try:
            await self._server.start(self._wanted_port)
        except OSError as exc:
            await self._server.stop()
            self._engine.close()
            raise ConfigError(
                f"cannot listen on 127.0.0.1:{self._wanted_port}: {exc.strerror}; "
                "choose another port, or 0 for a free one"
            ) from exc
        await self._group.__aenter__()
        self._miner = self._group.create_task(self._mine_by_the_clock())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._miner is not None:
                self._miner.cancel()
            # Not given the error of the body, which would come out wrapped in an ExceptionGroup.
            await self._group.__aexit__(None, None, None)
        finally:
            await self._server.stop()
            self._engine.close()

    async def _mine_by_the_clock(self) -> None:
        """Mine a block each ``block_time_s``, which ``evm_setIntervalMining`` may change at any time."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self._engine.interval_changed.clear()
            interval_s = self._engine.block_time_s
            if interval_s is None:
                await self._engine.interval_changed.wait()
                due = loop.time()
                continue
            # A block that took longer than the interval does not make the following ones hurry.
            due = max(due + interval_s, loop.time())
            if await self._has_changed_before(due):
                due = loop.time()
                continue
            await self._engine.mine()

    async def _has_changed_before(self, due: float) -> bool:
        try:
            async with asyncio.timeout_at(due):
                await self._engine.interval_changed.wait()
        except TimeoutError:
            return False
        return True
