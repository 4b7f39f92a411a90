"""``blueprint deploy delete``: removes a deployment with all its machines and their disks.

Invariant: what would be lost is said, and agreed to, before anything is removed.
"""

import asyncio

import click

from blueprint.cli.deploy.consent import is_agreed, yes_option
from blueprint.cli.deploy.known import opened_deployment
from blueprint.cli.deploy.place import PLACE_SETTINGS
from blueprint.cli.exits import ExitCode
from blueprint.cli.session import Session, node_command
from blueprint.log import printable
from jobs.deploy.backends.backend import Machine
from jobs.deploy.record import DeploymentRecord

__all__ = ["delete"]


@click.command(
    "delete", help="Remove a deployment: its machine, its replicas, and all that is on their disks."
)
@click.argument("name")
@yes_option
@node_command(settings=PLACE_SETTINGS)
def delete(session: Session, *, name: str, yes: bool) -> int:
    """Look what there is, ask, remove."""
    record, machines = asyncio.run(_look(session, name))
    if not is_agreed(_question(record, machines), yes=yes):
        session.say("nothing was deleted")
        return ExitCode.FAILURE
    asyncio.run(_delete(session, name))
    session.emit(
        {"name": name, "app_id": record.app_id, "deleted": [each.id for each in machines]},
        f"{name}: " + (f"deleted {_named(machines)}" if machines else "forgotten; no machine was left"),
    )
    return ExitCode.OK


async def _look(session: Session, name: str) -> tuple[DeploymentRecord, tuple[Machine, ...]]:
    async with opened_deployment(session, name) as (service, record):
        return record, await service.fleet.of(record)


async def _delete(session: Session, name: str) -> None:
    async with opened_deployment(session, name) as (service, _):
        await service.delete(name)


def _question(record: DeploymentRecord, machines: tuple[Machine, ...]) -> str:
    if not machines:
        return f"No machine of {record.name} is left at {record.place}. Forget it?"
    disks = "its disk" if len(machines) == 1 else "their disks"
    return f"All data on {disks} is lost. Delete {record.name} at {record.place}: {_named(machines)}?"


def _named(machines: tuple[Machine, ...]) -> str:
    words = [f"{'replica' if number else 'machine'} {each.id}" for number, each in enumerate(machines)]
    return printable(", ".join(words), keep_newlines=False)
