"""The repositories of Composer on this host: its global configuration, and the default that it prints.

Invariant: only repositories of the type ``composer`` are taken; sources and folders are none to mirror.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from sandbox.egress.registry import Credentials, Registry, RegistryKind
from sandbox.egress.tools.found import ask_tool, found_registry, numbered

__all__ = ["credentials_for", "parse_listing", "registries", "repositories_of"]


def registries() -> list[Registry]:
    """Return what Composer would ask, in its order."""
    listing = ask_tool(
        ["composer", "config", "--global", "--list", "--no-interaction", "--no-ansi"],
        {"COMPOSER_ALLOW_SUPERUSER": "1"},
    )
    home = _home()
    urls = parse_listing(listing) if listing else repositories_of(_read(home / "config.json"))
    auth = _read(home / "auth.json")
    return [
        found_registry(
            RegistryKind.COMPOSER,
            url,
            name=numbered(RegistryKind.COMPOSER, position),
            credentials=credentials_for(url, auth),
        )
        for position, url in enumerate(urls)
    ]


def parse_listing(text: str) -> list[str]:
    """Parse ``[repositories.NAME.url] ADDRESS`` and ``.type`` lines of ``composer config --list``."""
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        match = re.match(r"\[repositories\.(?P<name>.+)\.(?P<key>url|type)\]\s+(?P<value>\S+)", line.strip())
        if match:
            found.setdefault(match["name"], {})[match["key"]] = match["value"].replace("https?:", "https:")
    return [each["url"] for each in found.values() if each.get("type") == "composer" and "url" in each]


def repositories_of(config: Mapping[str, object]) -> list[str]:
    """Read the repositories of ``config.json``, a list or a table."""
    listed = config.get("repositories", {})
    each = listed.values() if isinstance(listed, dict) else listed if isinstance(listed, list) else ()
    return [
        str(entry["url"]) for entry in each if isinstance(entry, dict) and entry.get("type") == "composer"
    ]


def credentials_for(url: str, auth: Mapping[str, object]) -> Credentials | None:
    """Find the login of a host in ``auth.json``."""
    host = urlsplit(url).netloc
    bearers, basics = auth.get("bearer"), auth.get("http-basic")
    if isinstance(bearers, dict) and host in bearers:
        return Credentials(token=str(bearers[host]))
    if isinstance(basics, dict) and isinstance(pair := basics.get(host), dict):
        return Credentials(username=str(pair.get("username", "")), password=str(pair.get("password", "")))
    return None


def _home() -> Path:
    if told := os.environ.get("COMPOSER_HOME"):
        return Path(told)
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "composer"
    return config if config.is_dir() else Path.home() / ".composer"


def _read(path: Path) -> Mapping[str, object]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
