"""Phala Cloud as a place to deploy to.

Invariant: a machine is ordered at most once for what was provisioned; nothing is waited for without telling.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from blueprint.foreign_json import JsonValue
from jobs.deploy.backends.backend import (
    Action,
    Container,
    Evidence,
    Machine,
    MachineState,
    Placement,
    Provision,
    PublicKey,
    Stats,
    Workload,
)
from jobs.deploy.backends.phala_words import (
    app_id_of,
    check_size,
    compose_object,
    container_of,
    evidence_of,
    hex_bytes,
    machine_of,
    moved,
    node_number,
    price_of,
    provision_of,
    resources_of,
    stats_of,
)
from jobs.deploy.cloud.client import CloudClient
from jobs.deploy.cloud.errors import (
    CloudError,
    CloudProtocolError,
    Complaint,
    NotFoundError,
    UnknownChoiceError,
)
from jobs.deploy.cloud.models import CvmState, InstanceType, Provisioned
from jobs.deploy.errors import DeployError

__all__ = ["PhalaBackend"]

_DEFAULT_KMS = "phala"


class PhalaBackend:
    """The five ports on the cloud's API.

    Args:
        client: closed with the back end.
        poll_s: between two questions for a machine's state, where there are no events.
    """

    name = "phala"

    def __init__(self, client: CloudClient, *, poll_s: float = 5.0) -> None:
        self._client = client
        self.provisioning = _Provisioning(client)
        self.machines = _Machines(client)
        self.scaling = _Scaling(client)
        self.observation = _Observation(client, poll_s)
        self.witness = _Witness(client)

    async def aclose(self) -> None:
        """Let go of connections; machines go on."""
        await self._client.aclose()


class _Provisioning:
    def __init__(self, client: CloudClient) -> None:
        self._client = client

    async def provision(self, workload: Workload, placement: Placement) -> Provision:
        sizes = await _offered_sizes(self._client, placement)
        await _check_host(self._client, node=placement.node, image=placement.image)
        compose = compose_object(workload)
        body: dict[str, JsonValue] = {
            "name": workload.name,
            "compose_file": compose,
            "kms": "PHALA",
            "listed": False,
            **resources_of(placement),
        }
        if placement.image:
            body["image"] = placement.image
        if placement.node:
            body["teepod_id"] = node_number(placement.node)
        if placement.region:
            body["region"] = placement.region
        if names := compose.get("allowed_envs"):
            body["env_keys"] = names
        answer = await self._client.provision(body)
        if not answer.app_id:
            raise CloudProtocolError(
                Complaint(request="POST /cvms/provision", text="no app id in the answer")
            )
        price = price_of(answer.instance_type or placement.instance_type, sizes)
        return provision_of(answer, await _stated_key(self._client, answer), price=price)

    async def commit(
        self,
        workload: Workload,  # noqa: ARG002 - the cloud keeps what was provisioned
        placement: Placement,  # noqa: ARG002
        provision: Provision,
        sealed: bytes,
        names: Sequence[str],
    ) -> Machine:
        body: dict[str, JsonValue] = {
            "app_id": provision.app_id,
            "compose_hash": provision.compose_hash.hex(),
        }
        if sealed:
            body |= {"encrypted_env": sealed.hex(), "env_keys": list(names)}
        return machine_of(await self._client.commit(body))

    async def revise(self, machine: Machine, workload: Workload) -> Provision:
        body = {**compose_object(workload), "update_env_vars": True}
        answer = await self._client.provision_update(machine.id, body)
        if app_id_of(answer.app_id) not in ("", machine.app_id):
            raise CloudProtocolError(
                Complaint(request="POST compose_file/provision", text="the answer is for another app id")
            )
        answer = answer.model_copy(update={"app_id": machine.app_id})
        return provision_of(answer, await _stated_key(self._client, answer))

    async def apply(
        self, machine: Machine, provision: Provision | None, sealed: bytes | None, names: Sequence[str]
    ) -> None:
        variables: dict[str, JsonValue] = {}
        if sealed is not None:
            variables = {"encrypted_env": sealed.hex(), "env_keys": list(names)}
        if provision is not None:
            body: dict[str, JsonValue] = {
                "compose_hash": provision.compose_hash.hex(),
                "update_env_vars": sealed is not None,
                **variables,
            }
            await self._client.patch(machine.id, "compose_file", body)
        elif variables:
            await self._client.patch(machine.id, "envs", variables)


async def _offered_sizes(client: CloudClient, wanted: Placement) -> Sequence[InstanceType]:
    """Return the instance types that are offered; what is wanted must be among them."""
    sizes = [item for family in (await client.instance_types()).result for item in family.items]
    if wanted.instance_type:
        _must_be_among(wanted.instance_type, [size.id for size in sizes], "instance type")
    check_size(wanted, sizes)
    return sizes


async def _check_host(client: CloudClient, *, node: str, image: str = "") -> None:
    """Find a wrong node or image before anything is ordered."""
    if not node and not image:
        return
    nodes = (await client.nodes()).nodes
    if node:
        _must_be_among(node, [offered.id or "" for offered in nodes], "node")
    if image:
        _must_be_among(image, [offered.name for each in nodes for offered in each.images], "image")


def _must_be_among(wanted: str, offered: Sequence[str], what: str) -> None:
    if wanted not in offered:
        shown = ", ".join(dict.fromkeys(offered)) or "none at all"
        raise UnknownChoiceError(
            Complaint(request=f"looking up the {what}", text=f"no {what} {wanted!r}; offered: {shown}")
        )


async def _stated_key(client: CloudClient, answer: Provisioned) -> PublicKey | None:
    """Return the key with its signature, which only the KMS's own call gives."""
    kms = answer.kms_id or (answer.kms_info and (answer.kms_info.slug or answer.kms_info.id)) or _DEFAULT_KMS
    app_id = app_id_of(answer.app_id)
    told = answer.app_env_encrypt_pubkey
    try:
        key = await _Witness(client).public_key(app_id, kms)
    except NotFoundError:
        if told is None:
            return None
        return PublicKey(key=hex_bytes(told, 32, "the public key"), signature=b"", kms=kms)
    # SECURITY: two calls, one key (test_two_different_public_keys_stop_the_deployment).
    if told is not None and hex_bytes(told, 32, "the public key") != key.key:
        raise CloudProtocolError(
            Complaint(request="POST /cvms/provision", text="the answer's key is not its KMS's")
        )
    return key


