"""What the fake cloud offers: nodes, sizes, and the KMS with its applications' public keys.

Invariant: what is offered here is exactly what an order may choose.
"""

import re

from aiohttp import web

from blueprint.testing.cloud.checks import Route, api_version, invalid
from blueprint.testing.cloud.faults import Refusal, refusal
from blueprint.testing.cloud.sizes import SIZES
from blueprint.testing.cloud.views import account_view, instance_type_view, kms_view
from blueprint.testing.cloud.workspace import Workspace

__all__ = ["Catalog"]

_APP_ID = re.compile(r"(?:0x)?([0-9a-f]{40})")


class Catalog:
    """Handlers of the requests that change nothing and name no machine."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def routes(self) -> list[Route]:
        """Return method, path and handler of each request."""
        return [
            ("GET", "/auth/me", self._me),
            ("GET", "/teepods/available", self._nodes),
            ("GET", "/instance-types", self._sizes),
            ("GET", "/kms", self._kms),
            ("GET", "/kms/{kms}/pubkey/{app_id}", self._public_key),
        ]

    async def _me(self, request: web.Request) -> web.Response:
        return web.json_response(account_view(api_version(request)))

    async def _nodes(self, _: web.Request) -> web.Response:
        workspace = self._workspace
        image = {"name": "dstack-0.5.5", "is_dev": False, "version": [0, 5, 5], "os_image_hash": "11" * 32}
        node = {
            "teepod_id": 1,
            "name": "node-1",
            "listed": True,
            "resource_score": 1.0,
            "remaining_vcpu": 64,
            "remaining_memory": 131072,
            "remaining_cvm_slots": workspace.slots - len(workspace.machines),
            "images": [image],
            "region_identifier": "test-1",
            "kms_list": ["phala"],
        }
        capacity = {"max_instances": workspace.max_machines}
        told = {"tier": "free", "capacity": capacity, "nodes": [node], "kms_list": [kms_view(workspace.kms)]}
        return web.json_response(told)

    async def _sizes(self, _: web.Request) -> web.Response:
        items = [instance_type_view(name, *size) for name, size in SIZES.items()]
        return web.json_response({"result": [{"name": "cpu", "items": items, "total": len(items)}]})

    async def _kms(self, _: web.Request) -> web.Response:
        items = [kms_view(self._workspace.kms)]
        return web.json_response({"items": items, "total": 1, "page": 1, "page_size": 30, "pages": 1})

    async def _public_key(self, request: web.Request) -> web.Response:
        found = _APP_ID.fullmatch(request.match_info["app_id"])
        if request.match_info["kms"] not in ("phala", "kms_1"):
            raise Refusal(refusal(404, "no such KMS", code="ERR-02-011"))
        if found is None:
            raise invalid("app_id", "40 digits", where="path")
        app_id, kms = bytes.fromhex(found[1]), self._workspace.kms
        told = {
            "public_key": kms.env_public_key(app_id).hex(),
            "signature": kms.sign_public_key(app_id).hex(),
        }
        return web.json_response(told)
