"""Chooses among versions by what somebody wrote: exact, a prefix, or a range.

A requirement is one or more clauses that must all hold, separated by commas or blanks; ``||`` separates
alternatives. A clause is a version (``3.13.5``, ``3.13``, ``3``, ``3.x``) or an operator and a version:
``>=``, ``>``, ``<=``, ``<``, ``==``, ``=``, ``!=``, ``^`` (the first part that is not zero stays),
``~`` (the first two parts stay) and ``~=`` (all but the last part stay).

Invariant: a comparison looks at as many parts as the requirement has: ``<=3.13`` and ``3.13`` include 3.13.5,
``>3.13`` does not, and ``3.1`` is none of 3.13.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from sandbox.errors import RequestError

__all__ = ["best_match", "is_match"]

Parts = tuple[int, ...]

_CLAUSE = re.compile(
    r"(?P<operator>>=|<=|==|!=|~=|[><=^~])?\s*v?(?P<parts>\d+(?:\.\d+)*)(?:\.[x*])*(?:\s*,\s*(?=\S)|\s+|$)",
    re.IGNORECASE,
)
_ANY = ("", "*", "x", "latest")
_SHOWN = 64


def best_match(available: Sequence[str], wanted: str, *, what: str) -> str:
    """Return the version that fits best: the highest that matches, or the first when anything does.

    Args:
        available: versions as dotted numbers, the preferred one first.
        wanted: a requirement; empty, ``*`` or ``latest`` for the first version.
        what: names the thing in errors, such as ``runtime of python``.

    Raises:
        RequestError: the requirement cannot be read, or no version matches; the message lists those that are
            there.
    """
    text = wanted.strip()
    if text.lower() in _ANY and available:
        return available[0]
    matching = [version for version in available if is_match(version, text, what=what)]
    if matching:
        return max(matching, key=_parts)
    raise RequestError(
        f"{what}: expected one of {', '.join(available) or 'none'}, received {wanted[:_SHOWN]!r}"
    )


def is_match(version: str, wanted: str, *, what: str) -> bool:
    """Say whether a version meets a requirement.

    Raises:
        RequestError: the requirement cannot be read.
    """
    alternatives = [_clauses(alternative, what) for alternative in wanted.split("||")]
    return any(all(_holds(_parts(version), clause) for clause in clauses) for clauses in alternatives)


def _clauses(text: str, what: str) -> list[re.Match[str]]:
    """Split one alternative into its clauses; text that is no requirement is refused as a whole."""
    clauses, rest = [], text.strip()
    while clause := _CLAUSE.match(rest):
        clauses.append(clause)
        rest = rest[clause.end() :]
    if rest or not clauses:
        raise RequestError(
            f"{what}: expected a version (3.13.5), its beginning (3.13) or a range (>=3.11,<3.14, ^20, "
            f"~1.24), received {text[:_SHOWN]!r}"
        )
    return clauses


def _holds(version: Parts, clause: re.Match[str]) -> bool:
    wanted = _parts(clause["parts"])
    length = len(wanted)
    given = (version + (0,) * length)[:length]
    return _OPERATORS[clause["operator"] or "="](given, wanted)


def _caret(given: Parts, wanted: Parts) -> bool:
    fixed = next((index for index, part in enumerate(wanted) if part), len(wanted) - 1) + 1
    return given >= wanted and given[:fixed] == wanted[:fixed]


_OPERATORS: Mapping[str, Callable[[Parts, Parts], bool]] = {
    "=": lambda given, wanted: given == wanted,
    "==": lambda given, wanted: given == wanted,
    "!=": lambda given, wanted: given != wanted,
    ">=": lambda given, wanted: given >= wanted,
    ">": lambda given, wanted: given > wanted,
    "<=": lambda given, wanted: given <= wanted,
    "<": lambda given, wanted: given < wanted,
    "^": _caret,
    "~": lambda given, wanted: given >= wanted and given[:2] == wanted[:2],
    "~=": lambda given, wanted: given >= wanted and given[:-1] == wanted[:-1],
}


def _parts(version: str) -> Parts:
    return tuple(int(part) for part in re.findall(r"\d+", version))
