"""The npm registries of this host: the main one, those of scopes, and the logins in its ``.npmrc`` files.

Invariant: a login belongs to the longest address prefix that npm has it for, and to nothing beside it.
"""

import base64
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from sandbox.egress.registry import Credentials, Registry, RegistryConfigError, RegistryKind
from sandbox.egress.tools.found import ask_tool, found_registry

__all__ = ["credentials_for", "parse_npmrc", "registries"]


def registries() -> list[Registry]:
    """Return the main registry and one for each scope that has its own."""
    said = ask_tool(["npm", "config", "list", "--json"])
    told: Mapping[str, object] = json.loads(said) if said else {}
    paths = [told.get("globalconfig", "/etc/npmrc"), told.get("userconfig", Path.home() / ".npmrc")]
    files: dict[str, str] = {}
    for path in paths:
        files |= parse_npmrc(Path(str(path)), os.environ)
    values = {**files, **{key: value for key, value in told.items() if isinstance(value, str)}}
    ca_file = str(values.get("cafile") or "")
    found = []
    for key, scope in {
        "registry": "",
        **{key: key.partition(":")[0] for key in values if _is_scope(key)},
    }.items():
        if url := values.get(key):
            name = f"npm-{re.sub(r'[^a-z0-9]+', '-', scope[1:].lower()).strip('-')[:28]}" if scope else "npm"
            who = credentials_for(str(url), files)
            found.append(
                found_registry(
                    RegistryKind.NPM, str(url), name=name, scope=scope, credentials=who, ca_file=ca_file
                )
            )
    return found


def parse_npmrc(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Read ``key=value`` lines; ``${NAME}`` stands for a variable, and stays where there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.lstrip().startswith(("#", ";")):
            plain = re.sub(
                r"\$\{([^}]+)\}", lambda match: environ.get(match[1], match[0]), value.strip().strip("\"'")
            )
            found[key.strip()] = plain
    return found


def credentials_for(url: str, npmrc: Mapping[str, str]) -> Credentials | None:
    """Find the login for an address under ``//host/path/:_authToken`` and its like, the longest path first.

    Raises:
        RegistryConfigError: a login cannot be read.
    """
    parts = urlsplit(url)
    folders = [folder for folder in parts.path.split("/") if folder]
    for depth in range(len(folders), -1, -1):
        prefix = f"//{parts.netloc}/" + "".join(f"{folder}/" for folder in folders[:depth])
        if token := npmrc.get(f"{prefix}:_authToken"):
            return Credentials(token=token)
        if pair := npmrc.get(f"{prefix}:_auth"):
            return _from_base64(pair)
        if username := npmrc.get(f"{prefix}:username"):
            return _from_base64(npmrc.get(f"{prefix}:_password", ""), username)
    return None


def _from_base64(encoded: str, username: str = "") -> Credentials:
    try:
        plain = base64.b64decode(encoded, validate=True).decode()
    except ValueError as exc:
        raise RegistryConfigError(
            "registry npm: a password in .npmrc is not in base64, as npm wants it"
        ) from exc
    if username:
        return Credentials(username=username, password=plain)
    name, _, password = plain.partition(":")
    return Credentials(username=name, password=password)


def _is_scope(key: str) -> bool:
    return re.fullmatch(r"@[^/:]+:registry", key) is not None
