"""How requests reach an end point: the port, and its adapter for HTTP.

Invariant: whatever goes wrong below is raised as ``RpcError`` with the end point's name, and within the time
limit; nothing is ever sent twice.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import httpx

from blueprint.chain.answer import (
    Answer,
    decode_message,
    pick_answers,
    silence_error,
    status_error,
    unattributed_error,
)
from blueprint.chain.endpoint import Endpoint
from blueprint.errors import RpcError

__all__ = ["MAX_MESSAGE_BYTES", "HttpTransport", "Transport", "is_silence"]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The largest answer that is read; a larger one fails, so that an end point cannot fill the memory."""

_MAX_CONNECTIONS = 64


class Transport(Protocol):
    """Carries requests to one end point."""

    async def run(self) -> None:
        """Keep the connection up until cancelled; returns at once where there is none to keep."""

    async def exchange(self, ids: Sequence[int], body: str) -> Mapping[int, Answer]:
        """Send one message and return the answers to its ids; an id that was not answered is absent.

        Raises:
            RpcError: nothing was answered, or not in time (its ``__cause__`` is then a ``TimeoutError``).
        """

    async def wait_head(self, timeout_s: float) -> bool:
        """Return True at a hint that there is a new block, False after ``timeout_s``."""

    async def aclose(self) -> None:
        """Give back what the transport holds."""


class HttpTransport:
    """JSON-RPC over HTTP POST, with keep-alive. There are no head hints: the caller polls.

    Args:
        endpoint: where to post.
        timeout_s: the limit of one exchange.
        lower: what carries the requests instead of the network.
    """

    def __init__(
        self, endpoint: Endpoint, *, timeout_s: float, lower: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        # The environment (proxies, netrc) is read by the command line only, hence trust_env=False.
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout_s),
            limits=httpx.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_CONNECTIONS),
            headers={"content-type": "application/json"},
            trust_env=False,
            transport=lower,
        )

    async def run(self) -> None:
        """Return at once: HTTP keeps no connection."""

    async def exchange(self, ids: Sequence[int], body: str) -> Mapping[int, Answer]:
        """Post one message; see ``Transport.exchange``."""
        try:
            async with asyncio.timeout(self._timeout_s):
                response, content = await self._post(body)
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise silence_error(self._endpoint, self._timeout_s) from exc
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as exc:
            cause = self._endpoint.redact(str(exc)) or type(exc).__name__
            raise RpcError(
                f"cannot reach {self._endpoint.shown}: {cause}; "
                "check the URL and that the end point is running"
            ) from exc
        return self._read(ids, response, content)

    async def wait_head(self, timeout_s: float) -> bool:
        """Sleep for ``timeout_s``: there is nobody to tell of a new block."""
        await asyncio.sleep(timeout_s)
        return False

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _post(self, body: str) -> tuple[httpx.Response, bytes]:
        content = bytearray()
        async with self._client.stream("POST", self._endpoint.url, content=body) as response:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_MESSAGE_BYTES:
                    raise RpcError(
                        f"{self._endpoint.shown} answered more than {MAX_MESSAGE_BYTES} bytes: "
                        "response too large"
                    )
        return response, bytes(content)

    def _read(self, ids: Sequence[int], response: httpx.Response, content: bytes) -> Mapping[int, Answer]:
        refusal = None
        if not response.is_success:
            refusal = status_error(
                self._endpoint, response.status_code, response.headers.get("retry-after"), content
            )
        try:
            message = decode_message(self._endpoint, content)
        except RpcError as exc:
            if refusal is not None:
                raise refusal from exc
            raise
        answers = [message] if isinstance(message, dict) else message
        found = pick_answers(ids, answers)
        if refusal is not None and (not found or response.status_code == httpx.codes.TOO_MANY_REQUESTS):
            raise refusal
        if not found:
            raise unattributed_error(self._endpoint, answers)
        return found


def is_silence(error: RpcError) -> bool:
    """Return whether the error means that no answer came in time."""
    return isinstance(error.__cause__, TimeoutError | httpx.TimeoutException)
