"""The node's HTTP server: alive, ready, and whole outputs by digest. JSON everywhere, read only.

Invariant: nothing here changes the node; a request is bounded in size and time, and is answered only when
its Host header names this server, so that a web page cannot reach it by rebinding a name.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Protocol, Self

import structlog
from aiohttp import web

from blueprint.errors import ConfigError

__all__ = ["HttpServer", "Outputs", "Readiness"]

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_REQUEST_TIMEOUT_S: Final = 10.0
_READS_AT_ONCE: Final = 8
_FLAGS_FOR_BYTES: Final = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
_log = structlog.get_logger()
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether the node is caught up with the chain, and if not, why."""

    is_ready: bool
    reason: str = ""
    """One sentence; empty when ready."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON values beside status and reason."""


class Outputs(Protocol):
    """Where whole outputs are read from."""

    def get(self, digest: str) -> bytes | None:
        """Return the bytes with this SHA-256 (64 lower-case hexadecimal digits), or None."""


class HttpServer:
    """An async context manager that serves ``/healthz``, ``/readyz`` and ``/outputs/<sha256>``.

    Args:
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        readiness: asked at each ``/readyz``.
        outputs: where whole outputs are read from.
        allowed_hosts: names that a Host header may have besides the loopback ones and ``host``.

    Raises:
        ConfigError: on entering, when the address cannot be listened on.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        readiness: Callable[[], Awaitable[Readiness]],
        outputs: Outputs,
        allowed_hosts: Iterable[str] = (),
    ) -> None:
        self._host = host
        self._port = port
        self._readiness = readiness
        self._outputs = outputs
        self._names = _LOOPBACK_NAMES | {host.lower()} | {name.lower() for name in allowed_hosts}
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where the server listens, once entered, for example ``http://127.0.0.1:8547``."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._guard], client_max_size=1024)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/outputs/{digest:[^/]{1,80}}", self._output)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=15.0, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port, backlog=64).start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigError(
                f"cannot listen on {self._host}:{self._port}: {error.strerror or error}; "
                "set BLUEPRINT_HTTP_PORT to a free port, or to 0"
            ) from error
        self._port = int(runner.addresses[0][1])
        self._runner = runner
        _log.info("http_started", url=self.url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Check the Host header, bound the time, and make every error JSON."""
        try:
            if not self._names_us(request.headers.get("Host", "")):
                return _problem(
                    421, "the Host header does not name this server", "set BLUEPRINT_HTTP_ALLOWED_HOSTS"
                )
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                response = await handler(request)
        except web.HTTPException as error:
            return _problem(
                error.status, error.reason.lower(), headers={"Allow": error.headers.get("Allow", "")}
            )
        except TimeoutError:
            return _problem(503, f"not answered within {_REQUEST_TIMEOUT_S:.0f} seconds")
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        return response

    def _names_us(self, header: str) -> bool:
        name = header.lower()
        if ":" in name and not name.endswith("]"):
            name, _, port = name.rpartition(":")
            return port.isdecimal() and name in self._names
        return name in self._names

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"}, headers={"Cache-Control": "no-store"})

    async def _ready(self, _request: web.Request) -> web.Response:
        state = await self._readiness()
        body = {"status": "ready" if state.is_ready else "not_ready", "reason": state.reason, **state.details}
        return web.json_response(
            body, status=200 if state.is_ready else 503, headers={"Cache-Control": "no-store"}
        )

    async def _output(self, request: web.Request) -> web.Response:
        digest = request.match_info["digest"].lower().removeprefix("0x")
        headers = {**_FLAGS_FOR_BYTES, "ETag": f'"{digest}"'}
        async with self._reads:
            data = await asyncio.to_thread(self._outputs.get, digest)
        if data is None:
            return _problem(404, "no output with this SHA-256 is kept here")
        if request.headers.get("If-None-Match", "") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        return web.Response(body=data, content_type="application/octet-stream", headers=headers)


def _problem(status: int, what: str, fix: str = "", headers: Mapping[str, str] | None = None) -> web.Response:
    body = {"status": status, "error": what} | ({"fix": fix} if fix else {})
    kept = {name: value for name, value in (headers or {}).items() if value}
    return web.json_response(
        body,
        status=status,
        headers={**kept, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )
