"""Carries out orders from the chain with the deployment service: the `Deployer` of a real place.

Invariant: an order's key is in the record of what it made, so the same order after a crash finds it, and
never changes what another order made.
"""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress

from jobs.deploy.app_compose import AppComposeError
from jobs.deploy.attestation import Attestation
from jobs.deploy.backends.backend import PublicKey
from jobs.deploy.cloud.errors import (
    AppConflictError,
    InvalidRequestError,
    NoRoomError,
    QuotaError,
    UnknownChoiceError,
)
from jobs.deploy.compose.check import check_compose
from jobs.deploy.compose.findings import Allowance, ComposeError
from jobs.deploy.errors import NoCapacityError, OrderRefusedError, PreparationLostError
from jobs.deploy.evidence import evidence_document
from jobs.deploy.order import Deployed, Order, Prepared
from jobs.deploy.record import DeploymentRecord
from jobs.deploy.service import DockerDeploymentService, UnknownDeploymentError
from jobs.deploy.wanted import Sealed, Wanted, recorded

__all__ = ["ServiceDeployer"]

_REFUSED = (ComposeError, AppComposeError, InvalidRequestError, UnknownChoiceError, AppConflictError)
_NO_ROOM = (NoRoomError, QuotaError)


class ServiceDeployer:
    """Prepares, commits and removes for callers on the chain.

    Args:
        service: deploys, and keeps the records.
        allow: the risks that callers' compose texts may take.
    """

    def __init__(self, service: DockerDeploymentService, *, allow: Collection[Allowance] = ()) -> None:
        self._service = service
        self._allow = frozenset(allow)

    async def prepare(self, order: Order) -> Prepared:
        """Provision an order, as `jobs.deploy.order.Deployer` says."""
        async with _told_to_callers():
            compose = check_compose(order.compose, names=order.names, allow=self._allow)
            if missing := set(order.volumes) - set(compose.volumes):
                raise OrderRefusedError(f"the compose text does not declare the volume {min(missing)}")
            wanted = Wanted(
                workload=order.workload(),
                names=order.names,
                placement=order.placement,
                one_shots=compose.one_shots,
                order=order.key,
            )
            known = self._service.records.get(order.machine_name)
            if known is not None and known.order != order.key:
                raise OrderRefusedError(f"the name {order.machine_name} is taken", advice="choose another")
            return _prepared(known or await self._service.prepare(wanted))

    async def commit(self, key: str, sealed: bytes) -> Deployed:
        """Create what was prepared, as `jobs.deploy.order.Deployer` says."""
        record = self._find(key)
        if record is None:
            raise PreparationLostError("nothing is prepared under this order", advice="prepare it again")
        async with _told_to_callers():
            await self._service.up(recorded(record), Sealed(ciphertext=sealed, names=record.names))
            record, attestation = await self._service.verify(record.name)
            return _deployed(record, attestation)

    async def remove(self, key: str) -> None:
        """Remove whatever there is under a key."""
        record = self._find(key)
        if record is not None:
            with suppress(UnknownDeploymentError):
                await self._service.delete(record.name)

    def _find(self, key: str) -> DeploymentRecord | None:
        return next((record for record in self._service.records.all() if record.order == key), None)


@asynccontextmanager
async def _told_to_callers() -> AsyncIterator[None]:
    """Give a failure that the caller can mend, or wait out, the name by which he is told of it."""
    try:
        yield
    except _REFUSED as exc:
        raise OrderRefusedError(str(exc)) from exc
    except _NO_ROOM as exc:
        raise NoCapacityError(str(exc)) from exc


def _prepared(record: DeploymentRecord) -> Prepared:
    key = None
    if record.public_key:
        key = PublicKey(
            key=bytes.fromhex(record.public_key),
            signature=bytes.fromhex(record.public_key_signature),
            timestamp_s=record.public_key_timestamp_s,
            kms=record.kms,
        )
    return Prepared(app_id=record.app_id, compose_hash=bytes.fromhex(record.compose_hash), public_key=key)


def _deployed(record: DeploymentRecord, attestation: Attestation) -> Deployed:
    return Deployed(
        app_id=record.app_id,
        compose_hash=bytes.fromhex(record.compose_hash),
        instance_id=record.instance_id,
        endpoint=record.endpoints[0] if record.endpoints else "",
        attestation_digest=attestation.digest,
        evidence=evidence_document(attestation),
    )
