"""Language Executors: one file per language, found by name.

Invariant: a name or an alias belongs to one language only.
"""

import difflib
from collections.abc import Mapping

from sandbox.errors import RequestError
from sandbox.languages.cpp import Cpp
from sandbox.languages.go import Go
from sandbox.languages.java import Java
from sandbox.languages.javascript import JavaScript
from sandbox.languages.language import Language, Plan, Stage
from sandbox.languages.php import Php
from sandbox.languages.python import Python
from sandbox.languages.swift import Swift
from sandbox.languages.typescript import TypeScript

__all__ = ["LANGUAGES", "Language", "Plan", "Stage", "find"]

LANGUAGES: Mapping[str, Language] = {
    language.name: language
    for language in (Python(), JavaScript(), TypeScript(), Java(), Go(), Cpp(), Php(), Swift())
}
"""Every language by its name, in the order in which they are shown."""

_BY_ALIAS: Mapping[str, Language] = {
    name: language for language in LANGUAGES.values() for name in (language.name, *language.aliases)
}


def find(name: str) -> Language:
    """Return the language of a name or an alias; upper and lower case are the same.

    Raises:
        RequestError: no language has this name; the message lists them and the closest.
    """
    key = name.strip().lower()
    if key in _BY_ALIAS:
        return _BY_ALIAS[key]
    close = difflib.get_close_matches(key, _BY_ALIAS, n=1)
    hint = f"; did you mean {_BY_ALIAS[close[0]].name!r}?" if close else ""
    raise RequestError(f"language: expected one of {', '.join(LANGUAGES)}, received {name[:50]!r}{hint}")
