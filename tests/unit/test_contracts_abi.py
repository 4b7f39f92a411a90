"""The contracts' checked-in ABI, held against the protocol and the rest of the project."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from blueprint.chain.protocol import CUSTOM_ERRORS, FUNCTIONS, TOPICS
from blueprint.keccak import keccak256
from contracts import load, names
from sandbox.result import ExecutionStatus

CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"

REQUEST = (
    "(uint16 version, string language, string runtime, (string path, bytes content)[] files, "
    "string entryPoint, bytes stdin, string[] args, "
    "(string name, string requirement, string source)[] dependencies, (string key, string value)[] envVars, "
    "(uint64 timeoutMs, uint64 memoryBytes, uint64 diskBytes, uint32 processes) limits, "
    "(string key, string value)[] options)"
)
RESULT = (
    "(uint16 version, uint8 status, uint32 limitsHit, int32 exitCode, uint8 signal, bytes stdout, "
    "bytes stderr, uint64 stdoutSize, uint64 stderrSize, (uint64 wallUs, uint64 userUs, uint64 systemUs, "
    "uint64 memoryPeakBytes, uint64 diskBytes, uint32 processes) stats, string runtime, "
    "bytes32 outputDigest, string errorMessage, bytes receipt)"
)
BLUEPRINT_DEFINITION = (
    "(string,bytes32,address,uint32,bool,(uint8,uint8,uint32,uint32,uint256,uint64,uint256),"
    "(string,string,string,string,string,string,string,string,string),(string,string,string,bytes,bytes)[],"
    "bytes,bytes,(uint8,(string,string,string),(uint8,uint8,string,string),(uint8,string,string),"
    "(string,string,string),(uint8,uint8,string,bytes32)[])[],uint8[])"
)

# What only those meet who make services, buy jobs, or bring answers; a node that submits results never does.
NOT_FOR_NODES = {
    "BlueprintNotFound",
    "DuplicateOperatorQuote",
    "JobQuoteInputsMismatch",
    "JobQuoteJobIndexMismatch",
    "JobQuoteRequesterMismatch",
    "JobQuoteServiceMismatch",
    "NoOperators",
    "NoQuotes",
    "NotServiceOwner",
    "PaymentTooSmall",
    "QuoteTimestampTooOld",
    "RewardTransferFailed",
}
# These end a transaction that no node that checks its results first can send; the default class serves.
CLASSED_BY_DEFAULT = {"LengthMismatch", "Reentered", "ServiceNotFound"}


def entries(name: str, kind: str) -> dict[str, Any]:
    """The members of one kind of a contract's ABI, by name."""
    return {str(entry["name"]): entry for entry in load(name).abi if entry["type"] == kind}


def typed(parameter: Any, *, named: bool) -> str:
    """A parameter's type with its tuples written out, with or without the names of their members."""
    if not parameter["type"].startswith("tuple"):
        return str(parameter["type"])
    members = [
        typed(member, named=named) + (f" {member['name']}" if named else "")
        for member in parameter["components"]
    ]
    return f"({(', ' if named else ',').join(members)}){parameter['type'].removeprefix('tuple')}"


def signature(entry: Any) -> str:
    """The name and types that a selector or a topic is the hash of."""
    return f"{entry['name']}({','.join(typed(parameter, named=False) for parameter in entry['inputs'])})"


def test_execute_structs_are_the_documented_tuples() -> None:
    """The request and the result of `execute` have the documented members, in order."""
    functions = entries("ExecuteJobCodec", "function")
    assert typed(functions["encodeRequest"]["inputs"][0], named=True) == REQUEST
    assert typed(functions["decodeRequest"]["outputs"][0], named=True) == REQUEST
    assert typed(functions["encodeResult"]["inputs"][0], named=True) == RESULT
    assert typed(functions["decodeResult"]["outputs"][0], named=True) == RESULT


