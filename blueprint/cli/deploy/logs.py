"""``blueprint deploy logs``: what the services of a deployment printed.

Invariant: what a container printed cannot move the terminal's cursor or change its colours.
"""

import asyncio
import codecs
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence

import click

from blueprint.cli.deploy.known import opened_deployment
from blueprint.cli.deploy.place import PLACE_SETTINGS
from blueprint.cli.exits import ExitCode
from blueprint.cli.session import Session, node_command
from blueprint.log import printable
from jobs.deploy.backends.backend import Machine, Observation
from jobs.deploy.errors import DeployError

__all__ = ["logs"]

_MAX_LINE_CHARACTERS = 64 * 1024
"""What is printed although its line has not ended."""


@click.command("logs", help="Print what a deployment's services printed; all of them unless one is named.")
@click.argument("name")
@click.argument("service", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines of each.")
@click.option("--machine", "ref", metavar="ID", help="Of a replica [the deployment's own machine].")
@node_command(settings=PLACE_SETTINGS)
def logs(
    session: Session, *, name: str, service: str | None, follow: bool, tail: int | None, ref: str | None
) -> int:
    """Stream, line by line."""
    try:
        asyncio.run(_logs(session, name, service, ref, follow=follow, tail=tail))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED  # that is how following ends: nothing to say
    return ExitCode.OK


async def _logs(
    session: Session, name: str, asked: str | None, ref: str | None, *, follow: bool, tail: int | None
) -> None:
    async with opened_deployment(session, name) as (service, record):
        machine = _chosen(await service.fleet.present(record, name), ref)
        observation = service.backend.observation
        names = (asked,) if asked else await _services(observation, machine)
        width = max(map(len, names))
        async with asyncio.TaskGroup() as group:
            for each in names:
                pieces = observation.logs(machine, each, follow=follow, tail=tail)
                printing = _print(pieces, _printer(session, each, width if len(names) > 1 else 0))
                if follow:
                    group.create_task(printing)
                else:
                    await printing


def _chosen(machines: Sequence[Machine], ref: str | None) -> Machine:
    if ref is None:
        return machines[0]
    for machine in machines:
        if ref in {machine.id, machine.instance_id}:
            return machine
    known = ", ".join(machine.id for machine in machines)
    raise DeployError(f"{machines[0].name} has no machine {ref!r}", advice=f"take one of: {known}")


async def _services(observation: Observation, machine: Machine) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(each.service for each in await observation.containers(machine)))
    if not names:
        raise DeployError(
            f"{machine.name} has no containers yet: its machine is {machine.state}",
            advice=f"see `blueprint deploy status {machine.name}`",
        )
    return names


def _printer(session: Session, service: str, width: int) -> Callable[[str], None]:
    """Return what prints a line: as JSON, or after the service's name where there are several."""
    prefix = f"{printable(service, keep_newlines=False):{width}} | " if width else ""

    def show(line: str) -> None:
        shown = (
            json.dumps({"service": service, "line": line}) if session.is_json else prefix + printable(line)
        )
        sys.stdout.write(shown + "\n")
        sys.stdout.flush()

    return show


async def _print(pieces: AsyncIterator[bytes], show: Callable[[str], None]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    async for piece in pieces:
        *lines, rest = (rest + decoder.decode(piece)).split("\n")
        for line in lines:
            show(line.removesuffix("\r"))
        if len(rest) > _MAX_LINE_CHARACTERS:
            show(rest)
            rest = ""
    if rest := rest + decoder.decode(b"", final=True):
        show(rest)
