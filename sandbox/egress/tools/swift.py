"""The package registries of SwiftPM on this host: the default one and those of scopes.

Invariant: SwiftPM has no registry of its own: where none is configured there is none.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from sandbox.egress.registry import Registry, RegistryConfigError, RegistryKind
from sandbox.egress.tools.found import found_registry

__all__ = ["parse", "registries"]

DEFAULT = "[default]"


def registries() -> list[Registry]:
    """Return the registries of the user's SwiftPM configuration."""
    path = Path.home() / ".swiftpm/configuration/registries.json"
    return parse(path.read_text(encoding="utf-8")) if path.is_file() else []


def parse(text: str) -> list[Registry]:
    """Parse ``registries.json``, version 1; logins are in ``.netrc``.

    Raises:
        RegistryConfigError: it is not what SwiftPM writes.
    """
    try:
        entries: Mapping[str, Mapping[str, str]] = json.loads(text)["registries"]
        urls = {scope: entry["url"] for scope, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise RegistryConfigError(f"registry swift: registries.json makes no sense: {exc}") from exc
    return [
        found_registry(
            RegistryKind.SWIFT,
            url,
            name="swift" if scope == DEFAULT else f"swift-{re.sub(r'[^a-z0-9]+', '-', scope.lower())[:26]}",
            scope="" if scope == DEFAULT else scope,
        )
        for scope, url in sorted(urls.items(), key=lambda pair: pair[0] != DEFAULT)
    ]
