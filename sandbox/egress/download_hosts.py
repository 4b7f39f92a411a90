"""Asks an index of Python packages where it keeps its files, where its configuration does not say.

Invariant: one page is asked, that of the installer itself, so that no author of a package can name a host.
"""

import re
from urllib.parse import urljoin, urlsplit

import httpx

from sandbox.egress.ledger import RefusedError
from sandbox.egress.registry import Registry, RegistryKind
from sandbox.egress.upstream import decoded, open_upstream

__all__ = ["ask_for_download_hosts"]

PAGE = "pip/"
PAGE_BYTES = 16 * 1024 * 1024
MOST_HOSTS = 4
_LINK = re.compile(rb"""<a\s[^>]*?href=["']([^"'#]+)""", re.IGNORECASE)


async def ask_for_download_hosts(registry: Registry, client: httpx.AsyncClient) -> tuple[str, ...] | None:
    """Return the other hosts to which the index's page of pip points; None when it does not answer now."""
    base = registry.base_url.rstrip("/") + "/"
    if registry.kind is not RegistryKind.PYPI or urlsplit(base).scheme == "file":
        return ()
    page = bytearray()
    headers = {"Accept": "text/html", "Accept-Encoding": "gzip"}
    try:
        async with open_upstream(client, registry, base + PAGE, "GET", headers) as response:
            if response.status_code != httpx.codes.OK:
                return ()
            async for piece in decoded(response):
                page += piece
                if len(page) > PAGE_BYTES:
                    break
    except (RefusedError, httpx.HTTPError):
        return None
    own = urlsplit(base)
    links = (urlsplit(urljoin(base + PAGE, link.decode("ascii", "replace"))) for link in _LINK.findall(page))
    hosts = dict.fromkeys(link.netloc.lower() for link in links if link.scheme == own.scheme)
    return tuple(host for host in hosts if host != own.netloc.lower() and "@" not in host)[:MOST_HOSTS]
