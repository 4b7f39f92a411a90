"""How the fake cloud changes machines: another application, other variables, another size.

Invariant: an update keeps the app id, and its machine boots again from what was accepted.
"""

import secrets

from aiohttp import web

from blueprint.foreign_json import JsonValue
from blueprint.testing.cloud.checks import Route, demand, demand_compose, demand_sealed, read_object
from blueprint.testing.cloud.machine import FakeMachine, Prepared
from blueprint.testing.cloud.sizes import SIZE_MEMBERS, demand_size
from blueprint.testing.cloud.views import kms_view
from blueprint.testing.cloud.workspace import Workspace

__all__ = ["Updates"]

_PATCHED = ("docker_compose_file", "pre_launch_script", "allowed_envs", "public_logs", "public_sysinfo")


class Updates:
    """Handlers of the requests that change a machine."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def routes(self) -> list[Route]:
        """Return method, path and handler of each request."""
        one = "/cvms/{id}"
        return [
            ("PATCH", one, self._patch),
            ("POST", f"{one}/compose_file/provision", self._provision),
            ("PATCH", f"{one}/compose_file", self._commit),
            ("PATCH", f"{one}/envs", self._envs),
            ("PATCH", f"{one}/resources", self._resources),
        ]

    async def _provision(self, request: web.Request) -> web.Response:
        old = self._find(request).prepared
        compose = demand_compose(await read_object(request))
        prepared = self._workspace.prepare(old.name, old.app_id, compose, old.size)
        told = {
            "app_id": prepared.app_id,
            "device_id": "22" * 32,
            "compose_hash": prepared.compose_hash,
            "kms_info": kms_view(self._workspace.kms),
        }
        return web.json_response(told)

    async def _commit(self, request: web.Request) -> web.Response:
        machine, body = self._find(request), await read_object(request)
        demand(body, {"compose_hash": "string", "env_keys": "list"}, required=("compose_hash",))
        prepared = self._workspace.prepared(machine.prepared.app_id, str(body["compose_hash"]))
        sealed = demand_sealed(body)
        machine.prepared = prepared
        machine.sealed = machine.sealed if sealed is None else sealed
        machine.boot()
        return web.json_response(_begun())

    async def _envs(self, request: web.Request) -> web.Response:
        machine, body = self._find(request), await read_object(request)
        demand(body, {"env_keys": "list"}, required=("encrypted_env",))
        sealed, names = demand_sealed(body), body.get("env_keys")
        is_changed = names is not None and names != machine.prepared.compose.get("allowed_envs")
        if is_changed:
            machine.prepared = self._changed(machine.prepared, {"allowed_envs": names})
        machine.sealed = sealed
        machine.boot()
        return web.json_response({**_begun(), "allowed_envs_changed": is_changed})

    async def _patch(self, request: web.Request) -> web.Response:
        machine, body = self._find(request), await read_object(request)
        sealed = demand_sealed(body)
        machine.prepared = self._changed(
            machine.prepared, {name: body[name] for name in _PATCHED if name in body}
        )
        machine.sealed = machine.sealed if sealed is None else sealed
        machine.boot()
        return web.json_response(_begun(), status=202)

    async def _resources(self, request: web.Request) -> web.Response:
        machine, body = self._find(request), await read_object(request)
        demand(body, {**SIZE_MEMBERS, "allow_restart": "boolean"})
        machine.prepared.size |= demand_size(body, disk_gb=machine.disk_gb)
        return web.json_response(_begun(), status=202)

    def _find(self, request: web.Request) -> FakeMachine:
        return self._workspace.find(request.match_info["id"])

    def _changed(self, old: Prepared, members: dict[str, JsonValue]) -> Prepared:
        compose = demand_compose({**old.compose, **members})
        return self._workspace.prepare(old.name, old.app_id, compose, old.size)


def _begun() -> dict[str, JsonValue]:
    return {"status": "in_progress", "message": "begun", "correlation_id": secrets.token_hex(8)}
