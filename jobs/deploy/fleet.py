"""Finds the machines of deployments at one place: a deployment's own one, and its replicas.

Invariant: a machine is a deployment's by its identity, never by its name alone; which replicas there are, the
place knows, so that one whose order was interrupted is not forgotten.
"""

import difflib

from jobs.deploy.backends.backend import Backend, Machine
from jobs.deploy.errors import DeployError
from jobs.deploy.record import DeploymentRecord, RecordStore, Stage
from jobs.deploy.wanted import DeploymentConflictError, Wanted

__all__ = ["Fleet", "UnknownDeploymentError", "check_place", "unknown"]


class UnknownDeploymentError(DeployError):
    """No deployment of this name is recorded here."""


def unknown(name: str, records: RecordStore) -> UnknownDeploymentError:
    """Return the error for a name that is not recorded."""
    known = [path.stem for path in records.folder.glob("[!.]*.json")]
    near = difflib.get_close_matches(name, known, n=1)
    return UnknownDeploymentError(
        f"no deployment named {name!r} is recorded in {records.folder}",
        advice=f"did you mean {near[0]!r}?" if near else "`blueprint deploy list` shows those that are",
    )


def check_place(record: DeploymentRecord, place: str) -> None:
    """Find that a deployment is elsewhere.

    Raises:
        DeploymentConflictError: it is.
    """
    if record.place != place:
        raise DeploymentConflictError(
            f"{record.name} was deployed to {record.place}, not to {place}",
            advice=f"use --place {record.place}",
        )


class Fleet:
    """The machines of a place, as the records of deployments name them.

    Args:
        backend: the place.
        records: what is known of deployments.
    """

    def __init__(self, backend: Backend, records: RecordStore) -> None:
        self._backend = backend
        self._records = records

    async def own(self, record: DeploymentRecord) -> Machine | None:
        """Return a deployment's own machine; None if there is none, or none any more.

        Raises:
            DeploymentConflictError: it was deployed to another place.
        """
        check_place(record, self._backend.name)
        if record.machine_id:
            return await self._backend.machines.get(record.machine_id)
        found = await self._backend.machines.get(record.name)
        # A commit whose answer was lost: the machine is ours when it has the identity that we were given.
        return found if found is not None and found.app_id == record.app_id else None

    async def of(self, record: DeploymentRecord) -> tuple[Machine, ...]:
        """Return whatever there is of a deployment: its own machine first, then its replicas."""
        own = await self.own(record)
        return (*(() if own is None else (own,)), *await self._replicas(record, own))

    async def present(self, record: DeploymentRecord | None, name: str) -> tuple[Machine, ...]:
        """Return a deployment's own machine and its replicas.

        Raises:
            UnknownDeploymentError: it is not recorded.
            DeploymentConflictError: it has no machine, or none any more.
        """
        if record is None:
            raise unknown(name, self._records)
        own = await self.own(record)
        if own is not None:
            return (own, *await self._replicas(record, own))
        if record.stage is Stage.PREPARED:
            raise DeploymentConflictError(
                f"{name} is only prepared: nothing runs", advice="`blueprint deploy up` creates it"
            )
        raise self._gone(record)

    async def to_change(self, record: DeploymentRecord | None, wanted: Wanted) -> tuple[Machine, ...]:
        """Return the machines to change, the own one first; none when one is to be created.

        Raises:
            DeploymentConflictError: what is recorded is gone, or somebody else has the name.
        """
        own = None if record is None else await self.own(record)
        if record is not None and own is not None:
            return (own, *await self._replicas(record, own))
        if record is not None and record.stage is not Stage.PREPARED:
            raise self._gone(record)
        stranger = await self._backend.machines.get(wanted.workload.name)
        if stranger is not None:
            raise DeploymentConflictError(
                f"{self._backend.name} has a machine named {stranger.name} that was not deployed from here "
                f"(app id {stranger.app_id}, {stranger.state})",
                advice="choose another name, or deploy from where its record is",
            )
        return ()

    async def _replicas(self, record: DeploymentRecord, own: Machine | None) -> tuple[Machine, ...]:
        machines = await self._backend.machines.list()
        return tuple(
            each for each in machines if each.app_id == record.app_id and (own is None or each.id != own.id)
        )

    @staticmethod
    def _gone(record: DeploymentRecord) -> DeploymentConflictError:
        return DeploymentConflictError(
            f"the machine {record.machine_id or record.app_id} of {record.name} is gone from {record.place}",
            advice=f"`blueprint deploy delete {record.name}` forgets it; then deploy it anew",
        )
