"""What the deployment service needs of a place to deploy to, in five small ports, and the words they use.

Invariant: no port takes or gives the value of a variable: what passes here is ciphertext and names. Every
failure is a `DeployError` of the adapter, with what to do, or an `AttestationError` where evidence is
missing; nothing is swallowed while waiting.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

__all__ = [
    "Action",
    "Backend",
    "Container",
    "Evidence",
    "Health",
    "Machine",
    "MachineState",
    "Machines",
    "Observation",
    "Placement",
    "Provision",
    "Provisioning",
    "PublicKey",
    "Scaling",
    "Stats",
    "Witness",
    "Workload",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """An application as it is measured."""

    name: str
    """Of the CVM: 5 to 63 characters."""
    app_compose: bytes
    """app-compose.json, made once; never serialised again."""
    compose_hash: bytes
    """SHA-256 of ``app_compose``, 32 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What a machine is to have, and where; what is None or empty is the place's own choice."""

    instance_type: str = ""
    """As the place names it, e.g. ``tdx.small``."""
    vcpu: int | None = None
    memory_mb: int | None = None
    disk_gb: int | None = None
    image: str = ""
    """Name of the guest's operating system image."""
    node: str = ""
    """Id of the host machine."""
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """What an application's variables are sealed to, as the KMS states it; not yet verified."""

    key: bytes
    """X25519, 32 bytes."""
    signature: bytes
    """Recoverable secp256k1, ``r || s || recid``, 65 bytes; empty where the place gives none."""
    timestamp_s: int | None = None
    """Of the statement, in seconds since 1970; None for the form without."""
    kms: str = ""
    """Id of the KMS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provision:
    """What a place prepared: an identity, before anything runs."""

    app_id: str
    """40 hexadecimal digits."""
    compose_hash: bytes
    """As the place counts it, 32 bytes; the deployment stops where it is not ours."""
    public_key: PublicKey | None
    """None where the application has no KMS."""
    os_image_hash: bytes = b""
    instance_type: str = ""
    price: str = ""
    """What the place says of the price, e.g. ``0.06 USD/h``; empty if nothing."""


class MachineState(StrEnum):
    """How far a CVM is."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """The place used a word that we do not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A CVM as the place tells of it."""

    id: str
    """How the place addresses it."""
    name: str
    app_id: str
    instance_id: str = ""
    state: MachineState
    said: str = ""
    """The place's own word for the state, or its error while booting."""
    compose_hash: bytes = b""
    endpoints: Sequence[str] = ()
    """URLs at which the application answers."""
    placement: Placement = Placement()


class Action(StrEnum):
    """What can be asked of a machine that exists."""

    START = "start"
    STOP = "stop"
    """The power is cut."""
    SHUTDOWN = "shutdown"
    """The guest is asked to end."""
    RESTART = "restart"


class Health(StrEnum):
    """What a container says of itself."""

    HEALTHY = "healthy"
    STARTING = "starting"
    UNHEALTHY = "unhealthy"
    NONE = "none"
    """It has no health check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container inside a machine."""

    service: str
    """Its name in the compose file, or the container's own where that is not told."""
    is_running: bool
    health: Health = Health.NONE
    exit_code: int | None = None
    said: str = ""
    """The engine's own word, e.g. ``Up 3 minutes``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a machine uses; None where the place does not tell."""

    cpu_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    disk_used_bytes: int | None = None
    disk_total_bytes: int | None = None
    uptime_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a machine offers as proof of what it runs; not yet verified."""

    quote: bytes
    """TDX, with the event log that its RTMR3 comes from."""
    event_log: str
    """JSON, as the guest wrote it."""
    app_compose: bytes
    """app-compose.json as the guest received it: raw, to be hashed."""
    certificate: bytes = b""
    """The application's certificate, DER, whose key the quote binds; empty where it binds ``nonce``."""
    nonce: bytes = b""
    """What we asked the quote to bind, if the place lets us ask."""
    collateral: str = ""
    """Of a place with a root of its own; empty where the public service has it."""
    root: bytes = b""
    """DER of such a root: trusted only where the caller named it."""


