"""The demonstration as a subprocess: right answers, honest failures, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

PROJECT = Path(__file__).resolve().parents[2]
STATUSES = {"fails": "nonzero_exit", "loops for ever": "timeout", "hoards memory": "memory_limit"}
pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[psutil.Process]]:
    """Collect processes to check, and end whatever a failed test has left of them."""
    processes: list[psutil.Process] = []
    yield processes
    for process in processes:
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            process.kill()


def command(*arguments: str) -> list[str]:
    """Return the command line of a demonstration."""
    return [sys.executable, "-m", "blueprint", "demo", *arguments]


def environment(folder: Path) -> dict[str, str]:
    """Return an environment without settings of ours, and with a folder of its own for temporary files."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BLUEPRINT_")}
    return kept | {"PYTHONPATH": str(PROJECT), "TMPDIR": str(folder)}


def demo(folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run a demonstration to its end; returns exit code, JSON and what it said."""
    result = subprocess.run(
        command("--json", *arguments),
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.stdout, result.stderr
    return result.returncode, json.loads(result.stdout), result.stderr


def check_answers(body: dict[str, Any], languages: set[str]) -> None:
    """Assert that every language answered right and every fault was stopped as it must be."""
    answers = {answer["name"]: answer for answer in body["answers"]}
    assert set(answers) == languages | set(STATUSES)
    for name, answer in answers.items():
        assert answer["is_right"], answer
        assert answer["answer"]["status"] == STATUSES.get(name, "success")
    assert body["contract"]["is_right"]
    assert body["is_right"]


@pytest.mark.tree
def test_every_answer_is_right_and_faults_are_honest(tmp_path: Path) -> None:
    """Two languages transform their nonces, three programs fail as they must, a contract is called back."""
    code, body, said = demo(tmp_path, "--languages", "python,javascript", "--tree", "debian")
    assert code == 0, said
    check_answers(body, {"python", "javascript"})
    assert (body["backend"], body["not_enforced"], body["tree"]["kind"]) == ("slot", {}, "debian")
    assert list(tmp_path.glob("blueprint-demo-*")) == []


def test_host_tree_needs_no_build(tmp_path: Path) -> None:
    """With --tree host the programs of this machine are used, and the same answers come back."""
    code, body, said = demo(
        tmp_path, "--tree", "host", "--languages", "python", "--state-dir", str(tmp_path / "s")
    )
    assert code == 0, said
    check_answers(body, {"python"})
    assert body["tree"]["kind"] == "host"


@pytest.mark.anvil
def test_anvil_serves_as_well(tmp_path: Path) -> None:
    """The same loop runs on anvil."""
    code, body, said = demo(tmp_path, "--anvil", "--tree", "host", "--languages", "python")
    assert code == 0, said
    check_answers(body, {"python"})


def test_table_has_every_column_and_no_escapes_off_a_terminal(tmp_path: Path) -> None:
    """The table has every column, stderr tells every step, and neither holds escape sequences."""
    result = subprocess.run(
        command("--tree", "host", "--languages", "python"),
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for name in ("version", "status", "output", "wall", "CPU", "peak memory", "transaction", "block"):
        assert name in result.stdout
    assert "4 of 4 answers are right" in result.stdout
    for step in ("contracts deployed", "node started as process", "submitted python", "answered python"):
        assert step in result.stderr
    assert "\x1b" not in result.stdout + result.stderr


def test_two_runs_have_different_answers(tmp_path: Path) -> None:
    """No answer can be known beforehand: each run draws its own nonces."""
    outputs = set()
    for _ in range(2):
        _, body, _ = demo(tmp_path, "--tree", "host", "--languages", "python")
        outputs.add(body["answers"][0]["answer"]["stdout"]["text"])
    assert len(outputs) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interruption_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, started: list[psutil.Process]
) -> None:
    """Ctrl-C, SIGTERM and even SIGKILL leave no process; the first two leave no file and say 130."""
    with subprocess.Popen(
        command("--tree", "host", "--languages", "python"),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "submitted loops for ever" in line:
                break
        started += psutil.Process(process.pid).children(recursive=True)
        assert started, "the node runs as a child"
        process.send_signal(number)
        process.stderr.read()
        code = process.wait(timeout=60)
    assert code == (130 if number != signal.SIGKILL else -signal.SIGKILL)
    deadline = time.monotonic() + 30
    while [p for p in started if p.is_running()] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [p for p in started if p.is_running()] == []
    if number != signal.SIGKILL:
        assert list(tmp_path.glob("blueprint-demo-*")) == []
