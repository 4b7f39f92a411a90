"""Looks into local machines: states, containers, logs, what they use.

Invariant: nothing here changes a machine; logs are given only where the application declared them public.
"""

import asyncio
import difflib
import time
from collections.abc import AsyncIterator, Sequence

from typing_extensions import override

from jobs.deploy.app_compose import parse_app_compose
from jobs.deploy.backends.backend import Container, Machine, MachineState, Observation, Stats
from jobs.deploy.backends.local.engine import EngineContainer
from jobs.deploy.backends.local.place import Place
from jobs.deploy.errors import DeployError

__all__ = ["LocalObservation"]

_POLL_S = 0.2


class LocalObservation(Observation):
    """The port `Observation`."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @override
    async def watch(self, machine: Machine, target: MachineState) -> AsyncIterator[Machine]:
        last: Machine | None = None
        while True:
            current = await self._place.machine(self._place.record_of(machine))
            if current != last:
                yield current
            if current.state in {target, MachineState.FAILED}:
                return
            last = current
            await asyncio.sleep(_POLL_S)

    @override
    async def containers(self, machine: Machine) -> Sequence[Container]:
        return [
            Container(
                service=one.service,
                is_running=one.state == "running",
                health=one.health,
                exit_code=one.exit_code,
                said=one.status,
            )
            for one in await self._containers(machine)
        ]

    @override
    async def logs(
        self, machine: Machine, service: str, *, follow: bool, tail: int | None
    ) -> AsyncIterator[bytes]:
        record = self._place.record_of(machine)
        content = parse_app_compose(self._place.state.folder(record.id).read(record.app_compose))
        if content.get("public_logs") is not True:
            raise DeployError(
                f"the logs of {machine.name} are not public",
                advice="deploy with public_logs: true to read them",
            )
        for container in await self._of_service(machine, service):
            async for piece in self._place.engine.logs(container, follow=follow, tail=tail):
                yield piece

    @override
    async def stats(self, machine: Machine) -> Stats:
        containers = [one for one in await self._containers(machine) if one.state == "running"]
        # Each measurement takes the engine a second.
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._place.engine.usage(one)) for one in containers]
        usages = [usage for task in asked if (usage := task.result())]
        status = self._place.state.folder(machine.id).status()
        is_up = machine.state in {MachineState.RUNNING, MachineState.STARTING}
        return Stats(
            cpu_percent=sum(usage.cpu_percent for usage in usages),
            memory_used_bytes=sum(usage.memory_bytes for usage in usages),
            memory_total_bytes=max((usage.memory_limit_bytes for usage in usages), default=None),
            uptime_s=time.time() - status.since_s if is_up and status.since_s else None,
        )

    async def _containers(self, machine: Machine) -> Sequence[EngineContainer]:
        self._place.record_of(machine)
        return await self._place.engine.containers(self._place.state.project(machine.id))

    async def _of_service(self, machine: Machine, service: str) -> Sequence[EngineContainer]:
        containers = await self._containers(machine)
        found = [one for one in containers if one.service == service]
        if not found:
            names = sorted({one.service for one in containers})
            close = difflib.get_close_matches(service, names, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names) or 'none'}"
            raise DeployError(f"{machine.name} has no service {service!r}", advice=advice)
        return found
