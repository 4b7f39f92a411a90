"""The single values and lists of them that a compose file is made of.

Invariant: what is `fixed` is written out in full: numbers, sizes, times and names never come from a variable.
Source of the rule: the compose specification.
"""

import re
from collections.abc import Mapping

from jobs.deploy.compose.shapes import Listed, Named, Refused, Shape, Value

__all__ = [
    "ANY",
    "BADNESS",
    "COMMAND",
    "COUNT",
    "COUNT_OR_LESS",
    "DURATION",
    "FLAG",
    "NAME",
    "NAME_PATTERN",
    "NUMBER",
    "NUMBERS",
    "OPTIONS",
    "OWN_NAME",
    "PATH",
    "PERCENT",
    "SERVICE_OF",
    "SIZE",
    "SWAP",
    "TEXT",
    "TEXTS",
    "TEXT_OR_TEXTS",
    "WHOLE",
    "assigned",
    "each",
    "fixed",
    "listed",
    "one_of",
    "refused",
]

NUMBERS: frozenset[type] = frozenset({str, int, float})
WHOLE: frozenset[type] = frozenset({str, int})
SINGLE: frozenset[type] = frozenset({str, int, float, bool})


def fixed(word: str, pattern: str, kinds: frozenset[type] = frozenset({str})) -> Shape:
    """Return a value that is written out, and matches a pattern as a whole."""
    return (Value(word=word, kinds=kinds, pattern=re.compile(pattern)),)


def one_of(*words: str) -> Shape:
    """Return one of several words."""
    shown = f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
    return fixed(shown, "|".join(map(re.escape, words)))


def refused(reasons: Mapping[str, str]) -> Mapping[str, Shape]:
    """Return keys that are refused, each with the reason."""
    return {key: (Refused(why=why),) for key, why in reasons.items()}


def listed(shape: Shape, *, is_set: bool = True) -> Shape:
    """Return a list."""
    return (Listed(of=shape, is_set=is_set),)


def each(shape: Shape, names: str) -> Mapping[str, Shape]:
    """Return the same for each of some keys, which blanks separate."""
    return dict.fromkeys(names.split(), shape)


NAME_PATTERN = r"[a-zA-Z0-9._-]+"
SERVICE_OF = rf"service:{NAME_PATTERN}"
OWN_NAME = r"(?!com\.docker\.compose)[^=$]+"
"""Names that begin so are those by which compose knows its own again; a reference could begin so too."""
ANY = re.compile(r"(?s).*")

TEXT: Shape = (Value(word="text", is_fixed=False),)
FLAG = fixed("true or false", "true|false|True|False|TRUE|FALSE", frozenset({bool}))
COUNT = fixed("a whole number", r"0|[1-9]\d{0,15}", WHOLE)
COUNT_OR_LESS = fixed("a whole number", r"-1|0|[1-9]\d{0,15}", WHOLE)
PERCENT = fixed("a whole number from 0 to 100", r"100|[1-9]?\d", WHOLE)
BADNESS = fixed("a whole number from -1000 to 1000", r"-?1000|-?[1-9]\d{0,2}|0", WHOLE)
NUMBER = fixed("a number", r"\d{1,9}(\.\d{1,9})?", NUMBERS)
SIZE = fixed("a size such as 512m", r"[1-9]\d{0,15}(\.\d{1,9})?[kKmMgGtT]?[bB]?", WHOLE)
SWAP = fixed("a size such as 512m, or -1", r"-1|0|[1-9]\d{0,15}(\.\d{1,9})?[kKmMgGtT]?[bB]?", WHOLE)
DURATION = fixed("a time such as 1m30s", r"(\d{1,9}(\.\d{1,9})?(us|ms|s|m|h))+")
NAME = fixed("a name", NAME_PATTERN)
PATH = fixed("a path that begins with /", r"/.*")

TEXTS = listed(TEXT)
TEXT_OR_TEXTS: Shape = (*TEXT, *TEXTS)
COMMAND: Shape = (*TEXT, *listed(TEXT, is_set=False))
OPTIONS: Shape = (Named(of=(Value(word="a text or a number", kinds=NUMBERS, is_fixed=False),), names=ANY),)


def assigned(names: str) -> Shape:
    """Return names with values, as a list or a mapping; ``names`` is the pattern of a name."""
    item = Value(word="NAME or NAME=value", pattern=re.compile(rf"(?s){names}(=.*)?"), is_fixed=False)
    value: Shape = (Value(word="a single value", kinds=SINGLE, is_fixed=False), None)
    return (*listed((item,)), Named(of=value, names=re.compile(names)))
