"""One package registry: where it is, who we are to it, and which addresses belong to it.

Invariant: an address belongs to a registry only when it lies under one of its areas, compared part by part
after every encoding is undone; credentials belong to the first area only.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import unquote, urlsplit

from sandbox.errors import SandboxError

__all__ = ["Area", "Credentials", "Registry", "RegistryConfigError", "RegistryKind", "clean_path"]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?", re.IGNORECASE)
_PLAIN_PATH = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
_SCOPE_SLASH = re.compile(r"(?:^|(?<=/))(?:@|%40)[a-z0-9\-._~]+%2f(?=[a-z0-9\-._~])")
_DECODINGS = 3
_INDEX_FOLDERS = ("simple", "+simple")
DEFAULT_PORTS = {"http": 80, "https": 443}


class RegistryConfigError(SandboxError):
    """The configuration of a registry makes no sense; the message names the registry and the fix."""


class RegistryKind(StrEnum):
    """The protocols that are understood."""

    PYPI = "pypi"
    NPM = "npm"
    GO = "go"
    MAVEN = "maven"
    COMPOSER = "composer"
    SWIFT = "swift"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who we are to a registry: a token, or a name and a password."""

    token: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)

    def header(self) -> str:
        """Return the value of ``Authorization``."""
        if self.token:
            return f"Bearer {self.token}"
        pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")
        return f"Basic {pair}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """Addresses of a registry that are reachable: all below ``root``, shown below ``/segment/``."""

    segment: str
    """First part of the path inside: the registry's name, or the name, ``~`` and a number."""
    root: str
    """Where it really is; ends with a slash."""
    has_credentials: bool
    has_metadata: bool
    """True where answers may hold addresses that must be rewritten."""

    def path_of(self, url: str) -> str | None:
        """Return what of ``url`` lies below the root, with its query; None when it does not.

        The answer is safe to append to ``root``: `clean_path` has seen it.
        """
        wanted, ours = urlsplit(url), urlsplit(self.root)
        if _origin(url) != _origin(self.root) or "@" in wanted.netloc:
            return None
        if not wanted.path.startswith(ours.path):
            return None
        path = clean_path(wanted.path[len(ours.path) :])
        if path is None:
            return None
        return f"{path}?{wanted.query}" if wanted.query else path


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """A place to install packages from.

    Raises:
        RegistryConfigError: a field makes no sense.
    """

    name: str
    """What it is called in requests, messages, locks and layers: ``[a-z0-9-]``, unique."""
    kind: RegistryKind
    base_url: str = field(repr=False)
    """As the tool's own configuration gives it: ``https://``, ``http://`` or ``file://``."""
    download_hosts: tuple[str, ...] | None = None
    """Other hosts, ``name`` or ``name:port``, where the registry keeps its files.

    None: the mirror asks an index of Python packages once where it keeps the files of pip; others have none.
    """
    credentials: Credentials | None = field(default=None, repr=False)
    """Sent to the registry itself, never to a download host, never shown inside."""
    is_private: bool = False
    """Whether layers from it belong to one tenant."""
    scope: str = ""
    """The packages it serves where that is not all of them: ``@acme`` (npm), ``acme`` (Swift)."""
    ca_file: str = ""
    """Certificates to trust instead of the host's own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Further settings of the tool that hold inside too, such as ``GOSUMDB``."""

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if not _NAME.fullmatch(self.name):
            raise RegistryConfigError(
                f"registry {self.name!r}: a name of a-z, 0-9 and dashes is expected, at most 32 long"
            )
        if url.scheme not in ("http", "https", "file") or (url.scheme != "file" and not url.hostname):
            raise RegistryConfigError(
                f"registry {self.name}: an address with http://, https:// or file:// is expected"
            )
        if url.query or url.fragment or "@" in url.netloc or clean_path(url.path.lstrip("/")) is None:
            raise RegistryConfigError(
                f"registry {self.name}: an address without password, query, fragment and '..' is expected; "
                "credentials have a field of their own"
            )
        for host in self.download_hosts or ():
            if not _HOST.fullmatch(host):
                raise RegistryConfigError(
                    f"registry {self.name}: a download host is a name with an optional port, "
                    f"received {host[:64]!r}"
                )

    @property
    def inside_path(self) -> str:
        """Where the tool inside finds it: the path of its index at the mirror, without a slash at its end."""
        base, root = urlsplit(self.base_url).path.rstrip("/"), urlsplit(self.areas[0].root).path
        below = (base + "/")[len(root) :].strip("/")
        return f"/{self.name}/{below}".rstrip("/")

    @property
    def areas(self) -> tuple[Area, ...]:
        """What is reachable: the registry itself first, then its download hosts."""
        url = urlsplit(self.base_url)
        parts = url.path.strip("/").split("/")
        # An index of Python packages names its files by their place beside the index.
        if self.kind is RegistryKind.PYPI and parts[-1] in _INDEX_FOLDERS:
            parts.pop()
        path = "".join(f"/{part}" for part in parts if part)
        own = Area(
            segment=self.name,
            root=f"{url.scheme}://{url.netloc}{path}/",
            has_credentials=True,
            has_metadata=True,
        )
        scheme = "http" if url.scheme == "http" else "https"
        others = (
            Area(
                segment=f"{self.name}~{number}",
                root=f"{scheme}://{host}/",
                has_credentials=False,
                has_metadata=False,
            )
            for number, host in enumerate(self.download_hosts or (), start=1)
        )
        return (own, *others)


def clean_path(path: str) -> str | None:
    """Return a path without its leading slash as it may be asked for, or None where it plays tricks.

    Refused, also when encoded, once or twice: ``..`` and ``.`` parts, empty parts, backslashes, controls,
    NUL, and encoded slashes (but npm's ``@scope%2fname``, whose slash cannot climb).
    """
    if not _PLAIN_PATH.fullmatch(path):
        return None
    plain = path
    for _ in range(_DECODINGS):
        if "\\" in plain or not plain.isprintable():
            return None
        if any(part.split(";")[0] in ("..", ".") for part in plain.split("/")):
            return None
        try:
            plain = unquote(plain, errors="strict")
        except UnicodeDecodeError:
            return None
    # SECURITY: what a server decodes once more must not climb: test_tricks_with_paths_are_refused.
    hidden = _SCOPE_SLASH.sub("", path.lower())
    return None if "//" in f"/{path}" or "%2f" in hidden or "%252f" in hidden else path


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        return ("", "", None)
    return (parts.scheme, (parts.hostname or "").rstrip("."), port or DEFAULT_PORTS.get(parts.scheme))
