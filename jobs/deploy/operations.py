"""Moves deployments that exist: start, stop, restart, another size, one machine more.

Invariant: what is asked of a deployment is asked of all its machines, and after each but a stop one waits
until they are up and have proved what they run, as after a deployment.
"""

from dataclasses import replace

from jobs.deploy.backends.backend import Action, Machine, MachineState, Placement
from jobs.deploy.cloud.errors import CloudInterruptedError
from jobs.deploy.placement import resized
from jobs.deploy.readiness import wait_until_stopped
from jobs.deploy.record import DeploymentRecord
from jobs.deploy.service import DockerDeploymentService
from jobs.deploy.wanted import recorded

__all__ = ["replicate", "resize", "restart", "start", "stop"]

_STILL = frozenset({MachineState.STOPPED, MachineState.STOPPING})


async def start(service: DockerDeploymentService, name: str, *, is_verified: bool) -> DeploymentRecord:
    """Start the machines that stand still, wait until all are up, and verify them.

    Raises:
        UnknownDeploymentError: there is none of this name.
        DeploymentConflictError: it has no machine.
        ApplicationFailedError, NotReadyError: it did not come up.
        AttestationError: it runs, but does not prove what it runs.
    """
    record, _ = await service.machine(name)
    return await service.up(recorded(record), is_verified=is_verified)


async def restart(service: DockerDeploymentService, name: str, *, is_verified: bool) -> DeploymentRecord:
    """Restart the machines that run, start the others; then as `start`."""
    with service.records.locked(name) as entry:
        for machine in await service.fleet.present(entry.record, name):
            if machine.state not in _STILL:
                await service.backend.machines.act(machine, Action.RESTART)
    return await start(service, name, is_verified=is_verified)


async def stop(service: DockerDeploymentService, name: str, *, is_forced: bool) -> tuple[Machine, ...]:
    """Have the guests end, or cut their power, and wait until they have; disks stay.

    Raises:
        UnknownDeploymentError: there is none of this name.
        DeploymentConflictError: it has no machine.
        NotReadyError: one did not stop in its time.
    """
    with service.records.locked(name) as entry:
        machines = await service.fleet.present(entry.record, name)
        for machine in machines:
            if is_forced or machine.state not in _STILL:
                await service.backend.machines.act(machine, Action.STOP if is_forced else Action.SHUTDOWN)
        return tuple(
            [
                await wait_until_stopped(
                    service.backend.observation, machine, timeout_s=service.ready_timeout_s, say=service.say
                )
                for machine in machines
            ]
        )


async def resize(
    service: DockerDeploymentService, name: str, given: Placement, *, is_verified: bool
) -> DeploymentRecord:
    """Give all machines another size; then as `start`.

    Raises:
        DeploymentConflictError: the disk would shrink; nothing was sent.
        DeployError: the place does not offer this size; nothing was sent.
    """
    record, _ = await service.machine(name)
    wanted = replace(recorded(record), placement=resized(record.placement, given))
    return await service.up(wanted, is_verified=is_verified)


async def replicate(
    service: DockerDeploymentService, name: str, node: str, *, is_verified: bool
) -> tuple[DeploymentRecord, Machine]:
    """Run one machine more of the same application and variables; then as `start`.

    Returns:
        The deployment and the new machine.
    """
    with service.records.locked(name) as entry:
        before = await service.fleet.present(entry.record, name)
        service.say(f"replicating {name}")
        try:
            replica = await service.backend.scaling.replicate(before[0], node)
        except CloudInterruptedError:
            # It may have been made, and asking again would make another one.
            known = {machine.id for machine in before}
            made = [each for each in await service.fleet.present(entry.record, name) if each.id not in known]
            if not made:
                raise
            replica = made[0]
    record = await start(service, name, is_verified=is_verified)
    return record, await service.backend.machines.get(replica.id) or replica
