"""``kill -9`` of a real node at every step; after a restart each call has exactly one result."""

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from blueprint.chain.anvil import Anvil
from blueprint.chain.deployment import Deployment, JobSpec, deploy_local, transact
from blueprint.chain.events import decode_log, parse_log
from blueprint.chain.protocol import encode_submit_job, encode_submit_result
from blueprint.chain.rpc import RpcClient
from blueprint.chain.signer import Signer
from blueprint.chain.wire import to_hex
from blueprint.types import JobCall, ResultLog
from tests.support.crashing_node import POINTS

PROJECT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.anvil


@dataclass
class World:
    """A chain with a service on it, a caller and an operator."""

    chain: Anvil
    rpc: RpcClient
    caller: Signer
    operator: Signer
    rival: Signer
    deployment: Deployment
    journal: Path

    async def submit(self, count: int) -> None:
        """Submit calls with random inputs, all in flight at once."""
        nonce = int(
            str(await self.rpc.call("eth_getTransactionCount", to_hex(self.caller.address), "pending")), 0
        )
        raws = [
            self.caller.sign_transaction(
                chain_id=self.deployment.chain_id,
                nonce=nonce + offset,
                to=self.deployment.contract,
                data=encode_submit_job(self.deployment.service_id, 0, random.randbytes(40)),
                gas=500_000,
                max_fee_wei=10**11,
                max_priority_fee_wei=1,
            ).raw
            for offset in range(count)
        ]
        await self.rpc.batch([("eth_sendRawTransaction", [to_hex(raw)]) for raw in raws])

    async def start_node(self, point: str | None = None) -> asyncio.subprocess.Process:
        """Start a node in its own process."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.support.crashing_node", self.chain.ws_url, str(self.journal)),
            *(self.deployment.contract.hex(), str(self.deployment.service_id), self.key.hex()),
            *([point] if point else []),
            cwd=PROJECT,
            stdout=asyncio.subprocess.DEVNULL,
        )

    @property
    def key(self) -> bytes:
        """The operator's private key."""
        return self.chain.accounts[1].private_key

    async def logs(self) -> tuple[dict[int, bytes], list[tuple[int, bytes]]]:
        """The inputs of each call, and every result of our operator as (call id, output)."""
        where = {"address": to_hex(self.deployment.contract), "fromBlock": "0x0", "toBlock": "latest"}
        found = await self.rpc.call("eth_getLogs", where)  # type: ignore[arg-type]  # a dict of strings is JSON
        assert isinstance(found, list)
        inputs: dict[int, bytes] = {}
        results: list[tuple[int, bytes]] = []
        for entry in found:
            raw = parse_log(entry)
            decoded = decode_log(raw, chain_id=self.deployment.chain_id)
            if isinstance(decoded, JobCall):
                inputs[decoded.key.call_id] = decoded.inputs
            elif isinstance(decoded, ResultLog) and decoded.operator == self.operator.address:
                length = int.from_bytes(raw.data[32:64], "big")
                results.append((decoded.key.call_id, raw.data[64 : 64 + length]))
        return inputs, results

    async def settle(self, count: int) -> None:
        """Wait until ``count`` calls are answered."""
        async with asyncio.timeout(60):
            while len((await self.logs())[1]) < count:
                await self.rpc.wait_head(0.2)

    async def assert_answered_once(self, count: int) -> None:
        """Every call has exactly one result of ours, and it is the right one."""
        inputs, results = await self.logs()
        assert len(inputs) == count
        assert Counter(call_id for call_id, _ in results) == Counter(dict.fromkeys(range(count), 1))
        assert all(output == inputs[call_id][::-1] for call_id, output in results)


@pytest.fixture(params=[None, pytest.param(0.1, marks=pytest.mark.slow)], ids=["automine", "blocks"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A fresh chain with LocalTangle and one service of two operators."""
    async with Anvil(block_time_s=request.param) as chain, RpcClient(chain.ws_url) as rpc:
        caller, operator, rival = (Signer(account.private_key) for account in chain.accounts[:3])
        deployment = await deploy_local(
            rpc, caller, operators=[operator.address, rival.address], jobs=[JobSpec(name="reverse")]
        )
        yield World(chain, rpc, caller, operator, rival, deployment, tmp_path / "journal.db")


async def stop(node: asyncio.subprocess.Process) -> int:
    """Stop a node politely and return its exit code."""
    node.send_signal(signal.SIGTERM)
    async with asyncio.timeout(40):
        return await node.wait()


@pytest.mark.parametrize("point", POINTS)
async def test_a_node_killed_at_any_step_answers_each_call_once(world: World, point: str) -> None:
    """The node dies at one point of a call's life; its successor finishes, and nothing is doubled or lost."""
    await world.submit(5)
    node = await world.start_node(point)
    async with asyncio.timeout(40):
        assert await node.wait() == -signal.SIGKILL
    await world.submit(2)
    node = await world.start_node()
    await world.settle(7)
    assert await stop(node) == 0
    await world.assert_answered_once(7)


@pytest.mark.slow
async def test_a_node_killed_again_and_again_answers_each_call_once(world: World) -> None:
    """Deaths at random moments, while calls keep coming, lose and double nothing."""
    count = 0
    for _ in range(6):
        node = await world.start_node()
        for _ in range(3):
            await world.submit(10)
            count += 10
            await asyncio.sleep(random.uniform(0.1, 0.6))
        os.kill(node.pid, signal.SIGKILL)
        await node.wait()
    await world.submit(5)  # so that the last node has something to do, and is up when it is stopped
    node = await world.start_node()
    await world.settle(count + 5)
    assert await stop(node) == 0
    await world.assert_answered_once(count + 5)


async def test_a_call_that_a_rival_completes_is_no_failure(world: World) -> None:
    """With another operator's answer in place the node closes the call and goes on with the next."""
    await world.submit(1)
    inputs, _ = await world.logs()
    while not inputs:
        await asyncio.sleep(0.05)
        inputs, _ = await world.logs()
    answer = encode_submit_result(world.deployment.service_id, 0, b"rival")
    await transact(world.rpc, world.rival, to=world.deployment.contract, data=answer)
    await world.submit(1)
    node = await world.start_node()
    await world.settle(1)
    assert await stop(node) == 0
    _, results = await world.logs()
    assert [call_id for call_id, _ in results] == [1]
