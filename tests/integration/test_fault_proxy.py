"""The proxy does what each fault says, and nothing else: other suites rely on it."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from blueprint.chain.devchain import DevChain
from tests.support.chains import JsonRpc, RpcFailure, deploy_logger
from tests.support.fault_proxy import FaultProxy, Faults

REQUEST = {"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []}


@pytest.fixture
async def chain() -> AsyncIterator[DevChain]:
    """The chain behind the proxy."""
    async with DevChain() as chain:
        yield chain


@pytest.fixture
async def proxy(chain: DevChain) -> AsyncIterator[FaultProxy]:
    """The proxy without faults."""
    async with FaultProxy(chain.http_url) as proxy:
        yield proxy


@pytest.fixture
async def ws(proxy: FaultProxy) -> AsyncIterator[JsonRpc]:
    """A client of the proxy over WebSocket."""
    async with JsonRpc.connect(proxy.ws_url) as rpc:
        yield rpc


@pytest.fixture
async def http(proxy: FaultProxy) -> AsyncIterator[aiohttp.ClientSession]:
    """A plain HTTP session."""
    async with aiohttp.ClientSession(proxy.http_url) as session:
        yield session


async def log_seven(ws: JsonRpc, chain: DevChain) -> str:
    """Deploy the logger, subscribe to its logs, and have it log once."""
    contract = await deploy_logger(ws, chain)
    await ws.call("eth_subscribe", "logs", {"address": contract})
    call = {"from": chain.accounts[0].address_hex, "to": contract, "data": "0x" + "07" * 64}
    await ws.call("eth_sendTransaction", call)
    return contract


async def test_without_faults_everything_passes(proxy: FaultProxy, ws: JsonRpc, chain: DevChain) -> None:
    """Calls, pushes and errors come through, and are counted."""
    await log_seven(ws, chain)
    assert (await ws.push())["result"]["blockNumber"] == "0x2"
    async with JsonRpc.connect(proxy.http_url) as rpc:
        assert await rpc.call("eth_blockNumber") == "0x2"
        with pytest.raises(RpcFailure):
            await rpc.call("eth_nope")
    assert proxy.counts["eth_blockNumber"] == 1
    assert proxy.requests[-1]["method"] == "eth_nope"


async def test_connections_are_cut(proxy: FaultProxy, ws: JsonRpc) -> None:
    """A cut WebSocket ends without a closing handshake."""
    await ws.call("eth_chainId")
    proxy.drop_connections()
    with pytest.raises(TypeError, match="closed|CLOSED|received|Received"):
        await ws.call("eth_chainId")


async def test_status_and_retry_after_are_answered(proxy: FaultProxy, http: aiohttp.ClientSession) -> None:
    """The first requests fail with the status, the following ones pass."""
    proxy.faults = Faults(http_status=429, http_failures=2, retry_after="3")
    seen = []
    for _ in range(3):
        async with http.post("/", json=REQUEST) as response:
            seen.append((response.status, response.headers.get("Retry-After")))
    assert seen == [(429, "3"), (429, "3"), (200, None)]


async def test_reply_is_lost_after_the_request_was_forwarded(
    proxy: FaultProxy, http: aiohttp.ClientSession, chain: DevChain
) -> None:
    """The chain carries the request out, and the client sees a broken connection."""
    proxy.faults = Faults(lose_replies_to=frozenset({"evm_mine"}))
    with pytest.raises(aiohttp.ClientError):
        await http.post("/", json={**REQUEST, "method": "evm_mine"})
    async with JsonRpc.connect(chain.http_url) as direct:
        assert await direct.call("eth_blockNumber") == "0x1"


async def test_half_open_connection_stays_silent(
    proxy: FaultProxy, ws: JsonRpc, http: aiohttp.ClientSession
) -> None:
    """Requests are taken and never answered, over both transports."""
    proxy.faults = Faults(swallow=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await ws.call("eth_chainId")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await http.post("/", json=REQUEST)


async def test_new_connections_are_refused(proxy: FaultProxy, http: aiohttp.ClientSession) -> None:
    """Handshakes get a 503, and HTTP requests a broken connection."""
    proxy.faults = Faults(refuse_connections=True)
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await http.ws_connect("/")
    with pytest.raises(aiohttp.ClientError):
        await http.post("/", json=REQUEST)


async def test_answers_are_late(proxy: FaultProxy, ws: JsonRpc) -> None:
    """Each answer waits for the delay."""
    proxy.faults = Faults(delay_s=0.1)
    started = asyncio.get_running_loop().time()
    await ws.call("eth_chainId")
    assert asyncio.get_running_loop().time() - started >= 0.1


async def test_errors_are_answered_by_method(proxy: FaultProxy, ws: JsonRpc) -> None:
    """One method fails with the error given, in a batch too; others pass."""
    proxy.faults = Faults(errors={"eth_chainId": {"code": -32005, "message": "slow down"}})
    with pytest.raises(RpcFailure, match="slow down"):
        await ws.call("eth_chainId")
    assert await ws.call("net_version") == "31337"


async def test_head_is_stale(proxy: FaultProxy, ws: JsonRpc) -> None:
    """The number, the newest block and the heads that are pushed all lie behind by as much."""
    await ws.call("evm_mine", {"blocks": 5})
    await ws.call("eth_subscribe", "newHeads")
    proxy.faults = Faults(stale_blocks=2)
    assert await ws.call("eth_blockNumber") == "0x3"
    assert (await ws.call("eth_getBlockByNumber", "latest", False))["number"] == "0x3"  # noqa: FBT003
    await ws.call("evm_mine")
    assert (await ws.push())["result"]["number"] == "0x4"


async def test_logs_are_hidden_and_doubled(proxy: FaultProxy, ws: JsonRpc, chain: DevChain) -> None:
    """A hidden log is missing from answers and pushes alike; a doubled one is there twice."""
    proxy.faults = Faults(hide_log=lambda log: log["blockNumber"] == "0x2")
    contract = await log_seven(ws, chain)
    query = {"address": contract, "fromBlock": "0x0"}
    assert await ws.call("eth_getLogs", query) == []
    assert ws.pushes == []
    proxy.faults = Faults(double_logs=True)
    assert len(await ws.call("eth_getLogs", query)) == 2


async def test_pushes_are_hidden_and_doubled(proxy: FaultProxy, ws: JsonRpc) -> None:
    """Subscription messages vanish or come twice, while answers pass."""
    await ws.call("eth_subscribe", "newHeads")
    proxy.faults = Faults(hide_pushes=True)
    await ws.call("evm_mine")
    proxy.faults = Faults(double_pushes=True)
    await ws.call("evm_mine")
    assert [(await ws.push())["result"]["number"] for _ in range(2)] == ["0x2", "0x2"]


async def test_wide_ranges_are_refused(proxy: FaultProxy, ws: JsonRpc) -> None:
    """A range of logs over the limit gets the error of a public end point."""
    await ws.call("evm_mine", {"blocks": 5})
    proxy.faults = Faults(max_log_range=3)
    with pytest.raises(RpcFailure, match="more than 10000 results"):
        await ws.call("eth_getLogs", {"fromBlock": "0x0", "toBlock": "0x5"})
    assert await ws.call("eth_getLogs", {"fromBlock": "0x0", "toBlock": "0x2"}) == []


async def test_garbage_is_answered(proxy: FaultProxy, http: aiohttp.ClientSession) -> None:
    """The bytes given come instead of an answer."""
    proxy.faults = Faults(garbage=b"<html>")
    async with http.post("/", json=REQUEST) as response:
        assert await response.read() == b"<html>"


async def test_message_of_our_own_is_pushed(proxy: FaultProxy, ws: JsonRpc) -> None:
    """A test can send what no chain would."""
    await ws.call("eth_chainId")
    await proxy.push({"method": "eth_subscription", "params": {"subscription": "0x1", "result": None}})
    assert json.dumps(await ws.push()) == '{"subscription": "0x1", "result": null}'
