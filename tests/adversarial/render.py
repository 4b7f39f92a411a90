"""Renders the adversarial table into the threat model: ``python -m tests.adversarial.render`` writes it anew.

Invariant: the page names every row as its test does, and says of each back end what the test expects.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.adversarial.attack import Attack, Ending
from tests.adversarial.table import THEMES

__all__ = ["PAGE", "page_of", "rendered"]

PAGE = Path(__file__).resolve().parents[2] / "docs/explanation/threat-model.md"
BEGIN = (
    "<!-- made by `python -m tests.adversarial.render` from tests/adversarial/table; do not edit below -->\n"
)
TITLES = {
    "depletion": "Using up what the machine has",
    "processes": "Processes, signals and init",
    "escape": "Looking for the host",
    "identity": "Being somebody else",
    "kernel": "The kernel's system calls",
    "between": "Other programs at the same time",
    "network": "The network",
    "files": "The collection of outputs",
    "furnished": "What an operator adds",
    "compilers": "Compilers",
    "languages": "The same in other languages",
    "requests": "Requests",
    "packages": "Packages that a program depends on",
}


def page_of(text: str) -> str:
    """Return the page with its table as the rows are now."""
    return text.partition(BEGIN)[0] + BEGIN + rendered()


def rendered() -> str:
    """Return the tables as Markdown, one for each theme."""
    lines: list[str] = []
    for theme, rows in THEMES.items():
        lines += [
            "",
            f"### {TITLES[theme]}",
            "",
            "| attack | what stands against it | how it ends | succeeds without |",
        ]
        lines += ["| --- | --- | --- | --- |", *_lines(rows)]
    return "\n".join(lines) + "\n"


def _lines(rows: Sequence[Attack]) -> Iterator[str]:
    for row in rows:
        without = "the " + " and the ".join(row.without.walls) if row.without else ""
        yield f"| `{row.key}` | {_cell(row.wall)} | {_endings(row)} | {without} |"


def _endings(row: Attack) -> str:
    texts = [_ending(row.ends)]
    for host, ending in row.elsewhere.items():
        why = f" ({_cell(ending.why)})" if ending.why else ""
        texts.append(f"{host}: {_ending(ending)}{why}")
    return "; ".join(texts)


def _ending(ending: Ending) -> str:
    if ending.error is not None:
        return f"refused, {ending.error}"
    return " or ".join(status.name for status in ending.statuses())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page_of(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
