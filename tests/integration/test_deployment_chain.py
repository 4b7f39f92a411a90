"""The project's contracts on a chain, and a caller and an operator that use them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from blueprint.chain.anvil import Anvil
from blueprint.chain.deployment import (
    JobSpec,
    deploy_consumer,
    deploy_local,
    submit_job,
    transact,
    wait_result,
)
from blueprint.chain.devchain import DevChain
from blueprint.chain.protocol import (
    Pricing,
    decode_get_blueprint_definition,
    decode_get_service_operators,
    encode_get_blueprint_definition,
    encode_get_service_operators,
    encode_submit_result,
)
from blueprint.chain.rpc import RpcClient
from blueprint.chain.signer import Signer
from blueprint.chain.wire import parse_bytes, to_hex
from blueprint.errors import ChainError, RevertedError
from blueprint.types import Address, CallKey
from tests.support.chains import Chain


@pytest.fixture(params=["devchain", pytest.param("anvil", marks=pytest.mark.anvil)])
async def chain(request: pytest.FixtureRequest) -> AsyncIterator[Chain]:
    """Each of the two chains."""
    async with DevChain() if request.param == "devchain" else Anvil() as chain:
        yield chain


@pytest.fixture
async def rpc(chain: Chain) -> AsyncIterator[RpcClient]:
    """The node's own client."""
    async with RpcClient(chain.ws_url) as rpc:
        yield rpc


def signers(chain: Chain) -> tuple[Signer, Signer, Signer]:
    """Owner, operator and a stranger."""
    owner, operator, stranger = (Signer(account.private_key) for account in chain.accounts[:3])
    return owner, operator, stranger


async def read(rpc: RpcClient, contract: Address, data: bytes) -> bytes:
    """Call a function that only reads."""
    return parse_bytes(await rpc.call("eth_call", {"to": to_hex(contract), "data": to_hex(data)}, "latest"))


async def test_deployment_declares_jobs_and_operators(chain: Chain, rpc: RpcClient) -> None:
    """What was asked for stands on the chain: both jobs, the manager, the operators."""
    owner, operator, stranger = signers(chain)
    deployment = await deploy_local(rpc, owner, operators=[operator.address, stranger.address])
    assert (deployment.chain_id, deployment.blueprint_id, deployment.service_id) == (31_337, 0, 0)
    answer = await read(rpc, deployment.contract, encode_get_blueprint_definition(0))
    blueprint = decode_get_blueprint_definition(answer)
    assert [job.name for job in blueprint.jobs] == ["execute", "deploy"]
    assert blueprint.manager == deployment.manager
    operators = decode_get_service_operators(
        await read(rpc, deployment.contract, encode_get_service_operators(0))
    )
    assert operators == (operator.address, stranger.address)


async def test_job_is_submitted_and_its_answer_awaited(chain: Chain, rpc: RpcClient) -> None:
    """A caller gets the operator's bytes as soon as they are in a block."""
    owner, operator, _ = signers(chain)
    deployment = await deploy_local(rpc, owner, operators=[operator.address])
    first = await submit_job(rpc, owner, deployment, 0, b"one")
    second = await submit_job(rpc, owner, deployment, 1, b"two" * 10_000)
    assert (first.call_id, second.call_id) == (0, 1)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(wait_result(rpc, second, 10))
        await transact(rpc, operator, to=deployment.contract, data=encode_submit_result(0, 0, b"for one"))
        await transact(rpc, operator, to=deployment.contract, data=encode_submit_result(0, 1, b"for two"))
    assert (waiting.result().output, waiting.result().operator) == (b"for two", operator.address)
    assert (await wait_result(rpc, first, 10)).output == b"for one"


async def test_priced_job_is_paid_for(chain: Chain, rpc: RpcClient) -> None:
    """The price of an event-driven blueprint goes along with each submission."""
    owner, operator, _ = signers(chain)
    deployment = await deploy_local(rpc, owner, operators=[operator.address], event_rate_wei=1_000)
    answer = await read(rpc, deployment.contract, encode_get_blueprint_definition(0))
    assert decode_get_blueprint_definition(answer).pricing is Pricing.EVENT_DRIVEN
    await submit_job(rpc, owner, deployment, 0, b"")
    assert await rpc.call("eth_getBalance", to_hex(deployment.contract), "latest") == hex(1_000)


async def test_stranger_is_refused_before_anything_is_sent(chain: Chain, rpc: RpcClient) -> None:
    """A caller who is not permitted learns it from the estimate, by name, and pays nothing."""
    owner, operator, stranger = signers(chain)
    deployment = await deploy_local(rpc, owner, operators=[operator.address])
    with pytest.raises(RevertedError, match="NotPermittedCaller"):
        await submit_job(rpc, stranger, deployment, 0, b"")
    assert await rpc.call("eth_getTransactionCount", to_hex(stranger.address), "latest") == "0x0"


async def test_permitted_caller_may_submit(chain: Chain, rpc: RpcClient) -> None:
    """A caller who was permitted at activation may submit."""
    owner, operator, stranger = signers(chain)
    deployment = await deploy_local(
        rpc, owner, operators=[operator.address], permitted_callers=[stranger.address]
    )
    assert (await submit_job(rpc, stranger, deployment, 0, b"")).call_id == 0


async def test_malformed_schema_is_refused(chain: Chain, rpc: RpcClient) -> None:
    """A job schema that is no schema is refused by the contract, with its name for it."""
    owner, operator, _ = signers(chain)
    with pytest.raises(RevertedError):
        await deploy_local(
            rpc, owner, operators=[operator.address], jobs=[JobSpec(name="bad", params_schema=b"\xff\xff")]
        )


async def test_consumer_contract_may_ask(chain: Chain, rpc: RpcClient) -> None:
    """The example consumer is deployed and permitted, so that its question becomes a call."""
    owner, operator, _ = signers(chain)
    deployment = await deploy_local(rpc, owner, operators=[operator.address])
    consumer = await deploy_consumer(rpc, owner, deployment)
    assert len(await rpc.call("eth_getCode", to_hex(consumer), "latest")) > 100  # type: ignore[arg-type]


async def test_waiting_for_nobody_ends_in_time() -> None:
    """Where no node answers, the wait ends and says what to look at."""
    async with DevChain() as chain, RpcClient(chain.http_url) as rpc:
        key = CallKey(chain_id=1, contract=Address(bytes(20)), service_id=0, call_id=7)
        with pytest.raises(TimeoutError, match="call 7 of service 0 was not answered within 0.3 s"):
            await wait_result(rpc, key, 0.3)


async def test_transaction_that_is_never_mined_ends_in_time() -> None:
    """On a chain that stands still the wait for a receipt ends and says so."""
    async with DevChain(block_time_s=1_000) as chain, RpcClient(chain.http_url) as rpc:
        owner, operator, _ = signers(chain)
        with pytest.raises(TimeoutError, match="check that the chain mines blocks"):
            await transact(rpc, owner, to=operator.address, data=b"", timeout_s=0.3)


async def test_foreign_contract_is_told() -> None:
    """A contract that emits nothing of what was expected is an error, not an invented call."""
    async with DevChain() as chain, RpcClient(chain.http_url) as rpc:
        owner, operator, stranger = signers(chain)
        deployment = await deploy_local(rpc, owner, operators=[operator.address])
        elsewhere = type(deployment)(
            chain_id=deployment.chain_id,
            contract=stranger.address,
            manager=deployment.manager,
            blueprint_id=0,
            service_id=0,
        )
        with pytest.raises(ChainError, match="lacks the event"):
            await submit_job(rpc, owner, elsewhere, 0, b"")
