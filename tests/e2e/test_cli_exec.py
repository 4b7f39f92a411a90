"""`blueprint exec`: a program in the sandbox, with no chain."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sandbox.backends.bubblewrap import usable_bubblewrap
from sandbox.errors import SandboxUnavailableError

PROJECT = Path(__file__).resolve().parents[2]


def execute(
    folder: Path, source: str, *arguments: str, stdin: str = "", within: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a Python program on the host tree through the command line, started by ``within``."""
    (folder / "program.py").write_text(source)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BLUEPRINT_")}
    return subprocess.run(
        [*within, sys.executable, "-m", "blueprint", "exec", "program.py", "--tree", "host", *arguments],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(PROJECT), "BLUEPRINT_STATE_DIR": str(folder / "state")},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.root
def test_output_is_passed_on_and_the_outcome_is_on_stderr(tmp_path: Path) -> None:
    """Stdout is the program's own; how it ended and what it cost is one line on stderr."""
    result = execute(tmp_path, "print(input()[::-1])", "--stdin", "-", stdin="abc")
    assert (result.returncode, result.stdout) == (0, "cba\n")
    assert "success: python" in result.stderr


@pytest.mark.root
def test_failure_is_exit_code_6_with_stderr_passed_on(tmp_path: Path) -> None:
    """A program that raises is exit code 6, its traceback comes through."""
    result = execute(tmp_path, "raise SystemExit('no luck')")
    assert (result.returncode, result.stdout) == (6, "")
    assert "no luck" in result.stderr
    assert "nonzero_exit 1" in result.stderr


@pytest.mark.root
def test_json_holds_everything(tmp_path: Path) -> None:
    """With --json the whole result is one document, the guarantees among it."""
    result = execute(
        tmp_path, "import sys; sys.stdout.buffer.write(b'\\xff'); print('e', file=sys.stderr)", "--json"
    )
    body = json.loads(result.stdout)
    assert (result.returncode, body["status"], body["stdout"]["base64"]) == (0, "success", "/w==")
    assert body["guarantees"]["backend"] == "slot"
    assert "memory" in body["guarantees"]["enforced"]


@pytest.mark.root
def test_files_that_are_asked_for_are_kept(tmp_path: Path) -> None:
    """They lie below the folder, the other files of the program do not; a second run replaces nothing."""
    source = "import os\nos.mkdir('d')\nfor n in ('a', 'd/b', 'c'): open(n, 'w').write(n)\n"
    asked = [word for path in ("a", "d", "absent") for word in ("--output", path)]
    result = execute(tmp_path, source, *asked, "--json")
    body = json.loads(result.stdout)
    assert [(file["path"], file["size_bytes"]) for file in body["files"]] == [("a", 1), ("d/b", 3)]
    assert "output absent: the program left no file there" in result.stderr
    kept = {path.relative_to(tmp_path / "outputs").as_posix() for path in (tmp_path / "outputs").rglob("*")}
    assert kept == {"a", "d", "d/b"}
    again = execute(tmp_path, source, "--output", "a")
    assert (again.returncode, "outputs/a: File exists" in again.stderr) == (1, True)


GROWS = """
import time
held = []
for _ in range(3):
    block = bytearray(30 << 20)
    block[::4096] = b'x' * len(block[::4096])
    held.append(block)
    time.sleep(0.5)
print('grown')
"""


@pytest.mark.root
def test_live_json_is_a_line_for_each_sample_and_then_the_result(tmp_path: Path) -> None:
    """With --live --json each line of stdout is a document; the last one is the result."""
    result = execute(tmp_path, GROWS, "--live", "--json")
    *samples, last = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.returncode, last["stdout"]["text"]) == (0, "grown\n")
    anonymous = [each["sample"]["memory_anonymous_bytes"] for each in samples]
    assert len(samples) > 5
    assert max(anonymous) > 90 << 20
    assert max(anonymous) - min(anonymous) > 55 << 20
    assert {each["sample"]["stage"] for each in samples} == {"run"}


@pytest.mark.root
def test_live_off_a_terminal_is_a_line_each_second(tmp_path: Path) -> None:
    """Stdout is the program's own; stderr has whole lines and no control characters."""
    result = execute(tmp_path, GROWS, "--live")
    lines = [line for line in result.stderr.splitlines() if line.startswith("  run ")]
    assert (result.returncode, result.stdout) == (0, "grown\n")
    assert 2 <= len(lines) <= 4
    assert "MiB memory" in lines[-1]
    assert "\x1b" not in result.stderr


