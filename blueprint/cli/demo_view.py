"""What the demonstration shows: what it does while it does it, and a table at the end.

Invariant: everything that is said also reaches the recording, when one is made.
"""

import io
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from blueprint.chain.deployment import CallResult
from blueprint.cli.answer import answer_json, status_name
from blueprint.cli.demo_cases import Case, Verdict
from blueprint.cli.outcome import size_text, time_text
from blueprint.cli.session import Session
from blueprint.log import printable
from jobs.execute_codec import ExecuteResult

__all__ = ["Narrator", "ResultTable", "Row", "row_json"]

_RECORDED_WIDTH = 150
_MICRO = 1_000_000
_OUTPUT_COLUMNS = 44
_WIDE_COLUMNS = 120
_COLUMNS = (
    *("program", "version", "status", "output", "wall", "CPU", "peak memory", "transaction", "block"),
    "verdict",
)
_NUMBERS = frozenset({"wall", "CPU", "peak memory", "block"})
_ONLY_WIDE = frozenset({"version", "CPU", "transaction", "block"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case with its answer."""

    case: Case
    found: CallResult
    answer: ExecuteResult | None
    verdict: Verdict


class Narrator:
    """Says what happens on stderr, prints the table on stdout, and records both."""

    def __init__(self, session: Session, *, is_recorded: bool) -> None:
        self._session = session
        self._began = time.monotonic()
        self._record: Console | None = None
        if is_recorded:
            self._record = Console(
                record=True,
                file=io.StringIO(),
                width=_RECORDED_WIDTH,
                force_terminal=True,
                color_system="truecolor",
                highlight=False,
                markup=False,
                emoji=False,
            )

    def say(self, text: str, style: str = "") -> None:
        """Say one thing, with the time since the start."""
        line = Text.assemble((f"{time.monotonic() - self._began:6.1f}s  ", "dim"), (text, style))
        self._session.say(line)
        if self._record is not None:
            self._record.print(line)

    def show(self, value: Any, shown: RenderableType) -> None:
        """Show the result: the table, or JSON."""
        self._session.emit(value, shown)
        if self._record is not None:
            self._record.print(shown)

    def save(self, path: Path) -> None:
        """Write the recording as an SVG image that fetches nothing from anywhere."""
        assert self._record is not None
        template = re.sub(r"@font-face\s*\{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
        self._record.save_svg(str(path), title="blueprint demo", code_format=template, unique_id="demo")


@dataclass(frozen=True, slots=True)
class ResultTable:
    """The table of all answers; below 120 columns the least important of its own are left out."""

    rows: Sequence[Row]

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table for the width that there is."""
        is_wide = options.max_width >= _WIDE_COLUMNS
        shown = [name for name in _COLUMNS if is_wide or name not in _ONLY_WIDE]
        table = Table(box=None, pad_edge=False, header_style="bold", expand=not is_wide)
        for name in shown:
            table.add_column(
                name,
                justify="right" if name in _NUMBERS else "left",
                no_wrap=not is_wide or name in {*_NUMBERS, "transaction"},
                ratio=1 if name == "output" and not is_wide else None,
            )
        for row in self.rows:
            cells = dict(zip(_COLUMNS, _cells(row), strict=True))
            if not is_wide and row.verdict.is_right and row.verdict.is_enforced:
                cells["verdict"] = Text("right", style="green")
            table.add_row(*(cells[name] for name in shown))
        yield table


def row_json(row: Row) -> dict[str, Any]:
    """Return one row for machines."""
    return {
        "name": row.case.name,
        "is_right": row.verdict.is_right,
        "is_enforced": row.verdict.is_enforced,
        "verdict": row.verdict.note,
        "call_id": row.found.key.call_id,
        "operator": "0x" + row.found.operator.hex(),
        "transaction": "0x" + row.found.transaction_hash.hex(),
        "block": row.found.block_number,
        "answer": None if row.answer is None else answer_json(row.answer),
    }


def _cells(row: Row) -> tuple[str | Text, ...]:
    where = (f"0x{row.found.transaction_hash.hex()[:8]}…", str(row.found.block_number))
    colour = "red" if not row.verdict.is_right else "yellow" if not row.verdict.is_enforced else "green"
    verdict = Text(printable(row.verdict.note), style=colour)
    answer = row.answer
    if answer is None:
        return (row.case.name, "", "", "", "", "", "", *where, verdict)
    stats = answer.stats
    return (
        row.case.name,
        answer.runtime.rpartition(" ")[2],
        status_name(answer.status),
        printable(_last_line(answer), keep_newlines=False)[:_OUTPUT_COLUMNS],
        time_text(stats.wall_us / _MICRO),
        time_text((stats.user_us + stats.system_us) / _MICRO),
        size_text(stats.memory_peak_bytes or None),
        *where,
        verdict,
    )


def _last_line(answer: ExecuteResult) -> bytes:
    """What it printed; of a program that failed, the last line of its complaint, or why it was stopped."""
    if not answer.status:
        return answer.stdout.strip()
    lines = answer.stderr.strip().splitlines()
    return lines[-1] if lines else answer.error_message.encode()
