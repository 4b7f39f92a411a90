"""The job protocol's functions and topics, as the deployed contracts have them.

Source of the rule: Tangle EVM job protocol (tnt-core 0.19). Selectors and topics are written out, because
they are what the wire carries; a test derives each from its signature.
Invariant: an encoder gives exactly the bytes that the Solidity ABI prescribes, and a decoder either returns a
complete value or raises ``ChainError``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from blueprint.chain.reverts import CUSTOM_ERRORS, CustomError, RevertClass, classify_revert, decode_revert
from blueprint.errors import ChainError
from blueprint.types import Address, Hash

__all__ = [
    "CUSTOM_ERRORS",
    "FUNCTIONS",
    "TOPICS",
    "BlueprintDefinition",
    "CustomError",
    "JobCallRecord",
    "JobDefinition",
    "Membership",
    "Pricing",
    "RevertClass",
    "ServiceRecord",
    "ServiceStatus",
    "classify_revert",
    "decode_bool",
    "decode_get_blueprint_definition",
    "decode_get_job_call",
    "decode_get_service",
    "decode_get_service_operators",
    "decode_revert",
    "encode_get_blueprint_definition",
    "encode_get_job_call",
    "encode_get_service",
    "encode_get_service_operators",
    "encode_is_permitted_caller",
    "encode_is_service_operator",
    "encode_submit_job",
    "encode_submit_result",
    "encode_submit_results",
]

_WORD = 32
_UINT64_BITS = 64
_ADDRESS_BYTES = 20

FUNCTIONS: dict[str, bytes] = {
    "submitJob(uint64,uint8,bytes)": bytes.fromhex("3413e8ee"),
    "submitResult(uint64,uint64,bytes)": bytes.fromhex("2d07e655"),
    "submitResults(uint64,uint64[],bytes[])": bytes.fromhex("aacdba9f"),
    "getJobCall(uint64,uint64)": bytes.fromhex("a672bc0a"),
    "getService(uint64)": bytes.fromhex("3dc0d5fe"),
    "getBlueprintDefinition(uint64)": bytes.fromhex("6171fea8"),
    "getServiceOperators(uint64)": bytes.fromhex("bb207f1f"),
    "isServiceOperator(uint64,address)": bytes.fromhex("a595b21e"),
    "isPermittedCaller(uint64,address)": bytes.fromhex("2ec2bd03"),
}
"""Selectors of the functions that a node calls, by signature."""

_SUBMIT_JOB = FUNCTIONS["submitJob(uint64,uint8,bytes)"]
_SUBMIT_RESULT = FUNCTIONS["submitResult(uint64,uint64,bytes)"]
_SUBMIT_RESULTS = FUNCTIONS["submitResults(uint64,uint64[],bytes[])"]
_GET_JOB_CALL = FUNCTIONS["getJobCall(uint64,uint64)"]
_GET_SERVICE = FUNCTIONS["getService(uint64)"]
_GET_BLUEPRINT_DEFINITION = FUNCTIONS["getBlueprintDefinition(uint64)"]
_GET_SERVICE_OPERATORS = FUNCTIONS["getServiceOperators(uint64)"]
_IS_SERVICE_OPERATOR = FUNCTIONS["isServiceOperator(uint64,address)"]
_IS_PERMITTED_CALLER = FUNCTIONS["isPermittedCaller(uint64,address)"]


def _topic(hexadecimal: str) -> Hash:
    return Hash(bytes.fromhex(hexadecimal))


TOPICS: dict[str, Hash] = {
    "JobSubmitted(uint64,uint64,uint8,address,bytes)": _topic(
        "de37cc48d21778e1c9a075c4e41c5aff6918c3ea6151221f0af3ce8121a29db5"
    ),
    "JobSubmittedFromQuote(uint64,uint64,uint8,address,address[],uint256,bytes)": _topic(
        "b707259a8a1604adca251fecf84eb283329cd45175690dcb8ff1cf52a6252422"
    ),
    "JobResultSubmitted(uint64,uint64,address,bytes)": _topic(
        "8a04f99fe23284e874e8dd017345248279cc59701695e73bcdbeb6241bcd2ac6"
    ),
    "JobCompleted(uint64,uint64)": _topic("60a7649f6e93e7a3ce1dc9729c20e3d95dce28c6a6bd957cde09d8a1cb37c19f"),
    "AggregatedResultSubmitted(uint64,uint64,uint256,bytes)": _topic(
        "e6fcb3342abe43c21acc6a04e3d7912476836976e07ed47d0b15a374e200e2f0"
    ),
    "ServiceActivated(uint64,uint64,uint64,uint8)": _topic(
        "0325bb1c453505f13d5546dda087be5e237f7cf249f79a0ee406d97ef0ca7ee9"
    ),
    "ServiceTerminated(uint64)": _topic("3fd558a59bbce1d996d17eab7fde314bcd201ec3f17375a7f873b3162927e881"),
    "ManagerHookFailed(address,bytes4,bytes)": _topic(
        "212b3bea93ba3eefbae6d15f7c17ac0868f3f756aacdd24d0bd69b0cbab22327"
    ),
}
"""First topics of the events that matter to a node, by signature."""

_JOB_CALL_TYPES = ("uint8", "address", "uint64", "uint32", "bool", "bool", "uint256")
_SERVICE_TYPES = (
    *("uint64", "address", "uint64", "uint64", "uint64", "uint64"),
    *("uint32", "uint32", "uint32", "uint8", "uint8", "uint8", "uint8"),
)
_BLUEPRINT_TYPE = (
    "(string,bytes32,address,uint32,bool,"
    "(uint8,uint8,uint32,uint32,uint256,uint64,uint256),"
    "(string,string,string,string,string,string,string,string,string),"
    "(string,string,string,bytes,bytes)[],bytes,bytes,"
    "(uint8,(string,string,string),(uint8,uint8,string,string),(uint8,string,string),(string,string,string),"
    "(uint8,uint8,string,bytes32)[])[],uint8[])"
)


class Membership(IntEnum):
    """How operators come and go in a service."""

    FIXED = 0
    DYNAMIC = 1


class Pricing(IntEnum):
    """What a caller pays for."""

    PAY_ONCE = 0
    SUBSCRIPTION = 1
    EVENT_DRIVEN = 2


class ServiceStatus(IntEnum):
    """Where a service stands; jobs and results are accepted only while it is active."""

    PENDING = 0
    ACTIVE = 1
    TERMINATED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCallRecord:
    """A job call as the contract stores it. A call that does not exist has the zero address as its caller."""

    job_index: int
    caller: Address
    created_at_s: int
    result_count: int
    is_completed: bool
    is_quoted: bool
    payment_wei: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRecord:
    """A service as the contract stores it. Times are block times in seconds; zero means never."""

    blueprint_id: int
    owner: Address
    created_at_s: int
    ttl_s: int
    terminated_at_s: int
    operator_count: int
    membership: Membership
    pricing: Pricing
    status: ServiceStatus
    confidentiality: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDefinition:
    """One job of a blueprint; the schemas are TLV schema bytes, empty where any bytes are accepted."""

    name: str
    description: str
    params_schema: bytes = field(repr=False)
    result_schema: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlueprintDefinition:
    """What a node needs of a blueprint's definition; ``jobs[i]`` is the job with index i."""

    name: str
    manager: Address
    pricing: Pricing
    event_rate_wei: int
    jobs: tuple[JobDefinition, ...]


