"""Reads the ports that a service publishes, in the short and the long form.

Invariant: two services never ask for the same port of the guest.
Source of the rule: the compose specification, ``ports``.
"""

import ipaddress
import re
from collections.abc import Iterator

from jobs.deploy.compose.document import Part
from jobs.deploy.compose.findings import Finding

__all__ = ["Ports"]

_SHORT = re.compile(
    r"(?:(?P<ip>\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-fA-F:]+\]):)?"
    r"(?:(?P<published>\d+(?:-\d+)?)?:)?(?P<target>\d+(?:-\d+)?)(?:/(?P<protocol>tcp|udp))?"
)
_HIGHEST = 65_535
_MOST = 1000
"""Ports of one range: each is published by a process of its own."""


class Ports:
    """The ports of all services together."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, int], str] = {}

    def check(self, part: Part, service: str) -> Iterator[Finding]:
        """Yield what is wrong with one entry of ``ports``."""
        if part.entries is not None:
            yield from self._check_long(part, service)
            return
        match = _SHORT.fullmatch(part.text)
        if match is None or not _is_address(match["ip"]):
            yield part.finding(
                f"{part.text[:60]!r} is no port: expected 80, 8080:80 or 127.0.0.1:8080:80/tcp"
            )
            return
        protocol = match["protocol"] or "tcp"
        yield from self._check(part, service, match["published"] or "", match["target"], protocol)

    def _check_long(self, part: Part, service: str) -> Iterator[Finding]:
        texts = {name: entry.text for name, entry in (part.entries or {}).items()}
        if not _is_address(texts.get("host_ip")):
            yield part.finding(f"{texts['host_ip'][:40]!r} is no address")
            return
        protocol = texts.get("protocol", "tcp")
        yield from self._check(part, service, texts.get("published", ""), texts["target"], protocol)

    def _check(
        self, part: Part, service: str, published: str, target: str, protocol: str
    ) -> Iterator[Finding]:
        ranges = [_numbers(text) for text in (published, target) if text]
        if any(numbers is None for numbers in ranges):
            yield part.finding(
                f"ports lie between 1 and {_HIGHEST}, the lower end of a range first, and a range holds at "
                f"most {_MOST}"
            )
            return
        sizes = {len(numbers) for numbers in ranges if numbers is not None}
        if len(sizes) > 1:
            yield part.finding("both ranges must hold equally many ports")
        wanted = (ranges[0] or ()) if published else ()
        if taken := next((port for port in wanted if (protocol, port) in self._taken), None):
            holder = self._taken[protocol, taken]
            yield part.finding(f"port {taken}/{protocol} is published by {holder} already")
        self._taken.update(((protocol, port), service) for port in wanted)


def _is_address(text: str | None) -> bool:
    try:
        ipaddress.ip_address((text or "::").strip("[]"))
    except ValueError:
        return False
    return True


def _numbers(text: str) -> range | None:
    first, _, last = text.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal():
        return None
    low, high = int(first), int(last or first)
    return range(low, high + 1) if 1 <= low <= high <= min(_HIGHEST, low + _MOST - 1) else None
