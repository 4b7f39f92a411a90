"""The JSON-RPC client against a real chain, over each transport, and over a road full of holes."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from blueprint.chain.anvil import Anvil
from blueprint.chain.rpc import RpcClient, is_silence
from blueprint.chain.signer import Signer
from blueprint.errors import ChainError, RevertedError, RpcError
from tests.support.fault_proxy import FaultProxy, Faults

pytestmark = pytest.mark.anvil

# Runtime code that reverts with JobAlreadyCompleted(1, 2).
REVERTING = "0x630a55512f60e01b6000526001600452600260245260446000fd"


@pytest.fixture
async def chain() -> AsyncIterator[Anvil]:
    """A chain of its own for each test."""
    async with Anvil(ipc=True) as chain:
        yield chain


@pytest.fixture
async def proxy(chain: Anvil) -> AsyncIterator[FaultProxy]:
    """A road to the chain that can be spoiled."""
    async with FaultProxy(chain.http_url) as proxy:
        yield proxy


@pytest.mark.parametrize("transport", ["http", "ws", "ipc"])
async def test_each_transport_carries_calls_and_batches(chain, transport):
    """Results, errors, reverts and batches are the same over HTTP, WebSocket and IPC."""
    url = {"http": chain.http_url, "ws": chain.ws_url, "ipc": str(chain.ipc_path)}[transport]
    contract = "0x" + "0c" * 20
    async with RpcClient(url) as rpc:
        assert await rpc.call("eth_chainId") == "0x7a69"
        await rpc.call("anvil_setCode", contract, REVERTING)
        good, bad, null = await rpc.batch(
            [
                ("eth_blockNumber", ()),
                ("eth_getBalance", ("nonsense", "latest")),
                ("eth_getBlockByNumber", ("0xffff", False)),
            ]
        )
        assert (good, null) == ("0x0", None)
        assert isinstance(bad, ChainError)
        with pytest.raises(RevertedError, match=r"JobAlreadyCompleted\(1, 2\)") as caught:
            await rpc.call("eth_call", {"to": contract}, "latest")
        assert caught.value.name == "JobAlreadyCompleted"
        (reverted,) = await rpc.batch([("eth_call", ({"to": contract}, "latest"))])
        assert isinstance(reverted, RevertedError)
        await rpc.call("anvil_setCode", contract, "0x" + "00" * 700_000)
        assert len(await rpc.call("eth_getCode", contract, "latest")) == 1_400_002


@pytest.mark.parametrize("transport", ["ws", "ipc"])
async def test_concurrent_callers_get_their_own_answers(chain, transport):
    """Hundreds of calls and batches at once never see each other's answers."""
    url = chain.ws_url if transport == "ws" else str(chain.ipc_path)
    async with RpcClient(url) as rpc:

        async def one(number):
            hashed = await rpc.call("web3_sha3", hex(0x1000 + number))
            single, other = await rpc.batch(
                [("web3_sha3", (hex(0x1000 + number),)), ("web3_sha3", (hex(0x2000 + number),))]
            )
            return hashed == single != other

        assert all(await asyncio.gather(*map(one, range(300))))


@pytest.mark.parametrize("transport", ["ws", "ipc"])
async def test_a_new_head_wakes_the_waiter(chain, transport):
    """A block is hinted at within milliseconds, long before a poll would see it."""
    url = chain.ws_url if transport == "ws" else str(chain.ipc_path)
    async with RpcClient(url) as rpc, asyncio.TaskGroup() as group:
        await rpc.call("eth_chainId")
        while await rpc.wait_head(0.2):
            pass
        started = time.monotonic()
        group.create_task(rpc.call("evm_mine"))
        assert await rpc.wait_head(5)
        assert time.monotonic() - started < 2


async def test_hints_come_back_after_a_disconnect(proxy):
    """After a dropped connection the subscription is made again, and the gap itself is a hint."""
    async with RpcClient(proxy.ws_url, timeout_s=2) as rpc:
        await rpc.call("eth_chainId")
        while await rpc.wait_head(0.2):
            pass
        proxy.drop_connections()
        assert await rpc.wait_head(5)
        while await rpc.wait_head(0.2):
            pass
        await rpc.call("evm_mine")
        assert await rpc.wait_head(5)
        assert proxy.connections == 2


async def test_a_half_open_connection_is_found_and_replaced(proxy):
    """A connection on which nothing comes back costs one time limit, not for ever."""
    async with RpcClient(proxy.ws_url, timeout_s=0.3) as rpc:
        await rpc.call("eth_chainId")
        proxy.faults = Faults(swallow=True)
        started = time.monotonic()
        with pytest.raises(RpcError) as caught:
            await rpc.call("eth_chainId")
        assert is_silence(caught.value)
        assert time.monotonic() - started < 2
        proxy.faults = Faults()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await rpc.call("eth_chainId") == "0x7a69"
                    break
                except RpcError:
                    await asyncio.sleep(0.05)
        assert proxy.connections >= 2


