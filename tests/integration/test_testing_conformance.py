"""The fake chain and LocalTangle on anvil answer a node alike: same questions, same kinds of answers."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from blueprint.chain.anvil import Anvil
from blueprint.chain.deployment import Deployment, JobSpec, deploy_local, submit_job
from blueprint.chain.events import decode_log, parse_log
from blueprint.chain.protocol import (
    decode_bool,
    decode_get_job_call,
    encode_get_job_call,
    encode_is_service_operator,
    encode_submit_result,
    encode_submit_results,
)
from blueprint.chain.refusals import Refusal, classify_refusal
from blueprint.chain.rpc import Rpc, RpcClient
from blueprint.chain.signer import Signer
from blueprint.chain.wire import parse_bytes, parse_quantity, to_hex
from blueprint.errors import ChainError, RevertedError
from blueprint.testing import FakeChain
from blueprint.types import Address, JobCall

pytestmark = pytest.mark.anvil
OPERATOR = Signer(b"\x01" * 32)
STRANGER = Signer(b"\x05" * 32)


@dataclass
class Subject:
    """Either chain, as a node and a caller see it."""

    rpc: Rpc
    chain_id: int
    contract: Address
    fake: FakeChain | None = None
    caller: Signer | None = None
    deployment: Deployment | None = None

    async def submit(self, inputs: bytes) -> int:
        """Submit a job and return its call id."""
        if self.fake is not None:
            return self.fake.submit_job(inputs).call_id
        assert self.caller is not None
        assert self.deployment is not None
        return (await submit_job(self.rpc, self.caller, self.deployment, 0, inputs)).call_id

    async def ask(self, data: bytes, sender: Signer = OPERATOR) -> bytes:
        """Call the contract without a transaction."""
        message = {"from": to_hex(sender.address), "to": to_hex(self.contract), "data": to_hex(data)}
        return parse_bytes(await self.rpc.call("eth_call", message, "latest"))  # type: ignore[arg-type]

    def raw(self, data: bytes, nonce: int, fee: int = 10**11) -> str:
        """Sign a transaction of the operator."""
        signed = OPERATOR.sign_transaction(
            chain_id=self.chain_id, nonce=nonce, to=self.contract, data=data, gas=1_000_000,
            max_fee_wei=fee, max_priority_fee_wei=min(fee, 10**9),
        )  # fmt: skip
        return to_hex(signed.raw)

    async def answer(self, call_id: int, nonce: int) -> None:
        """Answer a call and wait until that is in a block."""
        await self.rpc.call(
            "eth_sendRawTransaction", self.raw(encode_submit_result(0, call_id, b"out"), nonce)
        )
        async with asyncio.timeout(10):
            while await self.count() <= nonce:
                await self.rpc.wait_head(0.1)

    async def count(self) -> int:
        """How many nonces of the operator are used."""
        return parse_quantity(
            await self.rpc.call("eth_getTransactionCount", to_hex(OPERATOR.address), "latest")
        )


@asynccontextmanager
async def anvil() -> AsyncIterator[Subject]:
    """LocalTangle on anvil."""
    async with Anvil() as chain, RpcClient(chain.ws_url) as rpc:
        caller = Signer(chain.accounts[0].private_key)
        await rpc.call("anvil_setBalance", to_hex(OPERATOR.address), hex(10**20))
        deployment = await deploy_local(
            rpc, caller, operators=[OPERATOR.address], jobs=[JobSpec(name="echo")]
        )
        yield Subject(rpc, deployment.chain_id, deployment.contract, caller=caller, deployment=deployment)


@pytest.fixture(params=["fake", "anvil"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """One chain, then the other."""
    if request.param == "anvil":
        async with anvil() as real:
            yield real
        return
    fake = FakeChain(operators=[OPERATOR.address])
    yield Subject(fake, fake.chain_id, fake.contract, fake=fake)


async def refused(subject: Subject, data: bytes, sender: Signer = OPERATOR) -> str | None:
    """The name of the contract's error, or None when it accepts."""
    try:
        await subject.ask(data, sender)
    except RevertedError as exc:
        return exc.name
    return None


