"""The checked-in bytecode on a real EVM (py-evm), deployed and used from Python."""

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from eth_abi import encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_tester import EthereumTester, PyEVMBackend
from eth_tester.exceptions import TransactionFailed
from web3 import EthereumTesterProvider, Web3
from web3.contract import Contract
from web3.logs import DISCARD
from web3.types import TxReceipt

from blueprint.chain.protocol import decode_get_blueprint_definition, decode_get_job_call, decode_revert
from blueprint.keccak import keccak256
from blueprint.types import Address
from contracts import load
from jobs.deploy import codec as deploy_codec
from jobs.execute_codec import (
    ChainDependency,
    ChainFile,
    ChainLimits,
    ChainPair,
    ChainStats,
    ExecuteRequest,
    ExecuteResult,
    decode_request,
    encode_request,
    encode_result,
)

CALLBACK_ROOM = 700_000
"""Gas beyond what a result needs, so that the manager's hook is given its whole allowance."""
STRING_SCHEMA = bytes.fromhex("0200011100000000046e616d65")


@dataclass(frozen=True)
class Chain:
    """A chain with the contracts, one blueprint (id 0) and one service (id 0) with two operators."""

    web3: Web3
    tangle: Contract
    manager: Contract
    owner: str
    operators: tuple[str, str]

    def deploy(self, name: str, *arguments: Any) -> Contract:
        """Deploy a contract by its artifact."""
        return deploy(self.web3, self.owner, name, *arguments)

    def send(self, call: Any, sender: str, **fields: Any) -> TxReceipt:
        """Send one transaction and wait for its receipt."""
        return self.web3.eth.wait_for_transaction_receipt(call.transact({"from": sender, **fields}))

    def submit(self, inputs: bytes = b"inputs", **fields: Any) -> TxReceipt:
        """Submit a call of job 0 as the owner."""
        return self.send(self.tangle.functions.submitJob(0, 0, inputs), self.owner, **fields)

    def answer(self, call_id: int, output: bytes) -> TxReceipt:
        """Answer a call as the first operator."""
        call = self.tangle.functions.submitResult(0, call_id, output)
        needed = call.estimate_gas({"from": self.operators[0]})
        return self.send(call, self.operators[0], gas=needed + CALLBACK_ROOM)

    def set_flag(self, function: str, account: str) -> None:
        """Turn a membership of service 0 on: `permitCaller` or `setOperator`."""
        arguments = (0, account, True)
        self.send(self.tangle.functions[function](*arguments), self.owner)

    def send_signed(self, call: Any, account: LocalAccount) -> TxReceipt:
        """Send a transaction of an account whose key the chain does not hold, having given it ether."""
        grant = {"from": self.owner, "to": account.address, "value": 10**18}
        self.web3.eth.wait_for_transaction_receipt(self.web3.eth.send_transaction(grant))
        signed = account.sign_transaction(
            call.build_transaction({"from": account.address, "nonce": 0, "gas": 1_000_000})
        )
        return self.web3.eth.wait_for_transaction_receipt(
            self.web3.eth.send_raw_transaction(signed.raw_transaction)
        )


def deploy(web3: Web3, sender: str, name: str, *arguments: Any) -> Contract:
    """Deploy a contract by its artifact."""
    artifact = load(name)
    factory = web3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
    receipt = web3.eth.wait_for_transaction_receipt(
        factory.constructor(*arguments).transact({"from": sender})
    )
    return web3.eth.contract(receipt["contractAddress"], abi=artifact.abi)


@pytest.fixture(scope="module")
def shared_chain() -> Chain:
    """The chain of this module; its state is that after deployment."""
    web3 = Web3(EthereumTesterProvider(EthereumTester(PyEVMBackend())))
    owner, first, second, *_ = web3.eth.accounts
    tangle = deploy(web3, owner, "LocalTangle")
    manager = deploy(web3, owner, "CodeExecutionManager", tangle.address)
    chain = Chain(web3=web3, tangle=tangle, manager=manager, owner=owner, operators=(first, second))
    jobs = [("execute", b"", b""), ("named", b"", STRING_SCHEMA)]
    chain.send(tangle.functions.registerBlueprint(manager.address, jobs, 0, 0), owner)
    chain.send(tangle.functions.activateService(0, [first, second], [], 0), owner)
    return chain


