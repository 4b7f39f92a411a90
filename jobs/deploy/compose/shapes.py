"""What a part of a compose file may look like: a small grammar, and what is wrong with a part by it.

Invariant: what a shape does not name is refused. A value that decides what the engine does is written out: a
reference in it would be replaced after it was looked at.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from jobs.deploy.compose.document import Part
from jobs.deploy.compose.findings import Finding

__all__ = ["Keys", "Listed", "Named", "Refused", "Shape", "Value", "misshapen"]

_SINGLE = frozenset({str, int, float, bool})


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A single value."""

    word: str
    """What it is, for people, e.g. ``a size such as 512m``."""
    kinds: frozenset[type] = frozenset({str})
    pattern: re.Pattern[str] | None = None
    """What the whole of it must match."""
    is_fixed: bool = True
    """Whether it must be written out: no reference to a variable may be in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A list."""

    of: "Shape"
    is_set: bool = False
    """Whether no item may come twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A mapping whose keys are its author's own."""

    of: "Shape"
    names: re.Pattern[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """A mapping whose keys are known, beside those that begin with ``x-``."""

    what: str
    """What has these keys, e.g. ``a service``."""
    keys: Mapping[str, "Shape"]
    needed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """What compose knows and a guest cannot use."""

    why: str


Shape: TypeAlias = tuple[Value | Listed | Named | Keys | Refused | None, ...]
"""The alternatives, of different kinds; None is that nothing is written."""


def misshapen(part: Part, shape: Shape) -> Iterator[Finding]:
    """Yield what is wrong with a part."""
    for form in shape:
        match form:
            case Refused():
                yield part.finding(form.why)
            case Keys() if part.entries is not None:
                yield from _keys(part, part.entries, form)
            case Named() if part.entries is not None:
                yield from _named(part.entries, form)
            case Listed() if part.items is not None:
                yield from _list(part.items, form)
            case Value() if part.kind in _SINGLE:
                yield from _value(part, form)
            case None if part.kind is type(None):
                pass
            case _:
                continue
        return
    yield part.finding(f"expected {_words(shape)}, received {part.word}")


def _value(part: Part, form: Value) -> Iterator[Finding]:
    if part.kind not in form.kinds:
        quoted = ": put it in quotes" if form.kinds == {str} else ""
        yield part.finding(f"expected {form.word}, received {part.word}{quoted}")
    # SECURITY: what stands in a reference's place is not known here (test_a_risk_cannot_hide_in_a_reference).
    elif form.is_fixed and "$" in part.text:
        yield part.finding(f"expected {form.word}, written out: it cannot come from a variable")
    elif form.pattern is not None and form.pattern.fullmatch(part.text) is None:
        shown = f", received {part.text[:60]!r}" if form.is_fixed else ""
        yield part.finding(f"expected {form.word}{shown}")


def _list(items: tuple[Part, ...], form: Listed) -> Iterator[Finding]:
    seen = set()
    for item in items:
        yield from misshapen(item, form.of)
        if form.is_set and item.text and item.text in seen:
            yield item.finding(f"{item.text[:60]!r} comes twice")
        seen.add(item.text)


def _named(entries: Mapping[str, Part], form: Named) -> Iterator[Finding]:
    for name, entry in entries.items():
        if form.names.fullmatch(name) is None:
            yield entry.finding(f"{name[:60]!r} is no name that it may have")
        yield from misshapen(entry, form.of)


def _keys(part: Part, entries: Mapping[str, Part], form: Keys) -> Iterator[Finding]:
    for name, entry in entries.items():
        if name in form.keys:
            yield from misshapen(entry, form.keys[name])
        elif not name.startswith("x-"):
            near = difflib.get_close_matches(name, form.keys, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield entry.finding(f"{form.what} has no key {name[:40]!r}{hint}")
    for name in form.needed:
        if name not in entries:
            yield part.finding(f"{form.what} needs the key {name}")


def _words(shape: Shape) -> str:
    told = dict.fromkeys(_word(form) for form in shape)
    return " or ".join(told)


def _word(form: Value | Listed | Named | Keys | Refused | None) -> str:
    match form:
        case Value():
            return form.word
        case Listed():
            return "a list"
        case Keys() | Named():
            return "a mapping"
        case _:
            return "nothing"