async def test_refusals_have_the_same_names(subject: Subject) -> None:
    """Who may answer what, and how the contract says no."""
    call_id = await subject.submit(b"in")
    answer = encode_submit_result(0, call_id, b"out")
    before = (
        await refused(subject, answer),
        await refused(subject, answer, STRANGER),
        await refused(subject, encode_submit_result(0, 99, b"out")),
        await refused(subject, encode_submit_results(0, [call_id, call_id], [b"", b""])),
    )
    await subject.answer(call_id, 0)
    assert before == (None, "OperatorNotInService", "JobCallNotFound", "JobAlreadyCompleted")
    assert await refused(subject, answer) == "JobAlreadyCompleted"


async def test_views_tell_the_same(subject: Subject) -> None:
    """A call's record and the operators' list follow the answers."""
    call_id = await subject.submit(b"in")
    open_ = decode_get_job_call(await subject.ask(encode_get_job_call(0, call_id)))
    await subject.answer(call_id, 0)
    closed = decode_get_job_call(await subject.ask(encode_get_job_call(0, call_id)))
    assert (open_.is_completed, open_.result_count) == (False, 0)
    assert (closed.is_completed, closed.result_count) == (True, 1)
    assert decode_bool(await subject.ask(encode_is_service_operator(0, OPERATOR.address)))
    assert not decode_bool(await subject.ask(encode_is_service_operator(0, STRANGER.address)))


async def test_logs_decode_to_the_same(subject: Subject) -> None:
    """Calls and results are found by the same filter and carry the same values."""
    call_id = await subject.submit(b"the inputs")
    await subject.answer(call_id, 0)
    where = {"address": to_hex(subject.contract), "fromBlock": "0x0", "toBlock": "latest"}
    answer = await subject.rpc.call("eth_getLogs", where)  # type: ignore[arg-type]  # a dict of strings is JSON
    assert isinstance(answer, list)
    decoded = [decode_log(parse_log(log), chain_id=subject.chain_id) for log in answer]
    kinds = [type(one).__name__ for one in decoded if one is not None]
    assert kinds[-3:] == ["JobCall", "ResultLog", "JobCompletedLog"]
    (call,) = [one for one in decoded if isinstance(one, JobCall)]
    assert (call.inputs, call.job_index, call.key.call_id) == (b"the inputs", 0, 0)


async def test_nonces_are_refused_alike(subject: Subject) -> None:
    """A used nonce and a known transaction have words that mean the same."""
    for number in range(2):
        await subject.answer(await subject.submit(b"%d" % number), number)
    with pytest.raises(ChainError) as used:
        await subject.rpc.call("eth_sendRawTransaction", subject.raw(b"", 0))
    waiting = subject.raw(b"", 5)
    await subject.rpc.call("eth_sendRawTransaction", waiting)
    with pytest.raises(ChainError) as known:
        await subject.rpc.call("eth_sendRawTransaction", waiting)
    assert classify_refusal(used.value) is Refusal.NONCE_TOO_LOW
    assert classify_refusal(known.value) is Refusal.ALREADY_KNOWN


async def test_blocks_are_linked(subject: Subject) -> None:
    """Each header names its parent, on either chain."""
    for _ in range(3):
        await subject.submit(b"x")
    head = parse_quantity(await subject.rpc.call("eth_blockNumber"))
    headers = [await subject.rpc.call("eth_getBlockByNumber", hex(n), False) for n in range(head + 1)]  # noqa: FBT003
    for parent, child in itertools.pairwise(headers):
        assert isinstance(parent, dict)
        assert isinstance(child, dict)
        assert child["parentHash"] == parent["hash"]
