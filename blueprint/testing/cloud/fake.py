"""The fake cloud's HTTP server.

Invariant: every request is recorded, and none is handled without the workspace's key and a known version.
"""

import secrets
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from aiohttp import web

from blueprint.testing.cloud.catalog import Catalog
from blueprint.testing.cloud.checks import VERSIONS, Handler, api_version
from blueprint.testing.cloud.faults import Fault, Refusal, refusal
from blueprint.testing.cloud.inventory import Inventory
from blueprint.testing.cloud.machine import FakeContainer
from blueprint.testing.cloud.observation import Observation
from blueprint.testing.cloud.provisioning import Provisioning
from blueprint.testing.cloud.updates import Updates
from blueprint.testing.cloud.workspace import Workspace

__all__ = ["FakeCloud"]

_PREFIX = "/api/v1"
_GUEST_PREFIX = "/logs/"


class FakeCloud:
    """An async context manager: inside of it, the cloud answers at `url`.

    Args:
        api_key: what a request must carry.
        boot_s: how long a machine starts.
        max_machines: the workspace's quota.
        slots: for how many machines its one node has room.
        container: makes a service's container at each boot: healthy at once, unless it is given.
        tells_certificates: whether evidence comes with the text of the application's certificate; the
            documented schema has only its fingerprint.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        api_key: str = "phak_fake",
        boot_s: float = 0.0,
        max_machines: int = 10,
        slots: int = 10,
        container: Callable[[str], FakeContainer] = FakeContainer,
        tells_certificates: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.api_key = api_key
        self.requests: list[str] = []
        """Method and path of each request, in order."""
        self.url = ""
        self._workspace = Workspace(
            boot_s=boot_s,
            max_machines=max_machines,
            slots=slots,
            container=container,
            tells_certificates=tells_certificates,
            clock=clock,
        )
        self.kms = self._workspace.kms
        self.platform = self._workspace.platform
        self.machines = self._workspace.machines
        self._faults: dict[tuple[str, str], list[Fault]] = {}
        self._runner: web.AppRunner | None = None

    def fail(self, method: str, path: str, fault: Fault, *, times: int = 1) -> None:
        """Spoil the next answers to a method and a path below the base URL; ``{id}`` stands for any id."""
        self._faults.setdefault((method, path), []).extend([fault] * times)

    def mend(self) -> None:
        """Spoil no further answer."""
        self._faults.clear()

    def forget_prepared(self) -> None:
        """Let everything expire that was provisioned and is not committed."""
        self._workspace.forget_prepared()

    async def __aenter__(self) -> Self:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard], client_max_size=2**20)
        observation = Observation(self._workspace)
        for nouns in (
            Catalog(self._workspace),
            Provisioning(self._workspace),
            Inventory(self._workspace),
            observation,
            Updates(self._workspace),
        ):
            for method, path, handler in nouns.routes():
                app.router.add_route(method, _PREFIX + path, handler)
        app.router.add_get(_GUEST_PREFIX + "{id}/{service}", observation.log)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}{_PREFIX}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        route = request.match_info.route.resource
        path = (route.canonical if route else request.path).removeprefix(_PREFIX)
        if not request.path.startswith(_GUEST_PREFIX):
            self.requests.append(f"{request.method} {request.path.removeprefix(_PREFIX)}")
        answer: web.StreamResponse
        try:
            faults = self._faults.get((request.method, path), [])
            fault = faults.pop(0) if faults else Fault()
            answer = await fault.before(request) or await self._answer(request, handler)
            answer = await fault.after(request, answer)
        except Refusal as exc:
            answer = exc.answer
        except web.HTTPException as exc:
            answer = refusal(exc.status, exc.reason)
        if not answer.prepared:
            answer.headers["X-Request-ID"] = f"req_{len(self.requests)}"
        return answer

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(_GUEST_PREFIX):
            return await handler(request)  # the guest's own server, which knows no key
        if not secrets.compare_digest(request.headers.get("X-API-Key", ""), self.api_key):
            raise Refusal(refusal(401, "Invalid API key"))
        if api_version(request) not in VERSIONS:
            raise Refusal(refusal(400, f"unknown API version {api_version(request)!r}"))
        return await handler(request)