@pytest.mark.root
def test_time_limit_is_the_flags(tmp_path: Path) -> None:
    """--timeout-s ends the program and is told as the timeout that it is."""
    result = execute(tmp_path, "while True: pass", "--timeout-s", "0.5", "--json")
    assert (result.returncode, json.loads(result.stdout)["status"]) == (6, "timeout")


@pytest.mark.bubblewrap
def test_missing_guarantees_must_be_accepted_by_name(tmp_path: Path) -> None:
    """A back end that cannot enforce everything is refused with the flag that accepts it, and then works."""
    refused = execute(tmp_path, "print(1)", "--backend", "bubblewrap")
    assert (refused.returncode, "--allow-degraded" in refused.stderr, refused.stdout) == (5, True, "")
    (line,) = refused.stderr.splitlines()
    assert len(line) < 240
    accepted = execute(tmp_path, "print(1)", "--backend", "bubblewrap", "--allow-degraded", "all")
    assert (accepted.returncode, accepted.stdout) == (0, "1\n")
    assert "not enforced: memory" in accepted.stderr


@pytest.mark.root
def test_machine_without_control_groups_is_told_what_works_without_them(tmp_path: Path) -> None:
    """The weaker back end is proposed where it works here, and only there; what is proposed works."""
    proposal = ["--backend", "bubblewrap", "--allow-degraded", "all"]
    hides = ["unshare", "--mount", "sh", "-c", 'umount -R /sys/fs/cgroup && exec "$@"', "sh"]
    refused = execute(tmp_path, "print(1)", within=hides)
    assert (refused.returncode, refused.stdout) == (5, "")
    try:
        usable_bubblewrap()
    except SandboxUnavailableError:
        assert "bubblewrap" not in refused.stderr
    else:
        assert " ".join(proposal) in refused.stderr
        assert execute(tmp_path, "print(1)", *proposal, within=hides).stdout == "1\n"
    hides[4] = hides[4].replace("exec", "mount --bind /bin/false /usr/bin/unshare && exec")
    assert "bubblewrap" not in execute(tmp_path, "print(1)", within=hides).stderr


@pytest.mark.root
def test_host_tree_that_stands_in_is_named(tmp_path: Path) -> None:
    """Where there is no language tree, stderr says where none is, what is used, and how to make one."""
    result = execute(tmp_path, "print(1)", "--tree", "auto")
    assert (result.returncode, result.stdout) == (0, "1\n")
    note = result.stderr.splitlines()[0]
    assert f"no current language tree with python below {tmp_path / 'state'}" in note
    assert "own programs" in note
    assert "blueprint runtimes build" in note


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--language", "cobol"), "expected one of python"),
        (("--env", "X"), "expected NAME=VALUE"),
        (("--runtime", "2.7"), "2.7"),
        (("--timeout-s", "0"), "not in the range"),
        (("--timeout-s", "86401"), "not in the range"),
        (("--timeout-s", "301"), "at most 300, received 301"),
        (("--option", "colour=red"), "colour"),
    ],
)
@pytest.mark.root
def test_wrong_requests_are_usage_errors(tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    """What cannot be run is refused with exit code 2, and nothing runs."""
    result = execute(tmp_path, "print(1)", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert expected in result.stderr


@pytest.mark.root
def test_network_policy_is_named_on_the_command_line(tmp_path: Path) -> None:
    """A program runs under a policy of the configuration, and what it tried is told; others are refused."""
    (tmp_path / "blueprint.toml").write_text('[egress.api]\nallow = ["127.0.0.1:9"]\n')
    source = "import urllib.request as u\ntry: u.urlopen('http://a.test/')\nexcept OSError as e: print(e)\n"
    result = execute(tmp_path, source, "--network", "api")
    assert (result.returncode, result.stdout) == (0, "HTTP Error 403: Forbidden\n")
    assert "network: a.test:80: 1 refused" in result.stderr
    refused = execute(tmp_path, source, "--network", "apx")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "network: expected one of api, received 'apx'" in refused.stderr
