"""The module proxies of this host, as ``go env`` says, or the variables where there is no go command.

Invariant: what the go command would check against a checksum database is checked inside as well.
"""

import json
import os
import re
from collections.abc import Mapping

from sandbox.egress.registry import Registry, RegistryKind
from sandbox.egress.tools.found import ask_tool, found_registry, numbered

__all__ = ["parse", "registries"]

NAMES = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE")


def registries() -> list[Registry]:
    """Return the proxies of ``GOPROXY`` in order."""
    said = ask_tool(["go", "env", "-json", *NAMES], {"GOFLAGS": ""})
    return parse(json.loads(said) if said else {name: os.environ.get(name, "") for name in NAMES})


def parse(values: Mapping[str, str]) -> list[Registry]:
    """Take ``GOPROXY`` apart; what comes after ``off`` or ``direct`` cannot be reached through a mirror."""
    environment = {name: values[name] for name in ("GOSUMDB", "GONOSUMDB") if values.get(name)}
    if not environment.get("GONOSUMDB") and values.get("GOPRIVATE"):
        environment["GONOSUMDB"] = values["GOPRIVATE"]
    found: list[Registry] = []
    for url in re.split(r"[,|]", values.get("GOPROXY", "")):
        if url.strip() in ("off", "direct"):
            break
        if url.strip():
            name = numbered(RegistryKind.GO, len(found))
            found.append(found_registry(RegistryKind.GO, url, name=name, environment=environment))
    return found
