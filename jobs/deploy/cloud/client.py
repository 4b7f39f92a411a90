"""The calls of the cloud's API that a deployment makes, typed.

Invariant: what may have been received is sent again only where doing it twice is doing it once: reading, and
the commit of what was provisioned.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, SecretStr, ValidationError
from typing_extensions import override

from blueprint.foreign_json import JsonValue
from jobs.deploy.cloud.errors import CloudProtocolError, Complaint
from jobs.deploy.cloud.events import EventStreamError, read_events
from jobs.deploy.cloud.models import (
    Account,
    Attestation,
    Composition,
    Cvm,
    CvmPage,
    CvmState,
    InstanceTypes,
    KmsPage,
    KmsPublicKey,
    Network,
    Nodes,
    Provisioned,
    SystemStats,
)
from jobs.deploy.cloud.retry import Retrier
from jobs.deploy.cloud.transport import CloudTransport

__all__ = ["API_VERSION", "BASE_URL", "CloudClient", "segment"]

BASE_URL = "https://cloud-api.phala.com/api/v1"
API_VERSION = "2026-01-21"
_PAGE_SIZE = 50
_MAX_PAGES = 200

Model = TypeVar("Model", bound=BaseModel)


def segment(ref: str) -> str:
    """Return an id as one segment of a path.

    Raises:
        CloudProtocolError: it is empty or would lead elsewhere.
    """
    if ref in ("", ".", ".."):
        raise CloudProtocolError(Complaint(request="an id", text=f"{ref!r} addresses no machine"))
    return quote(ref, safe="")


class CloudClient:
    """An async client; a context manager, or closed with `aclose`.

    Args:
        api_key: of the workspace.
        base_url: of the API.
        api_version: the shapes that the cloud is asked for; others are understood as far as possible.
        timeout_s: of connecting, and of each silence.
        max_answer_bytes: what is read of an answer at most.
        proxy: URL of an HTTP proxy; the environment is not read.
        retrier: repeats what is safe to repeat.
        transport: for tests, in place of the network.
    """

    def __init__(
        self,
        *,
        api_key: SecretStr,
        base_url: str = BASE_URL,
        api_version: str = API_VERSION,
        timeout_s: float = 30.0,
        max_answer_bytes: int = 16 * 1024 * 1024,
        proxy: str | None = None,
        retrier: Retrier | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url
        self.retrier = retrier or Retrier()
        self._transport = CloudTransport(
            base_url,
            api_key=api_key,
            api_version=api_version,
            timeout_s=timeout_s,
            max_answer_bytes=max_answer_bytes,
            proxy=proxy,
            transport=transport,
        )

    @override
    def __repr__(self) -> str:
        return f"CloudClient({self.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._transport.aclose()

    async def me(self) -> Account:
        """Return whom the key belongs to."""
        return await self._get("/auth/me", Account)

    async def nodes(self) -> Nodes:
        """Return the nodes with room, and the KMSs."""
        return await self._get("/teepods/available", Nodes)

    async def instance_types(self) -> InstanceTypes:
        """Return the sizes and their prices."""
        return await self._get("/instance-types", InstanceTypes)

    async def provision(self, body: Mapping[str, JsonValue]) -> Provisioned:
        """Prepare a new machine; sent once."""
        return await self._send("POST", "/cvms/provision", dict(body), Provisioned)

    async def commit(self, body: Mapping[str, JsonValue]) -> Cvm:
        """Create what was prepared; the same again gives the same machine."""
        return await self._send("POST", "/cvms", dict(body), Cvm, is_repeatable=True)

    async def cvms(self) -> Sequence[Cvm]:
        """Return all machines of the workspace."""
        found: list[Cvm] = []
        for number in range(1, _MAX_PAGES + 1):
            query = {"page": str(number), "page_size": str(_PAGE_SIZE)}
            page = await self._get("/cvms/paginated", CvmPage, query=query)
            found += page.items
            if number >= page.pages or not page.items:
                return found
        raise CloudProtocolError(
            Complaint(request="GET /cvms/paginated", text=f"more than {_MAX_PAGES} pages of machines")
        )

    async def cvm(self, ref: str) -> Cvm:
        """Return one machine."""
        return await self._get(f"/cvms/{segment(ref)}", Cvm)

    async def state(self, ref: str) -> CvmState:
        """Return how far a machine is."""
        return await self._get(f"/cvms/{segment(ref)}/state", CvmState)

    async def states(
        self, ref: str, *, target: str, interval_s: int = 5, timeout_s: int = 300
    ) -> AsyncIterator[CvmState]:
        """Yield states as the cloud sends them, until it says that the target is reached or its time is over.

        Raises:
            CloudError: the stream broke, or there is none: `state` still answers.
        """
        path = f"/cvms/{segment(ref)}/state"
        query = {"target": target, "interval": str(interval_s), "timeout": str(timeout_s)}
        async with self._transport.stream(path, query=query, accept="text/event-stream") as pieces:
            try:
                async with aclosing(read_events(pieces)) as events:
                    async for event in events:
                        if event.kind in ("complete", "timeout"):
                            return
                        if event.kind == "state":
                            yield _event_state(event.data, path)
                        elif event.kind == "error":
                            raise CloudProtocolError(Complaint(request=f"GET {path}", text=event.data[:200]))
            except EventStreamError as exc:
                raise CloudProtocolError(Complaint(request=f"GET {path}", text=str(exc))) from exc
        raise CloudProtocolError(Complaint(request=f"GET {path}", text="the stream ended before its end"))

    async def stats(self, ref: str) -> SystemStats:
        """Return what a machine uses."""
        return await self._get(f"/cvms/{segment(ref)}/stats", SystemStats)

    async def network(self, ref: str) -> Network:
        """Return where a machine is reached."""
        return await self._get(f"/cvms/{segment(ref)}/network", Network)

    async def composition(self, ref: str) -> Composition:
        """Return what runs inside."""
        return await self._get(f"/cvms/{segment(ref)}/composition", Composition)

    async def attestation(self, ref: str) -> Attestation:
        """Return a machine's proof."""
        return await self._get(f"/cvms/{segment(ref)}/attestation", Attestation)

    async def act(self, ref: str, action: str, body: Mapping[str, JsonValue] | None = None) -> None:
        """Ask for ``start``, ``stop``, ``shutdown`` or ``restart``; sent once."""
        await self._exchange("POST", f"/cvms/{segment(ref)}/{action}", None if body is None else dict(body))

    async def replicate(self, ref: str, node: str) -> Cvm:
        """Order another machine of the same application; sent once."""
        body: dict[str, JsonValue] = {"node_id": int(node)} if node else {}
        return await self._send("POST", f"/cvms/{segment(ref)}/replicas", body, Cvm)

    async def delete(self, ref: str) -> None:
        """Remove a machine; sent once."""
        await self._exchange("DELETE", f"/cvms/{segment(ref)}")

    async def provision_update(self, ref: str, body: Mapping[str, JsonValue]) -> Provisioned:
        """Prepare another application for a machine; sent once."""
        return await self._send(
            "POST", f"/cvms/{segment(ref)}/compose_file/provision", dict(body), Provisioned
        )

    async def patch(self, ref: str, part: str, body: Mapping[str, JsonValue]) -> None:
        """Change ``compose_file``, ``envs`` or ``resources``; sent once."""
        await self._exchange("PATCH", f"/cvms/{segment(ref)}/{part}", dict(body))

    async def kms(self) -> KmsPage:
        """Return the KMSs, with the keys to pin."""
        return await self._get("/kms", KmsPage)

    async def public_key(self, kms: str, app_id: str) -> KmsPublicKey:
        """Return the key that an application's variables are sealed to."""
        return await self._get(f"/kms/{segment(kms)}/pubkey/{segment(app_id)}", KmsPublicKey)

    def log(self, endpoint: str, *, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Yield a container's log from where the guest serves it."""
        return self._transport.fetch(endpoint, query=query)

    async def _get(self, path: str, model: type[Model], *, query: Mapping[str, str] | None = None) -> Model:
        answer = await self._exchange("GET", path, query=query, is_repeatable=True)
        return _parsed(answer, model, f"GET {path}")

    async def _send(
        self,
        method: str,
        path: str,
        body: dict[str, JsonValue],
        model: type[Model],
        *,
        is_repeatable: bool = False,
    ) -> Model:
        answer = await self._exchange(method, path, body, is_repeatable=is_repeatable)
        return _parsed(answer, model, f"{method} {path}")

    async def _exchange(
        self,
        method: str,
        path: str,
        body: dict[str, JsonValue] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        is_repeatable: bool = False,
    ) -> JsonValue:
        async def attempt() -> JsonValue:
            return await self._transport.exchange(method, path, body=body, query=query)

        return await self.retrier.run(attempt, is_repeatable=is_repeatable)


def _event_state(data: str, path: str) -> CvmState:
    try:
        return CvmState.model_validate_json(data)
    except ValidationError as exc:
        raise CloudProtocolError(Complaint(request=f"GET {path}", text=_shapes(exc))) from exc


def _parsed(answer: JsonValue, model: type[Model], request: str) -> Model:
    try:
        return model.model_validate(answer)
    except ValidationError as exc:
        raise CloudProtocolError(Complaint(request=request, text=_shapes(exc))) from exc


def _shapes(error: ValidationError) -> str:
    """Name the members that are not as expected, without their values."""
    found = error.errors(include_input=False, include_url=False, include_context=False)[:5]
    return "unexpected answer: " + "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'the whole'}: {item['msg']}" for item in found
    )