@pytest.fixture
def chain(shared_chain: Chain) -> Iterator[Chain]:
    """The chain, put back after the test."""
    tester = shared_chain.web3.provider.ethereum_tester  # type: ignore[attr-defined] - the provider of this module
    snapshot = tester.take_snapshot()
    yield shared_chain
    tester.revert_to_snapshot(snapshot)


def refusal(call: Any, sender: str) -> bytes:
    """The data that a call is reverted with."""
    with pytest.raises(TransactionFailed) as failure:
        call.call({"from": sender})
    shown = str(failure.value.args[0]).removeprefix("execution reverted: ")
    return bytes(ast.literal_eval(shown))


def random_request(source: random.Random) -> ExecuteRequest:
    """A request with every member set."""

    def text() -> str:
        return "".join(source.choices("abc é漢\x00\n", k=source.randrange(40)))

    return ExecuteRequest(
        language=text(),
        runtime=text(),
        files=tuple(ChainFile(text(), source.randbytes(70)) for _ in range(source.randrange(4))),
        entry_point=text(),
        stdin=source.randbytes(source.randrange(90)),
        args=tuple(text() for _ in range(source.randrange(4))),
        dependencies=tuple(ChainDependency(text(), text(), text()) for _ in range(source.randrange(3))),
        env_vars=tuple(ChainPair(text(), text()) for _ in range(source.randrange(3))),
        limits=ChainLimits(
            timeout_ms=source.getrandbits(64),
            memory_bytes=source.getrandbits(64),
            disk_bytes=source.getrandbits(64),
            processes=source.getrandbits(32),
        ),
        options=tuple(ChainPair(text(), text()) for _ in range(source.randrange(3))),
    )


def random_result(source: random.Random) -> ExecuteResult:
    """A result with every member set."""
    return ExecuteResult(
        status=source.getrandbits(8),
        limits_hit=source.getrandbits(32),
        exit_code=source.getrandbits(32) - 2**31,
        signal=source.getrandbits(8),
        stdout=source.randbytes(source.randrange(200)),
        stderr=source.randbytes(source.randrange(200)),
        stdout_size=source.getrandbits(64),
        stderr_size=source.getrandbits(64),
        stats=ChainStats(wall_us=source.getrandbits(64), processes=source.getrandbits(32)),
        runtime="python 3.13.5",
        output_digest=source.randbytes(32),
        error_message="warum nicht: é",
        receipt=source.randbytes(100),
    )


def plain(value: Any) -> Any:
    """The members of a dataclass, deep down, as the tuples that web3.py takes."""
    if hasattr(value, "__dataclass_fields__"):
        return tuple(plain(getattr(value, name)) for name in value.__dataclass_fields__)
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def test_execute_encodings_agree(chain: Chain) -> None:
    """Python and Solidity give the same bytes for the same request and the same result."""
    codec = chain.deploy("ExecuteJobCodec").functions
    source = random.Random(20)
    for _ in range(8):
        request, result = random_request(source), random_result(source)
        assert codec.encodeRequest(plain(request)).call() == encode_request(request)
        assert codec.encodeResult(plain(result)).call() == encode_result(result)


def test_snippet_of_solidity_is_read_by_python(chain: Chain) -> None:
    """`ExecuteJob.snippet` makes a request of one unnamed file, and leaves the rest to the defaults."""
    inputs = chain.deploy("ExecuteJobCodec").functions.snippet("python", "print(1)").call()
    assert decode_request(inputs) == ExecuteRequest(language="python", files=(ChainFile("", b"print(1)"),))


