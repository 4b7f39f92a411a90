"""The listener on a real chain with the real contracts, while the chain forks and the road breaks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from blueprint.chain.anvil import Anvil
from blueprint.chain.deployment import Deployment, deploy_local
from blueprint.chain.events import JOB_SUBMITTED
from blueprint.chain.listener import Listener, verify_contract
from blueprint.chain.protocol import encode_submit_job, encode_submit_result
from blueprint.chain.rpc import RpcClient
from blueprint.chain.signer import Signer
from blueprint.errors import ConfigError, RpcError
from blueprint.types import Address
from tests.support.chain_view import ChainView
from tests.support.fault_proxy import FaultProxy, Faults

pytestmark = pytest.mark.anvil


@dataclass
class Service:
    """A deployed service, with a client that nobody disturbs."""

    chain: Anvil
    rpc: RpcClient
    deployment: Deployment
    signer: Signer

    async def send(self, data: bytes) -> None:
        """Send a transaction to the contract from the first account, and wait for its block."""
        sent = await self.rpc.call(
            "eth_sendTransaction",
            {
                "from": "0x" + self.signer.address.hex(),
                "to": "0x" + self.deployment.contract.hex(),
                "data": "0x" + data.hex(),
                "gas": "0xf4240",
            },
        )
        for _ in range(500):
            if await self.rpc.call("eth_getTransactionReceipt", sent) is not None:
                return
            await asyncio.sleep(0.005)
        raise AssertionError("the transaction was not mined")

    async def submit(self, inputs: bytes) -> None:
        await self.send(encode_submit_job(self.deployment.service_id, 0, inputs))

    async def calls_on_chain(self) -> dict[int, str]:
        """The truth: call id to block hash, as the chain itself has it."""
        logs = await self.rpc.call(
            "eth_getLogs",
            {
                "address": "0x" + self.deployment.contract.hex(),
                "fromBlock": "0x0",
                "toBlock": "latest",
                "topics": ["0x" + JOB_SUBMITTED.hex()],
            },
        )
        return {int(log["topics"][2], 16): log["blockHash"] for log in logs}

    async def agrees(self, view: ChainView) -> bool:
        """Whether a view holds exactly the calls of the chain."""
        told = {key: "0x" + call.block_hash.hex() for key, call in view.calls.items()}
        return told == await self.calls_on_chain()

    @contextlib.asynccontextmanager
    async def following(self, url: str, view: ChainView, **options) -> AsyncIterator[None]:
        """Run a listener over ``url``."""
        async with RpcClient(url, timeout_s=1.0) as rpc, asyncio.TaskGroup() as group:
            listener = Listener(
                rpc,
                contract=self.deployment.contract,
                chain_id=self.deployment.chain_id,
                service_ids=[self.deployment.service_id],
                **{"start_block": 0, "poll_s": 0.05, "rollback_patience_s": 0.3, **options},
            )
            task = group.create_task(listener.run(view.apply))
            yield
            task.cancel()

    async def settle(self, view: ChainView, until: Callable[[], bool] = lambda: True) -> None:
        """Wait until a view agrees with the chain."""
        for _ in range(400):
            if until() and await self.agrees(view):
                return
            await asyncio.sleep(0.025)
        raise AssertionError(f"told {view.calls}, forks {view.forks}, on chain {await self.calls_on_chain()}")


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """The project's contracts on a chain of their own."""
    async with Anvil(ipc=True) as chain, RpcClient(str(chain.ipc_path)) as rpc:
        signer = Signer(chain.accounts[0].private_key)
        deployment = await deploy_local(rpc, signer, operators=[signer.address])
        yield Service(chain, rpc, deployment, signer)


@pytest.fixture
async def proxy(service: Service) -> AsyncIterator[FaultProxy]:
    """A road to that chain that can be spoiled."""
    async with FaultProxy(service.chain.http_url) as proxy:
        yield proxy


@pytest.mark.parametrize("transport", ["http", "ws", "ipc"])
async def test_real_calls_and_results_are_told(service, transport):
    """A job and its result on the real contracts come over every transport."""
    chain = service.chain
    url = {"http": chain.http_url, "ws": chain.ws_url, "ipc": str(chain.ipc_path)}[transport]
    view = ChainView()
    await service.submit(b"before")
    async with service.following(url, view):
        await service.settle(view)
        await service.submit(b"after")
        await service.send(encode_submit_result(service.deployment.service_id, 1, b"output"))
        await service.settle(view, lambda: 1 in view.results)
    assert [call.inputs for call in view.calls.values()] == [b"before", b"after"]
    assert view.calls[0].caller == view.results[1].operator == service.signer.address
    assert view.forks == []


