"""A named egress policy: the operator's list of what a run may reach, and the verdict on an address.

Invariant: nothing is reachable that no pattern names; a name never opens an address of this machine, of its
networks or of the cloud's metadata service: those open only where a pattern names the address itself.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from typing_extensions import override

from sandbox.errors import SandboxError

__all__ = [
    "Destination",
    "EgressBounds",
    "EgressPolicy",
    "PolicyConfigError",
    "parse_destination",
    "proxy_environment",
]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
MIB = 1024 * 1024
_POLICY_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
# The last label begins with a letter: what only looks like a name, inet_aton(3) would read as an address.
_HOST_NAME = re.compile(rf"(?:{_LABEL}\.)*[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?")
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]+\]|[^:\[\]]+):(?P<port>[0-9]{1,5})")
_NAME_LENGTH = 253
_LAST_PORT = 65535
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class PolicyConfigError(SandboxError):
    """An egress policy makes no sense; the message names the policy and the pattern."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a program wants to connect to: a name in lower case or an address, and a port."""

    host: str
    port: int

    @property
    def address(self) -> IpAddress | None:
        """The host as an address, None when it is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @override
    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressBounds:
    """What one run may take of the network."""

    connections: int = 16
    """At the same time."""
    total_connections: int = 1000
    total_bytes: int = 256 * MIB
    """Sent and received together."""
    connect_s: float = 10.0
    idle_s: float = 60.0
    """How long one direction of a connection may stay open after the other has ended."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    host: str
    """A name, or ``.example.org`` for every name below it; empty for a network."""
    network: IpNetwork | None
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressPolicy:
    """What a run may reach.

    Raises:
        PolicyConfigError: a name or a pattern makes no sense.
    """

    name: str
    """``[a-z0-9-]``; requests ask for it, results name it."""
    allow: Sequence[str]
    """``host:port``, ``*.example.org:port``, ``address:port``, ``network/bits:port``; IPv6 in brackets."""
    bounds: EgressBounds = EgressBounds()
    _patterns: tuple[_Pattern, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _POLICY_NAME.fullmatch(self.name):
            raise PolicyConfigError(
                f"egress policy {self.name!r}: a name of a-z, 0-9 and dashes is expected, at most 32 long"
            )
        object.__setattr__(self, "_patterns", tuple(self._parse(pattern) for pattern in self.allow))

    def names(self, destination: Destination) -> bool:
        """Say whether a pattern names what a program asks for."""
        if (address := destination.address) is not None:
            return self.names_address(address, destination.port)
        return any(
            pattern.port == destination.port
            and (
                pattern.host == destination.host
                or (pattern.host.startswith(".") and destination.host.endswith(pattern.host))
            )
            for pattern in self._patterns
        )

    def names_address(self, address: IpAddress, port: int) -> bool:
        """Say whether a pattern names an address itself, or its network."""
        plain = plain_address(address)
        return any(
            pattern.network is not None
            and pattern.port == port
            and plain.version == pattern.network.version
            and plain in pattern.network
            for pattern in self._patterns
        )

    def opens(self, address: IpAddress, port: int) -> bool:
        """Say whether an address to which an allowed name resolves may be connected to."""
        # SECURITY: names lead anywhere their owner likes: test_name_that_resolves_inwards_is_refused.
        return is_public(address) or self.names_address(address, port)

    def _parse(self, pattern: str) -> _Pattern:
        match = _AUTHORITY.fullmatch(pattern.lower())
        port = int(match["port"]) if match else 0
        if match is None or not 0 < port <= _LAST_PORT:
            raise PolicyConfigError(
                f"egress policy {self.name}: host:port is expected, received {pattern[:100]!r}"
            )
        host = match["host"].replace("[", "").replace("]", "")
        try:
            return _Pattern("", ipaddress.ip_network(host), port)
        except ValueError:
            name = host.removeprefix("*.")
            if not _is_name(name) or (host != name and "." not in name):
                raise PolicyConfigError(
                    f"egress policy {self.name}: a name, *.name with a dot in it, an address or a network "
                    f"is expected, received {pattern[:100]!r}"
                ) from None
            return _Pattern(name if host == name else f".{name}", None, port)


def parse_destination(authority: str) -> Destination | None:
    """Parse ``host:port``; None when it is neither a plain name nor an address in its usual form."""
    match = _AUTHORITY.fullmatch(authority)
    if match is None or not 0 < int(match["port"]) <= _LAST_PORT or "%" in authority:
        return None
    host, port = match["host"].lower(), int(match["port"])
    try:
        return Destination(host=str(ipaddress.ip_address(host.strip("[]"))), port=port)
    except ValueError:
        name = host.removesuffix(".")
        return Destination(host=name, port=port) if _is_name(name) else None


def _is_name(text: str) -> bool:
    return len(text) <= _NAME_LENGTH and _HOST_NAME.fullmatch(text) is not None


def plain_address(address: IpAddress) -> IpAddress:
    """Take an IPv4 address out of the IPv6 addresses that carry one to the same place."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if address.sixtofour is not None:
            return address.sixtofour
    return address


def is_public(address: IpAddress) -> bool:
    """Say whether an address is of the public internet, whatever it is wrapped in."""
    plain = plain_address(address)
    if not plain.is_global or plain.is_multicast or plain.is_reserved or plain.is_unspecified:
        return False
    return plain.version == 4 or (plain in _GLOBAL_V6 and plain.teredo is None)  # noqa: PLR2004


def proxy_environment(port: int) -> Mapping[str, str]:
    """Return the variables by which programs find the proxy inside."""
    url = f"http://127.0.0.1:{port}"
    java = " ".join(
        f"-D{scheme}.proxyHost=127.0.0.1 -D{scheme}.proxyPort={port}" for scheme in ("http", "https")
    )
    return {
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), url),
        "NO_PROXY": "",
        "no_proxy": "",
        "NODE_USE_ENV_PROXY": "1",
        "JDK_JAVA_OPTIONS": f"{java} -Dhttp.nonProxyHosts=",
    }
