"""``blueprint deploy up``, ``plan``, ``prepare``: from a description to a machine that proved what it runs.

Invariant: nothing is sent before the plan was shown, and the same command again goes on where it stopped.
"""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from blueprint.cli.deploy.asked import Asked, application_options, size_options, understood
from blueprint.cli.deploy.place import (
    PLACE_SETTINGS,
    VERIFY_SETTINGS,
    opened_service,
    place_of,
    private_engine,
    record_store,
)
from blueprint.cli.session import Session, node_command
from blueprint.errors import ConfigError
from blueprint.log import printable
from jobs.deploy.app_compose import parse_app_compose
from jobs.deploy.backends.local import LocalBackend
from jobs.deploy.compose.check import check_compose
from jobs.deploy.compose.findings import WHOLE_MACHINE, Allowance, ComposeError
from jobs.deploy.envelope import SealingRequest
from jobs.deploy.plan import Plan, make_plan
from jobs.deploy.record import DeploymentRecord
from jobs.deploy.service import DockerDeploymentService

__all__ = ["plan", "prepare", "record_json", "show_record", "up"]

_WHERE = click.Path(path_type=Path, exists=True)
_REQUEST = click.Path(path_type=Path, dir_okay=False)


@click.command("up", help="Deploy a compose file, or a folder's application: create, change or leave it.")
@click.argument("path", type=_WHERE)
@application_options
@size_options
@click.option("--dry-run", is_flag=True, help="Show the plan and send nothing.")
@click.option("--no-verify", is_flag=True, help="Do without the attestation; the record says so.")
@node_command(settings=VERIFY_SETTINGS)
def up(
    session: Session,
    *,
    path: Path,
    options: dict[str, Any],
    size: dict[str, Any],
    dry_run: bool,
    no_verify: bool,
) -> None:
    """Show the plan, carry it out, and show what is there."""
    asked = understood(path, options, size, record_store(session))
    if not dry_run:
        _check_host(place_of(session, asked.wanted.workload.name), asked, options["allow"])
    asyncio.run(_up(session, asked, is_dry=dry_run, is_verified=not no_verify))


@click.command("plan", help="Show what `up` would create or change, and send nothing.")
@click.argument("path", type=_WHERE)
@application_options
@size_options
@node_command(settings=PLACE_SETTINGS)
def plan(session: Session, *, path: Path, options: dict[str, Any], size: dict[str, Any]) -> None:
    """Show the plan."""
    asked = understood(path, options, size, record_store(session))
    asyncio.run(_up(session, asked, is_dry=True, is_verified=False))


@click.command("prepare", help="Get an application's identity and key, for others to seal to; nothing runs.")
@click.argument("path", type=_WHERE)
@application_options
@size_options
@click.option("--request", type=_REQUEST, metavar="FILE", help="What to hand out [NAME.request.json].")
@node_command(settings=(*PLACE_SETTINGS, "kms_key"))
def prepare(
    session: Session,
    *,
    path: Path,
    options: dict[str, Any],
    size: dict[str, Any],
    request: Path | None,
) -> None:
    """Provision, and write the request for sealing."""
    asked = understood(path, options, size, record_store(session))

    async def provisioned() -> DeploymentRecord:
        place = place_of(session, asked.wanted.workload.name)
        async with opened_service(session, place) as service:
            return await service.prepare(asked.wanted)

    record = asyncio.run(provisioned())
    target = request or Path(f"{record.name}.request.json")
    SealingRequest.of(record).write(target)
    session.emit({**record_json(record), "request": str(target)})
    show_record(session, record)
    session.say(f"wrote {target}; it holds no secret")
    session.suggest(f"blueprint deploy seal {target} --env-file FILE")


def _check_host(place: str, asked: Asked, allowed: tuple[str, ...]) -> None:
    # SECURITY: a description from elsewhere does not give itself this host
    # (test_a_description_alone_does_not_own_this_host).
    if place == "local" and (
        undue := asked.compose.allowed & WHOLE_MACHINE - frozenset(map(Allowance, allowed))
    ):
        names = " ".join(f"--allow {risk}" for risk in sorted(undue))
        raise ConfigError(
            "at the local place this host is the machine, and the application could own it; if that is "
            f"meant, say so here and not in its description alone: {names}"
        )


async def _up(session: Session, asked: Asked, *, is_dry: bool, is_verified: bool) -> None:
    place = place_of(session, asked.wanted.workload.name)
    async with opened_service(session, place, is_verifying=is_verified) as service:
        planned = await _planned(service, asked)
        if is_dry:
            session.emit({**planned.to_json(), "price": await _price(service, asked)})
        if is_dry or not planned.is_noop:
            await _show_plan(session, service, asked, planned, is_data=is_dry)
        if is_dry:
            return
        record = await service.up(asked.wanted, asked.variables, is_verified=is_verified)
        is_apart = _is_apart(session, service)
    session.emit(record_json(record))
    show_record(session, record)
    if is_apart and record.endpoints:
        session.say("this engine's ports are in a network of its own, which only its containers reach")
    session.suggest(f"blueprint deploy status {record.name}", f"blueprint deploy logs {record.name}")


def _is_apart(session: Session, service: DockerDeploymentService) -> bool:
    place = service.backend
    return isinstance(place, LocalBackend) and place.engine == private_engine(session).socket


async def _planned(service: DockerDeploymentService, asked: Asked) -> Plan:
    return make_plan(
        asked.wanted,
        asked.record,
        asked.variables,
        place=service.backend.name,
        old_volumes=() if asked.record is None else _volumes_of(asked.record),
        volumes=asked.compose.volumes,
    )


async def _show_plan(
    session: Session, service: DockerDeploymentService, asked: Asked, planned: Plan, *, is_data: bool
) -> None:
    if session.is_json:
        return
    show = session.stdout.print if is_data else session.say
    for line in planned.lines():
        show(printable(line, keep_newlines=False))
    for risk in sorted(asked.compose.allowed):
        show(f"  risk taken: {risk}")
    price = await _price(service, asked) if is_data else ""
    if price:
        show(printable(f"  price: {price}", keep_newlines=False))


async def _price(service: DockerDeploymentService, asked: Asked) -> str:
    return await service.backend.scaling.price(asked.wanted.placement)


def _volumes_of(record: DeploymentRecord) -> tuple[str, ...]:
    """Return the named volumes of what is deployed; nothing where its text would no longer be accepted."""
    members = parse_app_compose(record.app_compose)
    text, script = str(members["docker_compose_file"]), str(members.get("pre_launch_script") or "")
    try:
        return check_compose(text, names=record.names, allow=frozenset(Allowance), script=script).volumes
    except ComposeError:
        return ()


def record_json(record: DeploymentRecord) -> dict[str, Any]:
    """Return a record as JSON, without what was measured and what only serves to find changes."""
    members = asdict(record)
    for name in ("app_compose", "variables", "sealed"):
        del members[name]
    return members


def show_record(session: Session, record: DeploymentRecord) -> None:
    """Print a record for people."""
    if session.is_json:
        return
    state = "not verified, as asked" if record.is_verification_waived else str(record.stage)
    lines = {
        f"{record.name} at {record.place}": state,
        "app id": record.app_id,
        "instance": record.instance_id,
        "compose hash": record.compose_hash,
        "endpoint": ", ".join(record.endpoints),
        "price": record.price,
        "attestation": record.attestation,
    }
    width = max(map(len, lines))
    for name, value in lines.items():
        if value:
            session.stdout.print(printable(f"{name:{width}}  {value}", keep_newlines=False))
    for check in record.checks:
        session.stdout.print(printable(f"  {check}", keep_newlines=False))
