"""One request to the mirror, and its answer: from a registry over HTTP, or from a folder.

Invariant: headers pass in both directions by list only; a body goes on as it comes, counted and digested;
where it is a registry's description of packages, addresses of the registry are replaced by the mirror's.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import h11
import httpx

from sandbox.egress.connection import PIECE_BYTES, HttpConnection
from sandbox.egress.ledger import Fetched, Ledger, RefusedError
from sandbox.egress.local_folder import content_type_of, open_file
from sandbox.egress.registry import Area, Registry, RegistryKind
from sandbox.egress.rewriter import Rewriter
from sandbox.egress.upstream import decoded, open_upstream

__all__ = ["Exchange"]

ASKED = ("accept", "if-none-match", "if-modified-since", "range", "if-range")
ANSWERED = (
    "content-type", "content-length", "content-encoding", "content-range", "accept-ranges", "etag",
    "last-modified", "cache-control", "content-version", "digest", "link", "x-pypi-last-serial",
)  # fmt: skip
REWRITTEN_KINDS = (RegistryKind.PYPI, RegistryKind.NPM, RegistryKind.COMPOSER, RegistryKind.SWIFT)
NOT_AFTER_REWRITING = ("content-length", "content-encoding", "accept-ranges", "digest")
PARTIAL_HEADERS = ("range", "if-range")
_OK = 200
_NO_BODY = (204, 304)
_REFUSED_TO_US = (401, 403, 407)
_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request whose every part has been checked."""

    connection: HttpConnection
    ledger: Ledger
    registry: Registry
    area: Area
    method: str
    path: str
    """Below the area; clean."""
    query: str
    headers: Mapping[bytes, bytes]
    mirror_url: str
    client: Callable[[Registry], httpx.AsyncClient]

    async def run(self) -> None:
        """Answer it.

        Raises:
            RefusedError: it is not served; where the answer has begun, it must be cut short.
            OSError, TimeoutError: the program inside has gone, or reads nothing.
        """
        name = self.registry.name
        clock = asyncio.timeout(self.ledger.bounds.fetch_s)
        try:
            async with clock:
                if self.area.root.startswith("file:"):
                    await self._from_folder()
                else:
                    await self._from_registry()
        except TimeoutError as exc:
            if not clock.expired():
                raise
            why = f"registry {name} cannot be reached (it does not answer in time)"
            raise RefusedError(502, why, registry=name, is_unreachable=True) from exc

    @property
    def _can_be_rewritten(self) -> bool:
        return self.area.has_metadata and self.registry.kind in REWRITTEN_KINDS

    async def _from_registry(self) -> None:
        left_out = PARTIAL_HEADERS if self._can_be_rewritten else ()
        asked = {
            name: self.headers[name.encode()].decode("latin-1")
            for name in ASKED
            if name.encode() in self.headers and name not in left_out
        }
        asked["Accept-Encoding"] = "gzip" if self._can_be_rewritten else "identity"
        url = self.area.root + self.path + (f"?{self.query}" if self.query else "")
        client = self.client(self.registry)
        async with open_upstream(client, self.registry, url, self.method, asked) as response:
            self._judge(response)
            is_rewritten = self._can_be_rewritten and is_description(response.headers.get("content-type", ""))
            headers = [
                (name, response.headers[name])
                for name in ANSWERED
                if name in response.headers and not (is_rewritten and name in NOT_AFTER_REWRITING)
            ]
            try:
                body = decoded(response) if is_rewritten else response.aiter_raw(PIECE_BYTES)
                await self._send(response.status_code, headers, body, is_rewritten=is_rewritten)
            except httpx.HTTPError as exc:
                raise RefusedError(
                    502,
                    f"registry {self.registry.name} cannot be reached (it breaks off)",
                    registry=self.registry.name,
                    is_unreachable=True,
                ) from exc

    def _judge(self, response: httpx.Response) -> None:
        name, status = self.registry.name, response.status_code
        if status in _REFUSED_TO_US and self.area.has_credentials and self.registry.credentials is not None:
            raise RefusedError(502, f"registry {name} refuses our credentials ({status})", registry=name)
        if status >= _SERVER_ERROR:
            raise RefusedError(
                502, f"registry {name} cannot serve now ({status})", registry=name, is_unreachable=True
            )
        length = response.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and self.method == "GET":
            self.ledger.expect(name, int(length), new_bytes=int(length))

    async def _from_folder(self) -> None:
        with open_file(self.registry.name, self.area.root, self.path) as (descriptor, name):
            size_bytes, content_type = os.fstat(descriptor).st_size, content_type_of(name)
            self.ledger.expect(self.registry.name, size_bytes, new_bytes=size_bytes)
            is_rewritten = self._can_be_rewritten and is_description(content_type)
            headers = [("content-type", content_type)]
            if not is_rewritten:
                headers.append(("content-length", str(size_bytes)))
            await self._send(_OK, headers, _pieces_of(descriptor), is_rewritten=is_rewritten)

    async def _send(
        self, status: int, headers: list[tuple[str, str]], body: AsyncIterator[bytes], *, is_rewritten: bool
    ) -> None:
        rewriter = self._rewriter() if is_rewritten else None
        if rewriter is not None:
            headers = [(name, self._rewritten(value) if name == "link" else value) for name, value in headers]
        await self.connection.send(h11.Response(status_code=status, headers=headers))
        if self.method == "GET" and status not in _NO_BODY:
            size_bytes, digest = 0, hashlib.sha256()
            async for piece in body:
                size_bytes = await self.ledger.take(self.registry.name, size_bytes, len(piece))
                digest.update(piece)
                await self.connection.send(h11.Data(data=rewriter.feed(piece) if rewriter else piece))
            if rewriter is not None:
                await self.connection.send(h11.Data(data=rewriter.finish()))
            if status == _OK:
                self.ledger.fetched.append(
                    Fetched(
                        registry=self.registry.name,
                        path=f"/{self.area.segment}/{self.path}",
                        size_bytes=size_bytes,
                        sha256=digest.hexdigest(),
                    )
                )
        await self.connection.send(h11.EndOfMessage())

    def _rewriter(self) -> Rewriter:
        kind = self.registry.kind
        is_root = kind is RegistryKind.COMPOSER and self.path.endswith("packages.json")
        return Rewriter(self.registry.areas, self.mirror_url, from_root=kind is RegistryKind.PYPI or is_root)

    def _rewritten(self, value: str) -> str:
        rewriter = self._rewriter()
        return (rewriter.feed(value.encode("latin-1")) + rewriter.finish()).decode("latin-1")


def is_description(content_type: str) -> bool:
    """Say whether a media type is one in which registries describe packages."""
    essence = content_type.partition(";")[0].strip().lower()
    return essence in ("text/html", "application/json", "application/problem+json") or (
        essence.startswith("application/vnd.") and essence.endswith(("+json", "+html"))
    )


async def _pieces_of(descriptor: int) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(os.read, descriptor, PIECE_BYTES * 4):
        yield piece
