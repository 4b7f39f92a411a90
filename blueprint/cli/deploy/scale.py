"""``blueprint deploy resize`` and ``replicate``: more or less of a deployment.

Invariant: a disk never shrinks, and a replica is never ordered twice by one command.
"""

import asyncio
from functools import partial
from typing import Any

import click

from blueprint.cli.deploy.asked import size_options
from blueprint.cli.deploy.known import opened_deployment
from blueprint.cli.deploy.place import VERIFY_SETTINGS
from blueprint.cli.deploy.power import changed, no_verify_option
from blueprint.cli.deploy.up import record_json
from blueprint.cli.session import Session, node_command
from blueprint.log import printable
from jobs.deploy import operations
from jobs.deploy.backends.backend import Machine, Placement
from jobs.deploy.record import DeploymentRecord

__all__ = ["replicate", "resize"]


@click.command("resize", help="Give a deployment another size, wait until it is up, and verify it.")
@click.argument("name")
@size_options
@no_verify_option
@node_command(settings=VERIFY_SETTINGS)
def resize(session: Session, *, name: str, size: dict[str, Any], no_verify: bool) -> None:
    """Resize all its machines; they may be restarted."""
    given = {key: value for key, value in size.items() if value}
    if not given:
        raise click.UsageError("give at least one of --instance-type, --vcpu, --memory-mb, --disk-gb")
    change = partial(operations.resize, name=name, given=Placement(**given), is_verified=not no_verify)
    changed(session, name, change, is_verified=not no_verify)


@click.command("replicate", help="Run one machine more of a deployment, wait until it is up, and verify it.")
@click.argument("name")
@click.option("--node", default="", metavar="ID", help="On which host machine [the place's choice].")
@no_verify_option
@node_command(settings=VERIFY_SETTINGS)
def replicate(session: Session, *, name: str, node: str, no_verify: bool) -> None:
    """Order the replica; it has a disk of its own, and is changed and deleted with the deployment."""

    async def replicated() -> tuple[DeploymentRecord, Machine]:
        async with opened_deployment(session, name, is_verifying=not no_verify) as (service, _):
            return await operations.replicate(service, name, node, is_verified=not no_verify)

    record, machine = asyncio.run(replicated())
    replica = {"id": machine.id, "instance_id": machine.instance_id, "endpoints": tuple(machine.endpoints)}
    where = ", ".join(machine.endpoints)
    shown = f"{name}: replica {machine.id} {machine.state}" + (f" at {where}" if where else "")
    session.emit({**record_json(record), "replica": replica}, printable(shown, keep_newlines=False))
    session.suggest(f"blueprint deploy status {name}")
