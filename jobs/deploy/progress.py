"""How a deployment's record changes with each step that was taken.

Invariant: a record of a step holds all that the next one needs, so that another process can take it.
"""

from dataclasses import replace

from blueprint.tee.kms_key import VerifiedPublicKey
from blueprint.tee.verify import Check
from jobs.deploy.attestation import Attestation
from jobs.deploy.backends.backend import Machine, Provision, PublicKey
from jobs.deploy.record import DeploymentRecord, Stage, VariablesDigest
from jobs.deploy.wanted import Sealed, Variables, Wanted

__all__ = ["committed", "is_only_prepared", "keyed", "prepared", "stated_key", "verified"]


def prepared(wanted: Wanted, provision: Provision, *, place: str, now_s: float) -> DeploymentRecord:
    """Return the first record: an identity, and what is to run under it."""
    return DeploymentRecord(
        name=wanted.workload.name,
        place=place,
        stage=Stage.PREPARED,
        app_id=provision.app_id,
        app_compose=wanted.workload.app_compose.decode(),
        compose_hash=wanted.workload.compose_hash.hex(),
        names=wanted.names,
        one_shots=wanted.one_shots,
        order=wanted.order,
        placement=wanted.placement,
        os_image_hash=provision.os_image_hash.hex(),
        price=provision.price,
        prepared_at_s=now_s,
        updated_at_s=now_s,
    )


def keyed(record: DeploymentRecord, stated: PublicKey, key: VerifiedPublicKey) -> DeploymentRecord:
    """Return the record with the key that variables are sealed to, and who vouched for it."""
    return replace(
        record,
        public_key=key.public_key.hex(),
        public_key_signature=stated.signature.hex(),
        public_key_timestamp_s=stated.timestamp_s,
        kms=stated.kms,
        kms_signer=key.signer.hex(),
    )


def committed(
    record: DeploymentRecord,
    machine: Machine,
    wanted: Wanted,
    variables: Variables | None,
    *,
    now_s: float,
) -> DeploymentRecord:
    """Return the record of a machine that runs, or is about to run, what is wanted."""
    digest, sealed = record.variables, record.sealed
    if isinstance(variables, Sealed):
        digest, sealed = None, variables.digest
    elif variables:
        digest, sealed = VariablesDigest.of(variables), ""
    return replace(
        record,
        stage=Stage.COMMITTED,
        machine_id=machine.id,
        instance_id=machine.instance_id,
        endpoints=tuple(machine.endpoints),
        app_compose=wanted.workload.app_compose.decode(),
        compose_hash=wanted.workload.compose_hash.hex(),
        names=wanted.names,
        variables=digest,
        sealed=sealed,
        one_shots=wanted.one_shots,
        placement=wanted.placement,
        attestation="",
        checks=(),
        updated_at_s=now_s,
    )


def verified(record: DeploymentRecord, attestation: Attestation, *, now_s: float) -> DeploymentRecord:
    """Return the record with what the machine proved, its instance id among that."""
    return replace(
        record,
        stage=Stage.VERIFIED,
        instance_id=(attestation.verified.instance_id or b"").hex(),
        attestation=attestation.digest.hex(),
        checks=tuple(_in_words(check) for check in attestation.checks()),
        is_verification_waived=False,
        updated_at_s=now_s,
    )


def is_only_prepared(record: DeploymentRecord | None, wanted: Wanted) -> bool:
    """Say whether a machine that is there may come from a commit whose answer was lost: commit it again."""
    return (
        record is not None
        and record.stage is Stage.PREPARED
        and record.compose_hash == wanted.workload.compose_hash.hex()
    )


def stated_key(record: DeploymentRecord) -> PublicKey | None:
    """Return the recorded key as the place stated it; None where there is none."""
    if not record.public_key:
        return None
    return PublicKey(key=bytes.fromhex(record.public_key), signature=b"", kms=record.kms)


def _in_words(check: Check) -> str:
    return (
        f"{check.name}: {check.detail}" if check.is_checked else f"{check.name}: not checked, {check.detail}"
    )
