"""The fake cloud's HTTP server and what it remembers.

Invariant: a machine exists exactly once for each app id and compose hash that was committed, however often.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp import web

from blueprint.foreign_json import JsonValue
from blueprint.tee.simulator.kms import SimulatedKms
from blueprint.tee.simulator.platform import MockPlatform
from blueprint.testing.cloud.checks import (
    compose_bytes,
    demand,
    demand_compose,
    demand_name,
    read_object,
)
from blueprint.testing.cloud.faults import Fault, Refusal, refusal
from blueprint.testing.cloud.machine import FakeMachine, Prepared
from blueprint.testing.cloud.views import (
    FIRST_VERSION,
    app_view,
    attestation_view,
    composition_view,
    kms_view,
    machine_view,
    network_view,
    state_view,
    stats_view,
    vm_view,
)

__all__ = ["FakeCloud"]

_PREFIX = "/api/v1"
_VERSIONS = (FIRST_VERSION, "2026-01-21", "2026-05-22", "2026-06-23")
_SIZES = {"tdx.small": (1, 2048), "tdx.medium": (2, 4096), "tdx.large": (4, 8192)}
_MAX_SEALED_BYTES = 256 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeCloud:
    """An async context manager: inside of it, the cloud answers at `url`.

    Args:
        api_key: what a request must carry.
        boot_s: how long a machine starts.
        max_machines: the workspace's quota.
        slots: for how many machines its one node has room.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        api_key: str = "phak_fake",
        boot_s: float = 0.0,
        max_machines: int = 10,
        slots: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.api_key = api_key
        self.boot_s = boot_s
        self.max_machines = max_machines
        self.slots = slots
        self.kms = SimulatedKms()
        self.platform = MockPlatform()
        self.machines: list[FakeMachine] = []
        self.requests: list[str] = []
        """Method and path of each request, in order."""
        self.url = ""
        self._clock = clock
        self._prepared: dict[tuple[str, str], Prepared] = {}
        self._faults: dict[tuple[str, str], list[Fault]] = {}
        self._made = 0
        self._runner: web.AppRunner | None = None

    def fail(self, method: str, path: str, fault: Fault, *, times: int = 1) -> None:
        """Spoil the next answers to a method and a path below the base URL; ``{id}`` stands for any id."""
        self._faults.setdefault((method, path), []).extend([fault] * times)

    async def __aenter__(self) -> Self:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard], client_max_size=2**20)
        for method, path, handler in self._routes():
            app.router.add_route(method, _PREFIX + path, handler)
        app.router.add_get("/logs/{id}/{service}", self._log)
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

    def _routes(self) -> list[tuple[str, str, Handler]]:
        one = "/cvms/{id}"
        return [
            ("GET", "/auth/me", self._me),
            ("GET", "/teepods/available", self._nodes),
            ("GET", "/instance-types", self._sizes),
            ("GET", "/apps", self._apps),
            ("POST", "/status/batch", self._statuses),
            ("GET", "/kms", self._kms),
            ("GET", "/kms/{kms}/pubkey/{app_id}", self._public_key),
            ("POST", "/cvms/provision", self._provision),
            ("POST", "/cvms", self._commit),
            ("GET", "/cvms/paginated", self._list),
            ("GET", one, self._get),
            ("DELETE", one, self._delete),
            ("PATCH", one, self._patch),
            ("GET", f"{one}/state", self._state),
            ("GET", f"{one}/stats", self._shown(stats_view)),
            ("GET", f"{one}/network", self._shown(network_view)),
            ("GET", f"{one}/attestation", self._shown(attestation_view)),
            ("GET", f"{one}/composition", self._composition),
            ("POST", f"{one}/compose_file/provision", self._provision_update),
            ("PATCH", f"{one}/compose_file", self._commit_update),
            ("PATCH", f"{one}/envs", self._envs),
            ("PATCH", f"{one}/resources", self._resources),
            ("POST", f"{one}/replicas", self._replicate),
            *(
                (("POST", f"{one}/{action}", self._act))
                for action in ("start", "stop", "shutdown", "restart")
            ),
        ]

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        route = request.match_info.route.resource
        path = (route.canonical if route else request.path).removeprefix(_PREFIX)
        if not request.path.startswith("/logs/"):
            self.requests.append(f"{request.method} {request.path.removeprefix(_PREFIX)}")
        answer: web.StreamResponse
        try:
            faults = self._faults.get((request.method, path), [])
            fault = faults.pop(0) if faults else Fault()
            answer = await fault.before() or await self._answer(request, handler)
            answer = await fault.after(request, answer)
        except Refusal as exc:
            answer = exc.answer
        except web.HTTPException as exc:
            answer = refusal(exc.status, exc.reason)
        if not answer.prepared:
            answer.headers["X-Request-ID"] = f"req_{len(self.requests)}"
        return answer

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/logs/"):
            return await handler(request)  # the guest's own server, which knows no key
        if not secrets.compare_digest(request.headers.get("X-API-Key", ""), self.api_key):
            raise Refusal(refusal(401, "Invalid API key"))
        if _version(request) not in _VERSIONS:
            raise Refusal(refusal(400, f"unknown API version {_version(request)!r}"))
        return await handler(request)

    def _find(self, request: web.Request) -> FakeMachine:
        ref = request.match_info["id"]
        found = [machine for machine in self.machines if machine.answers_to(ref)]
        if not found:
            raise Refusal(refusal(404, f"no CVM {ref!r}", code="ERR-03-001"))
        if len({machine.prepared.app_id for machine in found}) > 1:
            raise Refusal(refusal(409, "several CVMs have this name", code="ERR-03-002"))
        return found[0]

    def _shown(self, view: Callable[[FakeMachine], dict[str, JsonValue]]) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            return web.json_response(view(self._find(request)))

        return handler

    async def _me(self, request: web.Request) -> web.Response:
        person: dict[str, JsonValue] = {"username": "tester", "email": "tester@example.test"}
        return web.json_response(person if _version(request) == FIRST_VERSION else {"user": person})

    async def _nodes(self, _: web.Request) -> web.Response:
        image = {"name": "dstack-0.5.5", "is_dev": False, "version": [0, 5, 5], "os_image_hash": "11" * 32}
        node = {
            "teepod_id": 1,
            "name": "node-1",
            "listed": True,
            "resource_score": 1.0,
            "remaining_vcpu": 64,
            "remaining_memory": 131072,
            "remaining_cvm_slots": self.slots - len(self.machines),
            "images": [image],
            "region_identifier": "test-1",
            "kms_list": ["phala"],
        }
        capacity = {"max_instances": self.max_machines}
        told = {"tier": "free", "capacity": capacity, "nodes": [node], "kms_list": [self._kms_view()]}
        return web.json_response(told)

    async def _sizes(self, _: web.Request) -> web.Response:
        items = [
            {
                "id": name,
                "name": name,
                "description": name,
                "vcpu": vcpu,
                "memory_mb": memory,
                "hourly_rate": "0.06",
                "requires_gpu": False,
                "default_disk_size_gb": 20,
                "family": "cpu",
            }
            for name, (vcpu, memory) in _SIZES.items()
        ]
        return web.json_response({"result": [{"name": "cpu", "items": items, "total": len(items)}]})

    def _kms_view(self) -> dict[str, JsonValue]:
        return kms_view(self.kms.root_public_key.hex())

    async def _kms(self, _: web.Request) -> web.Response:
        page = {"items": [self._kms_view()], "total": 1, "page": 1, "page_size": 30, "pages": 1}
        return web.json_response(page)

    async def _public_key(self, request: web.Request) -> web.Response:
        digits = request.match_info["app_id"].removeprefix("0x")
        if request.match_info["kms"] not in ("phala", "kms_1"):
            raise Refusal(refusal(404, "no such KMS", code="ERR-02-011"))
        if len(digits) != 40 or not all(digit in "0123456789abcdef" for digit in digits):  # noqa: PLR2004
            raise Refusal(
                refusal(422, [{"loc": ["path", "app_id"], "msg": "40 digits", "type": "value_error"}])
            )
        app_id = bytes.fromhex(digits)
        told = {
            "public_key": self.kms.env_public_key(app_id).hex(),
            "signature": self.kms.sign_public_key(app_id).hex(),
        }
        return web.json_response(told)

    async def _provision(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        kinds = {"instance_type": "string", "vcpu": "number", "memory": "number", "disk_size": "number"}
        demand(body, {**kinds, "teepod_id": "number", "image": "string", "listed": "boolean"})
        name, compose = demand_name(body.get("name")), demand_compose(body.get("compose_file"))
        self._check_choices(body)
        size = {member: body[member] for member in kinds if member in body}
        prepared = self._prepare(
            name, secrets.token_hex(20), {**compose, "name": compose.get("name", "")}, size
        )
        app_id = bytes.fromhex(prepared.app_id)
        told = {
            "app_id": prepared.app_id,
            "app_env_encrypt_pubkey": self.kms.env_public_key(app_id).hex(),
            "compose_hash": prepared.compose_hash,
            "kms_info": self._kms_view(),
            "fmspc": "00806f050000",
            "device_id": "22" * 32,
            "os_image_hash": "11" * 32,
            "instance_type": body.get("instance_type") or "tdx.small",
            "node_id": 1,
        }
        return web.json_response(told)

    def _check_choices(self, body: dict[str, JsonValue]) -> None:
        if body.get("instance_type") not in (None, *_SIZES):
            raise Refusal(refusal(404, "no such instance type", code="ERR-02-001"))
        if body.get("teepod_id") not in (None, 1):
            raise Refusal(refusal(404, "no such node", code="ERR-01-001"))
        if any(machine.prepared.name == body["name"] for machine in self.machines):
            raise Refusal(refusal(409, "a CVM of this name exists", code="ERR-01-004"))
        if len(self.machines) >= self.max_machines:
            raise Refusal(refusal(403, "the workspace has its most CVMs", code="ERR-04-002"))
        if len(self.machines) >= self.slots:
            raise Refusal(refusal(409, "no node with room", code="ERR-02-005"))

    def _prepare(
        self, name: str, app_id: str, compose: dict[str, JsonValue], size: dict[str, JsonValue]
    ) -> Prepared:
        made, digest = compose_bytes(compose)
        prepared = Prepared(
            name=name, app_id=app_id, app_compose=made, compose=compose, compose_hash=digest, size=size
        )
        self._prepared[app_id, digest] = prepared
        return prepared

    async def _commit(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        kinds = {"app_id": "string", "compose_hash": "string", "encrypted_env": "string", "env_keys": "list"}
        demand(body, kinds, required=("app_id", "compose_hash"))
        app_id = str(body["app_id"]).removeprefix("app_").removeprefix("0x")
        digest = str(body["compose_hash"])
        for machine in self.machines:
            if machine.prepared.app_id == app_id:
                if machine.prepared.compose_hash != digest:
                    raise Refusal(refusal(409, "the app id has another hash", code="ERR-03-007"))
                return web.json_response(vm_view(machine))
        prepared = self._prepared.get((app_id, digest))
        if prepared is None:
            raise Refusal(refusal(400, "never provisioned, or expired", code="ERR-01-006"))
        return web.json_response(vm_view(self._make(prepared, _sealed(body))))

    def _make(self, prepared: Prepared, sealed: bytes | None) -> FakeMachine:
        self._made += 1
        machine = FakeMachine(
            number=self._made,
            prepared=prepared,
            sealed=sealed,
            kms=self.kms,
            platform=self.platform,
            clock=self._clock,
            boot_s=self.boot_s,
        )
        machine.boot()
        self.machines.append(machine)
        return machine

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
        shown = [view(machine, _version(request)) for machine in self.machines]
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
            for machine in self.machines
            if machine.vm_uuid in refs
        }
        return web.json_response(told)

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(machine_view(self._find(request), _version(request)))

    async def _delete(self, request: web.Request) -> web.Response:
        self.machines.remove(self._find(request))
        return web.Response(status=204)

    async def _act(self, request: web.Request) -> web.Response:
        machine = self._find(request)
        action = request.path.rpartition("/")[2]
        if action in ("start", "restart"):
            machine.boot()
        else:
            machine.wanted = "stopped"
        return web.json_response(vm_view(machine))

    async def _state(self, request: web.Request) -> web.StreamResponse:
        machine = self._find(request)
        if "text/event-stream" not in request.headers.get("Accept", ""):
            return web.json_response(state_view(machine))
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        shown: dict[str, JsonValue] = {}
        ends_s = self._clock() + float(request.query.get("timeout", "300"))
        while self._clock() < ends_s:
            state = state_view(machine)
            if state != shown:
                await stream.write(f"event: state\ndata: {json.dumps(state)}\n\n".encode())
            shown = state
            if machine.status == request.query.get("target"):
                await stream.write(b"event: complete\ndata: {}\n\n")
                return stream
            await asyncio.sleep(0.01)
        await stream.write(b"event: timeout\ndata: {}\n\n")
        return stream

    async def _composition(self, request: web.Request) -> web.Response:
        base = self.url.removesuffix(_PREFIX)
        return web.json_response(composition_view(self._find(request), base))

    async def _log(self, request: web.Request) -> web.Response:
        if "X-API-Key" in request.headers:
            raise Refusal(refusal(400, "the API key was sent to a guest"))
        for container in self._find(request).containers:
            if container.service == request.match_info["service"]:
                return web.Response(body=container.log, content_type="text/plain")
        raise Refusal(refusal(404, "no such container"))

    async def _provision_update(self, request: web.Request) -> web.Response:
        machine = self._find(request)
        compose = demand_compose(await read_object(request))
        old = machine.prepared
        prepared = self._prepare(old.name, old.app_id, compose, old.size)
        told = {
            "app_id": old.app_id,
            "device_id": "22" * 32,
            "compose_hash": prepared.compose_hash,
            "kms_info": self._kms_view(),
        }
        return web.json_response(told)

    async def _commit_update(self, request: web.Request) -> web.Response:
        machine, body = self._find(request), await read_object(request)
        demand(body, {"compose_hash": "string", "env_keys": "list"}, required=("compose_hash",))
        prepared = self._prepared.get((machine.prepared.app_id, str(body["compose_hash"])))
        if prepared is None:
            raise Refusal(refusal(400, "never provisioned, or expired", code="ERR-01-006"))
        sealed = _sealed(body)
        machine.prepared = prepared
        machine.sealed = machine.sealed if sealed is None else sealed
        machine.boot()
        return web.json_response(_begun())

    async def _envs(self, request: web.Request) -> web.Response:
        machine, body = self._find(request), await read_object(request)
        demand(body, {"env_keys": "list"}, required=("encrypted_env",))
        names = body.get("env_keys")
        is_changed = names is not None and names != machine.prepared.compose.get("allowed_envs")
        if is_changed:
            compose = {**machine.prepared.compose, "allowed_envs": names}
            old = machine.prepared
            machine.prepared = self._prepare(old.name, old.app_id, compose, old.size)
        machine.sealed = _sealed(body)
        machine.boot()
        return web.json_response({**_begun(), "allowed_envs_changed": is_changed})

    async def _patch(self, request: web.Request) -> web.Response:
        machine, body = self._find(request), await read_object(request)
        members = (
            "docker_compose_file",
            "pre_launch_script",
            "allowed_envs",
            "public_logs",
            "public_sysinfo",
        )
        changed = {name: body[name] for name in members if name in body}
        old, sealed = machine.prepared, _sealed(body)
        compose = demand_compose({**old.compose, **changed})
        machine.prepared = self._prepare(old.name, old.app_id, compose, old.size)
        machine.sealed = machine.sealed if sealed is None else sealed
        machine.boot()
        return web.json_response(_begun(), status=202)

    async def _resources(self, request: web.Request) -> web.Response:
        machine, body = self._find(request), await read_object(request)
        kinds = {"instance_type": "string", "vcpu": "number", "memory": "number", "disk_size": "number"}
        demand(body, {**kinds, "allow_restart": "boolean"})
        if body.get("instance_type") not in (None, *_SIZES):
            raise Refusal(refusal(404, "no such instance type", code="ERR-02-001"))
        machine.prepared.size |= {name: body[name] for name in kinds if name in body}
        return web.json_response(_begun(), status=202)

    async def _replicate(self, request: web.Request) -> web.Response:
        original, body = self._find(request), await read_object(request)
        demand(body, {"node_id": "number"})
        return web.json_response(vm_view(self._make(original.prepared, original.sealed)))


def _version(request: web.Request) -> str:
    return request.headers.get("X-Phala-Version", FIRST_VERSION)


def _begun() -> dict[str, JsonValue]:
    return {"status": "in_progress", "message": "begun", "correlation_id": secrets.token_hex(8)}


def _sealed(body: dict[str, JsonValue]) -> bytes | None:
    """Return a request's sealed variables: lower-case digits, no more than the guest reads."""
    digits = body.get("encrypted_env")
    if digits is None:
        return None
    is_text = isinstance(digits, str) and digits == digits.lower()
    try:
        sealed = bytes.fromhex(digits) if isinstance(digits, str) and is_text else b""
    except ValueError:
        sealed = b""
    if not sealed or len(sealed) > _MAX_SEALED_BYTES:
        told = [
            {
                "loc": ["body", "encrypted_env"],
                "msg": "hexadecimal digits, at most 256 KiB",
                "type": "value_error",
            }
        ]
        raise Refusal(refusal(422, told))
    return sealed
