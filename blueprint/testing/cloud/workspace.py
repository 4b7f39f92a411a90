"""What the fake cloud remembers: the machines, and what was prepared for them.

Invariant: a machine exists exactly once for each app id and compose hash that was committed, however often.
"""

from collections.abc import Callable

from blueprint.foreign_json import JsonValue
from blueprint.tee.simulator.kms import SimulatedKms
from blueprint.tee.simulator.platform import MockPlatform
from blueprint.testing.cloud.checks import compose_bytes
from blueprint.testing.cloud.faults import Refusal, refusal
from blueprint.testing.cloud.machine import FakeContainer, FakeMachine, Prepared

__all__ = ["Workspace"]


class Workspace:
    """One customer's part of the cloud, with its KMS and its host.

    Args:
        boot_s: how long a machine starts.
        max_machines: the workspace's quota.
        slots: for how many machines its one node has room.
        container: makes a service's container at each boot.
        tells_certificates: whether evidence comes with the text of the certificate that it is about.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        boot_s: float,
        max_machines: int,
        slots: int,
        container: Callable[[str], FakeContainer],
        tells_certificates: bool,
        clock: Callable[[], float],
    ) -> None:
        self.boot_s = boot_s
        self.max_machines = max_machines
        self.slots = slots
        self.tells_certificates = tells_certificates
        self._container = container
        self.clock = clock
        self.kms = SimulatedKms()
        self.platform = MockPlatform()
        self.machines: list[FakeMachine] = []
        self._prepared: dict[tuple[str, str], Prepared] = {}
        self._made = 0

    def find(self, ref: str) -> FakeMachine:
        """Return the machine that an id or a name addresses."""
        found = [machine for machine in self.machines if machine.answers_to(ref)]
        if not found:
            raise Refusal(refusal(404, f"no CVM {ref!r}", code="ERR-03-001"))
        if len({machine.prepared.app_id for machine in found}) > 1:
            raise Refusal(refusal(409, "several CVMs have this name", code="ERR-03-002"))
        return found[0]

    def demand_room(self) -> None:
        """Refuse another machine where the quota or the node is full."""
        if len(self.machines) >= self.max_machines:
            raise Refusal(refusal(403, "the workspace has its most CVMs", code="ERR-04-002"))
        if len(self.machines) >= self.slots:
            raise Refusal(refusal(409, "no node with room", code="ERR-02-005"))

    def prepare(
        self, name: str, app_id: str, compose: dict[str, JsonValue], size: dict[str, JsonValue]
    ) -> Prepared:
        """Remember an application by its id and the hash of the cloud's own bytes of it."""
        made, digest = compose_bytes(compose)
        prepared = Prepared(
            name=name, app_id=app_id, app_compose=made, compose=compose, compose_hash=digest, size=size
        )
        self._prepared[app_id, digest] = prepared
        return prepared

    def prepared(self, app_id: str, digest: str) -> Prepared:
        """Return what was prepared."""
        found = self._prepared.get((app_id, digest))
        if found is None:
            raise Refusal(refusal(400, "never provisioned, or expired", code="ERR-01-006"))
        return found

    def forget_prepared(self) -> None:
        """Forget what was prepared, as the cloud does after a while."""
        self._prepared.clear()

    def create(self, prepared: Prepared, sealed: bytes | None) -> FakeMachine:
        """Boot another machine."""
        self._made += 1
        machine = FakeMachine(
            number=self._made,
            prepared=prepared,
            sealed=sealed,
            kms=self.kms,
            platform=self.platform,
            clock=self.clock,
            boot_s=self.boot_s,
            container=self._container,
        )
        machine.boot()
        self.machines.append(machine)
        return machine
