"""The machines of the local place as they are: from records, locks and the engine, put together into a state.

Invariant: what is wanted is written before anything is done, so the next command can finish what a killed one
began; nothing that is not this place's own is touched.
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from jobs.deploy.backends.backend import Machine, MachineState
from jobs.deploy.backends.local.disk import MachineFolder, Record, Status, Wanted
from jobs.deploy.backends.local.engine import Engine, EngineContainer
from jobs.deploy.backends.local.lease import Lease
from jobs.deploy.backends.local.state import StateFolder
from jobs.deploy.errors import DeployError

__all__ = ["Place"]

_GUEST = "jobs.deploy.backends.local.guest"
_PHASES = {
    "starting": MachineState.STARTING,
    "running": MachineState.RUNNING,
    "failed": MachineState.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the ports share.

    Attributes:
        state: the state folder.
        engine: the Docker engine.
        compose: the Compose program.
        docker_config: the folder with the credentials of image registries, if any.
    """

    state: StateFolder
    engine: Engine
    compose: Path
    docker_config: Path | None = None

    def record_of(self, machine: Machine) -> Record:
        """Return a machine's record; a `DeployError` once it is gone."""
        try:
            record = self.state.folder(machine.id).record()
        except FileNotFoundError:
            record = None
        if record is None or record.wanted is Wanted.DELETED:
            raise DeployError(f"the machine {machine.name} ({machine.id}) does not exist any more")
        return record

    async def machine(self, record: Record) -> Machine:
        """Return a machine as it is now."""
        containers: tuple[EngineContainer, ...] = ()
        trouble = ""
        # Before the containers: a guest that says that it runs has them all, with their ports.
        status, is_alive = self.state.folder(record.id).status(), self._lease(record).is_held()
        try:
            containers = await self.engine.containers(self.state.project(record.id))
        except DeployError as error:
            trouble = str(error)
        state, said = self._look(record, containers, status, is_alive=is_alive)
        return Machine(
            id=record.id,
            name=record.name,
            app_id=record.app_id,
            instance_id=record.instance_id,
            state=state,
            said=trouble or said,
            compose_hash=bytes.fromhex(record.app_compose),
            endpoints=tuple(url for container in containers for url in container.urls),
            placement=record.placement,
        )

    async def change(self, record: Record) -> None:
        """Write what is wanted, then make it so."""
        self.state.folder(record.id).write(record)
        match record.wanted:
            case Wanted.RUNNING:
                await self._boot(record)
            case Wanted.STOPPED:
                await self.halt(record, is_graceful=True)
            case Wanted.DELETED:
                await self._erase(record)

    async def halt(self, record: Record, *, is_graceful: bool) -> None:
        """End the guest, then the containers."""
        await self._lease(record).end()
        await self.engine.halt(self.state.project(record.id), is_graceful=is_graceful)

    async def tidy(self) -> None:
        """Finish what killed commands began, and remove what belongs to no machine."""
        records = {record.id: record for record in self.state.records()}
        for record in records.values():
            if record.wanted is Wanted.DELETED:
                await self._erase(record)
        for project in await self.engine.projects(self.state.project("")):
            if self.state.machine_of(project) not in records:
                await self.engine.remove(project)

    @staticmethod
    def _look(
        record: Record, containers: tuple[EngineContainer, ...], status: Status, *, is_alive: bool
    ) -> tuple[MachineState, str]:
        if record.wanted is not Wanted.RUNNING:
            if is_alive or any(one.state in {"running", "restarting"} for one in containers):
                return MachineState.STOPPING, "not everything has ended; ask again to finish it"
            return MachineState.STOPPED, record.wanted.value
        is_current = status.boot == record.boot
        if is_alive:
            return (_PHASES[status.phase], status.said) if is_current else (MachineState.STARTING, "booting")
        if is_current and status.phase == "failed":
            return MachineState.FAILED, status.said
        return MachineState.FAILED, "the guest has ended unasked; start the machine again"

    async def _boot(self, record: Record) -> None:
        folder, lease = self.state.folder(record.id), self._lease(record)
        if lease.is_held():
            status = folder.status()
            if status.boot == record.boot and status.phase != "failed":
                return
            await lease.end()
        command = [sys.executable, "-m", _GUEST, str(self.state.path), record.id]
        command += [str(self.engine.socket), str(self.compose)]
        if self.docker_config:
            command.append(str(self.docker_config))
        folder.report(Status(boot=record.boot, phase="starting", said="booting"))
        await lease.start(command, folder.path / "guest.log")

    async def _erase(self, record: Record) -> None:
        await self._lease(record).end()
        await self.engine.remove(self.state.project(record.id))
        # The record goes last: until then the next command goes on here.
        folder = self.state.folder(record.id)
        gone = MachineFolder(folder.path.with_name(f".gone-{record.id}"))
        shutil.rmtree(gone.path, ignore_errors=True)
        folder.path.rename(gone.path)
        shutil.rmtree(gone.path)

    def _lease(self, record: Record) -> Lease:
        return Lease(self.state.folder(record.id).lease)
