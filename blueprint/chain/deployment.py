"""Puts the project's contracts on a development chain, and asks them for work as a caller does.

Invariant: a function returns only what the chain confirmed in a receipt; nothing is taken for granted
because it was sent.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError

import contracts
from blueprint.chain.ledger import TransactionSigner
from blueprint.chain.protocol import TOPICS, encode_submit_job
from blueprint.chain.rpc import Rpc
from blueprint.chain.wire import (
    JsonValue,
    parse_address,
    parse_bytes,
    parse_hash,
    parse_member,
    parse_object,
    parse_quantity,
    to_hex,
    to_quantity,
)
from blueprint.errors import ChainError, RevertedError, RpcError
from blueprint.keccak import keccak256
from blueprint.types import Address, CallKey, Hash

__all__ = [
    "DEFAULT_JOBS",
    "CallResult",
    "Deployment",
    "JobSpec",
    "deploy_consumer",
    "deploy_contract",
    "deploy_local",
    "submit_job",
    "transact",
    "wait_result",
]

_RECEIPT_TIMEOUT_S = 60.0
_POLL_S = 0.2
_TIP_WEI = 10**9
_EVENT_DRIVEN = 2
_LATEST = ("latest", False)  # without the transactions
_JOB_SUBMITTED = to_hex(TOPICS["JobSubmitted(uint64,uint64,uint8,address,bytes)"])
_RESULT_SUBMITTED = to_hex(TOPICS["JobResultSubmitted(uint64,uint64,address,bytes)"])
_SERVICE_ACTIVATED = to_hex(TOPICS["ServiceActivated(uint64,uint64,uint64,uint8)"])
_REGISTER_BLUEPRINT = ("registerBlueprint", ("address", "(string,bytes,bytes)[]", "uint8", "uint256"))
_ACTIVATE_SERVICE = ("activateService", ("uint64", "address[]", "address[]", "uint64"))
_PERMIT_CALLER = ("permitCaller", ("uint64", "address", "bool"))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One job of a blueprint; the schemas are TLV schema bytes, empty where any bytes are accepted."""

    name: str
    params_schema: bytes = b""
    result_schema: bytes = b""


