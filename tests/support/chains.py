"""What tests of the development chains share: a JSON-RPC client that hides nothing, and a small contract."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aiohttp
from eth_account import Account

from blueprint.chain.devaccounts import DevAccount

__all__ = [
    "LOGGER",
    "REVERT_DATA",
    "Chain",
    "JsonRpc",
    "RpcFailure",
    "deploy_logger",
    "raw_transaction",
    "wait_receipt",
]

_RUNTIME = bytes.fromhex(
    "3615601857"  # no call data: jump to the revert
    "600035806000556020356000526020"  # slot 0 = first word; memory = second word
    "6000a100"  # LOG1 with the first word as its topic and the second as its data
    "5b63deadbeef6000526004601cfd"  # revert with 0xdeadbeef
)
LOGGER = bytes.fromhex(f"60{len(_RUNTIME):02x}600c60003960{len(_RUNTIME):02x}6000f3") + _RUNTIME
"""Creation code of a contract that stores and logs its call data, and reverts when it gets none."""
REVERT_DATA = "0xdeadbeef"


class Chain(Protocol):
    """A development chain that runs."""

    chain_id: int
    accounts: tuple[DevAccount, ...]

    @property
    def http_url(self) -> str: ...

    @property
    def ws_url(self) -> str: ...


class RpcFailure(Exception):  # noqa: N818 - "error" is the member that it holds
    """An error answer."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error))
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: str | None = error.get("data")


class JsonRpc:
    """Sends requests over HTTP or one WebSocket and shows answers as they come."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, socket: aiohttp.ClientWebSocketResponse | None
    ) -> None:
        self._session = session
        self._url = url
        self._socket = socket
        self._ids = itertools.count(1)
        self.pushes: list[dict[str, Any]] = []

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator["JsonRpc"]:
        """Connect; the scheme of the URL decides how."""
        async with aiohttp.ClientSession() as session:
            if url.startswith("http"):
                yield cls(session, url, None)
            else:
                async with session.ws_connect(url, max_msg_size=0) as socket:
                    yield cls(session, url, socket)

    async def call(self, method: str, *params: Any) -> Any:
        """Return a call's result, or raise ``RpcFailure``."""
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
        answer = await self.send(json.dumps(request))
        assert answer["id"] == request["id"]
        if "error" in answer:
            raise RpcFailure(answer["error"])
        return answer["result"]

    async def send(self, text: str) -> Any:
        """Send any text and return the parsed answer."""
        if self._socket is not None:
            await self._socket.send_str(text)
            while True:
                answer = await self._receive()
                if "method" not in answer:
                    return answer
                self.pushes.append(answer)
        async with self._session.post(
            self._url, data=text, headers={"Content-Type": "application/json"}
        ) as response:
            return await response.json(content_type=None)

    async def push(self) -> dict[str, Any]:
        """Return the next subscription message's ``params``."""
        if self.pushes:
            return self.pushes.pop(0)["params"]  # type: ignore[no-any-return]
        return (await self._receive())["params"]  # type: ignore[no-any-return]

    async def _receive(self) -> Any:
        assert self._socket is not None
        return await self._socket.receive_json(timeout=10)


def raw_transaction(chain: Chain, index: int = 0, **fields: Any) -> str:
    """Sign a transaction of the account with this index; returns its raw form."""
    transaction = {
        "chainId": chain.chain_id,
        "nonce": 0,
        "gas": 100_000,
        "maxFeePerGas": 10**10,
        "maxPriorityFeePerGas": 10**9,
        "value": 0,
        "data": b"",
        **fields,
    }
    if isinstance(to := transaction.get("to"), str):
        transaction["to"] = bytes.fromhex(to[2:])
    signed = Account.sign_transaction(transaction, chain.accounts[index].private_key)
    return "0x" + signed.raw_transaction.hex()


async def wait_receipt(rpc: JsonRpc, transaction_hash: str) -> Any:
    """Return a transaction's receipt; anvil mines a moment after it answered."""
    async with asyncio.timeout(10):
        while True:
            receipt = await rpc.call("eth_getTransactionReceipt", transaction_hash)
            if receipt is not None:
                return receipt
            await asyncio.sleep(0.005)


async def deploy_logger(rpc: JsonRpc, chain: Chain) -> str:
    """Deploy ``LOGGER`` from the first account; returns its address."""
    sender = chain.accounts[0].address_hex
    sent = await rpc.call("eth_sendTransaction", {"from": sender, "data": "0x" + LOGGER.hex()})
    return (await wait_receipt(rpc, sent))["contractAddress"]  # type: ignore[no-any-return]