def test_deploy_encodings_agree(chain: Chain) -> None:
    """What `DeployJob` encodes is read by Python as it was meant, and both write the same bytes."""
    codec = chain.deploy("DeployJobCodec").functions
    asked = deploy_codec.Preparation(
        name="my-app",
        compose="services: {}",
        names=("A", "B"),
        size=deploy_codec.ChainSize(instance_type="tdx.small", vcpu=2, memory_mb=3, disk_gb=4),
        volumes=("data",),
        public_logs=True,
    )
    answer = deploy_codec.DeployResult(
        status=0,
        action=1,
        operator=Address(b"\1" * 20),
        app_id=b"\2" * 20,
        compose_hash=b"\3" * 32,
        sealing_key=deploy_codec.ChainSealingKey(key=b"\4" * 32, signature=b"\5" * 65, timestamp=6),
        expires_at=7,
        instance_id=b"\6" * 20,
        endpoint="https://x.example",
        attestation_digest=b"\7" * 32,
        error_message="warum nicht: \u00e9",
    )
    prepare = deploy_codec.encode_request(deploy_codec.DeployRequest(body=asked))
    assert codec.prepare(plain(asked)).call() == prepare
    assert codec.encodeResult(plain(answer)).call() == deploy_codec.encode_result(answer)
    commit = codec.commit(9, plain(answer), b"sealed").call()
    body = deploy_codec.Commitment(call_id=9, compose_hash=b"\3" * 32, sealed_variables=b"sealed")
    request = deploy_codec.DeployRequest(body=body, operator=answer.operator)
    assert (deploy_codec.decode_request(commit), commit) == (request, deploy_codec.encode_request(request))
    removal = deploy_codec.DeployRequest(body=deploy_codec.Removal(call_id=9), operator=answer.operator)
    assert codec.remove(9, answer.operator).call() == deploy_codec.encode_request(removal)


def test_contract_asks_and_is_called_back(chain: Chain) -> None:
    """A contract submits a snippet, an operator answers, and the contract holds the answer."""
    consumer = chain.deploy("CodeConsumer", chain.tangle.address, chain.manager.address, 0)
    chain.set_flag("permitCaller", consumer.address)
    asked = chain.send(consumer.functions.ask("python", "print(6 * 7)"), chain.owner)
    (event,) = chain.tangle.events.JobSubmitted().process_receipt(asked, errors=DISCARD)
    assert event["args"]["caller"] == consumer.address
    assert decode_request(event["args"]["inputs"]).files[0].content == b"print(6 * 7)"

    chain.answer(0, encode_result(ExecuteResult(status=0, exit_code=0, stdout=b"42\n")))
    assert consumer.functions.answer(0).call() == (True, 0, 0, b"42\n")


def test_starved_callback_is_brought_again(chain: Chain) -> None:
    """With the bare estimate the callback starves; the result stands, and anybody brings the answer again."""
    consumer = chain.deploy("CodeConsumer", chain.tangle.address, chain.manager.address, 0)
    chain.set_flag("permitCaller", consumer.address)
    chain.send(consumer.functions.ask("python", ""), chain.owner)
    output = encode_result(ExecuteResult(status=21, error_message="no luck"))
    chain.send(chain.tangle.functions.submitResult(0, 0, output), chain.operators[0])
    assert chain.tangle.functions.getJobCall(0, 0).call()[4] is True
    assert consumer.functions.answer(0).call()[0] is False

    chain.send(chain.manager.functions.retryCallback(0, 0, output), chain.operators[1])
    assert consumer.functions.answer(0).call() == (True, 21, -1, b"")


def test_log_of_a_call_has_three_topics(chain: Chain) -> None:
    """The job index is in the data, not in a topic."""
    (log,) = chain.submit(b"inputs")["logs"]
    assert len(log["topics"]) == 3
    assert log["data"] == encode(["uint8", "address", "bytes"], [0, chain.owner, b"inputs"])


def test_views_are_read_by_the_node(chain: Chain) -> None:
    """What the views return decodes with the node's own decoders."""
    chain.submit()
    call = chain.tangle.functions.getJobCall(0, 0)
    record = decode_get_job_call(
        chain.web3.eth.call({"to": chain.tangle.address, "data": call._encode_transaction_data()})
    )
    assert (record.job_index, record.is_completed, record.payment_wei) == (0, False, 0)
    view = chain.tangle.functions.getBlueprintDefinition(0)
    definition = decode_get_blueprint_definition(
        chain.web3.eth.call({"to": chain.tangle.address, "data": view._encode_transaction_data()})
    )
    assert [job.result_schema for job in definition.jobs] == [b"", STRING_SCHEMA]


