"""Finds and moves local machines.

Invariant: an action is written down before it is carried out, and carrying it out again is no failure.
"""

from collections.abc import Sequence
from dataclasses import replace

from typing_extensions import override

from jobs.deploy.backends.backend import Action, Machine, Machines
from jobs.deploy.backends.local.disk import Record, Wanted
from jobs.deploy.backends.local.place import Place

__all__ = ["LocalMachines"]


class LocalMachines(Machines):
    """The port `Machines`."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @override
    async def list(self) -> Sequence[Machine]:
        return [await self._place.machine(record) for record in self._records()]

    @override
    async def get(self, ref: str) -> Machine | None:
        for record in self._records():
            if ref in {record.id, record.app_id, f"app_{record.app_id}", record.instance_id, record.name}:
                return await self._place.machine(record)
        return None

    @override
    async def act(self, machine: Machine, action: Action) -> None:
        place = self._place
        async with place.state.locked():
            record = place.record_of(machine)
            match action:
                case Action.START:
                    started = replace(record, wanted=Wanted.RUNNING)
                    await place.change(started if record.wanted is Wanted.RUNNING else record.rebooted())
                case Action.RESTART:
                    await place.change(record.rebooted())
                case Action.SHUTDOWN:
                    await place.change(replace(record, wanted=Wanted.STOPPED))
                case Action.STOP:
                    stopped = replace(record, wanted=Wanted.STOPPED)
                    place.state.folder(record.id).write(stopped)
                    await place.halt(stopped, is_graceful=False)

    @override
    async def delete(self, machine: Machine) -> None:
        place = self._place
        async with place.state.locked():
            try:
                record = place.state.folder(machine.id).record()
            except FileNotFoundError:
                # Its folder is gone, but perhaps not all that it had on the engine.
                await place.tidy()
                return
            await place.change(replace(record, wanted=Wanted.DELETED))
            await place.tidy()

    def _records(self) -> Sequence[Record]:
        return [record for record in self._place.state.records() if record.wanted is not Wanted.DELETED]
