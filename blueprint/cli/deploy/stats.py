"""``blueprint deploy stats``: what the machines of a deployment use now.

Invariant: a figure that the place does not tell is shown as missing, never as zero.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.table import Table

from blueprint.cli.deploy.known import opened_deployment
from blueprint.cli.deploy.place import PLACE_SETTINGS
from blueprint.cli.session import Session, node_command
from blueprint.log import printable
from jobs.deploy.backends.backend import Machine, Stats

__all__ = ["stats"]

_MIB = 1024 * 1024
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


@click.command("stats", help="Show what a deployment's machines use now.")
@click.argument("name")
@node_command(settings=PLACE_SETTINGS)
def stats(session: Session, *, name: str) -> None:
    """Ask for each machine's figures."""
    found = asyncio.run(_stats(session, name))
    table = Table(box=None, pad_edge=False)
    table.add_column("machine")
    for title in ("state", "cpu", "memory MiB", "disk MiB", "up"):
        table.add_column(title, justify="right")
    for machine, figures in found:
        table.add_row(printable(machine.id, keep_newlines=False), str(machine.state), *_cells(figures))
    session.emit(
        [{"machine_id": machine.id, "state": machine.state, **asdict(each)} for machine, each in found], table
    )
    if all(figures == Stats() for _, figures in found):
        session.say("the place tells nothing: is it up, and deployed with --public-sysinfo?")


async def _stats(session: Session, name: str) -> Sequence[tuple[Machine, Stats]]:
    async with opened_deployment(session, name) as (service, record):
        machines = await service.fleet.present(record, name)
        return [(each, await service.backend.observation.stats(each)) for each in machines]


def _cells(figures: Stats) -> tuple[str, ...]:
    return (
        "-" if figures.cpu_percent is None else f"{figures.cpu_percent:.1f} %",
        _share(figures.memory_used_bytes, figures.memory_total_bytes),
        _share(figures.disk_used_bytes, figures.disk_total_bytes),
        "-" if figures.uptime_s is None else _duration(figures.uptime_s),
    )


def _share(used: int | None, total: int | None) -> str:
    if used is None and total is None:
        return "-"
    shown = ["-" if number is None else f"{number / _MIB:,.0f}" for number in (used, total)]
    return " of ".join(shown)


def _duration(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