def test_second_answer_is_refused_by_name(chain: Chain) -> None:
    """The node decodes the refusal as what it is: somebody else was first."""
    chain.submit()
    chain.answer(0, b"output")
    late = refusal(chain.tangle.functions.submitResult(0, 0, b"late"), chain.operators[1])
    assert "JobAlreadyCompleted" in str(decode_revert(late))


def test_schema_is_enforced_on_chain(chain: Chain) -> None:
    """A result that does not match its job's schema is refused with the field's path."""
    chain.send(chain.tangle.functions.submitJob(0, 1, b""), chain.owner)
    refused = refusal(chain.tangle.functions.submitResult(0, 0, b"\x05abc"), chain.operators[0])
    selector = keccak256(b"SchemaValidationFailed(uint8,uint64,uint64,uint256)")[:4]
    assert selector + encode(["uint8", "uint64", "uint64", "uint256"], [3, 0, 1, 0]) == refused
    chain.answer(0, b"\x03abc")


def test_quote_signed_in_python_buys_a_job(chain: Chain) -> None:
    """A quote signed as EIP-712 typed data is accepted; its operator alone may answer, and is paid."""
    account = Account.create()
    chain.set_flag("setOperator", account.address)
    now = chain.web3.eth.get_block("latest")["timestamp"]
    details = {
        "requester": chain.owner,
        "serviceId": 0,
        "jobIndex": 0,
        "price": 5000,
        "timestamp": now,
        "expiry": now + 600,
        "confidentiality": 0,
        "inputsHash": keccak256(b"inputs"),
    }
    types = {
        "JobQuoteDetails": [
            {"name": "requester", "type": "address"},
            {"name": "serviceId", "type": "uint64"},
            {"name": "jobIndex", "type": "uint8"},
            {"name": "price", "type": "uint256"},
            {"name": "timestamp", "type": "uint64"},
            {"name": "expiry", "type": "uint64"},
            {"name": "confidentiality", "type": "uint8"},
            {"name": "inputsHash", "type": "bytes32"},
        ]
    }
    domain = {
        "name": "TangleQuote",
        "version": "1",
        "chainId": chain.web3.eth.chain_id,
        "verifyingContract": chain.tangle.address,
    }
    signature = account.sign_message(encode_typed_data(domain, types, details)).signature
    quote = (tuple(details.values()), signature, account.address)
    call = chain.tangle.functions.submitJobFromQuote(0, 0, b"inputs", [quote])
    bought = chain.send(call, chain.owner, value=5000)
    names = [log["topics"][0] for log in bought["logs"]]
    assert keccak256(b"JobSubmitted(uint64,uint64,uint8,address,bytes)") not in names
    refused = refusal(chain.tangle.functions.submitResult(0, 0, b""), chain.operators[0])
    assert keccak256(b"NotQuotedOperator(uint64,uint64)")[:4] == refused[:4]

    chain.send_signed(chain.tangle.functions.submitResult(0, 0, b"output"), account)
    assert chain.web3.eth.get_balance(chain.tangle.address) == 0
    assert chain.tangle.functions.getJobCall(0, 0).call()[4] is True


def test_gas_stays_near_the_protocols(chain: Chain) -> None:
    """A call and its result of 1 KiB each cost no more than on the deployed protocol (about 180,000)."""
    chain.submit(b"x" * 1024)
    later = chain.submit(b"x" * 1024)["gasUsed"]
    result = chain.answer(0, b"y" * 1024)["gasUsed"]
    chain.submit(b"x" * 1024)
    batch = chain.tangle.functions.submitResults(0, [1, 2], [b"y" * 1024] * 2)
    each = chain.send(batch, chain.operators[0])["gasUsed"] / 2
    assert later < 150_000
    assert result < 150_000
    assert each < 114_000
