"""A machine of the fake cloud: what it was given, and the simulated guest that boots it.

Invariant: the guest boots from the bytes and the ciphertext that the cloud holds, by the guest's own rules.
"""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from blueprint.foreign_json import JsonValue
from blueprint.tee.simulator.cvm import BootError, SimulatedCvm
from blueprint.tee.simulator.kms import SimulatedKms
from blueprint.tee.simulator.platform import MockPlatform

__all__ = ["FakeContainer", "FakeMachine", "Prepared"]

_SERVICE = re.compile(r"^  ([A-Za-z0-9_-]+):\s*$", re.MULTILINE)


@dataclass(slots=True, kw_only=True)
class Prepared:
    """What a provision leaves behind."""

    name: str
    app_id: str
    app_compose: bytes
    compose: dict[str, JsonValue]
    compose_hash: str
    size: dict[str, JsonValue]


@dataclass(slots=True, kw_only=True)
class FakeContainer:
    """A container as the guest's engine would list it."""

    service: str
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
        except BootError as exc:
            self.boot_error = str(exc)
            return
        self.instance_id = self.guest.instance_id.hex()
        text = str(self.prepared.compose["docker_compose_file"])
        services = text.partition("services:")[2]
        self.containers = [FakeContainer(service=name) for name in _SERVICE.findall(services)]

    @property
    def status(self) -> str:
        """The cloud's word."""
        if self.wanted == "running" and self.boot_error:
            return "error"
        if self.wanted == "running" and self.clock() < self._ready_s:
            return "starting"
        return self.wanted

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
