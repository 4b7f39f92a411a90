"""Where a JSON-RPC end point is: its URL, parsed once, and what of it may be shown.

Invariant: a URL's credentials (user, password, path, query) never leave this module in a message.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from blueprint.errors import ConfigError

__all__ = ["Endpoint", "parse_endpoint"]

_EXPECTED = (
    "expected ws://, wss://, http:// or https:// with a host, or ipc:///path, or a path ending in .ipc"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A parsed end point."""

    kind: Literal["http", "websocket", "ipc"]
    url: str = field(repr=False)
    """The whole URL, which may hold credentials; the path of the socket for ``ipc``."""
    shown: str
    """Scheme, host and port only: safe for logs and messages."""

    def redact(self, text: str) -> str:
        """Return ``text`` without this end point's URL, and short enough for one line of a log."""
        return " ".join(text.replace(self.url, self.shown).split())[:300]


def parse_endpoint(url: str) -> Endpoint:
    """Return the end point that ``url`` names.

    Raises:
        ConfigError: the URL has an unknown scheme, no host, or a bad port.
    """
    text = url.strip()
    if text.startswith("ipc://") or ("://" not in text and text.endswith(".ipc")):
        path = text.removeprefix("ipc://")
        if not Path(path).name or (text.startswith("ipc://") and not path.startswith("/")):
            raise ConfigError(f"rpc url: {_EXPECTED}; received an ipc URL without an absolute path")
        return Endpoint(kind="ipc", url=path, shown=f"ipc://{path}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigError(f"rpc url: {_EXPECTED}; received a URL whose host or port cannot be read") from exc
    # A URL without a scheme may begin with a key, so only a word before :// is quoted.
    scheme = parts.scheme.lower() if "://" in text else ""
    if scheme not in {"ws", "wss", "http", "https"}:
        hint = f"the scheme {scheme!r}" if scheme else "a URL without a scheme"
        raise ConfigError(f"rpc url: {_EXPECTED}; received {hint}")
    if not host or any(character.isspace() for character in text):
        raise ConfigError(f"rpc url: {_EXPECTED}; received a {scheme} URL without a usable host")
    bracketed = f"[{host}]" if ":" in host else host
    shown = f"{scheme}://{bracketed}" + (f":{port}" if port is not None else "")
    kind: Literal["http", "websocket"] = "http" if scheme.startswith("http") else "websocket"
    return Endpoint(kind=kind, url=text, shown=shown)
