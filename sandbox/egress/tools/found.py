"""What one tool says of one registry, made into a `Registry`: its address taken apart, its login found.

Invariant: a password never stays in an address, where messages and logs would show it.
"""

import contextlib
import netrc
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from sandbox.egress.registry import Credentials, Registry, RegistryKind

__all__ = ["ask_tool", "found_registry", "numbered"]

ASK_TIMEOUT_S = 60.0


def found_registry(
    kind: RegistryKind,
    url: str,
    *,
    name: str = "",
    credentials: Credentials | None = None,
    scope: str = "",
    ca_file: str = "",
    environment: Mapping[str, str] | None = None,
) -> Registry:
    """Make a registry of an address that may hold a login; else ``.netrc`` is looked into, as the tools do.

    Raises:
        RegistryConfigError: the address makes no sense.
    """
    parts = urlsplit(url.strip())
    own: Credentials | None = None
    if parts.username is not None:
        own = Credentials(username=unquote(parts.username), password=unquote(parts.password or ""))
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    who = credentials or own or (_from_netrc(parts.hostname) if parts.hostname else None)
    return Registry(
        name=name or kind.value,
        kind=kind,
        base_url=urlunsplit(parts),
        credentials=who,
        is_private=who is not None,
        scope=scope,
        ca_file=ca_file,
        environment=environment or {},
    )


def numbered(kind: RegistryKind, position: int) -> str:
    """Name the registries of a kind: ``pypi``, ``pypi-2``, ``pypi-3``."""
    return kind.value if position == 0 else f"{kind.value}-{position + 1}"


def ask_tool(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> str | None:
    """Return what a tool prints, None where it is missing or fails."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            cwd="/",  # a project's own configuration is not this host's
            env={**os.environ, **(environ or {})},
            timeout=ASK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _from_netrc(host: str) -> Credentials | None:
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        if (entry := netrc.netrc(path).hosts.get(host)) is not None:
            return Credentials(username=entry[0], password=entry[2] or "")
    return None
