"""A chain with a service on it whose operator deploys with the fake deployer."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from blueprint.chain.deployment import Deployment, deploy_local, submit_job, wait_result
from blueprint.chain.devchain import DevChain
from blueprint.chain.rpc import RpcClient
from blueprint.chain.signer import Signer
from blueprint.types import Address, CallKey
from jobs.deploy.codec import (
    NOBODY,
    Commitment,
    DeployRequest,
    DeployResult,
    Preparation,
    Removal,
    decode_result,
    encode_request,
)
from jobs.deploy.handler import DEPLOY_INDEX, DeployTerms
from jobs.deploy.testing import FakeDeployer
from tests.support.deploying_node import deploying_node

__all__ = ["COMPOSE", "World", "deploy_world"]

PROJECT = Path(__file__).resolve().parents[2]
COMPOSE = 'services:\n  web:\n    image: busybox\n    environment: ["TOKEN=${TOKEN}"]\n'
WAIT_S = 30.0


@dataclass
class World:
    """A chain with a service, two callers, and an operator whose memory is a folder."""

    chain: DevChain
    rpc: RpcClient
    caller: Signer
    stranger: Signer
    operator: Signer
    other: Signer
    deployment: Deployment
    folder: Path

    async def submit(
        self,
        body: Preparation | Commitment | Removal,
        *,
        by: Signer | None = None,
        operator: Address | None = None,
    ) -> CallKey:
        """Submit a call; a commit and a removal go to the operator."""
        if operator is None:
            operator = NOBODY if isinstance(body, Preparation) else self.operator.address
        inputs = encode_request(DeployRequest(body=body, operator=operator))
        return await submit_job(self.rpc, by or self.caller, self.deployment, DEPLOY_INDEX, inputs)

    async def answer(self, key: CallKey) -> DeployResult:
        """Wait for the answer on the chain."""
        return decode_result((await wait_result(self.rpc, key, WAIT_S)).output)

    async def ask(
        self, body: Preparation | Commitment | Removal, *, by: Signer | None = None
    ) -> DeployResult:
        """Submit, and wait for the answer."""
        return await self.answer(await self.submit(body, by=by))

    @asynccontextmanager
    async def node(
        self, terms: DeployTerms | None = None, *, index: int = 1, folder: Path | None = None
    ) -> AsyncIterator[None]:
        """Run an operator's node in this process until the block is left."""
        folder = folder or self.folder
        folder.mkdir(exist_ok=True)
        opened = deploying_node(
            self.chain.ws_url, folder, self.deployment.contract, self.deployment.service_id,
            key=self.chain.accounts[index].private_key, terms=terms or DeployTerms(),
        )  # fmt: skip
        async with opened as node, asyncio.TaskGroup() as group:
            running = group.create_task(node.run())
            try:
                yield
            finally:
                node.request_stop()
                await running

    async def process(self, step: str) -> None:
        """Run the operator's node in a process of its own, and wait until it has died at a step."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.deploying_node", self.chain.ws_url, str(self.folder),
            self.deployment.contract.hex(), str(self.deployment.service_id),
            self.chain.accounts[1].private_key.hex(), step,
            cwd=PROJECT, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(WAIT_S):
            assert await process.wait() == -signal.SIGKILL

    @property
    def place(self) -> FakeDeployer:
        """What the operator deploys to, seen from outside."""
        return FakeDeployer(self.folder / "fake.json")


@asynccontextmanager
async def deploy_world(tmp_path: Path) -> AsyncIterator[World]:
    """A service with two operators, and two who may call."""
    async with DevChain() as chain, RpcClient(chain.ws_url) as rpc:
        caller, operator, stranger, other = (Signer(account.private_key) for account in chain.accounts[:4])
        deployment = await deploy_local(
            rpc,
            caller,
            operators=[operator.address, other.address],
            permitted_callers=[stranger.address],
        )
        folder = tmp_path / "operator"
        folder.mkdir()
        yield World(chain, rpc, caller, stranger, operator, other, deployment, folder)
