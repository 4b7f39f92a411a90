"""``blueprint deploy start``, ``stop``, ``restart``: a deployment with all its machines.

Invariant: a command that starts machines ends once the application is up and has proved what it runs, or says
that it did not.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import click

from blueprint.cli.deploy.known import opened_deployment
from blueprint.cli.deploy.place import PLACE_SETTINGS, VERIFY_SETTINGS
from blueprint.cli.deploy.up import record_json, show_record
from blueprint.cli.session import Session, node_command
from blueprint.log import printable
from jobs.deploy import operations
from jobs.deploy.backends.backend import Machine
from jobs.deploy.record import DeploymentRecord
from jobs.deploy.service import DockerDeploymentService

__all__ = ["changed", "no_verify_option", "restart", "start", "stop"]

no_verify_option = click.option(
    "--no-verify", is_flag=True, help="Do without the attestation; the record says so."
)


@click.command("start", help="Start a deployment that stands still, wait until it is up, and verify it.")
@click.argument("name")
@no_verify_option
@node_command(settings=VERIFY_SETTINGS)
def start(session: Session, *, name: str, no_verify: bool) -> None:
    """Start all its machines."""
    change = partial(operations.start, name=name, is_verified=not no_verify)
    changed(session, name, change, is_verified=not no_verify)


@click.command("restart", help="Restart a deployment, wait until it is up, and verify it.")
@click.argument("name")
@no_verify_option
@node_command(settings=VERIFY_SETTINGS)
def restart(session: Session, *, name: str, no_verify: bool) -> None:
    """Restart all its machines."""
    change = partial(operations.restart, name=name, is_verified=not no_verify)
    changed(session, name, change, is_verified=not no_verify)


@click.command("stop", help="Stop a deployment, and wait until it stands still; its disk stays.")
@click.argument("name")
@click.option("--force", is_flag=True, help="Cut the power, without asking the guest to end.")
@node_command(settings=(*PLACE_SETTINGS, "ready_timeout_s"))
def stop(session: Session, *, name: str, force: bool) -> None:
    """Stop all its machines."""

    async def stopped() -> tuple[Machine, ...]:
        async with opened_deployment(session, name) as (service, _):
            return await operations.stop(service, name, is_forced=force)

    machines = asyncio.run(stopped())
    shown = "\n".join(f"{name}: machine {printable(each.id)} {each.state}" for each in machines)
    session.emit(
        {"name": name, "machines": [{"id": each.id, "state": each.state} for each in machines]}, shown
    )
    session.suggest(f"blueprint deploy start {name}")


def changed(
    session: Session,
    name: str,
    change: Callable[[DockerDeploymentService], Awaitable[DeploymentRecord]],
    *,
    is_verified: bool,
) -> None:
    """Open the place of a deployment, change that, and show what it is then."""

    async def carried_out() -> DeploymentRecord:
        async with opened_deployment(session, name, is_verifying=is_verified) as (service, _):
            return await change(service)

    record = asyncio.run(carried_out())
    session.emit(record_json(record))
    show_record(session, record)
    session.suggest(f"blueprint deploy status {name}")
