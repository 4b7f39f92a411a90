"""A Docker engine on this machine, through its HTTP API on a Unix socket.

Invariant: only what carries the label of one Compose project is ever stopped or removed.
Source of the rule: Docker Engine API 1.41 (containers, networks, volumes, stream format of logs).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx

from jobs.deploy.backends.backend import Health
from jobs.deploy.errors import DeployError

__all__ = ["DEFAULT_SOCKET", "Engine", "EngineContainer", "Usage", "engine_socket"]

DEFAULT_SOCKET: Final = Path("/var/run/docker.sock")

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"
_ONE_OFF = "com.docker.compose.oneoff"
_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 600.0
_FRAME_HEADER_BYTES = 8
_GONE = 404
_BUSY = 409
_UNCHANGED = 304
_HINT = "start one (on Debian: sudo apt-get install docker.io), or name its socket in DOCKER_HOST"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineContainer:
    """One container of a project."""

    id: str
    service: str
    state: str
    """The engine's word: created, running, paused, restarting, removing, exited or dead."""
    status: str
    """For people, e.g. ``Up 3 minutes (healthy)``."""
    health: Health
    exit_code: int | None
    """None while it runs or has never run."""
    is_terminal: bool
    """Its output is one stream without frames."""
    urls: tuple[str, ...]
    """Of its TCP ports that are published on loopback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one container uses at a moment."""

    cpu_percent: float
    """100 is one CPU."""
    memory_bytes: int
    memory_limit_bytes: int


def engine_socket(docker_host: str) -> Path:
    """Return the socket that a value of ``DOCKER_HOST`` names; the usual one for an empty value.

    Raises:
        DeployError: the engine is not on this machine: it could not mount the guest agent's socket.
    """
    if not docker_host:
        return DEFAULT_SOCKET
    address = urlsplit(docker_host)
    if address.scheme != "unix" or address.netloc or not address.path.startswith("/"):
        raise DeployError(
            f"DOCKER_HOST is {docker_host!r}, which is no Unix socket",
            advice="the local place needs an engine on this machine, e.g. unix:///var/run/docker.sock",
        )
    return Path(address.path)


