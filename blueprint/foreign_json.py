"""Parses JSON that strangers wrote, without trust in its nesting.

The parser of the standard library recurses in C for each bracket and stops at the interpreter's recursion
limit. Libraries raise that limit for the whole process (py_ecc and py-evm do), to where the C stack overflows
first: a few kilobytes of brackets would then end the process instead of raising an error.

Invariant: the parser never sees more than `MAX_DEPTH` levels. The limit itself is not touched, for it belongs
to all threads.
"""

import json
import re
from itertools import accumulate
from typing import Final, TypeAlias

__all__ = ["MAX_DEPTH", "JsonValue", "parse_json"]

JsonValue: TypeAlias = bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"] | None

MAX_DEPTH: Final = 200
"""Levels of lists and objects; a JSON-RPC message has fewer than ten."""
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_NO_BRACKET: Final = re.compile(r"[^][{}]+")
_STEPS: Final = {"[": 1, "{": 1, "]": -1, "}": -1}


def parse_json(content: bytes | str) -> JsonValue:
    """Return the value that a JSON text states.

    Args:
        content: the text, in UTF-8 if bytes (RFC 8259, section 8.1).

    Raises:
        ValueError: it is not JSON, or nests deeper than `MAX_DEPTH`.
    """
    text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    # SECURITY: counted before the parser runs (test_deep_nesting_is_refused_before_it_is_parsed).
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    value: JsonValue = json.loads(text)
    return value


def _depth(text: str) -> int:
    """Return the deepest level up to the first fault; brackets inside strings are not counted."""
    brackets = _NO_BRACKET.sub("", _STRING.sub("", text))
    return max(accumulate(_STEPS[bracket] for bracket in brackets), default=0)
