"""Each language through the sandbox, beside the same program bare, under bubblewrap and under nsjail.

    python -m bench.sandbox [--quick] [--runs N] [--languages a,b] [--backend slot|bubblewrap|gvisor] [--json]

Sides run strictly in turns, so that a noisy machine disturbs all alike. Needs root and a built tree.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.machine import MIB, describe, held_bytes, run_apart, scratch_folder, table
from bench.sandbox.sides import BACKENDS, Boxed, Program, Side, bare, bubblewrap, nsjail, program
from bench.sandbox.sleepers import SLEEPERS
from sandbox.languages import LANGUAGES
from sandbox.rootfs import find_tree
from sandbox.tree import LanguageTree, Runtime

WORD = b"0123456789abcdef\n"
EXPECTED = b"FEDCBA9876543210\n"
LEVELS = (1, 2, 4, 8, 16)
QUICK_LEVELS = (1, 4)
QUICK_LANGUAGES = "python,javascript"
WINDOW_S = 1.0
"""A level of throughput lasts that long, and at least until each of those at once has had a request done."""


@dataclass
class Row:
    """What was measured of one language. What the time was too short for is absent."""

    language: str
    version: str
    cold_ms: float = 0.0
    """First request of a back end that was just made."""
    warm_ms: dict[str, float] = field(default_factory=dict)
    """Side to the median of the same request again."""
    waiting_mib: dict[str, float] = field(default_factory=dict)
    """Side to the memory that one waiting request holds."""
    per_s: dict[str, dict[int, float]] = field(default_factory=dict)
    """Side to requests a second by how many are at once."""
    utilisation: dict[int, float] = field(default_factory=dict)
    """How much of all CPUs (0 to 1) the programs in the sandbox had, by how many were at once."""


class Bench:
    """Measures one language after the other within a budget of time."""

    def __init__(self, tree: LanguageTree, options: argparse.Namespace, scratch: Path) -> None:
        self._tree = tree
        self._options = options
        self._ends_s = time.monotonic() + options.budget_s
        self._boxed = Boxed(tree, options.backend)
        outside = [bare(tree, scratch), bubblewrap(tree, scratch), nsjail(tree, scratch)]
        self.sides: list[Side] = [*(each for each in outside if each is not None), self._boxed]

    async def measure(self, runtimes: Sequence[Runtime]) -> list[Row]:
        """Measure time and memory of every language, then throughput as far as the budget goes."""
        rows = [Row(LANGUAGES[each.language].title, each.version) for each in runtimes]
        samples = [
            program(each, LANGUAGES[each.language].sample, stdin=WORD, expected=EXPECTED) for each in runtimes
        ]
        for row, sample, runtime in zip(rows, samples, runtimes, strict=True):
            await self._latencies(row, sample)
            await self._memory(row, program(runtime, SLEEPERS[runtime.language]))
        for level in self._options.levels:
            for row, sample in zip(rows, samples, strict=True):
                for side in self.sides:
                    if time.monotonic() < self._ends_s:
                        await self._throughput(row, side, sample, level)
        return rows

    async def aclose(self) -> None:
        """Close the sandbox."""
        await self._boxed.aclose()

    async def _throughput(self, row: Row, side: Side, sample: Program, level: int) -> None:
        used_s, began_s = self._boxed.programs_s, time.monotonic()
        row.per_s.setdefault(side.name, {})[level] = await _per_s(side, sample, level)
        if side is self._boxed:
            machine_s = (time.monotonic() - began_s) * (os.cpu_count() or 1)
            row.utilisation[level] = round((self._boxed.programs_s - used_s) / machine_s, 2)

    async def _latencies(self, row: Row, sample: Program) -> None:
        runs = self._options.runs
        times: dict[str, list[float]] = {side.name: [] for side in self.sides}
        for _ in range(runs + 1):  # the first of each side warms the page cache
            for side in self.sides:
                times[side.name].append(await _timed(side, sample))
        row.warm_ms = {name: round(statistics.median(each[1:]), 1) for name, each in times.items()}
        row.cold_ms = round(statistics.median([await self._cold(sample) for _ in range(min(runs, 3))]), 1)

    async def _cold(self, sample: Program) -> float:
        began = time.perf_counter()
        fresh = Boxed(self._tree, self._options.backend)
        try:
            await fresh.run(sample)
            return (time.perf_counter() - began) * 1000
        finally:
            await fresh.aclose()

    async def _memory(self, row: Row, sleeper: Program) -> None:
        for side in self.sides:
            before = held_bytes()
            async with side.sleeping(sleeper):
                row.waiting_mib[side.name] = round((held_bytes() - before) / MIB, 1)


async def _timed(side: Side, sample: Program) -> float:
    began = time.perf_counter()
    await side.run(sample)
    return (time.perf_counter() - began) * 1000


async def _per_s(side: Side, sample: Program, level: int) -> float:
    """Keep ``level`` requests going for a while and return how many were done a second."""
    began, done = time.monotonic(), 0

    async def work() -> None:
        nonlocal done
        while True:
            await side.run(sample)
            done += 1
            if time.monotonic() - began >= WINDOW_S:
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(level):
            group.create_task(work())
    return round(done / (time.monotonic() - began), 2)


def show(rows: Sequence[Row], sides: Sequence[str], levels: Sequence[int]) -> None:
    """Print three tables: time, memory, throughput."""
    boxed, base = sides[-1], sides[0]
    print("\nOne request after the other, milliseconds (medians):\n")
    head = ["language", "version", *sides[:-1], f"{boxed} cold", f"{boxed} warm", f"warm / {base}", "added"]
    lines = []
    for row in rows:
        warm, plain = row.warm_ms[boxed], row.warm_ms[base]
        figures = [*(row.warm_ms[side] for side in sides[:-1]), row.cold_ms, warm]
        cells = [f"{figure:.1f}" for figure in figures]
        lines.append([row.language, row.version, *cells, f"{warm / plain:.2f}", f"{warm - plain:.1f}"])
    print(table(head, lines, left=2))
    print("\nMemory that one waiting request holds, MiB (all its processes, shared pages in proportion):\n")
    lines = [[row.language, *(f"{row.waiting_mib[side]:.1f}" for side in sides)] for row in rows]
    print(table(["language", *sides], lines, left=1))
    print("\nRequests a second by how many are at once (a dash: the time was over):\n")
    lines = []
    for row in rows:
        for side in sides:
            found = row.per_s.get(side, {})
            cells = [f"{found[level]:.1f}" if level in found else "-" for level in levels]
            lines.append([row.language, side, *cells])
    print(table(["language", "side", *map(str, levels)], lines, left=2))
    print("\nUtilisation: the programs' share of all CPUs in the sandbox, by how many are at once:\n")
    lines = [
        [
            row.language,
            *(f"{row.utilisation[each]:.2f}" if each in row.utilisation else "-" for each in levels),
        ]
        for row in rows
    ]
    print(table(["language", *map(str, levels)], lines, left=1))


async def bench(options: argparse.Namespace) -> None:
    """Measure and print."""
    tree = find_tree(options.state_dir)
    if tree is None:
        sys.exit("no language tree: build it with: blueprint runtimes build")
    wanted = options.languages.split(",") if options.languages else list(LANGUAGES)
    runtimes = [each for each in tree.runtimes if each.language in wanted]
    if missing := set(wanted) - {each.language for each in runtimes}:
        sys.exit(f"not in the language tree: {', '.join(sorted(missing))}")
    machine, began = describe(), time.monotonic()
    with scratch_folder() as scratch:
        run = Bench(tree, options, scratch)
        try:
            rows = await run.measure(runtimes)
        finally:
            await run.aclose()
    took_s = time.monotonic() - began
    sides = [side.name for side in run.sides]
    if options.json:
        facts = {"machine": machine, "took_s": round(took_s), "sides": sides}
        print(json.dumps(facts | {"rows": [asdict(row) for row in rows]}, indent=2))
        return
    print(f"Measured on {machine}, in {took_s:.0f} s (load average {os.getloadavg()[0]:.1f} at the end).")
    show(rows, sides, options.levels)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two languages, one run, less than a minute")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each side (default 5)")
    parser.add_argument("--languages", default="", help="comma-separated; all by default")
    parser.add_argument("--backend", choices=tuple(BACKENDS), default="slot")
    parser.add_argument("--budget-s", type=float, default=480, help="no new level starts later (default 480)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--state-dir", type=Path, default=Path("/var/lib/tee-job-node"))
    options = parser.parse_args()
    options.levels = QUICK_LEVELS if options.quick else LEVELS
    if options.quick:
        options.runs, options.budget_s = 1, min(options.budget_s, 40)
        options.languages = options.languages or QUICK_LANGUAGES
    return options


def main() -> None:
    """Run apart: the mounts of the other sides stand in a name space of their own and end with it."""
    options = parse()
    if os.geteuid() != 0:
        sys.exit("the other sides need root for their roots")
    run_apart("bench.sandbox")
    asyncio.run(bench(options))


if __name__ == "__main__":
    main()
