"""Parses JSON that strangers wrote, without trust in its nesting.

The parser of the standard library recurses in C for each bracket and stops at the interpreter's recursion
limit. Libraries raise that limit for the whole process (py_ecc and py-evm do), to where the C stack overflows
first: a few kilobytes of brackets would then end the process instead of raising an error. The parser that
pydantic brings has a bound of its own, and is faster.
"""

from typing import TypeAlias

from pydantic_core import from_json

__all__ = ["JsonValue", "parse_json"]

JsonValue: TypeAlias = bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"] | None


def parse_json(content: bytes | str) -> JsonValue:
    """Return the value that a JSON text states.

    Args:
        content: the text, in UTF-8 if bytes (RFC 8259, section 8.1).

    Raises:
        ValueError: it is not JSON, or nests deeper than some 200 levels (JSON-RPC needs fewer than ten).
    """
    # SECURITY: bounds the nesting itself (test_deep_nesting_is_refused).
    value: JsonValue = from_json(content, allow_inf_nan=False, cache_strings="keys")
    return value
