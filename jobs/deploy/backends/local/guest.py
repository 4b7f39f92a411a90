"""A simulated guest as a process: boots a machine's folder, serves the guest agent, brings the containers up.

Invariant: variables are opened here and nowhere else, and forgotten once the containers have them. The
process has nothing to save: it may be killed at any moment, and the next one boots the same.
"""

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

from blueprint.errors import BlueprintError
from blueprint.tee.simulator.agent import GuestAgent
from blueprint.tee.simulator.cvm import SimulatedCvm
from jobs.deploy.app_compose import parse_app_compose
from jobs.deploy.backends.local.compose_program import ComposeProgram
from jobs.deploy.backends.local.confinement import confine
from jobs.deploy.backends.local.disk import MachineFolder, Record, Status
from jobs.deploy.backends.local.engine import Engine
from jobs.deploy.backends.local.lease import claim
from jobs.deploy.backends.local.state import StateFolder
from jobs.deploy.errors import DeployError

__all__ = ["main"]

# Containers run as any user; strangers on the host are kept out by the folder, which is root's own (0700).
_SOCKET_MODE = 0o666


class Guest:
    """One boot of one machine.

    Args:
        state: the state folder, which has the keys.
        folder: the machine's.
        program: how Compose is started.
    """

    def __init__(self, state: StateFolder, folder: MachineFolder, program: ComposeProgram) -> None:
        self._state = state
        self._folder = folder
        self._program = program
        self._record = folder.record()
        self._since_s = time.time()

    async def run(self) -> None:
        """Boot, and serve until the process is ended; returns only when the guest does not boot."""
        self._report("starting", "booting")
        try:
            cvm = self._boot(self._record)
        except BlueprintError as error:
            self._report("failed", str(error))
            return
        self._folder.socket.unlink(missing_ok=True)
        async with GuestAgent(cvm, self._folder.socket, socket_mode=_SOCKET_MODE):
            try:
                await self._bring_up(cvm)
            except BlueprintError as error:
                self._report("failed", str(error))
            else:
                self._report("running", "; ".join(cvm.warnings) or "running")
            cvm.variables = ()
            await asyncio.Event().wait()

    def _boot(self, record: Record) -> SimulatedCvm:
        sealed = self._folder.read(record.sealed)
        return SimulatedCvm(
            app_compose=self._folder.read(record.app_compose),
            sealed=sealed or None,
            app_id=bytes.fromhex(record.app_id),
            kms=self._state.kms(),
            platform=self._state.platform(),
            instance_id=bytes.fromhex(record.instance_id),
        )

    async def _bring_up(self, cvm: SimulatedCvm) -> None:
        async with Engine(self._program.engine) as engine:
            # The containers of the boot before hold a socket that is gone.
            await engine.halt(self._program.project, is_graceful=True)
        self._report("starting", "reading the compose file")
        text = str(parse_app_compose(cvm.app_compose)["docker_compose_file"])
        model, folders = confine(
            await self._program.resolve(text, cvm.variables),
            project=self._program.project,
            agent_socket=self._folder.socket,
            disk=self._folder.disk,
            placement=self._record.placement,
            variables=cvm.variables,
        )
        for folder in folders:
            _make_inside(folder, self._folder.disk)
        self._report("starting", "starting the containers")
        await self._program.up(model, cvm.variables)

    def _report(self, phase: str, said: str) -> None:
        status = Status(boot=self._record.boot, phase=phase, said=said, since_s=self._since_s)
        self._folder.report(status)


def _make_inside(folder: Path, disk: Path) -> None:
    """Make a folder of the machine's disk."""
    # SECURITY: a container may have left a link to the host there, or to a folder where another can leave one
    # (test_a_link_does_not_lead_out_of_the_disk, test_a_link_within_the_disk_is_no_way_either).
    if folder.resolve() != disk.resolve() / folder.relative_to(disk):
        raise DeployError(f"volumes: {folder.relative_to(disk)} leads out of the machine by a link")
    if not folder.exists():
        folder.mkdir(parents=True)


def main() -> int:
    """Run a guest until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path)
    parser.add_argument("machine")
    parser.add_argument("engine", type=Path)
    parser.add_argument("compose", type=Path)
    parser.add_argument("docker_config", nargs="?", type=Path)
    parser.add_argument("lease", type=int)
    arguments = parser.parse_args()
    claim(arguments.lease)
    os.set_inheritable(arguments.lease, False)  # noqa: FBT003 - the name of the call says what it is
    state = StateFolder(arguments.state)
    folder = state.folder(arguments.machine)
    program = ComposeProgram(
        path=arguments.compose,
        engine=arguments.engine,
        project=state.project(arguments.machine),
        folder=folder.disk,
        docker_config=arguments.docker_config,
        # Compose holds the machine's lock too: who ends the machine waits for it.
        kept_fds=(arguments.lease,),
    )
    asyncio.run(Guest(state, folder, program).run())
    return 1


if __name__ == "__main__":
    sys.exit(main())
