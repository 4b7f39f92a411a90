"""Shows what was measured: as a table, as JSON, as the table in the README.

Invariant: all three show the same numbers.
"""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.loop.scenario import Measurement
from blueprint.chain.anvil import find_anvil

__all__ = ["machine", "print_json", "print_table", "write_readme"]

_COLUMNS = (
    "job",
    "node's link",
    "blocks",
    "event to result p50",
    "p99",
    "sent to result p50",
    "node CPU a job, one by one",
    "jobs/s at once",
    "node CPU a job",
    "anvil CPU a job",
)
_BEGIN, _END = "<!-- loop: begin -->", "<!-- loop: end -->"


def machine() -> dict[str, object]:
    """What the numbers were taken on."""
    version = subprocess.run(
        [find_anvil(), "--version"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "chain": version.removeprefix("anvil Version: anvil ").removeprefix("anvil Version: "),
    }


def print_table(measurements: Sequence[Measurement], console: Console) -> None:
    """Print the table for people."""
    table = Table(title="From a job's event to its result")
    for column in _COLUMNS:
        is_text = column in _COLUMNS[:3]
        table.add_column(column, justify="left" if is_text else "right")
    for measurement in measurements:
        table.add_row(*_cells(measurement))
    console.print(table)


def print_json(measurements: Sequence[Measurement]) -> None:
    """Print the numbers for machines."""
    print(json.dumps({"machine": machine(), "loop": [asdict(entry) for entry in measurements]}, indent=2))


def write_readme(measurements: Sequence[Measurement], readme: Path) -> None:
    """Replace the table between the two marks of the README."""
    facts = machine()
    lines = [
        "Measured on {cpus} shared {architecture} CPUs (load average {load}), Linux {kernel}, "
        "Python {python}, anvil {chain}.".format_map(facts),
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|" + "---|" * 3 + "---:|" * (len(_COLUMNS) - 3),
        *("| " + " | ".join(_cells(entry)) + " |" for entry in measurements),
    ]
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(_BEGIN, 1)
    after = rest.split(_END, 1)[1]
    readme.write_text(f"{before}{_BEGIN}\n{chr(10).join(lines)}\n{_END}{after}", encoding="utf-8")


def _cells(entry: Measurement) -> list[str]:
    return [
        entry.job,
        entry.transport,
        "automine" if entry.block_time_s is None else f"{entry.block_time_s:g} s",
        f"{entry.event_to_result_p50_ms:.1f} ms",
        f"{entry.event_to_result_p99_ms:.1f} ms",
        f"{entry.sent_to_result_p50_ms:.1f} ms",
        f"{entry.single_node_cpu_ms:.2f} ms",
        *(
            ("", "", "")
            if entry.burst is None
            else (
                f"{entry.burst.jobs_per_s:,.0f}",
                f"{entry.burst.node_cpu_ms:.2f} ms",
                f"{entry.burst.chain_cpu_ms:.2f} ms",
            )
        ),
    ]
