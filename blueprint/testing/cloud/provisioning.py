"""How the fake cloud makes machines: an identity first, then the ciphertext for exactly that.

Invariant: nothing boots that was not prepared, and the same commit again gives the same machine.
"""

import secrets

from aiohttp import web

from blueprint.foreign_json import JsonValue
from blueprint.testing.cloud.checks import (
    Route,
    demand,
    demand_compose,
    demand_name,
    demand_sealed,
    read_object,
)
from blueprint.testing.cloud.faults import Refusal, refusal
from blueprint.testing.cloud.sizes import SIZE_MEMBERS, demand_size
from blueprint.testing.cloud.views import kms_view, vm_view
from blueprint.testing.cloud.workspace import Workspace

__all__ = ["Provisioning"]

_COMMIT_MEMBERS = {
    "app_id": "string",
    "compose_hash": "string",
    "encrypted_env": "string",
    "env_keys": "list",
}


class Provisioning:
    """Handlers of the requests that order a machine."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def routes(self) -> list[Route]:
        """Return method, path and handler of each request."""
        return [
            ("POST", "/cvms/provision", self._provision),
            ("POST", "/cvms", self._commit),
            ("POST", "/cvms/{id}/replicas", self._replicate),
        ]

    async def _provision(self, request: web.Request) -> web.Response:
        body, workspace = await read_object(request), self._workspace
        demand(body, {**SIZE_MEMBERS, "teepod_id": "number", "image": "string", "listed": "boolean"})
        name, compose = demand_name(body.get("name")), demand_compose(body.get("compose_file"))
        size = demand_size(body)
        self._demand_node(body)
        if any(machine.prepared.name == name for machine in workspace.machines):
            raise Refusal(refusal(409, "a CVM of this name exists", code="ERR-01-004"))
        workspace.demand_room()
        named = {**compose, "name": compose.get("name", "")}
        prepared = workspace.prepare(name, secrets.token_hex(20), named, size)
        told: dict[str, JsonValue] = {
            "app_id": prepared.app_id,
            "app_env_encrypt_pubkey": workspace.kms.env_public_key(bytes.fromhex(prepared.app_id)).hex(),
            "compose_hash": prepared.compose_hash,
            "kms_info": kms_view(workspace.kms),
            "fmspc": "00806f050000",
            "device_id": "22" * 32,
            "os_image_hash": "11" * 32,
            "instance_type": body.get("instance_type") or "tdx.small",
            "node_id": 1,
        }
        return web.json_response(told)

    async def _commit(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        demand(body, _COMMIT_MEMBERS, required=("app_id", "compose_hash"))
        app_id = str(body["app_id"]).removeprefix("app_").removeprefix("0x")
        digest = str(body["compose_hash"])
        for machine in self._workspace.machines:
            if machine.prepared.app_id == app_id:
                if machine.prepared.compose_hash != digest:
                    raise Refusal(refusal(409, "the app id has another hash", code="ERR-03-007"))
                return web.json_response(vm_view(machine))
        prepared = self._workspace.prepared(app_id, digest)
        return web.json_response(vm_view(self._workspace.create(prepared, demand_sealed(body))))

    async def _replicate(self, request: web.Request) -> web.Response:
        original = self._workspace.find(request.match_info["id"])
        body = await read_object(request)
        demand(body, {"node_id": "number"})
        self._demand_node({"teepod_id": body.get("node_id")})
        self._workspace.demand_room()
        return web.json_response(vm_view(self._workspace.create(original.prepared, original.sealed)))

    def _demand_node(self, body: dict[str, JsonValue]) -> None:
        if body.get("teepod_id") not in (None, 1):
            raise Refusal(refusal(404, "no such node", code="ERR-01-001"))
