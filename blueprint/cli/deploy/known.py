"""Opens the place of a deployment that is recorded here.

Invariant: a name that is not recorded is an error before any place is asked.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from blueprint.cli.deploy.place import opened_service, place_of, record_store
from blueprint.cli.session import Session
from jobs.deploy.fleet import check_place, unknown
from jobs.deploy.record import DeploymentRecord
from jobs.deploy.service import DockerDeploymentService

__all__ = ["known_record", "opened_deployment"]


def known_record(session: Session, name: str) -> DeploymentRecord:
    """Return what is recorded of a deployment.

    Raises:
        UnknownDeploymentError: nothing is.
    """
    records = record_store(session)
    record = records.get(name)
    if record is None:
        raise unknown(name, records)
    return record


@asynccontextmanager
async def opened_deployment(
    session: Session, name: str, *, is_verifying: bool = False
) -> AsyncIterator[tuple[DockerDeploymentService, DeploymentRecord]]:
    """Open the place that the settings name, else the one of a deployment's record; close it at the end.

    Raises:
        UnknownDeploymentError: it is not recorded.
        DeploymentConflictError: it is at another place than the settings name.
        ConfigError, DeployError: as `opened_service`.
    """
    record = known_record(session, name)
    place = place_of(session, name)
    check_place(record, place)  # before an engine is started that is not wanted
    async with opened_service(session, place, is_verifying=is_verifying) as service:
        yield service, record
