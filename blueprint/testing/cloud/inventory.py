"""How the fake cloud finds, lists, moves and removes machines.

Invariant: a list is answered page by page, in the shape of the version that was asked for.
"""

from collections.abc import Callable

from aiohttp import web

from blueprint.foreign_json import JsonValue
from blueprint.testing.cloud.checks import Route, api_version, read_object
from blueprint.testing.cloud.machine import FakeMachine
from blueprint.testing.cloud.views import app_view, machine_view, vm_view
from blueprint.testing.cloud.workspace import Workspace

__all__ = ["Inventory"]


class Inventory:
    """Handlers of the requests for machines as a whole."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def routes(self) -> list[Route]:
        """Return method, path and handler of each request."""
        one = "/cvms/{id}"
        actions = ("start", "stop", "shutdown", "restart")
        return [
            ("GET", "/apps", self._apps),
            ("GET", "/cvms/paginated", self._list),
            ("POST", "/status/batch", self._statuses),
            ("GET", one, self._get),
            ("DELETE", one, self._delete),
            *(("POST", f"{one}/{action}", self._act) for action in actions),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        return self._page(request, "items", "pages", machine_view)

    async def _apps(self, request: web.Request) -> web.Response:
        return self._page(request, "dstack_apps", "total_pages", app_view)

    def _page(
        self,
        request: web.Request,
        items: str,
        pages: str,
        view: Callable[[FakeMachine, str], dict[str, JsonValue]],
    ) -> web.Response:
        number, size = int(request.query.get("page", "1")), int(request.query.get("page_size", "30"))
        shown = [view(machine, api_version(request)) for machine in self._workspace.machines]
        told = {
            items: shown[(number - 1) * size : number * size],
            "total": len(shown),
            "page": number,
            "page_size": size,
            pages: -(-len(shown) // size),
        }
        return web.json_response(told)

    async def _statuses(self, request: web.Request) -> web.Response:
        wanted = (await read_object(request)).get("vm_uuids")
        refs = wanted if isinstance(wanted, list) else []
        told = {
            machine.vm_uuid: {
                "vm_uuid": machine.vm_uuid,
                "status": machine.status,
                "in_progress": machine.status == "starting",
            }
            for machine in self._workspace.machines
            if machine.vm_uuid in refs
        }
        return web.json_response(told)

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(machine_view(self._find(request), api_version(request)))

    async def _delete(self, request: web.Request) -> web.Response:
        self._workspace.machines.remove(self._find(request))
        return web.Response(status=204)

    async def _act(self, request: web.Request) -> web.Response:
        machine = self._find(request)
        action = request.path.rpartition("/")[2]
        if action in ("start", "restart"):
            machine.boot()
        else:
            machine.wanted = "stopped"
        return web.json_response(vm_view(machine))

    def _find(self, request: web.Request) -> FakeMachine:
        return self._workspace.find(request.match_info["id"])
