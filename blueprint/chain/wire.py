"""JSON-RPC values and their parsing into bytes and integers.

Source of the rule: Ethereum JSON-RPC specification, "Hex value encoding".
Invariant: what an end point answers is parsed here exactly once; a value of the wrong shape is an
``RpcError`` that quotes it, so a broken end point is never mistaken for an empty chain.
"""

from blueprint.errors import RpcError
from blueprint.foreign_json import JsonValue
from blueprint.types import Address, Hash

__all__ = [
    "JsonValue",
    "parse_address",
    "parse_bytes",
    "parse_hash",
    "parse_member",
    "parse_object",
    "parse_quantity",
    "to_hex",
    "to_quantity",
]

_QUOTED = 60
_HASH_BYTES = 32
_ADDRESS_BYTES = 20


def to_hex(data: bytes) -> str:
    """Return ``data`` as ``0x`` and two digits a byte."""
    return "0x" + data.hex()


def to_quantity(value: int) -> str:
    """Return a non-negative integer as a JSON-RPC quantity: ``0x`` without leading zeros."""
    return hex(value)


def parse_quantity(value: JsonValue, *, what: str = "a quantity") -> int:
    """Return the integer of a ``0x...`` quantity.

    Raises:
        RpcError: the value is not a hexadecimal string.
    """
    # The second test keeps out the signs and underscores that Python would take.
    if isinstance(value, str) and value.startswith("0x") and value.isalnum():
        try:
            return int(value, 0)
        except ValueError:
            pass
    raise _wrong(what, "a hexadecimal quantity such as 0x1f", value)


def parse_bytes(value: JsonValue, *, what: str = "data", length: int | None = None) -> bytes:
    """Return the bytes of ``0x...`` data, of exactly ``length`` bytes when given.

    Raises:
        RpcError: the value is not hexadecimal data of that length.
    """
    if isinstance(value, str) and value.startswith("0x"):
        try:
            data = bytes.fromhex(value[2:])
        except ValueError:
            data = None
        if data is not None and (length is None or len(data) == length):
            return data
    expected = "hexadecimal data" if length is None else f"{length} bytes of hexadecimal data"
    raise _wrong(what, expected, value)


def parse_hash(value: JsonValue, *, what: str = "a hash") -> Hash:
    """Return 32 bytes of ``0x...`` data, or raise ``RpcError``."""
    return Hash(parse_bytes(value, what=what, length=_HASH_BYTES))


def parse_address(value: JsonValue, *, what: str = "an address") -> Address:
    """Return 20 bytes of ``0x...`` data, or raise ``RpcError``."""
    return Address(parse_bytes(value, what=what, length=_ADDRESS_BYTES))


def parse_object(value: JsonValue, *, what: str) -> dict[str, JsonValue]:
    """Return a JSON object as it is, or raise ``RpcError``."""
    if isinstance(value, dict):
        return value
    raise _wrong(what, "a JSON object", value)


def parse_member(container: dict[str, JsonValue], name: str, *, what: str) -> JsonValue:
    """Return one member of a JSON object, or raise ``RpcError`` when it is absent."""
    if name in container:
        return container[name]
    raise _wrong(f"{what}.{name}", "to be present", None)


def _wrong(what: str, expected: str, received: JsonValue) -> RpcError:
    quoted = repr(received)
    if len(quoted) > _QUOTED:
        quoted = f"{quoted[:_QUOTED]}... ({len(quoted)} characters)"
    return RpcError(f"the end point answered {what} wrongly: expected {expected}, received {quoted}")
