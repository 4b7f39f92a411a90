"""Carries a request to the cloud and a bounded answer back; whatever happens else is an error of ours.

Invariant: the API key goes only to the base URL's host: redirects are not followed, and it stands in no
``repr``, log line or error. An answer is read up to a limit, however much is sent, and however slowly.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx
from pydantic import SecretStr

from blueprint.errors import ConfigError
from blueprint.foreign_json import JsonValue, parse_json
from jobs.deploy.cloud.errors import (
    CloudError,
    CloudInterruptedError,
    CloudProtocolError,
    CloudUnreachableError,
    Complaint,
    error_of,
)

__all__ = ["CloudTransport"]

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_REFUSED_BEFORE_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_ERROR_MAX_BYTES = 64 * 1024
_SILENCES = 10
"""A whole exchange may take so many times the longest silence."""


class CloudTransport:
    """The one door to the cloud's HTTP API.

    Args:
        base_url: HTTPS, or HTTP on loopback; without credentials.
        api_key: sent as ``X-API-Key``.
        api_version: sent as ``X-Phala-Version``.
        timeout_s: of connecting, and of each silence while sending or receiving; an exchange ends after ten
            times as long, whatever it is at.
        max_answer_bytes: what is read of an answer at most.
        proxy: URL of an HTTP proxy, or None.
        wall_clock: seconds since 1970, for a Retry-After that names a moment.
        transport: for tests, in place of the network.

    Raises:
        ConfigError: the base URL would show the key to the network, or cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: SecretStr,
        api_version: str,
        timeout_s: float,
        max_answer_bytes: int,
        proxy: str | None = None,
        wall_clock: Callable[[], float] = time.time,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._base_url = _checked(base_url)
        self._api_key = api_key
        self._api_version = api_version
        self._max_answer_bytes = max_answer_bytes
        self._wall_clock = wall_clock
        self._exchange_s = _SILENCES * timeout_s
        self._http = httpx.AsyncClient(
            timeout=timeout_s, proxy=proxy, transport=transport, trust_env=False, follow_redirects=False
        )

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def exchange(
        self, method: str, path: str, *, body: JsonValue = None, query: Mapping[str, str] | None = None
    ) -> JsonValue:
        """Return the answer's JSON, None where it is empty.

        Raises:
            CloudError: nothing else.
        """
        request = f"{method} {path}"
        sent = self._sent(method, path, body=body, query=query, accept="application/json")
        # SECURITY: a byte now and then is no silence (test_an_answer_that_trickles_is_not_waited_for).
        try:
            async with asyncio.timeout(self._exchange_s), sent as response:
                content = await _read(response, self._max_answer_bytes, request)
        except TimeoutError as exc:
            text = f"the answer was not whole after {self._exchange_s:g} s"
            raise CloudInterruptedError(Complaint(request=request, text=text)) from exc
        try:
            return parse_json(content) if content.strip() else None
        except ValueError as exc:
            raise CloudProtocolError(_complaint(request, response, f"the answer is not JSON: {exc}")) from exc

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, str], accept: str
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give the pieces of an answer that goes on, as ``accept``; whoever reads them bounds them.

        Raises:
            CloudProtocolError: the answer is of another type.
            CloudError: as of `exchange`; it is raised by the reading too.
        """
        request = f"GET {path}"
        async with self._sent("GET", path, query=query, accept=accept) as response:
            if not response.headers.get("content-type", "").startswith(accept):
                raise CloudProtocolError(_complaint(request, response, f"the answer is no {accept}"))
            async with aclosing(_pieces(response, request)) as pieces:
                yield pieces

    async def fetch(self, url: str, *, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Yield what a machine itself serves at a URL that the cloud named; the key is not sent."""
        try:
            parsed = httpx.URL(url).copy_merge_params(query)
        except httpx.InvalidURL as exc:
            raise CloudProtocolError(Complaint(request="GET a log", text=f"it is at no URL: {exc}")) from exc
        request = f"GET {parsed.host}"
        # SECURITY: a cloud has nothing to ask of this machine (test_a_log_is_not_fetched_from_this_machine).
        is_ours = parsed.host in _LOOPBACK and httpx.URL(self._base_url).host in _LOOPBACK
        if parsed.scheme != "https" and not is_ours:
            raise CloudProtocolError(Complaint(request=request, text="the cloud named a URL without TLS"))
        async with _translated(request), self._http.stream("GET", parsed) as response:
            await self._refuse(response, request)
            async with aclosing(_pieces(response, request)) as pieces:
                async for piece in pieces:
                    yield piece

    @asynccontextmanager
    async def _sent(
        self,
        method: str,
        path: str,
        *,
        accept: str,
        body: JsonValue = None,
        query: Mapping[str, str] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        # SECURITY: the key is put into this one request, not into the client (test_the_key_is_never_shown).
        headers = {
            "X-API-Key": self._api_key.get_secret_value(),
            "X-Phala-Version": self._api_version,
            "Accept": accept,
            "Accept-Encoding": "identity",  # a bound on the bytes received is then one on those kept
        }
        request = f"{method} {path}"
        async with (
            _translated(request),
            self._http.stream(
                method, self._base_url + path, headers=headers, params=query, json=body
            ) as response,
        ):
            await self._refuse(response, request)
            yield response

    async def _refuse(self, response: httpx.Response, request: str) -> None:
        if response.is_success:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise CloudProtocolError(_complaint(request, response, "the answer is compressed, unasked"))
            return
        if response.is_redirect:
            raise CloudProtocolError(
                _complaint(request, response, "the answer leads elsewhere, where the key must not go")
            )
        is_plain = response.headers.get("content-encoding", "identity") == "identity"
        content = await _read(response, _ERROR_MAX_BYTES, request, is_cut=True) if is_plain else b""
        raise _refusal(request, response, content, now_s=self._wall_clock())


def _checked(base_url: str) -> str:
    url = httpx.URL(base_url)
    if url.userinfo or url.query or url.fragment:
        raise ConfigError("the cloud's base URL must have no credentials, query or fragment")
    # SECURITY: over plain HTTP anyone on the way reads the key (test_a_base_url_without_tls_is_refused).
    if url.scheme != "https" and not (url.scheme == "http" and url.host in _LOOPBACK):
        raise ConfigError(f"the cloud's base URL {base_url!r} must begin with https:// (http:// on loopback)")
    return base_url.rstrip("/")


@asynccontextmanager
async def _translated(request: str) -> AsyncIterator[None]:
    try:
        yield
    except _REFUSED_BEFORE_SENT as exc:
        raise CloudUnreachableError(Complaint(request=request, text=_reason(exc))) from exc
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as exc:
        raise CloudInterruptedError(Complaint(request=request, text=_reason(exc))) from exc


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


async def _pieces(response: httpx.Response, request: str) -> AsyncGenerator[bytes, None]:
    async with _translated(request):
        async for piece in response.aiter_bytes():
            yield piece


async def _read(response: httpx.Response, max_bytes: int, request: str, *, is_cut: bool = False) -> bytes:
    """Read an answer up to a limit; beyond it, cut it or raise."""
    content = bytearray()
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > max_bytes:
            if is_cut:
                break
            # SECURITY: bounds the memory of an answer (test_an_endless_answer_is_not_kept).
            raise CloudProtocolError(
                _complaint(request, response, f"the answer has more than {max_bytes} bytes")
            )
    return bytes(content[:max_bytes])


def _complaint(request: str, response: httpx.Response, text: str) -> Complaint:
    return Complaint(
        request=request, status=response.status_code, text=text, request_id=_request_id(response)
    )


def _request_id(response: httpx.Response) -> str:
    return "".join(filter(str.isprintable, response.headers.get("x-request-id", "")))[:100]


def _refusal(request: str, response: httpx.Response, content: bytes, *, now_s: float) -> CloudError:
    try:
        answer = parse_json(content)
    except ValueError:
        answer = None
    told = answer if isinstance(answer, dict) else {}
    # The coded form comes bare or as the detail.
    detail = told.get("detail")
    coded = detail if isinstance(detail, dict) else told
    places = tuple(_place(item) for item in detail) if isinstance(detail, list) else ()
    text = detail if isinstance(detail, str) else coded.get("message") or ("" if told else content[:200])
    return error_of(
        Complaint(
            request=request,
            status=response.status_code,
            code=str(coded.get("error_code") or ""),
            text=text.decode(errors="replace") if isinstance(text, bytes) else str(text or ""),
            places=places or _details(coded.get("details")),
            suggestions=tuple(str(item) for item in _list(coded.get("suggestions"))),
            request_id=_request_id(response),
            retry_after_s=_retry_after_s(response.headers.get("retry-after"), now_s),
        )
    )


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _place(item: JsonValue) -> str:
    # The member "input" is left out on purpose: it repeats what was sent.
    if not isinstance(item, dict):
        return str(item)[:200]
    return f"{'.'.join(str(part) for part in _list(item.get('loc')))}: {item.get('msg', '')}"[:200]


def _details(value: JsonValue) -> tuple[str, ...]:
    items = [item for item in _list(value) if isinstance(item, dict)]
    return tuple(
        f"{item.get('field', '')}: {item.get('message') or item.get('value', '')}"[:200] for item in items
    )


def _retry_after_s(header: str | None, now_s: float) -> float | None:
    """Seconds from a Retry-After (RFC 9110, section 10.2.3): a number, or a moment in any of three forms."""
    if header is None:
        return None
    if header.strip().isascii() and header.strip().isdigit():
        return float(header[:12])
    try:
        moment = parsedate_to_datetime(header)
        # The oldest form names no zone, and means UTC too.
        return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None