async def test_a_silent_reorganisation_is_found(service):
    """Blocks replaced by others are undone, though the chain pushes no removed logs."""
    view = ChainView()
    for number in range(6):
        await service.submit(b"%d" % number)
    async with service.following(service.chain.ws_url, view):
        await service.settle(view)
        await service.rpc.call("anvil_reorg", 3, [])
        await service.settle(view, lambda: bool(view.forks))
        assert len(view.calls) == 3
        await service.submit(b"other")
        await service.settle(view)
    assert view.calls[3].inputs == b"other"


async def test_a_silent_rollback_is_found(service):
    """A chain that goes back and stays there pushes nothing at all, and is believed after a while."""
    view = ChainView()
    for number in range(4):
        await service.submit(b"%d" % number)
    async with service.following(service.chain.ws_url, view):
        await service.settle(view)
        await service.rpc.call("anvil_rollback", 2)
        await service.settle(view, lambda: bool(view.forks))
        await service.submit(b"next")
        await service.settle(view)
    assert [call.inputs for call in view.calls.values()] == [b"0", b"1", b"next"]


async def test_calls_made_while_the_road_breaks_are_all_told_once(service, proxy):
    """Through dropped connections, silence, refusals, garbage and forks, none is lost or doubled."""
    view = ChainView()
    faults = [
        Faults(swallow=True),
        Faults(refuse_connections=True),
        Faults(garbage=b"<html>"),
        Faults(hide_pushes=True),
        Faults(errors={"eth_getLogs": {"code": -32000, "message": "internal error"}}),
        Faults(lose_replies_to=frozenset({"eth_getBlockByNumber"})),
        Faults(delay_s=0.05, double_logs=True, double_pushes=True),
        Faults(stale_blocks=2),
    ]
    async with service.following(proxy.ws_url, view):
        for number, fault in enumerate(faults):
            proxy.faults = fault
            await service.submit(b"a%d" % number)
            await asyncio.sleep(0.15)
            proxy.drop_connections()
            await service.submit(b"b%d" % number)
            if number % 3 == 2:
                await service.rpc.call("anvil_reorg", 2, [])
            proxy.faults = Faults()
            await service.submit(b"c%d" % number)
        await service.settle(view)


async def test_logs_that_an_end_point_hides_are_found(service, proxy):
    """An end point that withholds a log is contradicted by the header's bloom and its own receipts."""
    view = ChainView()
    async with service.following(proxy.ws_url, view):
        await service.submit(b"0")
        await service.settle(view)
        proxy.faults = Faults(hide_log=lambda log: True)
        await service.submit(b"1")
        await service.submit(b"2")
        await service.settle(view)


async def test_a_stale_end_point_undoes_nothing(service, proxy):
    """An end point that lags behind for a moment costs nothing but the moment."""
    view = ChainView()
    async with service.following(proxy.http_url, view, rollback_patience_s=30.0):
        for number in range(4):
            await service.submit(b"%d" % number)
        await service.settle(view)
        proxy.faults = Faults(stale_blocks=3)
        await asyncio.sleep(0.3)
        await service.submit(b"4")
        await asyncio.sleep(0.2)
        proxy.faults = Faults()
        await service.settle(view)
    assert view.forks == []


async def test_a_backfill_through_a_narrow_end_point(service, proxy):
    """Hundreds of blocks are read though the end point allows seven at a time."""
    await service.submit(b"0")
    await service.rpc.call("anvil_mine", hex(300))
    await service.submit(b"1")
    proxy.faults = Faults(max_log_range=7)
    view = ChainView()
    async with service.following(proxy.http_url, view):
        await service.settle(view)


async def test_a_restart_with_the_window_reads_what_was_missed(service):
    """With the blocks of its journal a new listener goes on exactly after the cursor, forks included."""
    view = ChainView()
    await service.submit(b"0")
    await service.submit(b"1")
    async with service.following(service.chain.ws_url, view):
        await service.settle(view)
    await service.rpc.call("anvil_reorg", 1, [])
    await service.submit(b"2")
    async with service.following(service.chain.ws_url, view, window=view.blocks, start_block=None):
        await service.settle(view)
    assert [call.inputs for call in view.calls.values()] == [b"0", b"2"]


async def test_the_contract_is_verified_on_the_real_chain(service):
    """The deployed contract passes; a wrong chain id and an address without code do not."""
    contract = service.deployment.contract
    await verify_contract(service.rpc, contract, 31337)
    with pytest.raises(ConfigError, match="chain id"):
        await verify_contract(service.rpc, contract, 1)
    with pytest.raises(ConfigError, match="no code"):
        await verify_contract(service.rpc, Address(b"\x09" * 20), 31337)
    async with RpcClient("ws://127.0.0.1:1", timeout_s=1) as dead:
        with pytest.raises(RpcError):
            await verify_contract(dead, contract, 31337)
