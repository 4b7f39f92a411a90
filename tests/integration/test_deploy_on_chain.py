"""The deploy job through the real node on the embedded chain: from the call to the answer.

Only the deployer is a fake; its keys and the ciphertext are real.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from blueprint.chain.deployment import Deployment, deploy_local, submit_job, wait_result
from blueprint.chain.devchain import DevChain
from blueprint.chain.rpc import RpcClient
from blueprint.chain.signer import Signer
from blueprint.http.outputs import OutputStore
from blueprint.tee.sealing import SecretVariable, seal
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

PROJECT = Path(__file__).resolve().parents[2]
COMPOSE = 'services:\n  web:\n    image: busybox\n    environment: ["TOKEN=${TOKEN}"]\n'
PREPARATION = Preparation(name="my-app", compose=COMPOSE, names=("TOKEN",))
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


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
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


def commitment(prepared: DeployResult, call_id: int, value: str = "secret") -> Commitment:
    """Seal for what was prepared."""
    sealed = seal([SecretVariable("TOKEN", value)], prepared.sealing_key.key)
    return Commitment(call_id=call_id, compose_hash=prepared.compose_hash, sealed_variables=sealed)


async def test_an_application_is_deployed_by_two_calls_and_removed_by_a_third(world: World) -> None:
    """Prepare, seal, commit: the answer on chain names what runs, and the node keeps the evidence."""
    async with world.node():
        prepared = await world.ask(PREPARATION)
        assert (prepared.status, prepared.operator) == (0, world.operator.address)
        deployed = await world.ask(commitment(prepared, 0))
        assert (deployed.status, deployed.app_id) == (0, prepared.app_id)
        assert deployed.compose_hash == prepared.compose_hash
        assert list(world.place.running.values()) == [["TOKEN"]]
        kept = OutputStore(world.folder / "outputs", max_bytes=1 << 20, item_max_bytes=1 << 20)
        assert kept.get(deployed.evidence_digest.hex()) is not None
        assert (await world.ask(Removal(call_id=0))).status == 0
        assert world.place.known == set()


async def test_what_may_not_be_committed_is_refused_on_chain(world: World) -> None:
    """A stranger, another compose hash, no ciphertext, a second commit: each is answered."""
    async with world.node():
        prepared = await world.ask(PREPARATION)
        good = commitment(prepared, 0)
        other_hash = Commitment(call_id=0, compose_hash=b"\1" * 32, sealed_variables=good.sealed_variables)
        nothing_sealed = Commitment(call_id=0, compose_hash=prepared.compose_hash)
        assert (await world.ask(good, by=world.stranger)).status == 20
        assert (await world.ask(other_hash)).status == 20
        assert (await world.ask(nothing_sealed)).status == 20
        assert world.place.running == {}
        first = await world.ask(good)
        assert first.status == 0
        assert (await world.ask(commitment(prepared, 0, "other"))).status == 20
        assert await world.ask(good) == first
        assert (await world.ask(Removal(call_id=0), by=world.stranger)).status == 20
        assert len(world.place.running) == 1


async def test_an_expired_preparation_is_told_on_chain(world: World) -> None:
    """The commit that comes too late gets status 12."""
    async with world.node(DeployTerms(expires_s=0.0)):
        prepared = await world.ask(PREPARATION)
        result = await world.ask(commitment(prepared, 0))
    assert (result.status, "prepare again" in result.error_message) == (12, True)


@pytest.mark.parametrize("step", ["prepare", "prepared"])
async def test_a_node_killed_while_it_prepares_answers_once(world: World, step: str) -> None:
    """Its successor prepares, with one identity, and the commit works."""
    key = await world.submit(PREPARATION)
    await world.process(step)
    async with world.node():
        prepared = await world.answer(key)
        assert (prepared.status, len(world.place.known)) == (0, 1)
        assert (await world.ask(commitment(prepared, 0))).status == 0


@pytest.mark.parametrize("step", ["commit", "committed"])
async def test_a_node_killed_while_it_commits_deploys_once(world: World, step: str) -> None:
    """Its successor takes up the same deployment and answers for it."""
    async with world.node():
        prepared = await world.ask(PREPARATION)
    key = await world.submit(commitment(prepared, 0))
    await world.process(step)
    async with world.node():
        deployed = await world.answer(key)
    assert (deployed.status, deployed.app_id) == (0, prepared.app_id)
    assert len(world.place.running) == 1


async def test_a_reorganisation_gives_nobody_the_answer_of_another(world: World) -> None:
    """A call id that changes hands is another application; a commit that moves keeps its outcome."""
    before = await world.rpc.call("evm_snapshot")
    async with world.node():
        lost = await world.ask(PREPARATION)
        assert await world.rpc.call("evm_revert", before) is True
        theirs = await world.ask(PREPARATION, by=world.stranger)
        prepared = await world.ask(PREPARATION)
        assert len({lost.app_id, theirs.app_id, prepared.app_id}) == 3
        between = await world.rpc.call("evm_snapshot")
        body = commitment(prepared, 1)
        first = await world.ask(body)
        assert await world.rpc.call("evm_revert", between) is True
        assert (await world.ask(commitment(theirs, 0), by=world.stranger)).status == 0
        assert await world.ask(body) == first
        assert len(world.place.running) == 2


async def test_with_two_operators_only_the_one_that_prepared_commits(world: World) -> None:
    """The other prepares too, and loses; it never answers for what is sealed to somebody else's key."""
    folder = world.folder.with_name("other")
    async with world.node(), world.node(index=3, folder=folder):
        prepared = await world.ask(PREPARATION)
        winner, place = world.operator.address, world.place
        if prepared.operator == world.other.address:
            winner, place = world.other.address, FakeDeployer(folder / "fake.json")
        assert prepared.operator == winner
        deployed = await world.answer(await world.submit(commitment(prepared, 0), operator=winner))
        assert (deployed.status, deployed.operator) == (0, winner)
        assert len(place.running) == 1
        assert len(world.place.running) + len(FakeDeployer(folder / "fake.json").running) == 1
