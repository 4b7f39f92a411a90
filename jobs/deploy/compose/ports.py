"""Reads the ports that a service publishes, in the short and the long form.

Invariant: two services never ask for the same port of the guest.
Source of the rule: the compose specification, ``ports``.
"""

import re
from collections.abc import Iterator

from jobs.deploy.compose.document import Part
from jobs.deploy.compose.findings import Finding

__all__ = ["Ports"]

_SHORT = re.compile(
    r"(?:(?P<ip>\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-fA-F:]+\]):)?"
    r"(?:(?P<published>\d+(?:-\d+)?)?:)?(?P<target>\d+(?:-\d+)?)(?:/(?P<protocol>tcp|udp))?"
)
_LONG = {"name", "target", "published", "host_ip", "protocol", "app_protocol", "mode"}
_HIGHEST = 65_535


class Ports:
    """The ports of all services together."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, int], str] = {}

    def check(self, part: Part, service: str) -> Iterator[Finding]:
        """Yield what is wrong with one entry of ``ports``."""
        if part.entries is not None:
            yield from self._check_long(part, service)
            return
        match = _SHORT.fullmatch(part.text) if part.kind in (str, int, float) else None
        if match is None:
            yield part.finding(
                f"{part.text[:60]!r} is no port: expected 80, 8080:80 or 127.0.0.1:8080:80/tcp"
            )
            return
        protocol = match["protocol"] or "tcp"
        yield from self._check(part, service, match["published"] or "", match["target"], protocol)

    def _check_long(self, part: Part, service: str) -> Iterator[Finding]:
        entries = part.entries or {}
        for name in entries.keys() - _LONG:
            yield entries[name].finding(f"a port has no {name[:40]!r}")
        if "target" not in entries:
            yield part.finding("a port needs a target")
            return
        texts = {name: entries[name].text for name in entries}
        protocol = texts.get("protocol", "tcp")
        if protocol not in ("tcp", "udp"):
            yield entries["protocol"].finding("expected tcp or udp")
            return
        yield from self._check(part, service, texts.get("published", ""), texts["target"], protocol)

    def _check(
        self, part: Part, service: str, published: str, target: str, protocol: str
    ) -> Iterator[Finding]:
        ranges = [_numbers(text) for text in (published, target) if text]
        if any(numbers is None for numbers in ranges):
            yield part.finding(f"ports lie between 1 and {_HIGHEST}, the lower end of a range first")
            return
        sizes = {len(numbers) for numbers in ranges if numbers is not None}
        if len(sizes) > 1:
            yield part.finding("both ranges must hold equally many ports")
        for port in (ranges[0] or ()) if published else ():
            holder = self._taken.get((protocol, port))
            if holder is not None:
                yield part.finding(f"port {port}/{protocol} is published by {holder} already")
            self._taken[protocol, port] = service


def _numbers(text: str) -> range | None:
    first, _, last = text.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal():
        return None
    low, high = int(first), int(last or first)
    return range(low, high + 1) if 1 <= low <= high <= _HIGHEST else None
