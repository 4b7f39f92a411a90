"""``blueprint calls``: the job calls in the node's journal."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich.table import Table

from blueprint.cli.answer import answer_json, answer_summary, read_answer
from blueprint.cli.outcome import bytes_json, size_text, time_text
from blueprint.cli.session import Session, node_command
from blueprint.errors import ConfigError
from blueprint.log import printable
from blueprint.store.reader import find_calls, list_calls, retry_call
from blueprint.store.records import CallRecord
from blueprint.types import CallState

__all__ = ["command"]

_NAME: Final = re.compile(r"(\d{1,20})[/:](\d{1,20})")
_STATES: Final = [state.value for state in CallState]


@click.group("calls", help="Look at the job calls in the node's journal, or retry one.")
def command() -> None:
    """Group the commands about calls."""


@command.command("list", help="List the newest calls.")
@click.option("--state", type=click.Choice(_STATES), help="Only calls in this state.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Most calls to list."
)
@node_command(settings=("state_dir",))
def list_command(session: Session, *, state: str | None, limit: int) -> None:
    """Print one line a call, newest first."""
    wanted = None if state is None else CallState(state)
    records = list_calls(session.journal, state=wanted, limit=limit)
    table = Table("call", "job", "state", "seen", "took", "output", "transaction", box=None, pad_edge=False)
    for record in records:
        table.add_row(*_row(record))
    session.emit([_as_json(record) for record in records], table if records else None)
    if not records:
        session.say("no calls" + (f" in state {state}" if state else " yet"))
        session.suggest("blueprint submit FILE")
    elif state is None:
        session.suggest(f"blueprint calls show {_name(records[0])}")


@command.command("show", help="Show one call with its answer. CALL is SERVICE/CALL, for example 0/12.")
@click.argument("call")
@node_command(settings=("state_dir",))
def show(session: Session, *, call: str) -> None:
    """Print what the journal knows about a call, the answer decoded."""
    records = _find(session, call)
    session.emit([_whole(record) for record in records], None)
    if session.is_json:
        return
    for record in records:
        _print_whole(session, record)
        if record.state in (CallState.CLOSED, CallState.READY):
            session.suggest(f"blueprint calls retry {_name(record)}")


@command.command("retry", help="Try a call again that was closed or waits. CALL is SERVICE/CALL.")
@click.argument("call")
@node_command(settings=("state_dir",))
def retry(session: Session, *, call: str) -> None:
    """Open a closed call again; a running node takes it up by itself."""
    records = _find(session, call)
    if len(records) > 1:
        contracts = ", ".join("0x" + record.key.contract.hex() for record in records)
        raise ConfigError(f"call {call} exists for several contracts ({contracts}); name another --state-dir")
    state = retry_call(session.journal, records[0].key)
    what = "its recorded output is sent again" if state is CallState.READY else "it runs again"
    session.emit({"call": _name(records[0]), "state": state.value}, f"{_name(records[0])}: {what}")
    session.suggest(f"blueprint calls show {_name(records[0])}")


def _find(session: Session, call: str) -> Sequence[CallRecord]:
    match = _NAME.fullmatch(call)
    if match is None or max(int(match[1]), int(match[2])) >= 1 << 64:
        raise ConfigError(f"call {call!r}: expected SERVICE/CALL in decimal, for example 0/12")
    records = find_calls(session.journal, service_id=int(match[1]), call_id=int(match[2]))
    if not records:
        raise ConfigError(f"call {call} is not in {session.journal}; `blueprint calls list` shows what is")
    return records


def _name(record: CallRecord) -> str:
    return f"{record.key.service_id}/{record.key.call_id}"


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _row(record: CallRecord) -> tuple[str, ...]:
    took = "" if record.ended_at is None else time_text(max(0.0, record.ended_at - record.seen_at))
    output = "" if record.output_bytes is None else size_text(record.output_bytes)
    sent = "" if record.result_transaction is None else "0x" + record.result_transaction.hex()[:12]
    state = record.state.value + (f": {record.reason[:50]}" if record.reason else "")
    return _name(record), str(record.job_index), printable(state), _moment(record.seen_at), took, output, sent


def _as_json(record: CallRecord) -> dict[str, Any]:
    names = [name for name in type(record).__slots__ if name not in {"key", "inputs", "output"}]
    body = {name: getattr(record, name) for name in names}
    return {
        "service_id": record.key.service_id,
        "call_id": record.key.call_id,
        "chain_id": record.key.chain_id,
        "contract": "0x" + record.key.contract.hex(),
        **{name: "0x" + value.hex() if isinstance(value, bytes) else value for name, value in body.items()},
    }


def _whole(record: CallRecord) -> dict[str, Any]:
    answer = None if record.output is None else read_answer(record.output)
    return _as_json(record) | {
        "inputs": "0x" + (record.inputs or b"").hex(),
        "output": None if record.output is None else "0x" + record.output.hex(),
        "answer": None if answer is None else answer_json(answer),
    }


def _print_whole(session: Session, record: CallRecord) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _as_json(record).items():
        if value is not None:
            shown = _moment(value) if name.endswith("_at") and isinstance(value, float) else str(value)
            table.add_row(name.replace("_", " "), printable(shown))
    if record.output is not None:
        answer = read_answer(record.output)
        if answer is None:
            table.add_row("output", printable(str(bytes_json(record.output))))
        else:
            table.add_row("answer", printable(answer_summary(answer)))
            table.add_row("stdout", printable(answer.stdout))
            table.add_row("stderr", printable(answer.stderr))
    session.emit({}, table)
