"""The port between the on-chain `deploy` job and what deploys: three actions, all named by one key.

Invariant: no value of a variable passes here, only names and ciphertext. The key of an order is for ever the
same request; every action on it may be repeated, after a crash too, and then has the same outcome.
"""

from dataclasses import dataclass, field, replace
from typing import Protocol

from jobs.deploy.app_compose import AppCompose
from jobs.deploy.backends.backend import Placement, PublicKey, Workload

__all__ = ["MAX_NAME_LENGTH", "Deployed", "Deployer", "Order", "Prepared"]

KEY_DIGITS = 64
_SUFFIX_DIGITS = 8
MAX_NAME_LENGTH = 63 - 1 - _SUFFIX_DIGITS
"""Of the application, so that `Order.machine_name` fits the 63 characters that a CVM's name may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An application that somebody on the chain wants to be deployed."""

    key: str
    """Names this order: 64 hexadecimal digits, a digest of the call, its inputs and its caller."""
    name: str
    """Of the application, as its caller chose it: it stands in app-compose.json. Two orders may share it."""
    compose: str
    """The compose text, byte for byte as it is measured."""
    names: tuple[str, ...] = ()
    """Of the variables that may be sealed, in the order in which they were given."""
    volumes: tuple[str, ...] = ()
    """Named volumes whose content must last: the compose text must declare each of them."""
    placement: Placement = field(default_factory=Placement)
    public_logs: bool = False
    public_sysinfo: bool = False

    @property
    def machine_name(self) -> str:
        """What the machine is called where it runs: unique, because it ends in digits of the key."""
        return f"{self.name}-{self.key[:_SUFFIX_DIGITS]}"

    def workload(self) -> Workload:
        """Return what is measured: it follows from what the caller gave alone, so he can compare the hash.

        Raises:
            AppComposeError: the application cannot be described so.
        """
        measured = AppCompose(
            name=self.name,
            docker_compose_file=self.compose,
            allowed_envs=self.names,
            public_logs=self.public_logs,
            public_sysinfo=self.public_sysinfo,
        ).workload()
        return replace(measured, name=self.machine_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An identity for an order; nothing runs and nothing is owed yet."""

    app_id: str
    """40 hexadecimal digits."""
    compose_hash: bytes
    """SHA-256 of app-compose.json, 32 bytes: ours, and found equal to the place's own."""
    public_key: PublicKey | None
    """What the variables are sealed to; None where the application has no KMS, and then no variables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """An application that runs, healthy, and whose attestation was verified."""

    app_id: str
    compose_hash: bytes
    instance_id: str = ""
    """40 hexadecimal digits, or empty where the application has none."""
    endpoint: str = ""
    """The URL at which the application answers; empty if it publishes nothing."""
    attestation_digest: bytes
    """Names the attestation that was verified, 32 bytes."""
    evidence: bytes = field(default=b"", repr=False)
    """What was verified, as one document that others can verify again; empty to keep none."""


class Deployer(Protocol):
    """Deploys. Every method may raise a `DeployError`; ``retryable`` says whether to repeat it at once."""

    async def prepare(self, order: Order) -> Prepared:
        """Provision an order and remember what it takes to commit it, durably, under its key.

        Repeated, it answers the same as before, or, if it never answered, prepares anew: nobody has seen it.

        Raises:
            OrderRefusedError: the compose text, a name or the size is not accepted; the message says why.
            NoCapacityError: there is no room for it now.
        """

    async def commit(self, key: str, sealed: bytes) -> Deployed:
        """Create what was prepared, wait until it is healthy, verify its attestation.

        Repeated with the same ciphertext, it takes up where it was, or answers the same as before: nothing is
        created twice. It is never called with two ciphertexts for one key.

        Args:
            key: of an order that was prepared.
            sealed: the wire form in bytes (ephemeral key, nonce, ciphertext, tag); empty for no variables.

        Raises:
            PreparationLostError: nothing is remembered under this key.
            OrderRefusedError: the place does not accept the ciphertext.
            NoCapacityError: there is no room for it any more.
            ApplicationFailedError: a container ended or is unhealthy.
            NotReadyError: it did not become healthy in time.
            AttestationError: the evidence does not hold (the node's own error tree).
        """

    async def remove(self, key: str) -> None:
        """Remove whatever there is under a key, the machine with its disk and the memory of the order.

        Repeated, or for a key that nothing is known of, it does nothing. Called after every `commit` that
        failed for good, for orders that expired, and when a caller wants it.
        """
