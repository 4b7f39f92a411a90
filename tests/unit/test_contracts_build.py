"""The script that writes and checks the artifacts, as far as it needs no compiler."""

import json
from pathlib import Path

import pytest

from contracts import build


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the checked-in artifacts."""
    monkeypatch.setattr(build, "ARTIFACTS", tmp_path)
    return tmp_path


def artifact(**changes: object) -> str:
    """The text of an artifact."""
    return json.dumps({"name": "A", "abi": [], "bytecode": "0x00", **changes})


def test_equal_artifacts_have_not_drifted(artifacts: Path) -> None:
    """Nothing is found when every file is as built."""
    (artifacts / "A.json").write_text(artifact())
    assert build.drift({"A": artifact()}) == []


def test_drift_names_the_members(artifacts: Path) -> None:
    """A finding names the file and what differs in it."""
    (artifacts / "A.json").write_text(artifact())
    found = build.drift({"A": artifact(abi=["x"], bytecode="0x01")})
    assert found == ["A.json differs from its sources in: abi, bytecode"]


def test_missing_surplus_and_damaged_files_are_found(artifacts: Path) -> None:
    """A contract without a file, a file without a contract and a file that is not JSON are findings."""
    (artifacts / "Old.json").write_text(artifact())
    (artifacts / "Torn.json").write_text(artifact()[:9])
    assert build.drift({"New": artifact(), "Torn": artifact()}) == [
        "New.json is missing",
        "Torn.json differs from its sources in: everything (it is not JSON)",
        "Old.json belongs to no contract",
    ]


def test_layout_alone_counts_too(artifacts: Path) -> None:
    """A file that was formatted by hand is not what the script writes."""
    (artifacts / "A.json").write_text(artifact() + "\n")
    assert build.drift({"A": artifact()}) == ["A.json differs from its sources in: its layout only"]


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_without_node_the_reason_is_said(
    arguments: list[str], artifacts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where Node.js is missing, the script says so, exits with 3 and writes nothing."""
    monkeypatch.setenv("PATH", str(artifacts))
    assert build.main(arguments) == 3
    assert "error: Node.js is needed" in capsys.readouterr().err
    assert list(artifacts.iterdir()) == []


def test_without_forge_the_command_is_said(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where `npm ci` has not been run, the script names it and exits with 3."""
    node = artifacts / "node"
    node.write_text("")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", str(artifacts))
    monkeypatch.setattr(build, "ROOT", artifacts)
    assert build.main(["--check"]) == 3
    assert "run: npm ci --prefix contracts" in capsys.readouterr().err


def test_unknown_option_is_a_usage_error() -> None:
    """The command line takes one option."""
    with pytest.raises(SystemExit, match="2"):
        build.main(["--verify"])