def test_execute_statuses_are_the_sandboxs() -> None:
    """Each status of `ExecuteJob` has the number that it has in Python, and none is missing."""
    source = (CONTRACTS / "src/libraries/ExecuteJob.sol").read_text()
    declared = {
        name: int(value) for name, value in re.findall(r"uint8 internal constant (\w+) = (\d+);", source)
    }
    del declared["INDEX"]
    assert declared == {status.name: status.value for status in ExecutionStatus}


@pytest.mark.parametrize("shared", FUNCTIONS)
def test_functions_of_the_node_exist(shared: str) -> None:
    """Each function that the node calls is one of LocalTangle, with the same types."""
    declared = {signature(entry) for entry in entries("LocalTangle", "function").values()}
    assert shared in declared or shared.startswith("submitAggregatedResult(")


def test_blueprint_definition_has_the_protocols_shape() -> None:
    """`getBlueprintDefinition` returns the whole struct of the protocol, though it fills only a part."""
    function = entries("LocalTangle", "function")["getBlueprintDefinition"]
    assert typed(function["outputs"][0], named=False) == BLUEPRINT_DEFINITION
    assert keccak256(signature(function).encode())[:4].hex() == "6171fea8"


def test_events_of_the_node_exist() -> None:
    """Each event that the node follows is emitted by LocalTangle, except that of aggregated results."""
    emitted = {keccak256(signature(entry).encode()) for entry in entries("LocalTangle", "event").values()}
    followed = {
        bytes(topic) for name, topic in TOPICS.items() if not name.startswith("AggregatedResultSubmitted(")
    }
    assert followed <= emitted


def test_job_index_is_not_indexed() -> None:
    """`JobSubmitted` has three topics: the deployed protocol differs from its published interface here."""
    indexed = {
        name: [parameter["name"] for parameter in entry["inputs"] if parameter["indexed"]]
        for name, entry in entries("LocalTangle", "event").items()
    }
    assert indexed["JobSubmitted"] == ["serviceId", "callId"]
    assert indexed["JobSubmittedFromQuote"] == ["serviceId", "callId"]
    assert indexed["JobResultSubmitted"] == ["serviceId", "callId", "operator"]
    assert indexed["JobCompleted"] == ["serviceId", "callId"]


def test_errors_are_known_to_the_node() -> None:
    """Every custom error that answering a call can meet is in the node's table, with the same types."""
    table = {f"{error.name}({','.join(error.types)})" for error in CUSTOM_ERRORS.values()}
    unknown = {
        name
        for name, entry in entries("LocalTangle", "error").items()
        if signature(entry) not in table and name not in NOT_FOR_NODES
    }
    assert unknown <= CLASSED_BY_DEFAULT


def test_every_custom_error_has_a_forge_test() -> None:
    """Each custom error of each contract is expected by name in a test."""
    tests = "\n".join(path.read_text() for path in sorted((CONTRACTS / "test").glob("*.t.sol")))
    errors = {error for name in names() for error in entries(name, "error")}
    assert errors
    assert {error for error in errors if not re.search(rf"\b{error}\.selector", tests)} == set()


def test_lock_file_names_no_host() -> None:
    """Packages are locked by version and digest; where they come from is the machine's own setting."""
    lock = json.loads((CONTRACTS / "package-lock.json").read_text())
    locked = {path: package for path, package in lock["packages"].items() if path}
    assert locked
    assert [path for path, package in locked.items() if "resolved" in package] == []
    assert [path for path, package in locked.items() if "integrity" not in package] == []


def test_lock_file_is_complete() -> None:
    """Everything that a locked package asks for is locked too, or `npm ci` would refuse the file."""
    lock = json.loads((CONTRACTS / "package-lock.json").read_text())["packages"]
    wanted = {
        name
        for package in lock.values()
        for kind in ("dependencies", "devDependencies", "optionalDependencies")
        for name in package.get(kind, {})
    }
    assert {name for name in wanted if f"node_modules/{name}" not in lock} == set()
