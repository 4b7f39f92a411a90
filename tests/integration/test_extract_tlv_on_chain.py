"""Our TLV codec against the contract's own validation, on a real EVM (py-evm)."""

import random
import sys
from pathlib import Path

import pytest
from eth_tester import EthereumTester, PyEVMBackend
from eth_tester.exceptions import TransactionFailed
from web3 import EthereumTesterProvider, Web3
from web3.contract import Contract
from web3.exceptions import Web3Exception

from blueprint.errors import InputsUndecodableError
from blueprint.extract.shape import Shape
from blueprint.extract.tlv import decode_payload, encode_payload
from blueprint.extract.tlv_schema import serialise_schema
from contracts import load

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))
from shapes import damaged, random_shape, random_value

SEED = 20
LENIENT = ("is not UTF-8", "a bool is 0 or 1", "in more bytes than it needs")
"""What the chain lets through and we refuse: it looks at widths, not at contents."""


@pytest.fixture(scope="module")
def schemas() -> list[list[Shape]]:
    """Thirty random schemas, every kind among them."""
    rng = random.Random(SEED)
    return [[random_shape(rng) for _ in range(rng.randint(1, 3))] for _ in range(30)]


@pytest.fixture(scope="module")
def tangle(schemas: list[list[Shape]]) -> Contract:
    """A chain on which a service has one job for each schema."""
    web3 = Web3(EthereumTesterProvider(EthereumTester(PyEVMBackend())))
    owner = web3.eth.accounts[0]

    def deploy(name: str, *arguments: object) -> Contract:
        artifact = load(name)
        factory = web3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
        sent = factory.constructor(*arguments).transact({"from": owner})
        return web3.eth.contract(
            web3.eth.wait_for_transaction_receipt(sent)["contractAddress"], abi=artifact.abi
        )

    contract = deploy("LocalTangle")
    manager = deploy("CodeExecutionManager", contract.address)
    jobs = [(f"job{number}", serialise_schema(fields), b"") for number, fields in enumerate(schemas)]
    for call in (
        contract.functions.registerBlueprint(manager.address, jobs, 0, 0),
        contract.functions.activateService(0, [owner], [], 0),
    ):
        web3.eth.wait_for_transaction_receipt(call.transact({"from": owner}))
    return contract


def is_accepted(tangle: Contract, job_index: int, payload: bytes) -> bool:
    """Say whether the contract takes these inputs for this job."""
    try:
        tangle.functions.submitJob(0, job_index, payload).call(
            {"from": tangle.w3.eth.accounts[0], "gas": 20_000_000}
        )
    except (TransactionFailed, Web3Exception):
        return False
    return True


def test_extract_tlv_payloads_are_accepted_by_the_contract(
    tangle: Contract, schemas: list[list[Shape]]
) -> None:
    """The contract takes what we encode, under schemas that we wrote, for values of every kind."""
    rng = random.Random(SEED + 1)
    for job_index, fields in enumerate(schemas):
        for _ in range(2):
            payload = encode_payload(fields, [random_value(rng, field) for field in fields])
            assert is_accepted(tangle, job_index, payload), (job_index, fields)


def test_extract_tlv_decoder_is_never_looser_than_the_contract(
    tangle: Contract, schemas: list[list[Shape]]
) -> None:
    """What we decode the contract takes; what it takes and we refuse differs in contents only."""
    rng = random.Random(SEED + 2)
    for job_index, fields in enumerate(schemas):
        for _ in range(4):
            payload = damaged(rng, encode_payload(fields, [random_value(rng, field) for field in fields]))
            try:
                decode_payload(fields, payload)
            except InputsUndecodableError as exc:
                reason = str(exc)
                assert any(words in reason for words in LENIENT) or not is_accepted(
                    tangle, job_index, payload
                ), reason
            else:
                assert is_accepted(tangle, job_index, payload), (job_index, fields)
