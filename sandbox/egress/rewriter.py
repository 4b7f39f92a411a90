"""Puts the mirror's address in place of a registry's own in what the registry says, as it streams by.

Invariant: what has been fed comes out in order, and no more is held back than the longest address is long,
so that an answer of any size needs the memory of one piece.
"""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from sandbox.egress.registry import DEFAULT_PORTS, Area

__all__ = ["Rewriter"]

_BESIDES = 4
"""What a pattern looks at beside the address: a quote before it, an escaped slash after it."""


class Rewriter:
    """Rewrites one answer.

    Args:
        areas: whose addresses are replaced.
        mirror_url: the mirror's own address, without a slash at its end.
        from_root: also replace addresses without a host that begin at the root of a registry's own.
    """

    def __init__(self, areas: Iterable[Area], mirror_url: str, *, from_root: bool) -> None:
        patterns: list[str] = []
        self._replacements: list[bytes] = []
        for area in areas:
            ours = f"{mirror_url}/{area.segment}/"
            for plain in _spellings(area.root):
                patterns += [re.escape(plain), re.escape(_escaped(plain))]
                self._replacements += [ours.encode(), _escaped(ours).encode()]
            if from_root and area.has_metadata:
                path = urlsplit(area.root).path
                patterns += [
                    rf"(?<=[\"']){re.escape(path)}(?![/])",
                    rf"(?<=\"){re.escape(_escaped(path))}(?!\\)",
                ]
                self._replacements += [f"/{area.segment}/".encode(), _escaped(f"/{area.segment}/").encode()]
        self._pattern = re.compile("|".join(f"({each})" for each in patterns).encode(), re.IGNORECASE)
        self._held_bytes = max(map(len, patterns), default=0) + _BESIDES
        self._kept = b""
        self._done = 0
        """How much at the start of what is kept has already gone out; it is there to be looked back at."""

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece, give back what is certain."""
        self._kept += piece
        return self._release(len(self._kept) - self._held_bytes)

    def finish(self) -> bytes:
        """Give back the rest."""
        return self._release(len(self._kept))

    def _release(self, until: int) -> bytes:
        out, place = [], self._done
        if until <= place:
            return b""
        for match in self._pattern.finditer(self._kept, place):
            if match.start() >= until:
                break
            assert match.lastindex is not None
            out += [self._kept[place : match.start()], self._replacements[match.lastindex - 1]]
            place = match.end()
        if place < until:
            out.append(self._kept[place:until])
            place = until
        self._kept, self._done = self._kept[max(0, place - 1) :], min(1, place)
        return b"".join(out)


def _spellings(root: str) -> Iterator[str]:
    """Yield the ways in which a document may write an address: either scheme, with and without the port."""
    url = urlsplit(root)
    yield root
    if url.scheme == "file" or url.hostname is None:
        return
    if url.port in (None, DEFAULT_PORTS[url.scheme]):
        for scheme, port in DEFAULT_PORTS.items():
            for netloc in (url.hostname, f"{url.hostname}:{port}"):
                if (spelled := f"{scheme}://{netloc}{url.path}") != root:
                    yield spelled


def _escaped(text: str) -> str:
    """Write slashes as some JSON writers do."""
    return text.replace("/", r"\/")
