"""How the fake cloud shows the inside of machines: state, figures, containers, logs and proof.

Invariant: a guest that does not run tells nothing, and its own server never takes the API key.
"""

import asyncio
import json
from collections.abc import Callable

from aiohttp import web

from blueprint.foreign_json import JsonValue
from blueprint.testing.cloud.checks import Handler, Route
from blueprint.testing.cloud.faults import EVENTS, Refusal, refusal
from blueprint.testing.cloud.machine import FakeMachine
from blueprint.testing.cloud.views import (
    attestation_view,
    composition_view,
    network_view,
    state_view,
    stats_view,
)
from blueprint.testing.cloud.workspace import Workspace

__all__ = ["Observation"]

_LOOK_S = 0.01


class Observation:
    """Handlers of the requests that look into a machine."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def routes(self) -> list[Route]:
        """Return method, path and handler of each request."""
        one = "/cvms/{id}"
        return [
            ("GET", f"{one}/state", self._state),
            ("GET", f"{one}/stats", self._shown(stats_view)),
            ("GET", f"{one}/network", self._shown(network_view)),
            ("GET", f"{one}/attestation", self._attestation),
            ("GET", f"{one}/composition", self._composition),
        ]

    async def log(self, request: web.Request) -> web.Response:
        """Answer as the server inside a guest, which knows no API key."""
        if "X-API-Key" in request.headers:
            raise Refusal(refusal(400, "the API key was sent to a guest"))
        for container in self._find(request).containers:
            if container.service == request.match_info["service"]:
                return web.Response(body=container.log, content_type="text/plain")
        raise Refusal(refusal(404, "no such container"))

    def _find(self, request: web.Request) -> FakeMachine:
        return self._workspace.find(request.match_info["id"])

    def _shown(self, view: Callable[[FakeMachine], dict[str, JsonValue]]) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            return web.json_response(view(self._find(request)))

        return handler

    async def _attestation(self, request: web.Request) -> web.Response:
        has_text = self._workspace.tells_certificates
        return web.json_response(attestation_view(self._find(request), has_certificate_text=has_text))

    async def _composition(self, request: web.Request) -> web.Response:
        return web.json_response(composition_view(self._find(request), str(request.url.origin())))

    async def _state(self, request: web.Request) -> web.StreamResponse:
        machine = self._find(request)
        if EVENTS not in request.headers.get("Accept", ""):
            return web.json_response(state_view(machine))
        stream = web.StreamResponse(headers={"Content-Type": EVENTS})
        await stream.prepare(request)
        shown: dict[str, JsonValue] = {}
        clock = self._workspace.clock
        ends_s = clock() + float(request.query.get("timeout", "300"))
        while clock() < ends_s:
            state = state_view(machine)
            if state != shown:
                await stream.write(f"event: state\ndata: {json.dumps(state)}\n\n".encode())
            shown = state
            if machine.status == request.query.get("target"):
                await stream.write(b"event: complete\ndata: {}\n\n")
                return stream
            await asyncio.sleep(_LOOK_S)
        await stream.write(b"event: timeout\ndata: {}\n\n")
        return stream
