"""``blueprint deploy list``: the deployments of this state folder, and what the place has beside them.

Invariant: without a place the records alone are shown, and nothing is sent.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import click
from rich.table import Table

from blueprint.cli.deploy.place import PLACE_SETTINGS, opened_service, record_store
from blueprint.cli.deploy.up import record_json
from blueprint.cli.session import Session, node_command
from blueprint.log import printable
from jobs.deploy.backends.backend import Machine
from jobs.deploy.record import DeploymentRecord

__all__ = ["listing"]


@click.command("list", help="List the deployments; with --place, also machines there without a record.")
@node_command(settings=PLACE_SETTINGS)
def listing(session: Session) -> None:
    """Show records, and beside them what is there."""
    records = record_store(session).all()
    place = session.settings.place
    machines = asyncio.run(_machines(session, place)) if place is not None else ()
    rows = _rows(records, place or "", machines)
    session.emit(rows, _table(rows, is_seen=place is not None))
    if not rows:
        session.say("no deployments")
        session.suggest("blueprint deploy up PATH")


async def _machines(session: Session, place: str) -> Sequence[Machine]:
    async with opened_service(session, place) as service:
        return await service.backend.machines.list()


def _rows(
    records: Sequence[DeploymentRecord], place: str, machines: Sequence[Machine]
) -> list[dict[str, Any]]:
    """Return a row for each deployment, its replicas after it, and those for machines of no record."""
    rows: list[dict[str, Any]] = []
    left = list(machines)
    for record in records:
        ours = [each for each in left if record.place == place and each.app_id == record.app_id]
        left = [each for each in left if each not in ours]
        own = next((each for each in ours if each.id == record.machine_id), None)
        state = (str(own.state) if own else "gone") if record.place == place and record.machine_id else ""
        rows.append({"kind": "deployment", "state": state, **record_json(record)})
        rows += [_machine_row("replica", record.name, place, each) for each in ours if each is not own]
    return rows + [_machine_row("no record", each.name, place, each) for each in left]


def _machine_row(kind: str, name: str, place: str, machine: Machine) -> dict[str, Any]:
    return {
        "kind": kind,
        "state": str(machine.state),
        "name": name,
        "place": place,
        "app_id": machine.app_id,
        "machine_id": machine.id,
        "instance_id": machine.instance_id,
        "endpoints": tuple(machine.endpoints),
    }


def _table(rows: Sequence[dict[str, Any]], *, is_seen: bool) -> Table | None:
    if not rows:
        return None
    table = Table(box=None, pad_edge=False)
    for title in ("name", "place", "is", *(("machine",) if is_seen else ()), "app id"):
        table.add_column(title)
    for row in rows:
        stage = row.get("stage", row["kind"])
        if row.get("is_verification_waived"):
            stage = f"{stage}, not verified"
        cells = (row["name"], row["place"], stage, *((row["state"],) if is_seen else ()), row["app_id"])
        table.add_row(*(printable(str(cell), keep_newlines=False) for cell in cells))
    return table