class Engine:
    """Asks one engine; use it in ``async with``, or call :meth:`aclose`.

    Args:
        socket: where the engine listens.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        transport = httpx.AsyncHTTPTransport(uds=str(socket))
        self._client = httpx.AsyncClient(
            base_url="http://engine", timeout=_TIMEOUT_S, transport=transport, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._client.aclose()

    async def check(self) -> str:
        """Return the engine's version; a `DeployError` if none answers."""
        return str((await self._get("/version")).get("Version", ""))

    async def containers(self, project: str) -> tuple[EngineContainer, ...]:
        """Return the containers of a project, in the order of their services."""
        found = [
            await self._inspect(listed)
            for listed in await self._listed(project)
            if listed["Labels"].get(_ONE_OFF) != "True"
        ]
        return tuple(sorted((one for one in found if one), key=lambda one: (one.service, one.id)))

    async def projects(self, prefix: str) -> frozenset[str]:
        """Return the projects with a prefix that have anything left here."""
        filters = _filters(_PROJECT)
        answers: list[dict[str, Any]] = [
            *await self._get("/containers/json", all="1", filters=filters),
            *await self._get("/networks", filters=filters),
            *((await self._get("/volumes", filters=filters)).get("Volumes") or ()),
        ]
        names = {str((answer.get("Labels") or {}).get(_PROJECT, "")) for answer in answers}
        return frozenset(name for name in names if name.startswith(prefix))

    async def halt(self, project: str, *, is_graceful: bool) -> None:
        """Stop the containers of a project, side by side; gracefully with each one's own patience."""
        query = {} if is_graceful else {"t": "0"}
        async with asyncio.TaskGroup() as group:
            for listed in await self._listed(project):
                if listed["State"] not in {"created", "exited", "dead"}:
                    path = f"/containers/{listed['Id']}/stop"
                    group.create_task(self._do("POST", path, query, timeout_s=_STOP_TIMEOUT_S))

    async def remove(self, project: str) -> None:
        """Remove all that a project has: containers, networks, volumes; what is gone is no failure."""
        for listed in await self._listed(project):
            await self._do("DELETE", f"/containers/{listed['Id']}", {"force": "1", "v": "1"})
        for network in await self._get("/networks", filters=_filters(f"{_PROJECT}={project}")):
            await self._do("DELETE", f"/networks/{network['Id']}")
        volumes = await self._get("/volumes", filters=_filters(f"{_PROJECT}={project}"))
        for volume in volumes.get("Volumes") or ():
            await self._do("DELETE", f"/volumes/{volume['Name']}")
        if project in await self.projects(project):
            raise DeployError(
                f"the engine still has parts of {project}", advice="delete the machine again in a moment"
            )

    async def logs(
        self, container: EngineContainer, *, follow: bool, tail: int | None
    ) -> AsyncIterator[bytes]:
        """Yield what a container printed on both streams, in pieces."""
        query = {
            "stdout": "1",
            "stderr": "1",
            "follow": str(int(follow)),
            "tail": "all" if tail is None else str(tail),
        }
        timeout = httpx.Timeout(_TIMEOUT_S, read=None if follow else _TIMEOUT_S)
        path = f"/containers/{container.id}/logs"
        try:
            async with self._client.stream("GET", path, params=query, timeout=timeout) as response:
                if response.is_error:
                    await response.aread()
                    raise _refused("GET", path, response)
                pieces = response.aiter_bytes()
                async for piece in pieces if container.is_terminal else _unframed(pieces):
                    yield piece
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    async def usage(self, container: EngineContainer) -> Usage | None:
        """Return what a container uses now, measured over a second; None if it has ended meanwhile."""
        answer = await self._get(f"/containers/{container.id}/stats", stream="false")
        now, before, memory = (
            answer.get(part) or {} for part in ("cpu_stats", "precpu_stats", "memory_stats")
        )
        if "usage" not in memory:
            return None
        used_ns = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
        passed_ns = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
        share = used_ns / passed_ns * now.get("online_cpus", 1) if passed_ns > 0 else 0.0
        return Usage(
            cpu_percent=100 * share, memory_bytes=memory["usage"], memory_limit_bytes=memory.get("limit", 0)
        )

    async def import_image(self, archive: bytes, name: str, tag: str) -> None:
        """Make an image with one layer out of a tar archive of its root folder."""
        query = {"fromSrc": "-", "repo": name, "tag": tag}
        await self._do("POST", "/images/create", query, content=archive)

    async def images(self) -> frozenset[str]:
        """Return the names with tags of all images."""
        answers: list[dict[str, Any]] = await self._get("/images/json")
        return frozenset(name for answer in answers for name in answer.get("RepoTags") or ())

    async def _listed(self, project: str) -> list[dict[str, Any]]:
        filters = _filters(f"{_PROJECT}={project}")
        listed: list[dict[str, Any]] = await self._get("/containers/json", all="1", filters=filters)
        return listed

    async def _inspect(self, listed: Mapping[str, Any]) -> EngineContainer | None:
        response = await self._ask("GET", f"/containers/{listed['Id']}/json")
        if response.status_code == _GONE:
            return None
        content = _json(response)
        state = content["State"]
        is_over = state["Status"] in {"exited", "dead"}
        return EngineContainer(
            id=listed["Id"],
            service=listed["Labels"].get(_SERVICE, listed["Names"][0].lstrip("/")),
            state=state["Status"],
            status=listed["Status"],
            health=_health((state.get("Health") or {}).get("Status", "none")),
            exit_code=state["ExitCode"] if is_over else None,
            is_terminal=content["Config"]["Tty"],
            urls=tuple(_urls(listed.get("Ports") or ())),
        )

    async def _get(self, path: str, **query: str) -> Any:
        response = await self._ask("GET", path, query)
        if response.is_error:
            raise _refused("GET", path, response)
        return _json(response)

    async def _do(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        timeout_s: float = _TIMEOUT_S,
        content: bytes = b"",
    ) -> None:
        response = await self._ask(method, path, query, timeout_s=timeout_s, content=content)
        # 409: the same is being done already; whether it was done is looked at afterwards.
        if response.is_error and response.status_code not in {_GONE, _BUSY, _UNCHANGED}:
            raise _refused(method, path, response)

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        timeout_s: float = _TIMEOUT_S,
        content: bytes = b"",
    ) -> httpx.Response:
        try:
            return await self._client.request(method, path, params=query, timeout=timeout_s, content=content)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> DeployError:
        return DeployError(
            f"the Docker engine at {self.socket} does not answer: {str(error) or type(error).__name__}",
            advice=_HINT,
        )


async def _unframed(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Take the frames off: a byte for the stream, three of padding, four of length, big-endian."""
    held = bytearray()
    async for piece in pieces:
        held += piece
        while len(held) >= _FRAME_HEADER_BYTES:
            end = _FRAME_HEADER_BYTES + int.from_bytes(held[4:_FRAME_HEADER_BYTES], "big")
            if len(held) < end:
                break
            yield bytes(held[_FRAME_HEADER_BYTES:end])
            del held[:end]


def _filters(label: str) -> str:
    return json.dumps({"label": [label]})


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise DeployError("the Docker engine answered something that is no JSON", advice=_HINT) from error


def _refused(method: str, path: str, response: httpx.Response) -> DeployError:
    try:
        said = str(response.json().get("message", ""))
    except (ValueError, AttributeError):
        said = response.text
    return DeployError(f"the Docker engine refused {method} {path}: {response.status_code} {said[:300]}")


def _health(word: str) -> Health:
    return Health(word) if word in set(Health) else Health.NONE


def _urls(ports: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    published = {port["PublicPort"] for port in ports if port.get("PublicPort") and port["Type"] == "tcp"}
    return (f"http://127.0.0.1:{number}" for number in sorted(published))
