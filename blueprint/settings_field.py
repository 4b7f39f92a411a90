"""How single settings are declared and read: texts from the command line and the environment into values.

Invariant: what is refused is refused with what was expected, never with what was received.
"""

import json
import re
from typing import Any

import sha3
from pydantic import Field

from blueprint.types import Address

__all__ = ["end_point", "listed", "parse_address", "public_key", "read_address", "setting", "table"]


def parse_address(text: str) -> Address:
    """Parse ``0x`` and forty hexadecimal digits; mixed case must be a right checksum (ERC-55).

    Raises:
        ValueError: not an address, or its checksum says that it was mistyped.
    """
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", text):
        raise ValueError("expected 0x and 40 hexadecimal digits")
    digits = text[2:]
    if digits not in (digits.lower(), digits.upper()):
        proof = sha3.keccak_256(digits.lower().encode()).hexdigest()
        pairs = zip(digits.lower(), proof, strict=False)
        right = "".join(digit.upper() if nibble >= "8" else digit for digit, nibble in pairs)
        if right != digits:
            raise ValueError(f"the checksum is wrong: a digit was mistyped, or the address is 0x{right}")
    return Address(bytes.fromhex(digits))


def read_address(value: object) -> object:
    """Read an address where the command line, the environment or TOML brings a text."""
    return parse_address(value) if isinstance(value, str) else value


def listed(value: object) -> object:
    """Split ``a,b`` as it comes from the command line and the environment; TOML brings real lists."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def table(value: object) -> object:
    """Read JSON, as the environment brings it; TOML brings real tables."""
    return json.loads(value) if isinstance(value, str) else value


def end_point(value: object) -> object:
    """Check the address of a JSON-RPC end point."""
    if isinstance(value, str) and not (
        re.match(r"(wss?|https?)://[^/\s]+|ipc:///.", value) or value.endswith(".ipc")
    ):
        raise ValueError(
            "expected ws://, wss://, http://, https://, ipc:///path, or a path that ends in .ipc"
        )
    return value


def public_key(text: str) -> str:
    """Check the hexadecimal digits of a compressed secp256k1 key, 33 bytes."""
    digits = text.removeprefix("0x").lower()
    if not re.fullmatch(r"0[23][0-9a-f]{64}", digits):
        raise ValueError("expected compressed secp256k1 keys: 66 hexadecimal digits that begin with 02 or 03")
    return digits


def setting(group: str, default: Any, description: str, **bounds: Any) -> Any:
    """Declare a setting under the heading ``group`` of the reference."""
    return Field(default, description=description, json_schema_extra={"group": group}, **bounds)
