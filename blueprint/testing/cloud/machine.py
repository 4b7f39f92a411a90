"""A machine of the fake cloud: what it was given, and the simulated guest that boots it.

Invariant: the guest boots from the bytes and the ciphertext that the cloud holds, by the guest's own rules.
"""

import uuid
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field

import yaml

from blueprint.foreign_json import JsonValue
from blueprint.tee.simulator.cvm import BootError, SimulatedCvm
from blueprint.tee.simulator.kms import SimulatedKms
from blueprint.tee.simulator.platform import MockPlatform
from blueprint.testing.cloud.sizes import DISK_GB

__all__ = ["FakeContainer", "FakeMachine", "Prepared"]


@dataclass(slots=True, kw_only=True)
class Prepared:
    """What a provision leaves behind."""

    name: str
    app_id: str
    app_compose: bytes
    compose: dict[str, JsonValue]
    compose_hash: str
    size: dict[str, JsonValue]


@dataclass(slots=True)
class FakeContainer:
    """A container as the guest's engine would list it."""

    service: str
    _: KW_ONLY
    state: str = "running"
    status: str = "Up 3 seconds (healthy)"
    log: bytes = b"started\n"


@dataclass(slots=True, kw_only=True)
class FakeMachine:
    """A machine; tests may change its status and its containers."""

    number: int
    prepared: Prepared
    sealed: bytes | None
    kms: SimulatedKms
    platform: MockPlatform
    clock: Callable[[], float]
    boot_s: float
    container: Callable[[str], FakeContainer] = FakeContainer
    vm_uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    instance_id: str = ""
    wanted: str = "running"
    boot_error: str = ""
    guest: SimulatedCvm | None = None
    containers: list[FakeContainer] = field(default_factory=list)
    _ready_s: float = 0.0

    def boot(self) -> None:
        """Start the guest; it is ready after the time of a boot."""
        self.wanted, self.boot_error, self.guest = "running", "", None
        self._ready_s = self.clock() + self.boot_s
        try:
            self.guest = SimulatedCvm(
                app_compose=self.prepared.app_compose,
                sealed=self.sealed,
                app_id=bytes.fromhex(self.prepared.app_id),
                kms=self.kms,
                platform=self.platform,
            )
            services = _services(str(self.prepared.compose["docker_compose_file"]))
        except BootError as exc:
            self.boot_error, self.guest = str(exc), None
            return
        self.instance_id = self.guest.instance_id.hex()
        self.containers = [self.container(name) for name in services]

    @property
    def status(self) -> str:
        """The cloud's word."""
        if self.wanted == "running" and self.boot_error:
            return "error"
        if self.wanted == "running" and self.clock() < self._ready_s:
            return "starting"
        return self.wanted

    @property
    def disk_gb(self) -> int:
        """How large its disk is."""
        asked = self.prepared.size.get("disk_size")
        return asked if isinstance(asked, int) else DISK_GB

    @property
    def is_online(self) -> bool:
        """Whether the guest answers."""
        return self.status == "running" and self.guest is not None

    def answers_to(self, ref: str) -> bool:
        """Whether an id or a name addresses it."""
        app_id = self.prepared.app_id
        return ref in (
            self.prepared.name,
            self.vm_uuid,
            self.vm_uuid.replace("-", ""),
            f"app_{app_id}",
            app_id,
            f"instance_{self.instance_id}",
            self.cvm_id,
        )

    @property
    def cvm_id(self) -> str:
        """The id of the newer versions."""
        return f"cvm_{self.number:08d}"


def _services(text: str) -> list[str]:
    """Return the names of a compose file's services, without which the guest's engine starts nothing."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise BootError(f"docker-compose.yaml: {exc}") from exc
    services = content.get("services") if isinstance(content, dict) else None
    if not isinstance(services, dict) or not services:
        raise BootError("docker-compose.yaml: no services")
    return [str(name) for name in services]
