"""The Solidity side: its own tests, and that the artifacts are what the sources compile to."""

import subprocess

import pytest

from contracts import build

pytestmark = [pytest.mark.node, pytest.mark.slow]


def forge() -> str:
    """The forge program, or a skip where the npm tools are not installed."""
    try:
        return str(build.forge_path())
    except build.ToolsMissingError as exc:
        pytest.skip(str(exc))


def test_artifacts_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    """The sources are formatted, and compiling them gives the checked-in ABI and bytecode."""
    forge()
    assert build.main(["--check"]) == 0, capsys.readouterr().err


def test_forge_tests_pass() -> None:
    """Every unit, fuzz and invariant test of the contracts passes, without a network."""
    command = [forge(), "test", "--root", str(build.ROOT)]
    done = subprocess.run(command, cwd=build.ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout
