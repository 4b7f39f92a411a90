"""Reads the arguments of JSON-RPC calls.

Invariant: what leaves this module is typed and in range; anything else is an error answer that names the
argument's position and what was expected (Ethereum JSON-RPC specification, "Hex value encoding").
"""

import re
from collections.abc import Mapping, Sequence

from blueprint.chain.devchain.errors import INVALID_PARAMS, JsonRpcError, invalid_params
from blueprint.chain.devchain.evm import CallRequest
from blueprint.chain.devchain.logs import LogFilter

__all__ = ["BlockId", "Params"]

BlockId = int | str | bytes
"""A number, a tag (``latest`` and so on) or a 32-byte hash."""

_QUANTITY = re.compile(r"0x(0|[1-9a-fA-F][0-9a-fA-F]{0,63})")
_DATA = re.compile(r"0x([0-9a-fA-F]{2})*")
_TAGS = frozenset({"latest", "pending", "earliest", "safe", "finalized"})
_ADDRESS_BYTES = 20
_HASH_BYTES = 32
_MAX_TOPICS = 4
_MAX_BLOCK_NUMBER = 2**63 - 1
_CALL_MEMBERS = frozenset(
    {
        "from",
        "to",
        "data",
        "input",
        "value",
        "gas",
        "gasPrice",
        "maxFeePerGas",
        "maxPriorityFeePerGas",
        "nonce",
        "chainId",
        "type",
        "accessList",
    }
)


class Params:
    """The positional arguments of one call."""

    def __init__(self, values: Sequence[object]) -> None:
        self._values = values

    def at_most(self, count: int) -> None:
        """Refuse more arguments than the method has."""
        if len(self._values) > count:
            raise JsonRpcError(INVALID_PARAMS, f"too many arguments, want at most {count}")

    def raw(self, position: int) -> object:
        """The argument as it came; None when it is missing."""
        return self._values[position] if position < len(self._values) else None

    def required(self, position: int) -> object:
        """The argument as it came.

        Raises:
            JsonRpcError: it is missing or null.
        """
        value = self.raw(position)
        if value is None:
            raise JsonRpcError(INVALID_PARAMS, f"missing value for required argument {position}")
        return value

    def data(self, position: int) -> bytes:
        """Bytes of any length."""
        return _data(self.required(position), position)

    def address(self, position: int) -> bytes:
        """20 bytes."""
        return _fixed(self.required(position), position, _ADDRESS_BYTES)

    def hash(self, position: int) -> bytes:
        """32 bytes."""
        return _fixed(self.required(position), position, _HASH_BYTES)

    def quantity(self, position: int) -> int:
        """A number in hexadecimal without leading zeros."""
        return _quantity(self.required(position), position)

    def count(self, position: int, default: int | None = None) -> int:
        """A number, in hexadecimal or as a plain JSON number: the test verbs are called with both."""
        value = self.raw(position)
        if value is None and default is not None:
            return default
        return _count(self.required(position), position)

    def seconds(self, position: int) -> float:
        """A length of time: a JSON number with or without a fraction, or hexadecimal."""
        value = self.required(position)
        if isinstance(value, float) and 0 <= value <= _MAX_BLOCK_NUMBER:
            return value
        return float(_count(value, position))

    def flag(self, position: int, *, default: bool | None = None) -> bool:
        """True or false."""
        value = self.raw(position)
        if value is None and default is not None:
            return default
        if not isinstance(value, bool):
            raise invalid_params(position, f"expected a boolean, received {_kind(value)}")
        return value

    def block(self, position: int) -> BlockId:
        """A block by tag, number or hash (EIP-1898); ``latest`` when it is missing."""
        value = self.raw(position)
        if value is None:
            return "latest"
        if isinstance(value, Mapping):
            if "blockHash" in value:
                return _fixed(value["blockHash"], position, _HASH_BYTES)
            if "blockNumber" in value:
                return _block_number(value["blockNumber"], position)
            raise invalid_params(position, "a block object needs blockHash or blockNumber")
        return _block_number(value, position)

    def call(self, position: int) -> CallRequest:
        """A call object of ``eth_call`` or ``eth_estimateGas``."""
        value = self.required(position)
        if not isinstance(value, Mapping):
            raise invalid_params(position, f"expected a call object, received {_kind(value)}")
        unknown = sorted(str(name) for name in value if name not in _CALL_MEMBERS)
        if unknown:
            raise invalid_params(position, f"unknown members of the call object: {', '.join(unknown)}")
        to = value.get("to")
        gas = value.get("gas")
        return CallRequest(
            sender=_fixed(value.get("from") or "0x" + "00" * _ADDRESS_BYTES, position, _ADDRESS_BYTES),
            to=None if to in (None, "", "0x") else _fixed(to, position, _ADDRESS_BYTES),
            data=_call_data(value, position),
            value_wei=_quantity(value.get("value") or "0x0", position),
            gas=None if gas is None else _quantity(gas, position),
            access_list=_access_list(value.get("accessList"), position),
        )

    def log_filter(self, position: int) -> LogFilter:
        """The address and topic conditions of a filter object."""
        value = self.members(position)
        return LogFilter(
            addresses=_alternatives(value.get("address"), position, _ADDRESS_BYTES),
            topics=_topics(value.get("topics"), position),
        )

    def block_range(self, position: int) -> bytes | tuple[BlockId, BlockId]:
        """The block hash, or the first and last block, that a filter object names."""
        value = self.members(position)
        first, last = value.get("fromBlock"), value.get("toBlock")
        block_hash = value.get("blockHash")
        if block_hash is None:
            return (
                _block_number("latest" if first is None else first, position),
                _block_number("latest" if last is None else last, position),
            )
        if first is not None or last is not None:
            raise invalid_params(position, "cannot specify both blockHash and fromBlock/toBlock")
        return _fixed(block_hash, position, _HASH_BYTES)

    def members(self, position: int) -> Mapping[str, object]:
        """A JSON object; empty when it is missing."""
        value = self.raw(position)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise invalid_params(position, f"expected an object, received {_kind(value)}")
        return value


def _call_data(value: Mapping[str, object], position: int) -> bytes:
    data, same = value.get("data"), value.get("input")
    if data is not None and same is not None and data != same:
        raise invalid_params(position, 'both "data" and "input" are set and not equal')
    chosen = same if data is None else data
    return b"" if chosen is None else _data(chosen, position)


def _access_list(value: object, position: int) -> tuple[tuple[bytes, tuple[int, ...]], ...]:
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise invalid_params(position, f"expected an access list, received {_kind(value)}")
    entries: list[tuple[bytes, tuple[int, ...]]] = []
    for entry in value:
        keys = entry.get("storageKeys") if isinstance(entry, Mapping) else None
        if not isinstance(entry, Mapping) or not isinstance(keys, list):
            raise invalid_params(position, "an access list entry needs address and storageKeys")
        slots = tuple(int.from_bytes(_fixed(key, position, _HASH_BYTES), "big") for key in keys)
        entries.append((_fixed(entry.get("address"), position, _ADDRESS_BYTES), slots))
    return tuple(entries)


def _topics(value: object, position: int) -> tuple[frozenset[bytes], ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _MAX_TOPICS:
        raise invalid_params(position, f"expected a list of at most {_MAX_TOPICS} topics")
    return tuple(_alternatives(entry, position, _HASH_BYTES) for entry in value)


def _alternatives(value: object, position: int, length: int) -> frozenset[bytes]:
    if value is None:
        return frozenset()
    if isinstance(value, list):
        # A null among the alternatives makes the whole position a wildcard.
        return frozenset() if None in value else frozenset(_fixed(entry, position, length) for entry in value)
    return frozenset({_fixed(value, position, length)})


def _block_number(value: object, position: int) -> BlockId:
    if isinstance(value, str) and value in _TAGS:
        return value
    if isinstance(value, str) and len(value) == 2 + 2 * _HASH_BYTES:
        return _fixed(value, position, _HASH_BYTES)
    number = _quantity(value, position)
    if number > _MAX_BLOCK_NUMBER:
        raise invalid_params(position, f"block number larger than {_MAX_BLOCK_NUMBER}")
    return number


def _quantity(value: object, position: int) -> int:
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise invalid_params(
            position,
            f"expected a quantity (0x-prefixed hexadecimal, no leading zeros), received {_kind(value)}",
        )
    return int(value, 16)


def _count(value: object, position: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_BLOCK_NUMBER:
        return value
    return _quantity(value, position)


def _data(value: object, position: int) -> bytes:
    if not isinstance(value, str) or not _DATA.fullmatch(value):
        raise invalid_params(position, f"expected 0x-prefixed bytes, received {_kind(value)}")
    return bytes.fromhex(value[2:])


def _fixed(value: object, position: int, length: int) -> bytes:
    data = _data(value, position)
    if len(data) != length:
        raise invalid_params(position, f"expected {length} bytes, received {len(data)}")
    return data


def _kind(value: object) -> str:
    """What a value is, without repeating an arbitrarily long one."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - the width of a line