class _Machines:
    def __init__(self, client: CloudClient) -> None:
        self._client = client

    async def get(self, ref: str) -> Machine | None:
        try:
            return machine_of(await self._client.cvm(_address(ref)))
        except NotFoundError:
            return None

    async def act(self, machine: Machine, action: Action) -> None:
        body = {"force": False} if action is Action.RESTART else None
        await self._client.act(machine.id, action.value, body)

    async def delete(self, machine: Machine) -> None:
        try:
            await self._client.delete(machine.id)
        except NotFoundError:
            return

    async def list(self) -> Sequence[Machine]:
        return [machine_of(cvm) for cvm in await self._client.cvms()]


def _address(ref: str) -> str:
    """Return an id as the API addresses it: a bare app id is given its prefix."""
    is_bare = len(ref) == 40 and all(digit in "0123456789abcdefABCDEF" for digit in ref)  # noqa: PLR2004
    return f"app_{ref.lower()}" if is_bare else ref


class _Scaling:
    def __init__(self, client: CloudClient) -> None:
        self._client = client

    async def price(self, placement: Placement) -> str:
        sizes = await _offered_sizes(self._client, placement)
        return price_of(placement.instance_type, sizes)

    async def resize(self, machine: Machine, placement: Placement) -> None:
        if resources := resources_of(placement):
            await self._client.patch(machine.id, "resources", {**resources, "allow_restart": True})

    async def replicate(self, machine: Machine, node: str) -> Machine:
        await _check_host(self._client, node=node)
        body: dict[str, JsonValue] = {"node_id": node_number(node)} if node else {}
        return machine_of(await self._client.replicate(machine.id, body))


class _Observation:
    def __init__(self, client: CloudClient, poll_s: float) -> None:
        self._client = client
        self._poll_s = poll_s

    async def watch(self, machine: Machine, target: MachineState) -> AsyncIterator[Machine]:
        seen = machine
        while True:
            async with aclosing(self._changes(machine, target)) as states:
                async for state in states:
                    now = moved(seen, state)
                    is_over = now.state in (target, MachineState.FAILED)
                    if is_over or now != seen:
                        yield now
                    seen = now
                    if is_over:
                        return
            await self._client.retrier.pause(self._poll_s)

    async def _changes(self, machine: Machine, target: MachineState) -> AsyncGenerator[CvmState, None]:
        """Yield what a stream tells, then one answer to a question: it is right whatever the stream was."""
        try:
            async for state in self._client.states(machine.id, target=target.value):
                yield state
        except NotFoundError:
            raise
        except CloudError:
            pass  # a broken stream, or none: ask, and try it again after the pause
        yield await self._client.state(machine.id)

    async def containers(self, machine: Machine) -> Sequence[Container]:
        answer = await self._client.composition(machine.id)
        return [container_of(info) for info in answer.containers or ()]

    async def logs(
        self, machine: Machine, service: str, *, follow: bool, tail: int | None
    ) -> AsyncIterator[bytes]:
        answer = await self._client.composition(machine.id)
        infos = answer.containers or []
        info = next((info for info in infos if container_of(info).service == service), None)
        if info is None:
            known = ", ".join(container_of(other).service for other in infos) or "none yet"
            raise DeployError(
                f"no service {service!r} runs in {machine.name}", advice=f"take one of: {known}"
            )
        if info.log_endpoint is None:
            raise DeployError(
                f"the logs of {machine.name} are not public",
                advice="deploy it with public logs if anyone may read them",
            )
        query = {"text": "", "bare": ""}
        if follow:
            query["follow"] = ""
        if tail is not None:
            query |= {"tail": str(tail), "lines": str(tail)}
        async for piece in self._client.log(info.log_endpoint, query=query):
            yield piece

    async def stats(self, machine: Machine) -> Stats:
        return stats_of(await self._client.stats(machine.id))


class _Witness:
    def __init__(self, client: CloudClient) -> None:
        self._client = client

    async def public_key(self, app_id: str, kms: str) -> PublicKey:
        answer = await self._client.public_key(kms or _DEFAULT_KMS, app_id)
        return PublicKey(
            key=hex_bytes(answer.public_key, 32, "the public key"),
            signature=hex_bytes(answer.signature, 65, "its signature") if answer.signature else b"",
            timestamp_s=answer.timestamp,
            kms=kms or _DEFAULT_KMS,
        )

    async def evidence(self, machine: Machine, nonce: bytes) -> Evidence:  # noqa: ARG002 - the cloud binds none
        return evidence_of(await self._client.attestation(machine.id))
