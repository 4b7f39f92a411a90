"""The way to a registry: requests made anew, redirects followed here, credentials sent to one place.

Invariant: every address that is asked lies in an area of the registry, the one after a redirect too;
``Authorization`` goes with the registry's own area and with no other.
"""

import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urldefrag, urljoin, urlsplit

import httpx

from sandbox.egress.ledger import RefusedError
from sandbox.egress.registry import Area, Registry

__all__ = ["decoded", "open_upstream"]

USER_AGENT = "tee-job-node"
REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 5
DECODED_PIECE_BYTES = 1024 * 1024
_GZIP_WBITS = 31


@asynccontextmanager
async def open_upstream(
    client: httpx.AsyncClient, registry: Registry, url: str, method: str, headers: Mapping[str, str]
) -> AsyncIterator[httpx.Response]:
    """Ask a registry, follow its redirects inside its areas, and yield the answer with its body unread.

    Raises:
        RefusedError: it cannot be reached, breaks the protocol, or leads elsewhere.
    """
    response: httpx.Response | None = None
    try:
        for _ in range(MOST_REDIRECTS + 1):
            area = _area_of(registry, url)
            if area is None:
                raise RefusedError(
                    502,
                    f"registry {registry.name}: it redirects to {urlsplit(url).hostname}, which is none of "
                    "its download hosts",
                    registry=registry.name,
                )
            request = client.build_request(method, url, headers=_headers_for(registry, area, headers))
            response = await client.send(request, stream=True)
            if response.status_code not in REDIRECTS or "location" not in response.headers:
                yield response
                return
            await response.aclose()
            url = urldefrag(urljoin(url, response.headers["location"])).url
        raise RefusedError(502, f"registry {registry.name}: too many redirects", registry=registry.name)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as exc:
        raise RefusedError(
            502,
            f"registry {registry.name} cannot be reached ({_words_of(exc)})",
            registry=registry.name,
            is_unreachable=True,
        ) from exc
    finally:
        if response is not None:
            await response.aclose()


async def decoded(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield a body as it is meant, decompressed in pieces of bounded size.

    Raises:
        RefusedError: it is encoded in a way that was not asked for.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        async for piece in response.aiter_raw():
            yield piece
        return
    if encoding != "gzip":
        raise RefusedError(502, "the registry answers in an encoding that was not asked for")
    # SECURITY: a bomb unpacks piece by piece, each is counted: test_compressed_bomb_ends_at_the_bound.
    unpacker = zlib.decompressobj(_GZIP_WBITS)
    try:
        async for piece in response.aiter_raw():
            packed = piece
            while packed and not unpacker.eof:
                yield unpacker.decompress(packed, DECODED_PIECE_BYTES)
                packed = unpacker.unconsumed_tail
    except zlib.error as exc:
        raise RefusedError(502, "the registry's answer cannot be unpacked") from exc


def _area_of(registry: Registry, url: str) -> Area | None:
    return next((area for area in registry.areas if area.path_of(url) is not None), None)


def _headers_for(registry: Registry, area: Area, headers: Mapping[str, str]) -> dict[str, str]:
    # SECURITY: another host never learns who we are: test_credentials_stay_with_their_registry.
    who = registry.credentials if area.has_credentials else None
    return {
        "User-Agent": USER_AGENT,
        **headers,
        **({"Authorization": who.header()} if who is not None else {}),
    }


def _words_of(exc: Exception) -> str:
    """Say what went wrong without an address in it."""
    if isinstance(exc, httpx.TimeoutException):
        return "it does not answer in time"
    if isinstance(exc, httpx.ProxyError):
        return "this host's proxy refuses"
    if isinstance(exc, httpx.ConnectError):
        is_certificate = "CERTIFICATE_VERIFY_FAILED" in str(exc)
        return "its certificate is not trusted" if is_certificate else "no connection"
    return "it breaks off, or does not speak HTTP"
