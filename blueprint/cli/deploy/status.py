"""``blueprint deploy status``: a deployment as it was recorded, and as its machines are now.

Invariant: what is recorded is shown even where the place cannot be asked; then the command fails and says so.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click

from blueprint.cli.deploy.known import known_record, opened_deployment
from blueprint.cli.deploy.place import PLACE_SETTINGS
from blueprint.cli.deploy.up import record_json, show_record
from blueprint.cli.exits import ExitCode, one_line
from blueprint.cli.session import Session, node_command
from blueprint.errors import BlueprintError
from blueprint.log import printable
from jobs.deploy.backends.backend import Container, Machine, MachineState, Observation
from jobs.deploy.record import DeploymentRecord, Stage

__all__ = ["status"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A machine, and what runs inside."""

    machine: Machine
    containers: Sequence[Container] = ()
    trouble: str = ""
    """Why nobody can look inside."""


@click.command("status", help="Show a deployment: its record, its machines and their containers.")
@click.argument("name")
@node_command(settings=PLACE_SETTINGS)
def status(session: Session, *, name: str) -> int:
    """Show the record, ask the place, show what it says."""
    record = known_record(session, name)
    seen: Sequence[_Seen] = ()
    trouble = ""
    try:
        seen = asyncio.run(_look(session, record))
    except BlueprintError as error:
        trouble = one_line(error)
    session.emit({**record_json(record), "machines": [_json(each) for each in seen], "error": trouble})
    if not session.is_json:
        show_record(session, record)
        for number, each in enumerate(seen):
            _show(session, record, each, word="replica" if number else "machine")
    if trouble:
        session.say(f"error: {trouble}", "red")
        return ExitCode.FAILURE
    session.suggest(f"blueprint deploy logs {name}", f"blueprint deploy verify {name}")
    return ExitCode.OK


async def _look(session: Session, record: DeploymentRecord) -> Sequence[_Seen]:
    async with opened_deployment(session, record.name) as (service, _):
        if record.stage is Stage.PREPARED:
            machines = await service.fleet.of(record)
        else:
            machines = await service.fleet.present(record, record.name)
        return [await _inside(service.backend.observation, each) for each in machines]


async def _inside(observation: Observation, machine: Machine) -> _Seen:
    if machine.state not in {MachineState.RUNNING, MachineState.STARTING}:
        return _Seen(machine=machine)
    try:
        return _Seen(machine=machine, containers=await observation.containers(machine))
    except BlueprintError as error:
        return _Seen(machine=machine, trouble=one_line(error))


def _json(seen: _Seen) -> dict[str, Any]:
    machine = asdict(seen.machine) | {"compose_hash": seen.machine.compose_hash.hex()}
    return {**machine, "containers": [asdict(each) for each in seen.containers], "error": seen.trouble}


def _show(session: Session, record: DeploymentRecord, seen: _Seen, *, word: str) -> None:
    machine = seen.machine
    said = f" ({machine.said})" if machine.said not in ("", machine.state) else ""
    lines = [f"{word} {machine.id}: {machine.state}{said}"]
    if machine.compose_hash and machine.compose_hash.hex() != record.compose_hash:
        lines.append(f"  runs another compose hash: {machine.compose_hash.hex()}")
    width = max((len(each.service) for each in seen.containers), default=0)
    for each in seen.containers:
        state = str(each.health) if each.is_running and each.health != "none" else ""
        state = state or ("runs" if each.is_running else f"ended ({each.exit_code})")
        lines.append(f"  {each.service:{width}}  {state:9}  {each.said}")
    if seen.trouble:
        lines.append(f"  cannot be looked into: {seen.trouble}")
    for line in lines:
        session.stdout.print(printable(line.rstrip(), keep_newlines=False))