def encode_submit_job(service_id: int, job_index: int, inputs: bytes) -> bytes:
    """Return the call data of ``submitJob``; send the price of the job with it as value."""
    words = (_uint(service_id), _uint(job_index, bits=8), _word(3 * _WORD))
    return _SUBMIT_JOB + b"".join(words) + _tail(inputs)


def encode_submit_result(service_id: int, call_id: int, output: bytes) -> bytes:
    """Return the call data of ``submitResult``."""
    return _SUBMIT_RESULT + _uint(service_id) + _uint(call_id) + _word(3 * _WORD) + _tail(output)


def encode_submit_results(service_id: int, call_ids: Sequence[int], outputs: Sequence[bytes]) -> bytes:
    """Return the call data of ``submitResults``, which the contract accepts as a whole or not at all.

    Raises:
        ValueError: there are not as many outputs as call ids, or an id is out of range.
    """
    if len(call_ids) != len(outputs):
        raise ValueError(f"expected one output for each of {len(call_ids)} call ids, received {len(outputs)}")
    count = len(call_ids)
    tails = [_tail(output) for output in outputs]
    heads: list[bytes] = []
    offset = count * _WORD
    for tail in tails:
        heads.append(_word(offset))
        offset += len(tail)
    ids = b"".join(map(_uint, call_ids))
    outputs_at = (3 + 1 + count) * _WORD
    head = (_uint(service_id), _word(3 * _WORD), _word(outputs_at), _word(count), ids, _word(count))
    return b"".join((_SUBMIT_RESULTS, *head, *heads, *tails))


def encode_get_job_call(service_id: int, call_id: int) -> bytes:
    """Return the call data of ``getJobCall``; read the answer with ``decode_get_job_call``."""
    return _GET_JOB_CALL + _uint(service_id) + _uint(call_id)


