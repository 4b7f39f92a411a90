"""The custom errors of the job protocol: what a revert says and whether the same call may succeed later.

Source of the rule: Tangle EVM job protocol (``Errors.sol``) and the Solidity ABI specification ("Errors").
Invariant: every revert gets a class. Benign means that the work is done and nobody needs to act; retry means
that state outside the transaction may change; permanent means that the same bytes will never be accepted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from blueprint.errors import RevertedError
from blueprint.keccak import keccak256

__all__ = ["CUSTOM_ERRORS", "CustomError", "RevertClass", "classify_revert", "decode_revert"]

_SELECTOR_BYTES = 4
_SHOWN_CHARACTERS = 200


class RevertClass(StrEnum):
    """What a revert means for the one who sends."""

    BENIGN = "benign"  # somebody, perhaps we, already did it
    RETRY = "retry"  # state that may change stands in the way
    PERMANENT = "permanent"  # the same call will never be accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomError:
    """One declared error: its selector is the first four bytes of keccak-256 of ``name(types)``."""

    name: str
    types: tuple[str, ...]
    revert_class: RevertClass

    @property
    def selector(self) -> bytes:
        """The four bytes that stand before the encoded arguments."""
        return keccak256(f"{self.name}({','.join(self.types)})".encode())[:_SELECTOR_BYTES]


_BENIGN, _RETRY, _PERMANENT = RevertClass.BENIGN, RevertClass.RETRY, RevertClass.PERMANENT
_DECLARED: tuple[tuple[str, tuple[str, ...], RevertClass], ...] = (
    ("JobAlreadyCompleted", ("uint64", "uint64"), _BENIGN),
    ("ResultAlreadySubmitted", ("uint64", "uint64", "address"), _BENIGN),
    # An operator may join or be re-activated; a call may not have reached a lagging end point yet.
    ("OperatorNotInService", ("uint64", "address"), _RETRY),
    ("OperatorNotActive", ("address",), _RETRY),
    ("JobCallNotFound", ("uint64", "uint64"), _RETRY),
    # The manager is asked with every call, and a failing manager counts as "aggregation required".
    ("AggregationRequired", ("uint64", "uint8"), _RETRY),
    ("ManagerReverted", ("address", "bytes"), _RETRY),
    ("ManagerRejected", ("address",), _RETRY),
    ("RewardTransferFailed", ("address", "uint256"), _RETRY),
    ("Reentered", (), _RETRY),
    ("EnforcedPause", (), _RETRY),
    ("AggregationNotRequired", ("uint64", "uint8"), _PERMANENT),
    ("NotQuotedOperator", ("uint64", "uint64"), _PERMANENT),
    ("SchemaValidationFailed", ("uint8", "uint64", "uint64", "uint256"), _PERMANENT),
    ("InvalidSchemaVersion", ("uint8", "uint8"), _PERMANENT),
    ("ServiceNotActive", ("uint64",), _PERMANENT),
    ("ServiceExpired", ("uint64",), _PERMANENT),
    ("NotPermittedCaller", ("uint64", "address"), _PERMANENT),
    ("InvalidJobIndex", ("uint8",), _PERMANENT),
    ("InvalidMsgValue", ("uint256", "uint256"), _PERMANENT),
    ("QuoteAlreadyUsed", ("address",), _PERMANENT),
    ("InvalidQuoteSignature", ("address",), _PERMANENT),
    ("QuoteExpired", ("address", "uint64"), _PERMANENT),
    ("InvalidBLSSignature", (), _PERMANENT),
    ("QuoteTimestampTooOld", ("address", "uint64", "uint64"), _PERMANENT),
    ("DuplicateOperatorQuote", ("address",), _PERMANENT),
    ("JobQuoteInputsMismatch", ("address", "bytes32", "bytes32"), _PERMANENT),
    ("JobQuoteJobIndexMismatch", ("uint8", "uint8"), _PERMANENT),
    ("JobQuoteRequesterMismatch", ("address", "address", "address"), _PERMANENT),
    ("JobQuoteServiceMismatch", ("uint64", "uint64"), _PERMANENT),
    ("NoQuotes", (), _PERMANENT),
    ("PaymentTooSmall", ("uint256", "uint256"), _PERMANENT),
    ("LengthMismatch", (), _PERMANENT),
    ("BlueprintNotFound", ("uint64",), _PERMANENT),
    ("ServiceNotFound", ("uint64",), _PERMANENT),
    ("NoOperators", (), _PERMANENT),
    ("NotServiceOwner", ("uint64", "address"), _PERMANENT),
    # The manager of this project, and its example of a consumer.
    ("NothingToRetry", ("uint64", "uint64", "uint8"), _BENIGN),
    ("CallbackReverted", ("address", "bytes"), _RETRY),
    ("TooLittleGas", ("uint256",), _RETRY),
    ("WrongOutput", ("bytes32", "bytes32"), _PERMANENT),
    ("NotTangle", ("address",), _PERMANENT),
    ("NotManager", ("address",), _PERMANENT),
    ("UnexpectedService", ("uint64",), _PERMANENT),
    # What the compiler itself raises.
    ("Error", ("string",), _PERMANENT),
    ("Panic", ("uint256",), _PERMANENT),
)


def _table() -> dict[bytes, CustomError]:
    errors = (
        CustomError(name=name, types=types, revert_class=revert_class)
        for name, types, revert_class in _DECLARED
    )
    return {error.selector: error for error in errors}


CUSTOM_ERRORS: Mapping[bytes, CustomError] = MappingProxyType(_table())
"""Every error that the node can name, by selector."""

_PANICS: Mapping[int, str] = MappingProxyType(
    {
        0x01: "assertion failed",
        0x11: "arithmetic overflow",
        0x12: "division by zero",
        0x21: "invalid enum value",
        0x22: "invalid storage byte array",
        0x31: "pop on an empty array",
        0x32: "array index out of bounds",
        0x41: "out of memory",
        0x51: "call of an uninitialised function",
    }
)


def decode_revert(data: bytes) -> RevertedError:
    """Return the error that revert bytes stand for; never raises.

    Args:
        data: the bytes that the EVM returned: a selector and ABI-encoded arguments, or nothing.

    Returns:
        An error whose ``name`` is set when the selector is known, and whose message shows the arguments.
    """
    if not data:
        return RevertedError("the contract reverted without a reason", data=data)
    error = CUSTOM_ERRORS.get(data[:_SELECTOR_BYTES])
    if error is None:
        selector = data[:_SELECTOR_BYTES].hex()
        message = f"the contract reverted with an unknown error 0x{selector} ({len(data)} bytes)"
        return RevertedError(message, data=data)
    try:
        arguments: tuple[object, ...] = decode(error.types, data[_SELECTOR_BYTES:])
    except (DecodingError, OverflowError, ValueError):
        message = f"the contract reverted: {error.name} with arguments that do not decode"
        return RevertedError(message, data=data, name=error.name)
    return RevertedError(
        f"the contract reverted: {_describe(error.name, arguments)}", data=data, name=error.name
    )


def classify_revert(error: RevertedError) -> RevertClass:
    """Return what a revert means for the sender, by the selector in its data.

    A revert without data is worth another try (no gas left inside, a pausing proxy); an unknown one is not.
    """
    if not error.data:
        return RevertClass.RETRY
    known = CUSTOM_ERRORS.get(error.data[:_SELECTOR_BYTES])
    return RevertClass.PERMANENT if known is None else known.revert_class


def _describe(name: str, arguments: tuple[object, ...]) -> str:
    if name == "Error":
        # SECURITY: the reason is chosen by a stranger's contract; control characters must not reach
        # a terminal (test_a_reason_cannot_carry_control_characters).
        return ascii(arguments[0])[:_SHOWN_CHARACTERS]
    if name == "Panic" and isinstance(arguments[0], int):
        return f"Panic 0x{arguments[0]:02x} ({_PANICS.get(arguments[0], 'unknown code')})"
    shown = ", ".join(_show(argument) for argument in arguments)
    return f"{name}({shown})"[:_SHOWN_CHARACTERS]


def _show(argument: object) -> str:
    return "0x" + argument.hex() if isinstance(argument, bytes) else str(argument)