class Provisioning(Protocol):
    """Makes and changes machines, in two steps: an identity first, then the ciphertext for exactly that."""

    async def provision(self, workload: Workload, placement: Placement) -> Provision:
        """Prepare a new machine; nothing runs and nothing is owed yet."""

    async def commit(
        self,
        workload: Workload,
        placement: Placement,
        provision: Provision,
        sealed: bytes,
        names: Sequence[str],
    ) -> Machine:
        """Create what was prepared; the same again gives the same machine. ``sealed`` may be empty."""

    async def revise(self, machine: Machine, workload: Workload) -> Provision:
        """Prepare another application for a machine; its app id stays."""

    async def apply(
        self, machine: Machine, provision: Provision | None, sealed: bytes | None, names: Sequence[str]
    ) -> None:
        """Carry out what was revised, replace all variables, or both; None leaves that part as it is."""


class Machines(Protocol):
    """Finds and moves machines that exist."""

    async def list(self) -> Sequence[Machine]:
        """Return all machines of the account."""

    async def get(self, ref: str) -> Machine | None:
        """Return a machine by id, app id, instance id or name; None if there is none."""

    async def act(self, machine: Machine, action: Action) -> None:
        """Ask for an action; returns when the place has accepted it."""

    async def delete(self, machine: Machine) -> None:
        """Remove a machine with its disk; one that is gone already is no failure."""


class Scaling(Protocol):
    """Changes how much of a machine there is."""

    async def price(self, placement: Placement) -> str:
        """Return what a machine of this size costs, e.g. ``0.06 USD/h``; empty where the place does not tell.

        Raises:
            DeployError: the place does not offer this size.
        """

    async def resize(self, machine: Machine, placement: Placement) -> None:
        """Give a machine other resources; the members that are None stay."""

    async def replicate(self, machine: Machine, node: str) -> Machine:
        """Run another machine of the same application; ``node`` may be empty."""


class Observation(Protocol):
    """Looks into machines."""

    def watch(self, machine: Machine, target: MachineState) -> AsyncIterator[Machine]:
        """Yield the machine as it changes, until it has the target state, has failed, or the caller stops."""

    async def containers(self, machine: Machine) -> Sequence[Container]:
        """Return what runs inside; empty while the guest does not answer yet."""

    def logs(self, machine: Machine, service: str, *, follow: bool, tail: int | None) -> AsyncIterator[bytes]:
        """Yield what a service printed, in pieces; a `DeployError` where logs are not public."""

    async def stats(self, machine: Machine) -> Stats:
        """Return what a machine uses now."""


class Witness(Protocol):
    """Gives what can be verified."""

    async def public_key(self, app_id: str, kms: str) -> PublicKey:
        """Return the key that an application's variables are sealed to."""

    async def evidence(self, machine: Machine, nonce: bytes) -> Evidence:
        """Return a machine's attestation; a place that cannot bind a nonce leaves it out.

        Raises:
            AttestationError: it gives none, or not all of it.
        """


class Backend(Protocol):
    """A place to deploy to: an object with the five ports, which holds connections until it is closed."""

    @property
    def name(self) -> str:
        """What records and commands call the place."""

    @property
    def provisioning(self) -> Provisioning:
        """Makes and changes machines."""

    @property
    def machines(self) -> Machines:
        """Finds and moves machines."""

    @property
    def scaling(self) -> Scaling:
        """Changes how much of a machine there is."""

    @property
    def observation(self) -> Observation:
        """Looks into machines."""

    @property
    def witness(self) -> Witness:
        """Gives what can be verified."""

    async def aclose(self) -> None:
        """Let go of connections; machines go on."""