async def test_a_half_open_connection_is_found_without_a_call(proxy):
    """Pings find a dead connection while nobody asks anything."""
    async with RpcClient(proxy.ws_url, timeout_s=0.3) as rpc:
        await rpc.call("eth_chainId")
        proxy.faults = Faults(swallow=True)
        await asyncio.sleep(1.0)
        proxy.faults = Faults()
        async with asyncio.timeout(10):
            while proxy.connections < 2:  # noqa: ASYNC110 - another process connects
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("transport", ["http", "ws"])
async def test_a_transaction_whose_reply_is_lost_is_not_sent_again(chain, proxy, transport):
    """The client sends once; what became of it is for the caller to find out by its hash."""
    signer = Signer(chain.accounts[0].private_key)
    signed = signer.sign_transaction(
        chain_id=31337,
        nonce=0,
        to=signer.address,
        data=b"",
        gas=21_000,
        max_fee_wei=10**10,
        max_priority_fee_wei=10**9,
    )
    proxy.faults = Faults(lose_replies_to=frozenset({"eth_sendRawTransaction"}))
    url = proxy.http_url if transport == "http" else proxy.ws_url
    async with RpcClient(url, timeout_s=0.5) as rpc:
        with pytest.raises(RpcError):
            await rpc.call("eth_sendRawTransaction", "0x" + signed.raw.hex())
        proxy.faults = Faults()
        receipt = None
        for _ in range(50):
            with contextlib.suppress(RpcError):  # the connection may be in the making
                receipt = await rpc.call("eth_getTransactionReceipt", "0x" + signed.hash.hex())
            if receipt is not None:
                break
            await asyncio.sleep(0.05)
    assert receipt is not None
    assert proxy.counts["eth_sendRawTransaction"] == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_refusals_over_http_carry_status_and_pause(proxy, status):
    """A refusal tells its status and how long to wait, and is not repeated by the client."""
    proxy.faults = Faults(http_status=status, retry_after="7")
    async with RpcClient(proxy.http_url) as rpc:
        with pytest.raises(RpcError, match=f"HTTP {status}") as caught:
            await rpc.call("eth_chainId")
    assert (caught.value.code, caught.value.retry_after_s) == (status, 7.0)
    assert proxy.counts["eth_chainId"] == 1


@pytest.mark.parametrize("transport", ["http", "ws"])
async def test_garbage_is_quoted_and_outlived(proxy, transport):
    """A gateway's page in place of an answer is shown, and the next call works again."""
    url = proxy.http_url if transport == "http" else proxy.ws_url
    async with RpcClient(url, timeout_s=2) as rpc:
        await rpc.call("eth_chainId")
        proxy.faults = Faults(garbage=b"<html>Bad gateway</html>")
        with pytest.raises(RpcError, match="Bad gateway"):
            await rpc.call("eth_chainId")
        proxy.faults = Faults()
        for attempt in range(100):
            try:
                await rpc.call("eth_chainId")
                break
            except RpcError:
                assert attempt < 99
                await asyncio.sleep(0.02)


async def test_a_refused_handshake_tells_the_status(proxy):
    """A WebSocket that is refused says with which status."""
    proxy.faults = Faults(refuse_connections=True)
    async with RpcClient(proxy.ws_url, timeout_s=2) as rpc:
        with pytest.raises(RpcError, match="HTTP 503") as caught:
            await rpc.call("eth_chainId")
    assert caught.value.code == 503


async def test_a_chain_that_starts_late_is_reached(tmp_path):
    """A client may be there before its end point is."""
    path = tmp_path / "late.ipc"
    async with RpcClient(str(path), timeout_s=2) as rpc:
        with pytest.raises(RpcError, match="No such file"):
            await rpc.call("eth_chainId")

        async def answer(reader, writer):
            while line := await reader.readline():
                key = line.split(b'"id":')[1].split(b",")[0].strip()
                writer.write(b'{"jsonrpc":"2.0","id":' + key + b',"result":"0x1"}\n')
            writer.close()

        async with await asyncio.start_unix_server(answer, path):
            for attempt in range(100):
                try:
                    assert await rpc.call("eth_chainId") == "0x1"
                    break
                except RpcError:
                    assert attempt < 99
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ws://127.0.0.1:1", "ws://none.invalid:1"])
async def test_an_unreachable_end_point_is_named_with_the_fix(url):
    """Refused and unknown hosts fail at once with what to check."""
    async with RpcClient(url, timeout_s=5) as rpc:
        with pytest.raises(RpcError, match="check the URL and that the end point is running"):
            await rpc.call("eth_chainId")
