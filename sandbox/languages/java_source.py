"""Reads what must be known of a Java source before it is compiled: package, public type, class with ``main``.

Invariant: this never decides whether a program is valid, the compiler does; it only names things.
"""

import re
from dataclasses import dataclass

__all__ = ["JavaSource", "scan"]

# Text blocks, strings, characters and comments can hold braces and words that are not code.
# SECURITY: what is not closed ends with the line or the file, and every pattern looks at a character a few
# times at most: the service itself reads what a caller wrote (test_sources_are_read_at_once).
_NOT_CODE = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"""|\\?\Z)|"(?:\\.|[^"\\\n])*"?|\'(?:\\.|[^\'\\\n])*\'?|//[^\n]*|/\*.*?(?:\*/|\Z)',
    re.DOTALL,
)
_TOKEN = re.compile(
    r"(?P<end>[{};])"
    r"|(?P<public>\bpublic\b)"
    r"|\b(?:class|record|enum|interface)\s+(?P<type>[\w$]+)"
    r"|(?P<main>\bvoid\s+main\s*\()"
)
_PACKAGE = re.compile(r"^[^\S\n]*(?:@\w+[^\S\n]+)*package\s+([\w.$]+)\s*;", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class JavaSource:
    """What one source file declares; names as the source writes them."""

    package: str | None
    public_type: str | None
    main_class: str | None
    """The class with a ``main`` method, with its package; None when there is none."""


def scan(content: bytes, stem: str) -> JavaSource:
    """Read one source file.

    Args:
        content: the source; what is not UTF-8 is replaced, which changes no name.
        stem: the file's name without its suffix: the name of the class that Java gives to a file with a
            ``main`` method outside any class (compact source files, Java 25).
    """
    code = _NOT_CODE.sub(" ", content.decode("utf-8", "replace"))
    package_match = _PACKAGE.search(code)
    package = package_match[1] if package_match else None
    depth, outer, public_type = 0, None, None
    is_public = False
    mains: list[str] = []
    for token in _TOKEN.finditer(code):
        if token["end"]:
            depth += {"{": 1, "}": -1, ";": 0}[token["end"]]
            is_public = False
        elif token["public"]:
            is_public = True
        elif token["type"] and depth == 0:
            outer = token["type"]
            public_type = outer if is_public else public_type
        elif token["main"] and depth == 0:
            mains.append(stem)
        elif token["main"] and depth == 1 and outer:
            mains.append(outer)
    main = public_type if public_type in mains else next(iter(mains), None)
    full = f"{package}.{main}" if package and main else main
    return JavaSource(package=package, public_type=public_type, main_class=full)
