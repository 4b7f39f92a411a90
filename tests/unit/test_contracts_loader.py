"""Loading the checked-in contracts."""

import dataclasses
import json
from pathlib import Path

import pytest

import contracts
from contracts import Artifact, ArtifactError, load, names

KNOWN = ["CodeConsumer", "CodeExecutionManager", "DeployJobCodec", "ExecuteJobCodec", "LocalTangle"]


def test_every_contract_has_an_artifact() -> None:
    """The names are those that the other packages deploy by."""
    assert names() == KNOWN


@pytest.mark.parametrize("name", KNOWN)
def test_artifact_can_be_deployed(name: str) -> None:
    """Each artifact has an ABI, and bytecode below the limit of EIP-3860 for creation code."""
    artifact = load(name)
    assert artifact.name == name
    assert artifact.abi
    assert 0 < len(artifact.bytecode) <= 2 * 24_576


@pytest.mark.parametrize("name", KNOWN)
def test_bytecode_holds_no_metadata(name: str) -> None:
    """Nothing of the build machine is in the bytecode: there is no CBOR trailer that names a hash."""
    assert b"ipfs" not in load(name).bytecode
    assert b"solc" not in load(name).bytecode


def test_artifact_is_frozen_and_shows_its_name_only() -> None:
    """An artifact cannot be changed, and its representation does not print the bytecode."""
    artifact = load("LocalTangle")
    assert repr(artifact) == "Artifact(name='LocalTangle')"
    with pytest.raises(dataclasses.FrozenInstanceError):
        artifact.name = "Other"  # type: ignore[misc] - what must not work


def test_unknown_name_is_answered_with_a_close_one() -> None:
    """A misspelt name is told apart from a missing one, and both list what there is."""
    with pytest.raises(ArtifactError, match="'LocalTangel': did you mean LocalTangle"):
        load("LocalTangel")
    with pytest.raises(ArtifactError, match=r"'zzz': ask for one of these \(there are CodeConsumer, "):
        load("zzz")


@pytest.mark.parametrize("name", ["../artifacts/LocalTangle", "LocalTangle.json", ""])
def test_names_are_not_paths(name: str) -> None:
    """Only a contract's bare name is taken."""
    with pytest.raises(ArtifactError, match="no contract is named"):
        load(name)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"abi": [], "bytecode": "0xzz"}', '{"abi": [], "bytecode": 5}'],
    ids=["empty", "list", "no members", "not hexadecimal", "not text"],
)
def test_damaged_artifact_says_how_to_mend_it(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is not an artifact is named, with the command that makes it again."""
    (tmp_path / "LocalTangle.json").write_text(content)
    monkeypatch.setattr(contracts, "_ARTIFACTS", tmp_path)
    with pytest.raises(ArtifactError, match=r"LocalTangle\.json is damaged .*contracts/build\.py"):
        load("LocalTangle")


def test_loads_what_the_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ABI and the bytecode are the file's."""
    abi = [{"type": "fallback", "stateMutability": "payable"}]
    (tmp_path / "Small.json").write_text(json.dumps({"abi": abi, "bytecode": "0x6001"}))
    monkeypatch.setattr(contracts, "_ARTIFACTS", tmp_path)
    assert Artifact(name="Small", abi=abi, bytecode=b"\x60\x01") == load("Small")
