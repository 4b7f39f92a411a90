"""Puts the mirror's address in place of a registry's own in what the registry says, as it streams by.

Invariant: what has been fed comes out in order, and no more is held back than the longest address is long,
so that an answer of any size needs the memory of one piece.
"""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from sandbox.egress.registry import DEFAULT_PORTS, Area

__all__ = ["Rewriter"]

_BESIDES = 1
"""What a pattern looks at after the address."""


class Rewriter:
    """Rewrites one answer. Hosts are looked for in lower case, as registries write them: that is fast.

    Args:
        areas: whose addresses are replaced.
        mirror_url: the mirror's own address, without a slash at its end.
        from_root: also replace addresses without a host that begin at the root of a registry's own.
    """

    def __init__(self, areas: Iterable[Area], mirror_url: str, *, from_root: bool) -> None:
        replaced: dict[str, str] = {}
        followed: set[str] = set()
        for area in areas:
            ours = f"{mirror_url}/{area.segment}/"
            for plain in _spellings(area.root):
                replaced |= {plain: ours, _escaped(plain): _escaped(ours)}
            if from_root and area.has_metadata:
                path, here = urlsplit(area.root).path, f"/{area.segment}/"
                quoted = {f"{quote}{path}": f"{quote}{here}" for quote in "\"'"}
                quoted[f'"{_escaped(path)}'] = f'"{_escaped(here)}'
                replaced |= quoted
                followed |= set(quoted)  # "//host" is another address
        patterns = (re.escape(each) + (r"(?![/\\])" if each in followed else "") for each in replaced)
        self._pattern = re.compile("|".join(patterns).encode())
        self._replaced = {each.encode(): ours.encode() for each, ours in replaced.items()}
        self._held_bytes = max(map(len, self._replaced), default=0) + _BESIDES
        self._kept = b""

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece, give back what is certain."""
        self._kept += piece
        return self._release(len(self._kept) - self._held_bytes)

    def finish(self) -> bytes:
        """Give back the rest."""
        return self._release(len(self._kept))

    def _release(self, until: int) -> bytes:
        out, place = [], 0
        for match in self._pattern.finditer(self._kept):
            if match.start() >= until:
                break
            out += [self._kept[place : match.start()], self._replaced[match[0]]]
            place = match.end()
        if place < until:
            out.append(self._kept[place:until])
            place = until
        self._kept = self._kept[place:]
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