def encode_get_service(service_id: int) -> bytes:
    """Return the call data of ``getService``; read the answer with ``decode_get_service``."""
    return _GET_SERVICE + _uint(service_id)


def encode_get_blueprint_definition(blueprint_id: int) -> bytes:
    """Return the call data of ``getBlueprintDefinition``."""
    return _GET_BLUEPRINT_DEFINITION + _uint(blueprint_id)


def encode_get_service_operators(service_id: int) -> bytes:
    """Return the call data of ``getServiceOperators``."""
    return _GET_SERVICE_OPERATORS + _uint(service_id)


def encode_is_service_operator(service_id: int, operator: Address) -> bytes:
    """Return the call data of ``isServiceOperator``; read the answer with ``decode_bool``."""
    return _IS_SERVICE_OPERATOR + _uint(service_id) + _address(operator)


def encode_is_permitted_caller(service_id: int, caller: Address) -> bytes:
    """Return the call data of ``isPermittedCaller``; read the answer with ``decode_bool``."""
    return _IS_PERMITTED_CALLER + _uint(service_id) + _address(caller)


def decode_bool(data: bytes) -> bool:
    """Return the truth value that a function answered, or raise ``ChainError``."""
    return bool(_decode("a truth value", ("bool",), data)[0])


def decode_get_job_call(data: bytes) -> JobCallRecord:
    """Return the call that ``getJobCall`` answered, or raise ``ChainError``."""
    job_index, caller, created_at, count, completed, quoted, payment = _decode(
        "getJobCall", _JOB_CALL_TYPES, data
    )
    return JobCallRecord(
        job_index=job_index,
        caller=_parse_address(caller),
        created_at_s=created_at,
        result_count=count,
        is_completed=completed,
        is_quoted=quoted,
        payment_wei=payment,
    )


def decode_get_service(data: bytes) -> ServiceRecord:
    """Return the service that ``getService`` answered, or raise ``ChainError``."""
    values = _decode("getService", _SERVICE_TYPES, data)
    try:
        return ServiceRecord(
            blueprint_id=values[0],
            owner=_parse_address(values[1]),
            created_at_s=values[2],
            ttl_s=values[3],
            terminated_at_s=values[4],
            operator_count=values[6],
            membership=Membership(values[9]),
            pricing=Pricing(values[10]),
            status=ServiceStatus(values[11]),
            confidentiality=values[12],
        )
    except ValueError as exc:
        raise _undecodable("getService", data) from exc


def decode_get_service_operators(data: bytes) -> tuple[Address, ...]:
    """Return the operators of a service in the contract's order, or raise ``ChainError``."""
    (operators,) = _decode("getServiceOperators", ("address[]",), data)
    return tuple(_parse_address(operator) for operator in operators)


def decode_get_blueprint_definition(data: bytes) -> BlueprintDefinition:
    """Return what ``getBlueprintDefinition`` answered, or raise ``ChainError``."""
    ((_, _, manager, _, _, config, metadata, jobs, *_),) = _decode(
        "getBlueprintDefinition", (_BLUEPRINT_TYPE,), data
    )
    try:
        pricing = Pricing(config[1])
    except ValueError as exc:
        raise _undecodable("getBlueprintDefinition", data) from exc
    return BlueprintDefinition(
        name=metadata[0],
        manager=_parse_address(manager),
        pricing=pricing,
        event_rate_wei=config[6],
        jobs=tuple(
            JobDefinition(name=name, description=description, params_schema=params, result_schema=result)
            for name, description, _, params, result in jobs
        ),
    )


def _decode(what: str, types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    try:
        return decode(types, data)
    except (DecodingError, OverflowError, ValueError) as exc:
        raise _undecodable(what, data) from exc


def _undecodable(what: str, data: bytes) -> ChainError:
    return ChainError(
        f"expected {what} as the job protocol encodes it, received {len(data)} bytes that do not decode; "
        "check that the contract address is a job contract on this chain"
    )


def _parse_address(checksummed: str) -> Address:
    return Address(bytes.fromhex(checksummed[2:]))


def _word(value: int) -> bytes:
    return value.to_bytes(_WORD, "big")


def _uint(value: int, *, bits: int = _UINT64_BITS) -> bytes:
    if not 0 <= value < 1 << bits:
        raise ValueError(f"expected an integer from 0 to 2**{bits} - 1, received {value}")
    return value.to_bytes(_WORD, "big")


def _address(address: Address) -> bytes:
    if len(address) != _ADDRESS_BYTES:
        raise ValueError(f"expected an address of 20 bytes, received {len(address)} bytes")
    return address.rjust(_WORD, b"\0")


def _tail(data: bytes) -> bytes:
    return _word(len(data)) + data + bytes(-len(data) % _WORD)
