"""The benchmarks of the sandbox run to their end within their bounds, and print what they measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

pytestmark = [pytest.mark.root, pytest.mark.tree, pytest.mark.bubblewrap]


def measured(module: str, *arguments: str) -> dict[str, object]:
    """Run a benchmark and return its JSON; assert that it leaves no folder or mount."""
    mounts, folders = Path("/proc/self/mountinfo").read_text(), set(Path("/tmp").glob("bench-*"))
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--json"],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "TMPDIR": "/tmp"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert set(Path("/tmp").glob("bench-*")) <= folders
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_density_stops_at_its_count_and_at_the_memory_to_be_left() -> None:
    """No more sandboxes sleep at once than asked for, and none when no memory may be used."""
    rows = measured("bench.density", "--count", "2")["rows"]
    assert [(row["held"], row["stopped_by"]) for row in rows] == [(2, "count")] * len(rows)
    assert {"bare", "bwrap", "sandbox (slot)"} <= {row["side"] for row in rows}
    rows = measured("bench.density", "--count", "2", "--reserve-mib", str(1 << 30))["rows"]
    assert {(row["held"], row["stopped_by"]) for row in rows} == {(0, "memory")}


def test_every_side_runs_the_same_program() -> None:
    """Time, memory and throughput of one language are there for every side."""
    facts = measured("bench.sandbox", "--quick", "--languages", "python")
    (row,) = facts["rows"]
    assert set(row["warm_ms"]) == set(row["waiting_mib"]) == set(row["per_s"]) == set(facts["sides"])
    assert all(0 < each < 60_000 for each in [row["cold_ms"], *row["warm_ms"].values()])
    assert all(set(levels) == {"1", "4"} for levels in row["per_s"].values())
