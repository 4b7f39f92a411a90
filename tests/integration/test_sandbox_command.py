"""``python -m sandbox`` as a subprocess, and the self-check as a function."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandbox.check import Level, backends_that_serve, check
from tests.support.everyone import sandbox_for_everyone
from tests.support.sandboxes import groups_of

pytestmark = pytest.mark.root
PROJECT = Path(__file__).parents[2]


def command(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command and wait."""
    return subprocess.run(
        [sys.executable, "-m", "sandbox", *arguments],
        cwd=PROJECT,
        input=stdin,
        capture_output=True,
        check=False,
    )


async def test_check_finds_every_mechanism_in_force() -> None:
    """As root, where sandboxes work, everything is in force that a guarantee rests on; each has a detail."""
    findings = await check()
    names = {finding.name for finding in findings}
    assert {"root", "control groups", "detached tmpfs", "memory limit", "no network", "host files"} <= names
    assert [finding for finding in findings if finding.level == Level.MISSING] == []
    weak = {finding.name for finding in findings if finding.level == Level.WEAK}
    assert weak <= {"Landlock", "Landlock in force", "swap"}, "these depend on the machine's kernel"
    assert all(finding.detail for finding in findings)
    assert backends_that_serve(findings) == ["slot"]


@pytest.mark.bubblewrap
def test_check_without_root_says_what_is_weaker() -> None:
    """An ordinary user is told which limits bubblewrap does not enforce, and that the rest holds."""
    python = next(
        (
            path
            for path in (sys.executable, "/usr/bin/python3")
            if Path(path).exists() and not Path(path).resolve().is_relative_to("/root")
        ),
        None,
    )
    if python is None:
        pytest.skip("needs a Python outside /root")
    with sandbox_for_everyone() as home:
        done = subprocess.run(
            [python, "-m", "sandbox", "check"], cwd=home, user=65534, group=65534, extra_groups=[],
            env={"PATH": os.environ["PATH"]}, capture_output=True, check=False,
        )  # fmt: skip
    levels = {finding["name"]: finding["level"] for finding in json.loads(done.stdout)}
    weak = {name for name, level in levels.items() if level != "ok"}
    assert weak == {
        "root", "memory limit", "files are memory", "process limit", "CPU time limit", "proc",
        "own cgroup namespace", "Landlock in force", "users apart",
    }, done.stdout  # fmt: skip
    assert done.returncode == 0


def test_run_prints_the_result_as_json(tmp_path: Path) -> None:
    """The result goes to stdout as JSON, the exit code says that the program succeeded."""
    program = tmp_path / "any-name.py"
    program.write_text("import sys; print(sys.argv[1], sys.stdin.read()); open('out','w').write('é')")
    given = tmp_path / "input"
    given.write_text("data")
    options = ["--arg", "x", "--stdin", str(given), "--output", "out"]
    done = command("run", str(program), "--language", "py", "--tree", "host", *options)
    told = json.loads(done.stdout)
    assert (done.returncode, told["status"], told["stdout"]["data"]) == (0, "SUCCESS", "x data\n")
    assert told["files"][0]["content"] == "é"
    assert "seccomp" in told["guarantees"]["enforced"]


def test_failing_program_gives_exit_code_1() -> None:
    """The program's failure is in the result; the source may come from stdin."""
    done = command("run", "-", "--language", "python", "--tree", "host", stdin=b"raise SystemExit(3)")
    told = json.loads(done.stdout)
    assert (done.returncode, told["status"], told["exit_code"]) == (1, "NONZERO_EXIT", 3)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "-", "--language", "pyhton", "--tree", "host"), 2, b"did you mean 'python'"),
        (("run", "-", "--language", "python", "--tree", "host", "--timeout-s", "0"), 2, b"timeout_s"),
        (("run", "/no/such/file", "--language", "python"), 1, b"No such file"),
    ],
)
def test_bad_request_is_one_line_on_stderr(arguments: tuple[str, ...], code: int, message: bytes) -> None:
    """An error names what is wrong, without a traceback, and nothing is printed on stdout."""
    done = command(*arguments, stdin=b"print(1)")
    assert (done.returncode, done.stdout) == (code, b"")
    assert message in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_interrupt_ends_the_program_and_the_command() -> None:
    """Ctrl-C kills the program at once and exits with 130, without a traceback."""
    options = ["run", "-", "--language", "python", "--tree", "host", "--output", "x"]
    running = subprocess.Popen(
        [sys.executable, "-m", "sandbox", *options], cwd=PROJECT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert running.stdin is not None
    running.stdin.write(b"import time; time.sleep(250)")
    running.stdin.close()
    running.stdin = None
    deadline = time.monotonic() + 30
    while not groups_of(running.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    try:
        stdout, stderr = running.communicate(timeout=30)
    finally:
        running.kill()
    assert (running.returncode, stdout, stderr) == (130, b"", b"")
    assert groups_of(running.pid) == []
