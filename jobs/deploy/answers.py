"""The answers of the `deploy` job, from what the deployer gives or raises.

Invariant: an answer is bytes that `DeployJob.sol` decodes, and holds no word of the place that the operator
deploys to, except what the five errors meant for the caller say.
"""

from typing import Final

from blueprint.errors import PolicyViolationError, QuoteInvalidError
from blueprint.router import MAX_MESSAGE_BYTES
from blueprint.types import Address
from jobs.deploy.codec import NOBODY, Action, ChainSealingKey, DeployResult, DeployStatus, encode_result
from jobs.deploy.errors import (
    ApplicationFailedError,
    NoCapacityError,
    NotReadyError,
    OrderRefusedError,
    PreparationLostError,
)
from jobs.deploy.order import Deployed, Prepared

__all__ = ["deployed_answer", "failure_answer", "prepared_answer", "removed_answer", "status_of"]

_STATUS_OF: Final[dict[type[Exception], DeployStatus]] = {
    OrderRefusedError: DeployStatus.REJECTED,
    NoCapacityError: DeployStatus.NO_CAPACITY,
    PreparationLostError: DeployStatus.EXPIRED,
    ApplicationFailedError: DeployStatus.APPLICATION_FAILED,
    NotReadyError: DeployStatus.TIMEOUT,
    QuoteInvalidError: DeployStatus.ATTESTATION_FAILED,
    PolicyViolationError: DeployStatus.ATTESTATION_FAILED,
}


def status_of(error: Exception) -> DeployStatus | None:
    """Return what an error is answered with; None for one whose message is the operator's alone."""
    return next((status for kind, status in _STATUS_OF.items() if isinstance(error, kind)), None)


def prepared_answer(operator: Address, prepared: Prepared, *, expires_at: int) -> bytes:
    """Encode what a preparation answers."""
    stated = prepared.public_key
    sealing_key = ChainSealingKey()
    if stated is not None:
        sealing_key = ChainSealingKey(
            key=stated.key, signature=stated.signature, timestamp=stated.timestamp_s or 0
        )
    return encode_result(
        DeployResult(
            status=DeployStatus.SUCCESS,
            action=Action.PREPARE,
            operator=operator,
            app_id=bytes.fromhex(prepared.app_id),
            compose_hash=prepared.compose_hash,
            sealing_key=sealing_key,
            expires_at=expires_at,
        )
    )


def deployed_answer(operator: Address, deployed: Deployed, *, evidence_digest: bytes) -> bytes:
    """Encode what a commit answers."""
    return encode_result(
        DeployResult(
            status=DeployStatus.SUCCESS,
            action=Action.COMMIT,
            operator=operator,
            app_id=bytes.fromhex(deployed.app_id),
            compose_hash=deployed.compose_hash,
            instance_id=bytes.fromhex(deployed.instance_id) or bytes(20),
            endpoint=deployed.endpoint,
            attestation_digest=deployed.attestation_digest,
            evidence_digest=evidence_digest,
        )
    )


def removed_answer(operator: Address) -> bytes:
    """Encode what a removal answers."""
    return encode_result(DeployResult(status=DeployStatus.SUCCESS, action=Action.REMOVE, operator=operator))


def failure_answer(status: int, message: str, operator: Address = NOBODY) -> bytes:
    """Encode a failure; a message that is too long is cut."""
    text = message.encode("utf-8", "replace")[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore")
    return encode_result(DeployResult(status=status, operator=operator, error_message=text))
