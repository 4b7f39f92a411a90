"""A language tree as an execution sees it: a read-only root file system and the runtimes in it.

Invariant: a `LanguageTree` that exists is complete on disk; building and finding trees is `sandbox.rootfs`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LanguageTree", "Runtime"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """One version of one language inside a tree."""

    language: str
    version: str
    """The exact version that the program itself prints."""
    programs: Mapping[str, str]
    """Role (``run``, ``compile`` ...) to absolute path as seen inside the tree."""


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
