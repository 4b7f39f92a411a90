"""The Python index of this host: uv's variables, pip's configuration, or the default that pip itself names.

Invariant: an index that pip would not use is not used here.
"""

import ast
import os
import re
import sys
from collections.abc import Mapping

from sandbox.egress.registry import Registry, RegistryKind
from sandbox.egress.tools.found import ask_tool, found_registry, numbered

__all__ = ["default_index", "parse_config", "registries"]

# pip lets the environment win over its files, and a command's own section over the global one.
SECTIONS = (":env:", "install", "global")


def registries() -> list[Registry]:
    """Return pip's indexes: the main one first, then the extra ones."""
    pip = _pip()
    config = parse_config(ask_tool([*pip, "config", "list"]) or "") if pip else {}
    if config.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        return []
    main = _uv("UV_DEFAULT_INDEX") or _uv("UV_INDEX_URL") or config.get("index-url", "").split()
    if not main and pip:
        main = default_index(ask_tool([*pip, "download", "--help"], {"COLUMNS": "400"}) or "")
    extra = _uv("UV_INDEX") or _uv("UV_EXTRA_INDEX_URL") or config.get("extra-index-url", "").split()
    ca_file = config.get("cert", "")
    return [
        found_registry(RegistryKind.PYPI, url, name=numbered(RegistryKind.PYPI, position), ca_file=ca_file)
        for position, url in enumerate(dict.fromkeys([*main[:1], *extra]))
    ]


def parse_config(text: str) -> Mapping[str, str]:
    """Parse what ``pip config list`` prints: ``section.key='value'`` lines."""
    found: dict[str, tuple[int, str]] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(?P<section>:env:|[a-z]+)\.(?P<key>[a-z-]+)=(?P<value>['\"].*['\"])", line)
        if match is None or match["section"] not in SECTIONS:
            continue
        rank = SECTIONS.index(match["section"])
        if match["key"] not in found or rank < found[match["key"]][0]:
            found[match["key"]] = (rank, str(ast.literal_eval(match["value"])))
    return {key: value for key, (_, value) in found.items()}


def default_index(help_text: str) -> list[str]:
    """Return the index that pip takes when nothing is configured, as its help names it."""
    match = re.search(r"--index-url <url>.*?\(default\s+(?P<url>https?://\S+?)\)", help_text, re.DOTALL)
    return [match["url"]] if match else []


def _pip() -> list[str]:
    for candidate in ([sys.executable, "-m", "pip"], ["pip3"], ["pip"]):
        if ask_tool([*candidate, "--version"]) is not None:
            return candidate
    return []


def _uv(variable: str) -> list[str]:
    """Read one of uv's variables; ``name=url`` is its way to name an index."""
    return [
        re.sub(r"^[A-Za-z0-9_-]+=(?=https?:|file:)", "", url) for url in os.environ.get(variable, "").split()
    ]
