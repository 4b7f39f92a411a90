"""Language Executors: one file per language, found by name.

A module of this package that defines ``LANGUAGE`` is a language; nothing else has to list it.

Invariant: a name or an alias belongs to one language only.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Mapping

from sandbox.errors import RequestError
from sandbox.languages.language import Language, Plan, Stage

__all__ = ["LANGUAGES", "Language", "Plan", "Stage", "find"]

_SHOWN_FIRST = ("python", "javascript", "typescript", "java", "go", "cpp", "php", "swift")


def _discover() -> dict[str, Language]:
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    found: dict[str, Language] = {
        module.LANGUAGE.name: module.LANGUAGE for module in modules if hasattr(module, "LANGUAGE")
    }
    return {name: found[name] for name in (*_SHOWN_FIRST, *sorted(found.keys() - set(_SHOWN_FIRST)))}


LANGUAGES: Mapping[str, Language] = _discover()
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