DEFAULT_JOBS = (JobSpec(name="execute"), JobSpec(name="deploy"))
"""The jobs of this project's blueprint; a job's index is its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Where a service lives."""

    chain_id: int
    contract: Address
    manager: Address
    blueprint_id: int
    service_id: int
    event_rate_wei: int = 0
    """What a job costs; sent along with each submission."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """The answer to a call, as its ``JobResultSubmitted`` log has it."""

    key: CallKey
    operator: Address
    output: bytes = field(repr=False)
    block_number: int
    transaction_hash: Hash


async def deploy_local(
    rpc: Rpc,
    signer: TransactionSigner,
    *,
    operators: Sequence[Address],
    jobs: Sequence[JobSpec] = DEFAULT_JOBS,
    permitted_callers: Sequence[Address] = (),
    ttl_s: int = 0,
    event_rate_wei: int = 0,
) -> Deployment:
    """Deploy LocalTangle and CodeExecutionManager, register a blueprint and activate a service on it.

    Args:
        rpc: the chain.
        signer: pays for all of it, and owns the service.
        operators: who may answer; at least one.
        jobs: the blueprint's jobs in the order of their indices.
        permitted_callers: who may submit beside the owner.
        ttl_s: how long the service lives from now on; 0 for ever.
        event_rate_wei: the price of a job; 0 for none.

    Raises:
        RpcError: the chain did not answer.
        RevertedError: a contract refused, for instance a malformed job schema.
    """
    contract = await deploy_contract(rpc, signer, "LocalTangle")
    manager = await deploy_contract(rpc, signer, "CodeExecutionManager", ("address",), (contract,))
    specs = [(job.name, job.params_schema, job.result_schema) for job in jobs]
    pricing = _EVENT_DRIVEN if event_rate_wei else 0
    register = _call_data(_REGISTER_BLUEPRINT, (manager, specs, pricing, event_rate_wei))
    # The id is what the function returns, and a receipt does not carry that. Only its owner knows the new
    # contract, so that nobody comes in between.
    (blueprint_id,) = _decode(("uint64",), await _ask(rpc, signer.address, contract, register))
    await transact(rpc, signer, to=contract, data=register)
    activate = _call_data(_ACTIVATE_SERVICE, (blueprint_id, list(operators), list(permitted_callers), ttl_s))
    receipt = await transact(rpc, signer, to=contract, data=activate)
    service_id = parse_quantity(_topic(_find_log(receipt, contract, _SERVICE_ACTIVATED), 1))
    return Deployment(
        chain_id=parse_quantity(await rpc.call("eth_chainId")),
        contract=contract,
        manager=manager,
        blueprint_id=blueprint_id,
        service_id=service_id,
        event_rate_wei=event_rate_wei,
    )


async def deploy_consumer(rpc: Rpc, signer: TransactionSigner, deployment: Deployment) -> Address:
    """Deploy the example consumer of a service and permit it to submit; ``signer`` must own the service."""
    consumer = await deploy_contract(
        rpc,
        signer,
        "CodeConsumer",
        ("address", "address", "uint64"),
        (deployment.contract, deployment.manager, deployment.service_id),
    )
    permit = _call_data(_PERMIT_CALLER, (deployment.service_id, consumer, True))
    await transact(rpc, signer, to=deployment.contract, data=permit)
    return consumer


async def deploy_contract(
    rpc: Rpc,
    signer: TransactionSigner,
    name: str,
    types: Sequence[str] = (),
    arguments: Sequence[object] = (),
) -> Address:
    """Deploy one of the project's contracts; ``types`` are those of its constructor's arguments."""
    data = contracts.load(name).bytecode + encode(types, arguments)
    receipt = await transact(rpc, signer, to=None, data=data)
    return parse_address(parse_member(receipt, "contractAddress", what="the receipt"))


async def submit_job(
    rpc: Rpc, signer: TransactionSigner, deployment: Deployment, job_index: int, inputs: bytes
) -> CallKey:
    """Submit a job as a caller, pay its price, and return what names the call.

    Raises:
        RevertedError: the contract refused: the caller is not permitted, or the inputs break the schema.
    """
    receipt = await transact(
        rpc,
        signer,
        to=deployment.contract,
        data=encode_submit_job(deployment.service_id, job_index, inputs),
        value_wei=deployment.event_rate_wei,
    )
    log = _find_log(receipt, deployment.contract, _JOB_SUBMITTED)
    return CallKey(
        chain_id=deployment.chain_id,
        contract=deployment.contract,
        service_id=deployment.service_id,
        call_id=parse_quantity(_topic(log, 2)),
    )


async def wait_result(rpc: Rpc, key: CallKey, timeout_s: float, *, from_block: int = 0) -> CallResult:
    """Return the first answer to a call, as soon as it is in a block.

    Args:
        rpc: the chain.
        key: names the call.
        timeout_s: how long to wait.
        from_block: the answer cannot lie before this block.

    Raises:
        TimeoutError: nobody answered in time.
        RpcError: the chain did not answer.
    """
    query: JsonValue = {
        "address": to_hex(key.contract),
        "topics": [_RESULT_SUBMITTED, _uint_topic(key.service_id), _uint_topic(key.call_id)],
        "fromBlock": to_quantity(from_block),
        "toBlock": "latest",
    }
    try:
        async with asyncio.timeout(timeout_s):
            while not (logs := await rpc.call("eth_getLogs", query)):
                await rpc.wait_head(_POLL_S)
    except TimeoutError as exc:
        raise TimeoutError(
            f"call {key.call_id} of service {key.service_id} was not answered within {timeout_s:g} s; "
            "check that a node runs for this service"
        ) from exc
    if not isinstance(logs, list):
        raise RpcError(f"eth_getLogs: expected a list of logs, received {type(logs).__name__}")
    log = parse_object(logs[0], what="a log")
    (output,) = _decode(("bytes",), parse_bytes(parse_member(log, "data", what="a log")))
    return CallResult(
        key=key,
        operator=Address(parse_bytes(_topic(log, 3))[-20:]),
        output=bytes(output),
        block_number=parse_quantity(parse_member(log, "blockNumber", what="a log")),
        transaction_hash=parse_hash(parse_member(log, "transactionHash", what="a log")),
    )


async def transact(
    rpc: Rpc,
    signer: TransactionSigner,
    *,
    to: Address | None,
    data: bytes,
    value_wei: int = 0,
    timeout_s: float = _RECEIPT_TIMEOUT_S,
) -> dict[str, JsonValue]:
    """Send one transaction and return its receipt, once it succeeded.

    Meant for set-up and for callers, one transaction at a time; the node's own results go through its
    submitter, which survives crashes.

    Raises:
        RevertedError: the contract refused; nothing was sent, or what was sent failed.
        TimeoutError: no block took the transaction in within ``timeout_s``.
    """
    call: dict[str, JsonValue] = {"from": to_hex(signer.address), "data": to_hex(data)}
    if to is not None:
        call["to"] = to_hex(to)
    if value_wei:
        call["value"] = to_quantity(value_wei)
    chain_id = parse_quantity(await rpc.call("eth_chainId"))
    nonce = parse_quantity(await rpc.call("eth_getTransactionCount", to_hex(signer.address), "pending"))
    estimate = parse_quantity(await rpc.call("eth_estimateGas", call))
    block = parse_object(await rpc.call("eth_getBlockByNumber", *_LATEST), what="the block")
    base_fee_wei = parse_quantity(parse_member(block, "baseFeePerGas", what="the block"))
    gas_limit = parse_quantity(parse_member(block, "gasLimit", what="the block"))
    signed = signer.sign_transaction(
        chain_id=chain_id,
        nonce=nonce,
        to=to,
        data=data,
        # Headroom: the state may have moved on by the time that the transaction is mined.
        gas=min(estimate * 5 // 4, gas_limit),
        max_fee_wei=2 * base_fee_wei + _TIP_WEI,
        max_priority_fee_wei=_TIP_WEI,
        value_wei=value_wei,
    )
    await rpc.call("eth_sendRawTransaction", to_hex(signed.raw))
    receipt = await _wait_receipt(rpc, signed.hash, timeout_s)
    if parse_quantity(parse_member(receipt, "status", what="the receipt")) != 1:
        raise RevertedError(
            f"transaction {to_hex(signed.hash)} was mined but failed, although its estimate succeeded; "
            "look at its trace"
        )
    return receipt


async def _wait_receipt(rpc: Rpc, transaction_hash: Hash, timeout_s: float) -> dict[str, JsonValue]:
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                receipt = await rpc.call("eth_getTransactionReceipt", to_hex(transaction_hash))
                if receipt is not None:
                    return parse_object(receipt, what="the receipt")
                await rpc.wait_head(_POLL_S)
    except TimeoutError as exc:
        raise TimeoutError(
            f"transaction {to_hex(transaction_hash)} is in no block after {timeout_s:g} s; "
            "check that the chain mines blocks"
        ) from exc


async def _ask(rpc: Rpc, sender: Address, to: Address, data: bytes) -> bytes:
    call: JsonValue = {"from": to_hex(sender), "to": to_hex(to), "data": to_hex(data)}
    return parse_bytes(await rpc.call("eth_call", call, "latest"))


def _call_data(function: tuple[str, Sequence[str]], arguments: Sequence[object]) -> bytes:
    name, types = function
    return keccak256(f"{name}({','.join(types)})".encode())[:4] + encode(types, arguments)


def _decode(types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    try:
        return decode(types, data)
    except DecodingError as exc:
        raise ChainError(
            f"expected ({', '.join(types)}), received {len(data)} bytes that do not decode; "
            "check that the contract address is this project's contract"
        ) from exc


def _find_log(receipt: dict[str, JsonValue], contract: Address, topic: str) -> dict[str, JsonValue]:
    """The first log of a contract with this topic; other logs of the same transaction may come before it."""
    logs = parse_member(receipt, "logs", what="the receipt")
    for entry in logs if isinstance(logs, list) else []:
        log = parse_object(entry, what="a log")
        if parse_address(parse_member(log, "address", what="a log")) == contract and _topic(log, 0) == topic:
            return log
    raise ChainError(
        f"the receipt of transaction {receipt.get('transactionHash')} lacks the event that was expected; "
        "check that the contract address is this project's contract"
    )


def _topic(log: dict[str, JsonValue], position: int) -> str:
    topics = parse_member(log, "topics", what="a log")
    if not isinstance(topics, list) or position >= len(topics):
        raise RpcError(f"expected a log with at least {position + 1} topics, received {topics!r}")
    return str(topics[position])


def _uint_topic(value: int) -> str:
    return to_hex(value.to_bytes(32, "big"))
