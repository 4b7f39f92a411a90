"""What is to be deployed, and the variables for it, in clear or sealed by somebody else.

Invariant: the variables that are given are exactly those that the application allows; a guest drops others
without a word.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from blueprint.tee.sealing import SecretVariable, check_variables, seal
from jobs.deploy.backends.backend import Placement, Workload
from jobs.deploy.errors import DeployError
from jobs.deploy.record import DeploymentRecord

__all__ = [
    "DeploymentConflictError", "Sealed", "Variables", "Wanted", "check_names", "is_same", "recorded",
    "sealed_for",
]  # fmt: skip


class DeploymentConflictError(DeployError):
    """What is asked for contradicts what is there, or what the place says contradicts us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """Variables that somebody else sealed: the operator deploys them without ever seeing a value."""

    ciphertext: bytes
    """The guest's wire form."""
    names: tuple[str, ...]

    @property
    def digest(self) -> str:
        """By what the same ciphertext is known again; nothing for none."""
        return hashlib.sha256(self.ciphertext).hexdigest() if self.ciphertext else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be deployed."""

    workload: Workload
    names: tuple[str, ...] = ()
    """Of the sealed variables that the application may receive: ``allowed_envs``."""
    placement: Placement = field(default_factory=Placement)
    one_shots: tuple[str, ...] = ()
    """Services that are meant to end."""
    order: str = ""
    """The key of the order on chain that it is for; empty for a person's."""


Variables: TypeAlias = Sequence[SecretVariable] | Sealed
"""All of an application's variables."""


def recorded(record: DeploymentRecord) -> Wanted:
    """Return what was wanted when a deployment was last changed."""
    return Wanted(
        workload=Workload(
            name=record.name,
            app_compose=record.app_compose.encode(),
            compose_hash=bytes.fromhex(record.compose_hash),
        ),
        names=record.names,
        placement=record.placement,
        one_shots=record.one_shots,
        order=record.order,
    )


def check_names(wanted: Wanted, variables: Variables | None) -> None:
    """Find what would vanish: the guest drops a variable that the application does not allow."""
    if variables is None:
        return
    if isinstance(variables, Sealed):
        given = set(variables.names)
    else:
        check_variables(variables)
        given = {variable.key for variable in variables}
    if given != set(wanted.names):
        odd = sorted(given ^ set(wanted.names))
        raise DeploymentConflictError(
            f"the variables given and those that the application allows differ: {', '.join(odd)}",
            advice="give exactly those that the compose file uses",
        )


def sealed_for(record: DeploymentRecord, variables: Variables | None) -> bytes:
    """Return the ciphertext for a deployment's key: the one given, or made now; empty for no variables."""
    if isinstance(variables, Sealed):
        return variables.ciphertext
    if not variables:
        return b""
    if not record.public_key:
        raise DeploymentConflictError(
            f"{record.name} has no key to seal variables to", advice="deploy it with a KMS"
        )
    return seal(variables, bytes.fromhex(record.public_key))


def is_same(record: DeploymentRecord, variables: Variables) -> bool:
    """Say whether a deployment has these variables already; sealed ones, whether it has this ciphertext."""
    if isinstance(variables, Sealed):
        return variables.digest == record.sealed
    if record.variables is None:
        return not variables and not record.names
    return record.variables.matches(variables)
