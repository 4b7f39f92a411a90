"""Two operators, two nodes: a job that was bought from one of them is run and answered by that one alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_typed_data

from blueprint.chain.deployment import Deployment, deploy_local, submit_job, transact, wait_result
from blueprint.chain.devchain import DevChain
from blueprint.chain.listener import Listener
from blueprint.chain.rpc import RpcClient
from blueprint.chain.signer import Signer
from blueprint.chain.submitter import Submitter, SubmitterPolicy
from blueprint.chain.wire import parse_quantity
from blueprint.keccak import keccak256
from blueprint.node import Node
from blueprint.store.journal import Journal
from blueprint.store.reader import find_calls
from blueprint.types import CallKey, CallState, JobCall

FIELDS = ["address", "uint64", "uint8", "uint256", "uint64", "uint64", "uint8", "bytes32"]
NAMES = [
    "requester",
    "serviceId",
    "jobIndex",
    "price",
    "timestamp",
    "expiry",
    "confidentiality",
    "inputsHash",
]
LATEST = ("latest", False)  # without the transactions
PRICE_WEI = 5_000


class Operator:
    """A node in this process, and what its handler was given."""

    def __init__(self, chain: DevChain, index: int, folder: Path) -> None:
        self.signer = Signer(chain.accounts[index].private_key)
        self.key = chain.accounts[index].private_key
        self.path = folder / f"{index}.sqlite"
        self.ran: list[bytes] = []

    async def handle(self, call: JobCall) -> bytes:
        """The job: who am I, and what was asked."""
        self.ran.append(call.inputs)
        return self.signer.address + call.inputs

    @asynccontextmanager
    async def running(self, rpc: RpcClient, deployment: Deployment) -> AsyncIterator[None]:
        """Run the node until the block is left."""
        chain_id, contract = deployment.chain_id, deployment.contract
        with Journal(
            self.path, chain_id=chain_id, contract=contract, operator=self.signer.address
        ) as journal:
            submitter = Submitter(
                rpc, ledger=journal, signer=self.signer, chain_id=chain_id, contract=contract,
                policy=SubmitterPolicy(tick_s=0.1, retry_s=0.1),
            )  # fmt: skip
            listener = Listener(
                rpc, contract=contract, chain_id=chain_id, service_ids=[deployment.service_id],
                window=journal.window(), start_block=0, poll_s=0.1,
            )  # fmt: skip
            node = Node(rpc=rpc, listener=listener, journal=journal, submitter=submitter, handler=self.handle)
            async with asyncio.TaskGroup() as group:
                group.create_task(node.run())
                yield
                node.request_stop()


async def buy(
    rpc: RpcClient, caller: Signer, deployment: Deployment, seller: Operator, inputs: bytes
) -> None:
    """Have an operator sign a price (EIP-712), and buy the job with it."""
    block = await rpc.call("eth_getBlockByNumber", *LATEST)
    assert isinstance(block, dict)
    now = parse_quantity(block["timestamp"])
    details = (
        caller.address, deployment.service_id, 0, PRICE_WEI, now, now + 600, 0, keccak256(inputs),
    )  # fmt: skip
    typed = {"JobQuoteDetails": [{"name": n, "type": t} for n, t in zip(NAMES, FIELDS, strict=True)]}
    domain = {
        "name": "TangleQuote",
        "version": "1",
        "chainId": deployment.chain_id,
        "verifyingContract": "0x" + deployment.contract.hex(),
    }
    message = dict(zip(NAMES, ("0x" + details[0].hex(), *details[1:]), strict=True))
    signature = Account.sign_message(encode_typed_data(domain, typed, message), seller.key).signature
    quotes = f"(({','.join(FIELDS)}),bytes,address)[]"
    arguments = encode(
        ("uint64", "uint8", "bytes", quotes),
        (deployment.service_id, 0, inputs, [(details, bytes(signature), seller.signer.address)]),
    )
    selector = keccak256(f"submitJobFromQuote(uint64,uint8,bytes,{quotes})".encode())[:4]
    await transact(rpc, caller, to=deployment.contract, data=selector + arguments, value_wei=PRICE_WEI)


async def test_only_the_quoted_operator_runs_and_answers_a_bought_job(tmp_path: Path) -> None:
    """The other node closes it and runs nothing; a job for all is still answered by somebody."""
    async with DevChain() as chain, RpcClient(chain.ws_url) as rpc, RpcClient(chain.ws_url) as other:
        caller = Signer(chain.accounts[0].private_key)
        first, second = Operator(chain, 1, tmp_path), Operator(chain, 2, tmp_path)
        deployment = await deploy_local(rpc, caller, operators=[first.signer.address, second.signer.address])
        async with first.running(rpc, deployment), second.running(other, deployment):
            for call_id, (seller, inputs) in enumerate([(first, b"from one"), (second, b"from two")]):
                await buy(rpc, caller, deployment, seller, inputs)
                key = CallKey(
                    chain_id=deployment.chain_id, contract=deployment.contract, service_id=0, call_id=call_id
                )
                answer = await wait_result(rpc, key, 20)
                assert (answer.operator, answer.output) == (
                    seller.signer.address,
                    seller.signer.address + inputs,
                )
            open_call = await submit_job(rpc, caller, deployment, 0, b"for all")
            assert (await wait_result(rpc, open_call, 20)).output[20:] == b"for all"
    for seller, other_one, call_id in ((first, second, 0), (second, first, 1)):
        inputs = (b"from one", b"from two")[call_id]
        assert (inputs in seller.ran, inputs in other_one.ran) == (True, False)
        (record,) = find_calls(other_one.path, service_id=0, call_id=call_id)
        assert (record.state, "quote" in str(record.reason)) == (CallState.CLOSED, True)
