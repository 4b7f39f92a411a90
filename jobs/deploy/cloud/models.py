"""What the cloud answers, in as much of it as is used; its shapes differ between versions of the API.

Invariant: ids are strings, whatever the cloud sends; a member that some version leaves out is optional, and
a member that none of ours needs is ignored.
"""

from typing import Annotated

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

__all__ = [
    "Account",
    "Attestation",
    "Certificate",
    "Composition",
    "ContainerInfo",
    "Cvm",
    "CvmPage",
    "CvmState",
    "InstanceType",
    "InstanceTypes",
    "Kms",
    "KmsPage",
    "KmsPublicKey",
    "Network",
    "Node",
    "Nodes",
    "Provisioned",
    "SystemStats",
]


def _as_id(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_rate(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Id = Annotated[str, BeforeValidator(_as_id)]
_Bytes = Annotated[int, Field(ge=0, lt=1 << 63)]
Rate = Annotated[str, BeforeValidator(_as_rate)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Person(_Answer):
    """Who an API key belongs to."""

    username: str | None = None


class Account(_Answer):
    """Answer of ``GET /auth/me``: flat in the first version, nested since."""

    username: str | None = None
    user: Person | None = None


class Kms(_Answer):
    """A key management service."""

    id: Id | None = None
    slug: str | None = None
    url: str | None = None
    version: str | None = None
    chain_id: int | None = None
    k256_pubkey: str | None = None
    encrypted_env_pubkey: str | None = None


class KmsPage(_Answer):
    """Answer of ``GET /kms``."""

    items: list[Kms] = []
    total: int = 0


class KmsPublicKey(_Answer):
    """What a KMS states of an application's key, as hexadecimal digits."""

    public_key: str
    signature: str = ""
    timestamp: int | None = None


class OsImage(_Answer):
    """An image that a node can boot."""

    name: str
    is_dev: bool = False
    os_image_hash: str | None = None


class Node(_Answer):
    """A host, under any of the names that the versions give it."""

    id: Id | None = Field(default=None, validation_alias=AliasChoices("teepod_id", "node_id", "id"))
    name: str | None = None
    region: str | None = Field(default=None, validation_alias=AliasChoices("region_identifier", "region"))
    remaining_vcpu: float | None = None
    remaining_memory: float | None = None
    remaining_cvm_slots: float | None = None
    images: list[OsImage] = []


class Nodes(_Answer):
    """Answer of ``GET /teepods/available``."""

    tier: str | None = None
    nodes: list[Node]
    kms_list: list[Kms] = []


class InstanceType(_Answer):
    """A size of machine."""

    id: str
    name: str | None = None
    vcpu: int | None = None
    memory_mb: int | None = None
    hourly_rate: Rate | None = None
    """US dollars, a decimal number; the cloud's own command line puts the sign before it."""
    default_disk_size_gb: int | None = None


class InstanceFamily(_Answer):
    """Sizes that belong together."""

    name: str
    items: list[InstanceType] = []


class InstanceTypes(_Answer):
    """Answer of ``GET /instance-types``."""

    result: list[InstanceFamily]


class Provisioned(_Answer):
    """What is prepared: of a new machine, or of another application for one."""

    app_id: Id | None = None
    app_env_encrypt_pubkey: str | None = None
    compose_hash: str
    kms_id: Id | None = None
    kms_info: Kms | None = None
    os_image_hash: str | None = None
    instance_type: str | None = None


class Urls(_Answer):
    """Where an application, and one instance of it, answer."""

    app: str | None = None
    instance: str | None = None


class Hosted(_Answer):
    """The machine inside an entry of the first version's list."""

    id: Id | None = None
    app_id: Id | None = None
    instance_id: Id | None = None
    boot_error: str | None = None


class Resource(_Answer):
    """A machine's size since the second version."""

    instance_type: str | None = None
    vcpu: int | None = None
    memory_in_gb: float | None = Field(default=None, ge=0, le=1 << 40)
    disk_in_gb: int | None = None


class OsInfo(_Answer):
    """The image that a machine runs, since the second version."""

    name: str | None = None
    os_image_hash: str | None = None


class Cvm(_Answer):
    """A machine, in the shape of any version."""

    id: Id | None = None
    name: str | None = None
    status: str
    app_id: Id | None = None
    vm_uuid: Id | None = None
    instance_id: Id | None = None
    compose_hash: str | None = None
    hosted: Hosted | None = None
    vcpu: int | None = None
    memory: int | None = None
    disk_size: int | None = None
    instance_type: str | None = None
    base_image: str | None = None
    resource: Resource | None = None
    os: OsInfo | None = None
    node: Node | None = Field(default=None, validation_alias=AliasChoices("node_info", "teepod", "node"))
    public_urls: list[Urls] | None = Field(
        default=None, validation_alias=AliasChoices("endpoints", "public_urls")
    )
    kms_info: Kms | None = None
    encrypted_env_pubkey: str | None = None


class CvmPage(_Answer):
    """One page of machines."""

    items: list[Cvm]
    total: int
    page: int = 1
    pages: int = 1


class CvmState(_Answer):
    """How far a machine is."""

    name: str | None = None
    status: str
    instance_id: Id | None = None
    boot_progress: str | None = None
    boot_error: str | None = None
    shutdown_progress: str | None = None


class ContainerInfo(_Answer):
    """A container, as the guest's engine lists it."""

    id: Id | None = None
    names: list[str] = []
    image: str | None = None
    state: str
    status: str = ""
    log_endpoint: str | None = None


class Composition(_Answer):
    """What runs inside a machine."""

    is_online: bool = False
    is_public: bool = True
    error: str | None = None
    containers: list[ContainerInfo] | None = None


class Disk(_Answer):
    """A file system of the guest, in bytes."""

    total_size: _Bytes = 0
    free_size: _Bytes = 0


class SystemInfo(_Answer):
    """What a guest measures of itself: bytes and seconds."""

    total_memory: _Bytes | None = None
    used_memory: _Bytes | None = None
    uptime: float | None = None
    disks: list[Disk] = []


class SystemStats(_Answer):
    """What a machine uses."""

    is_online: bool = False
    is_public: bool = False
    error: str | None = None
    sysinfo: SystemInfo | None = None


class Network(_Answer):
    """Where a machine is reached."""

    is_online: bool = False
    error: str | None = None
    internal_ip: str | None = None
    public_urls: list[Urls] | None = None


class Certificate(_Answer):
    """A certificate of the application; its text is not told by every version."""

    quote: str | None = None
    app_id: Id | None = None
    cert_usage: str | None = None
    fingerprint: str | None = None
    position_in_chain: int | None = None
    pem: str | None = Field(default=None, validation_alias=AliasChoices("pem", "certificate"))


class TcbInfo(_Answer):
    """What the guest measured; the event log as JSON."""

    event_log: JsonValue = None
    app_compose: str


class Attestation(_Answer):
    """A machine's proof of what it runs."""

    is_online: bool = False
    is_public: bool = True
    error: str | None = None
    app_certificates: list[Certificate] | None = None
    tcb_info: TcbInfo | None = None
