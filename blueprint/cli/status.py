"""``blueprint status``: how the node is doing, from its HTTP server and its journal."""

from typing import Any

import click
import httpx
from rich.table import Table

from blueprint.cli.exits import ExitCode
from blueprint.cli.session import Session, node_command
from blueprint.errors import JournalError
from blueprint.foreign_json import parse_json
from blueprint.log import printable
from blueprint.store.reader import count_calls

__all__ = ["command"]

_TIMEOUT_S = 5.0


@click.command("status", help="Say how the node is doing: readiness, cursor, calls by state.")
@click.option("--url", metavar="URL", help="The node's HTTP address; by default made from the settings.")
@node_command(settings=("state_dir", "http_host", "http_port"))
def command(session: Session, *, url: str | None) -> int:
    """Ask the running node; where none answers, read its journal. Exit code 0 only when it is ready."""
    settings = session.settings
    address = (url or f"http://{settings.http_host}:{settings.http_port}").rstrip("/")
    found = _ask(address)
    try:
        calls = {state.value: count for state, count in count_calls(session.journal).items()}
    except JournalError:
        calls = None
    is_ready = found is not None and found.get("status") == "ready"
    body: dict[str, Any] = {"url": address, "is_ready": is_ready, "node": found, "journal": calls}
    session.emit(body, _table(body))
    if found is None:
        session.suggest("blueprint run", "blueprint doctor")
    else:
        session.suggest("blueprint calls list")
    return ExitCode.OK if is_ready else ExitCode.FAILURE


def _ask(address: str) -> dict[str, Any] | None:
    """Return what ``/readyz`` says, or None when nobody answers there."""
    try:
        answer = httpx.get(f"{address}/readyz", timeout=_TIMEOUT_S, trust_env=False)
        body = parse_json(answer.content)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
    return body if isinstance(body, dict) else None


def _table(body: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    node: dict[str, Any] | None = body["node"]
    if node is None:
        table.add_row("node", f"does not answer at {body['url']}")
    else:
        reason = f": {node['reason']}" if node.get("reason") else ""
        table.add_row("node", printable(f"{node.get('status')}{reason}"))
        for name, value in node.items():
            if name not in {"status", "reason", "calls"}:
                table.add_row(name.replace("_", " "), printable(str(value)))
    counts = (node or {}).get("calls") or body["journal"]
    if counts is None:
        table.add_row("journal", "none yet")
    else:
        table.add_row(
            "calls", ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none"
        )
    return table
