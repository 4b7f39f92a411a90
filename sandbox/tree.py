"""A language tree as an execution sees it: a read-only root file system and the runtimes in it.

Invariant: a `LanguageTree` that exists is complete on disk; building and finding trees is `sandbox.rootfs`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LanguageTree", "Library", "Runtime"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A library inside a tree that a compiled program may ask for."""

    name: str
    version: str
    include: str
    """The absolute folder of its headers as seen inside the tree."""
    archives: str = ""
    """The absolute folder of its static archives; empty when it has none."""
    flags: tuple[str, ...] = ()
    """What the compiler is told after the sources, in this order."""
    needs: tuple[str, ...] = ()
    """The names of libraries that it is built on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """One version of one language inside a tree."""

    language: str
    version: str
    """The exact version that the program itself prints."""
    programs: Mapping[str, str]
    """Role (``run``, ``compile``, ``install`` ...) to absolute path as seen inside the tree."""
    libraries: tuple[Library, ...] = ()
    """What its programs may ask for by name, beside what an installer brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageTree:
    """A root file system that is mounted read-only as ``/`` of every sandbox."""

    path: Path
    """Where the tree lies on this machine; ``/`` for the host tree."""
    digest: str
    """Hexadecimal SHA-256 that names the tree's content; for the host tree, of its list of versions."""
    kind: str
    """``debian`` for a tree built by our recipe, ``host`` for the host's own ``/usr``."""
    runtimes: tuple[Runtime, ...]
