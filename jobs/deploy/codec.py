"""The on-chain forms of the `deploy` job: one ABI tuple in, which holds another for its action; one out.

``DeployJob.sol`` has the same structs.

Invariant: the order, the types and the meaning of the members never change within a version.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, TypeAlias

from blueprint.errors import InputsInvalidError, InputsUndecodableError
from blueprint.extract import U8, U16, U32, U64, Bytes32
from blueprint.extract.abi import WORD, decode_value, encode_value
from blueprint.extract.annotations import FixedBytes, bind_type
from blueprint.types import Address

__all__ = [
    "NOBODY",
    "VERSION",
    "Action",
    "ChainSealingKey",
    "ChainSize",
    "Commitment",
    "DeployRequest",
    "DeployResult",
    "DeployStatus",
    "Preparation",
    "Removal",
    "decode_request",
    "decode_result",
    "encode_request",
    "encode_result",
]

VERSION = 1
NOBODY = Address(bytes(20))
Bytes20: TypeAlias = Annotated[bytes, FixedBytes(20)]


class Action(IntEnum):
    """What is asked for."""

    PREPARE = 1
    COMMIT = 2
    REMOVE = 3


class DeployStatus(IntEnum):
    """How a call ended. The numbers never change; one that `execute` has too means the same there."""

    SUCCESS = 0
    APPLICATION_FAILED = 1  # a container ended or is unhealthy; what ran was removed
    TIMEOUT = 3  # not healthy in its time; what ran was removed
    EXPIRED = 12  # the preparation is no longer kept: prepare again
    NO_CAPACITY = 13  # no room now: try later, or a smaller size
    ATTESTATION_FAILED = 14  # the attestation does not hold; what ran was removed
    REJECTED = 20  # the request was refused and nothing was done
    SYSTEM_ERROR = 21  # the operator failed, not the request


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSize:
    """What the machine is to have; zero, or nothing, is the operator's choice."""

    instance_type: str = ""
    vcpu: U32 = 0
    memory_mb: U32 = 0
    disk_gb: U32 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """An application to give an identity to."""

    name: str
    compose: str = ""
    compose_digest: Bytes32 = bytes(32)
    """SHA-256 of a compose text that the operator offers; zero where the text itself is given."""
    names: tuple[str, ...] = ()
    size: ChainSize = field(default_factory=ChainSize)
    volumes: tuple[str, ...] = ()
    public_logs: bool = False
    public_sysinfo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """A prepared application to start."""

    call_id: U64
    compose_hash: Bytes32
    sealed_variables: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """An application to end."""

    call_id: U64


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployRequest:
    """What a caller asks for, and whom."""

    body: Preparation | Commitment | Removal
    operator: Address = NOBODY
    """Who is to act; in a preparation, nobody means whoever answers first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSealingKey:
    """What variables are sealed to, as the key management service states it."""

    key: Bytes32 = bytes(32)
    signature: bytes = b""
    timestamp: U64 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployResult:
    """What the caller is answered; what an action does not answer is zero."""

    version: U16 = VERSION
    status: U8
    action: U8 = 0
    operator: Address = NOBODY
    app_id: Bytes20 = bytes(20)
    compose_hash: Bytes32 = bytes(32)
    sealing_key: ChainSealingKey = field(default_factory=ChainSealingKey)
    expires_at: U64 = 0
    instance_id: Bytes20 = bytes(20)
    endpoint: str = ""
    attestation_digest: Bytes32 = bytes(32)
    evidence_digest: Bytes32 = bytes(32)
    error_message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Envelope:
    version: U16
    action: U8
    operator: Address
    body: bytes


_ENVELOPE = bind_type(_Envelope, "deploy request")
_RESULT = bind_type(DeployResult, "deploy result")
_ACTIONS: dict[Action, type[Preparation | Commitment | Removal]] = {
    Action.PREPARE: Preparation,
    Action.COMMIT: Commitment,
    Action.REMOVE: Removal,
}
_BODIES = {action: bind_type(body, action.name.lower()) for action, body in _ACTIONS.items()}
_ACTION_OF = {body: action for action, body in _ACTIONS.items()}


def decode_request(inputs: bytes) -> DeployRequest:
    """Decode a request.

    Raises:
        InputsUndecodableError: it is of no known version, or not the encoding of one.
        InputsInvalidError: there is no such action.
    """
    words = [int.from_bytes(inputs[at : at + WORD], "big") for at in (0, WORD)]
    marker = words[1] if words[0] == WORD else words[0]
    if marker != VERSION or len(inputs) < WORD:
        raise InputsUndecodableError(
            f"expected the ABI encoding of a deploy request of version {VERSION}; received {len(inputs)} "
            f"bytes whose version is {marker if marker < 1 << 16 else 'no uint16'}"
        )
    envelope = _ENVELOPE.load(decode_value(_ENVELOPE.shape, inputs))
    assert isinstance(envelope, _Envelope)
    if envelope.action not in _BODIES:
        known = ", ".join(f"{action.value} ({action.name.lower()})" for action in Action)
        raise InputsInvalidError(f"action: expected one of {known}; received {envelope.action}")
    binding = _BODIES[Action(envelope.action)]
    body = binding.load(decode_value(binding.shape, envelope.body))
    assert isinstance(body, Preparation | Commitment | Removal)
    return DeployRequest(body=body, operator=envelope.operator)


def encode_request(request: DeployRequest) -> bytes:
    """Encode a request as ``DeployJob`` does.

    Raises:
        UnencodableError: a member does not fit its type.
    """
    action = _ACTION_OF[type(request.body)]
    binding = _BODIES[action]
    body = encode_value(binding.shape, binding.dump(request.body))
    envelope = _Envelope(version=VERSION, action=action, operator=request.operator, body=body)
    return encode_value(_ENVELOPE.shape, _ENVELOPE.dump(envelope))


def encode_result(result: DeployResult) -> bytes:
    """Encode a result.

    Raises:
        UnencodableError: a member does not fit its type.
    """
    return encode_value(_RESULT.shape, _RESULT.dump(result))


def decode_result(output: bytes) -> DeployResult:
    """Decode the output of a `deploy` call.

    Raises:
        InputsUndecodableError: the bytes are not a result.
    """
    result = _RESULT.load(decode_value(_RESULT.shape, output))
    assert isinstance(result, DeployResult)
    return result
