"""The deploy job through the real node on the embedded chain: from the call to the answer.

Only the deployer is a fake; its keys and the ciphertext are real.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blueprint.http.outputs import OutputStore
from blueprint.tee.sealing import SecretVariable, seal
from jobs.deploy.codec import Commitment, DeployResult, Preparation, Removal
from jobs.deploy.handler import DeployTerms
from jobs.deploy.testing import FakeDeployer
from tests.support.deploy_world import COMPOSE, World, deploy_world

PREPARATION = Preparation(name="my-app", compose=COMPOSE, names=("TOKEN",))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A service with two operators, and two who may call."""
    async with deploy_world(tmp_path) as world:
        yield world


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
