"""A layer: what was installed for one set of dependencies, and the record of what that is.

Invariant: a `Layer` that exists lies whole on disk, and is pinned until it is closed: nobody removes it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sandbox.dependencies.filelock import FileLock

__all__ = ["Layer", "LayerGoneError", "LayerManifest"]

FORMAT = 1


class LayerGoneError(Exception):
    """A layer that was there when a request was planned is not there any more, or too old by now.

    It never leaves this package and the executor, which plans again.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerManifest:
    """What a layer holds and where it came from."""

    key: str
    """Hexadecimal SHA-256 over everything that the installation was told."""
    language: str
    version: str
    requested: tuple[str, ...]
    """The dependencies as the request named them."""
    lock: str = ""
    """What was installed: one package a line, with its exact version."""
    digest: str = ""
    """Hexadecimal SHA-256 over the content, as a language tree's."""
    size_bytes: int = 0
    files: int = 0
    made_at_s: float = 0.0
    """Seconds since 1970."""
    format: int = FORMAT

    def to_json(self) -> str:
        """Return the text of ``manifest.json``."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "LayerManifest":
        """Read a ``manifest.json``.

        Raises:
            ValueError: it is none, or of another format.
        """
        data = json.loads(text)
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ValueError(f"layer manifest: expected format {FORMAT}")
        if {each.name for each in fields(cls)} != set(data):
            raise ValueError("layer manifest: expected other fields")
        return cls(**{**data, "requested": tuple(data["requested"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer in use."""

    root: Path
    """The folder that a sandbox mounts read-only."""
    manifest: LayerManifest
    pin: FileLock

    def close(self) -> None:
        """Give up the pin; the layer may be removed from now on."""
        self.pin.close()
