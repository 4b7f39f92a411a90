"""Finds the variables that a compose text refers to, by the rules with which compose replaces them.

Invariant: text is only read here, nothing is ever replaced: values are for the guest alone.
Source of the rule: the compose specification, chapter Interpolation.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Reference", "ReferenceSyntaxError", "references_in"]

MAX_NESTING = 8
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")


class ReferenceSyntaxError(ValueError):
    """A dollar sign begins something that compose would refuse."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A variable that is referred to."""

    name: str
    is_needed: bool
    """False where the text says what stands in its place when there is none."""


def references_in(text: str) -> Iterator[Reference]:
    """Yield the variables of one value, those inside defaults among them; ``$$`` is a dollar sign.

    Raises:
        ReferenceSyntaxError: compose would refuse the text.
    """
    yield from _references(text, 0)


def _references(text: str, depth: int) -> Iterator[Reference]:
    if depth > MAX_NESTING:
        raise ReferenceSyntaxError(f"references are nested deeper than {MAX_NESTING} levels")
    at = 0
    while (at := text.find("$", at)) >= 0:
        rest = text[at + 1 :]
        if rest.startswith("$"):
            at += 2
        elif rest.startswith("{"):
            inside = _braced(rest[1:])
            yield from _expression(inside, depth)
            at += len(inside) + 3
        elif named := _NAME.match(rest):
            yield Reference(named[0], is_needed=True)
            at += 1 + len(named[0])
        else:
            raise ReferenceSyntaxError("a `$` that begins no reference; write `$$` for a dollar sign")


def _braced(text: str) -> str:
    """Return what stands before the brace that closes this one."""
    depth = 1
    for index, sign in enumerate(text):
        if sign == "{" and index and text[index - 1] == "$":
            depth += 1
        elif sign == "}":
            depth -= 1
            if depth == 0:
                return text[:index]
    raise ReferenceSyntaxError("`${` is not closed")


def _expression(inside: str, depth: int) -> Iterator[Reference]:
    named = _NAME.match(inside)
    if named is None:
        raise ReferenceSyntaxError("`${` is not followed by a name of letters, digits and underscores")
    rest = inside[named.end() :]
    operator = next((sign for sign in _OPERATORS if rest.startswith(sign)), "")
    if rest and not operator:
        raise ReferenceSyntaxError(f"after `${{{named[0]}` expected `}}` or one of {' '.join(_OPERATORS)}")
    yield Reference(named[0], is_needed=operator in ("", "?", ":?"))
    if operator and not operator.endswith("?"):
        yield from _references(rest[len(operator) :], depth + 1)
