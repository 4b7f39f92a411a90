"""Waits until an application is up (its machine runs, and its containers do), or its machine has stopped.

Invariant: waiting ends, by a deadline at the latest, and every ending but readiness says what was seen last.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing

from jobs.deploy.backends.backend import Container, Health, Machine, MachineState, Observation
from jobs.deploy.errors import ApplicationFailedError, NotReadyError

__all__ = ["LOOK_S", "wait_until_ready", "wait_until_stopped"]

LOOK_S = 1.0
STEADY_LOOKS = 2
"""How often in a row everything must be up: a container that ends at once is up for a moment."""


async def wait_until_ready(
    observation: Observation,
    machine: Machine,
    *,
    timeout_s: float,
    one_shots: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
    look_s: float = LOOK_S,
) -> Machine:
    """Return the machine once it runs and every container is healthy, or runs where it has no health check.

    Args:
        observation: looks into machines.
        machine: which.
        timeout_s: for all of it.
        one_shots: services that are meant to end, with 0.
        say: called with a line whenever something else is seen.
        look_s: between two looks at the containers.

    Raises:
        ApplicationFailedError: it will not come up: the boot failed, a container ended or is unhealthy.
        NotReadyError: the time is over.
    """
    progress = _Progress(machine, say)
    try:
        async with asyncio.timeout(timeout_s):
            await _running(observation, progress)
            await _healthy(observation, progress, frozenset(one_shots), look_s)
    except TimeoutError:
        raise NotReadyError(
            f"{machine.name} was not ready after {timeout_s:g} s; last seen: {progress.last or 'nothing'}",
            advice="run the same command again to go on waiting, or look at its logs",
        ) from None
    return progress.machine


async def wait_until_stopped(
    observation: Observation,
    machine: Machine,
    *,
    timeout_s: float,
    say: Callable[[str], None] = lambda _: None,
) -> Machine:
    """Return the machine once it has stopped, or failed, which is as still.

    Raises:
        NotReadyError: the time is over.
    """
    progress = _Progress(machine, say)
    try:
        async with asyncio.timeout(timeout_s):
            await _reached(observation, progress, MachineState.STOPPED)
    except TimeoutError:
        raise NotReadyError(
            f"{machine.name} had not stopped after {timeout_s:g} s; last seen: {progress.last}",
            advice=f"`blueprint deploy stop --force {machine.name}` cuts its power",
        ) from None
    return progress.machine


class _Progress:
    """What was seen last, told once."""

    def __init__(self, machine: Machine, say: Callable[[str], None]) -> None:
        self.machine = machine
        self.last = ""
        self._say = say

    def see(self, line: str) -> None:
        if line != self.last:
            self.last = line
            self._say(line)


async def _running(observation: Observation, progress: _Progress) -> None:
    await _reached(observation, progress, MachineState.RUNNING)
    if progress.machine.state is MachineState.FAILED:
        raise ApplicationFailedError(
            f"{progress.machine.name} does not boot: {progress.machine.said or 'no reason given'}",
            advice="mend that and deploy again, or delete it",
        )


async def _reached(observation: Observation, progress: _Progress, target: MachineState) -> None:
    """Follow the machine until it has the state, or has failed."""
    progress.see(f"machine {progress.machine.state}")
    async with aclosing(observation.watch(progress.machine, target)) as states:  # type: ignore[type-var]
        async for machine in states:
            progress.machine = machine
            progress.see(f"machine {machine.state}" + (f" ({machine.said})" if machine.said else ""))
            if machine.state is MachineState.FAILED:
                return


async def _healthy(
    observation: Observation, progress: _Progress, one_shots: frozenset[str], look_s: float
) -> None:
    steady = 0
    while steady < STEADY_LOOKS:
        containers = await observation.containers(progress.machine)
        progress.see(_told(containers))
        for container in containers:
            if (wrong := _failure(container, one_shots)) is not None:
                name, service = progress.machine.name, container.service
                raise ApplicationFailedError(
                    f"{name}: service {service} {wrong}",
                    advice=f"read its logs: blueprint deploy logs {name} {service}",
                )
        is_up = bool(containers) and all(_is_up(container, one_shots) for container in containers)
        steady = steady + 1 if is_up else 0
        if steady < STEADY_LOOKS:
            await asyncio.sleep(look_s)


def _failure(container: Container, one_shots: frozenset[str]) -> str | None:
    if container.is_running:
        return "is unhealthy" if container.health is Health.UNHEALTHY else None
    if container.exit_code is None or (container.exit_code == 0 and container.service in one_shots):
        return None
    return f"ended with exit code {container.exit_code}"


def _is_up(container: Container, one_shots: frozenset[str]) -> bool:
    if not container.is_running:
        return container.exit_code == 0 and container.service in one_shots
    return container.health in (Health.HEALTHY, Health.NONE)


def _told(containers: Sequence[Container]) -> str:
    if not containers:
        return "no container yet"
    return ", ".join(f"{each.service} {_state(each)}" for each in containers)


def _state(container: Container) -> str:
    if not container.is_running:
        return f"ended ({container.exit_code})" if container.exit_code is not None else "not started"
    return "runs" if container.health is Health.NONE else str(container.health)
