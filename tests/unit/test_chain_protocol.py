"""What the job protocol's calls, answers and reverts look like on the wire."""

import random

import eth_abi
import pytest

import contracts
from blueprint.chain import protocol
from blueprint.chain.protocol import (
    CUSTOM_ERRORS,
    FUNCTIONS,
    TOPICS,
    Membership,
    Pricing,
    RevertClass,
    ServiceStatus,
    classify_revert,
    decode_revert,
)
from blueprint.errors import ChainError
from blueprint.keccak import keccak256
from blueprint.types import Address

OPERATOR = Address(bytes.fromhex("70997970c51812dc3a010c7d01b50e0d17dc79c8"))

DEPLOYED_ERROR_SELECTORS = {
    "JobAlreadyCompleted": "0a55512f",
    "ResultAlreadySubmitted": "b7e7fcee",
    "OperatorNotInService": "783482e9",
    "OperatorNotActive": "e356d5aa",
    "NotQuotedOperator": "a32a5d1c",
    "AggregationRequired": "77164cdc",
    "AggregationNotRequired": "4f3b66ea",
    "SchemaValidationFailed": "9038fe73",
    "InvalidSchemaVersion": "f2d459db",
    "ServiceNotActive": "4c5fe2d8",
    "ServiceExpired": "7c3e621b",
    "NotPermittedCaller": "d5dd5b44",
    "InvalidJobIndex": "1370bcad",
    "JobCallNotFound": "96c6ebfc",
    "InvalidMsgValue": "1f89f671",
    "ManagerReverted": "07a84ec2",
    "ManagerRejected": "71cc0e9a",
    "QuoteAlreadyUsed": "08d18271",
    "InvalidQuoteSignature": "11638a8e",
    "QuoteExpired": "7bbe57e9",
    "InvalidBLSSignature": "ab1b236b",
    "Error": "08c379a0",
    "Panic": "4e487b71",
}


@pytest.mark.parametrize(("signature", "selector"), FUNCTIONS.items())
def test_selectors_are_the_hash_of_the_signature(signature, selector):
    """A function is named by the first four bytes of the hash of its signature."""
    assert keccak256(signature.encode())[:4] == selector


@pytest.mark.parametrize(("signature", "topic"), TOPICS.items())
def test_topics_are_the_hash_of_the_signature(signature, topic):
    """An event is named by the hash of its signature."""
    assert keccak256(signature.encode()) == topic


@pytest.mark.parametrize(("name", "selector"), DEPLOYED_ERROR_SELECTORS.items())
def test_errors_have_the_selectors_of_the_deployed_contracts(name, selector):
    """Every error that the deployed contracts raise is known by its selector."""
    assert CUSTOM_ERRORS[bytes.fromhex(selector)].name == name


def _solidity_errors():
    """Every custom error of the project's contracts: its name, and the types of its arguments."""
    errors = {
        (entry["name"], tuple(argument["type"] for argument in entry["inputs"]))
        for contract in contracts.names()
        for entry in contracts.load(contract).abi
        if entry["type"] == "error"
    }
    assert errors
    return sorted(errors)


@pytest.mark.parametrize(("name", "types"), _solidity_errors())
def test_every_error_of_our_contracts_is_known(name, types):
    """No contract of this project reverts with an error that the node cannot name."""
    known = {(error.name, error.types) for error in CUSTOM_ERRORS.values()}
    assert (name, types) in known


def _abi(signature, types, values):
    return FUNCTIONS[signature] + eth_abi.encode(types, values)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 64, 5000])
def test_single_calls_are_encoded_as_the_abi_says(size):
    """The encoders by hand give the bytes of the reference encoder."""
    data = random.Random(size).randbytes(size)
    assert protocol.encode_submit_job(2**64 - 1, 255, data) == _abi(
        "submitJob(uint64,uint8,bytes)", ["uint64", "uint8", "bytes"], [2**64 - 1, 255, data]
    )
    assert protocol.encode_submit_result(7, 9, data) == _abi(
        "submitResult(uint64,uint64,bytes)", ["uint64", "uint64", "bytes"], [7, 9, data]
    )


@pytest.mark.parametrize("count", [0, 1, 2, 33])
def test_batches_are_encoded_as_the_abi_says(count):
    """A batch of any number of results, each of any size, matches the reference encoder."""
    rng = random.Random(count)
    ids = [rng.randrange(2**64) for _ in range(count)]
    outputs = [rng.randbytes(rng.randrange(100)) for _ in range(count)]
    assert protocol.encode_submit_results(3, ids, outputs) == _abi(
        "submitResults(uint64,uint64[],bytes[])", ["uint64", "uint64[]", "bytes[]"], [3, ids, outputs]
    )


def test_reads_are_encoded_as_the_abi_says():
    """Each read function takes its ids and addresses as words."""
    two = ["uint64", "address"]
    assert protocol.encode_get_job_call(1, 2) == _abi("getJobCall(uint64,uint64)", ["uint64"] * 2, [1, 2])
    assert protocol.encode_get_service(1) == _abi("getService(uint64)", ["uint64"], [1])
    assert protocol.encode_get_blueprint_definition(4) == _abi(
        "getBlueprintDefinition(uint64)", ["uint64"], [4]
    )
    assert protocol.encode_get_service_operators(4) == _abi("getServiceOperators(uint64)", ["uint64"], [4])
    assert protocol.encode_is_service_operator(1, OPERATOR) == _abi(
        "isServiceOperator(uint64,address)", two, [1, "0x" + OPERATOR.hex()]
    )
    assert protocol.encode_is_permitted_caller(1, OPERATOR) == _abi(
        "isPermittedCaller(uint64,address)", two, [1, "0x" + OPERATOR.hex()]
    )


@pytest.mark.parametrize("service_id", [-1, 2**64])
def test_ids_out_of_range_are_refused(service_id):
    """An id that is no uint64 is named in the error."""
    with pytest.raises(ValueError, match=str(service_id)):
        protocol.encode_get_service(service_id)


def test_an_address_of_the_wrong_length_is_refused():
    """An address is twenty bytes."""
    with pytest.raises(ValueError, match="20 bytes, received 19"):
        protocol.encode_is_service_operator(0, Address(bytes(19)))


def test_a_batch_needs_one_output_for_each_call():
    """Ids and outputs that do not pair up are refused before anything is sent."""
    with pytest.raises(ValueError, match="each of 2 call ids, received 1"):
        protocol.encode_submit_results(0, [1, 2], [b""])


def test_a_job_call_is_read_whole():
    """A call record has every field of the stored call."""
    data = eth_abi.encode(
        ["uint8", "address", "uint64", "uint32", "bool", "bool", "uint256"],
        [3, "0x" + OPERATOR.hex(), 1_700_000_000, 2, True, False, 10**18],
    )
    record = protocol.decode_get_job_call(data)
    assert record == protocol.JobCallRecord(
        job_index=3,
        caller=OPERATOR,
        created_at_s=1_700_000_000,
        result_count=2,
        is_completed=True,
        is_quoted=False,
        payment_wei=10**18,
    )


def _service_words(status):
    return b"".join(
        value.to_bytes(32, "big")
        for value in [5, int.from_bytes(OPERATOR, "big"), 11, 12, 13, 14, 2, 1, 9, 1, 2, status, 3]
    )


def test_a_service_is_read_whole():
    """A service record has its enums as such."""
    service = protocol.decode_get_service(_service_words(1))
    assert service == protocol.ServiceRecord(
        blueprint_id=5,
        owner=OPERATOR,
        created_at_s=11,
        ttl_s=12,
        terminated_at_s=13,
        operator_count=2,
        membership=Membership.DYNAMIC,
        pricing=Pricing.EVENT_DRIVEN,
        status=ServiceStatus.ACTIVE,
        confidentiality=3,
    )


def test_an_unknown_service_status_is_refused():
    """A status that the protocol does not have is an error, never a guess."""
    with pytest.raises(ChainError, match="getService"):
        protocol.decode_get_service(_service_words(9))


def _definition(pricing=2):
    return (
        *("ipfs://x", bytes(32), "0x" + OPERATOR.hex(), 1, True),
        (1, pricing, 1, 4, 5, 6, 10**15),
        ("name", *[""] * 8),
        [
            ("execute", "runs a program", "", b"", b""),
            ("square", "x*x", "", bytes.fromhex("020001"), bytes.fromhex("020002")),
        ],
        *(b"", b""),
        [(0, ("r", "i", "t"), (0, 0, "", ""), (0, "", ""), ("", "", ""), [(0, 0, "n", bytes(32))])],
        [0, 1],
    )


def test_the_jobs_of_a_blueprint_carry_their_schemas():
    """A definition gives each job's schemas in the order of the job indices."""
    definition = protocol.decode_get_blueprint_definition(
        eth_abi.encode([protocol._BLUEPRINT_TYPE], [_definition()])
    )
    assert definition.name == "name"
    assert definition.manager == OPERATOR
    assert definition.pricing is Pricing.EVENT_DRIVEN
    assert definition.event_rate_wei == 10**15
    assert [job.name for job in definition.jobs] == ["execute", "square"]
    assert definition.jobs[1].params_schema == bytes.fromhex("020001")
    assert definition.jobs[1].result_schema == bytes.fromhex("020002")


def test_an_unknown_pricing_is_refused():
    """A pricing that the protocol does not have is an error."""
    with pytest.raises(ChainError, match="getBlueprintDefinition"):
        protocol.decode_get_blueprint_definition(
            eth_abi.encode([protocol._BLUEPRINT_TYPE], [_definition(pricing=7)])
        )


def test_operators_keep_the_order_of_the_contract():
    """The order matters: a bitmap's bit i is operator i."""
    other = Address(bytes(19) + b"\x01")
    data = eth_abi.encode(["address[]"], [["0x" + OPERATOR.hex(), "0x" + other.hex()]])
    assert protocol.decode_get_service_operators(data) == (OPERATOR, other)


def test_truth_values_are_read():
    """A function that answers a bool answers a word."""
    assert protocol.decode_bool(bytes(31) + b"\x01") is True
    assert protocol.decode_bool(bytes(32)) is False


@pytest.mark.parametrize(
    "decode",
    [
        protocol.decode_bool,
        protocol.decode_get_job_call,
        protocol.decode_get_service,
        protocol.decode_get_service_operators,
        protocol.decode_get_blueprint_definition,
    ],
)
@pytest.mark.parametrize("data", [b"", b"\x01", b"\xff" * 64, bytes(31) + b"\x20" + b"\xff" * 900])
def test_garbage_answers_are_refused_with_the_fix(decode, data):
    """A contract that is not a job contract is named as the likely cause."""
    with pytest.raises(ChainError, match="check that the contract address"):
        decode(data)


def test_a_revert_shows_its_name_and_arguments():
    """A known custom error is decoded with its arguments."""
    data = bytes.fromhex("0a55512f") + eth_abi.encode(["uint64", "uint64"], [4, 17])
    error = decode_revert(data)
    assert (error.name, error.data) == ("JobAlreadyCompleted", data)
    assert "JobAlreadyCompleted(4, 17)" in str(error)


def test_a_revert_string_is_shown():
    """Error(string) carries a reason for people."""
    error = decode_revert(bytes.fromhex("08c379a0") + eth_abi.encode(["string"], ["not today"]))
    assert error.name == "Error"
    assert "not today" in str(error)


def test_a_reason_cannot_carry_control_characters():
    """A stranger's reason cannot write escape sequences to the operator's terminal, nor flood it."""
    reason = "\x1b[2J\n" + "x" * 5000
    message = str(decode_revert(bytes.fromhex("08c379a0") + eth_abi.encode(["string"], [reason])))
    assert message.isprintable()
    assert len(message) < 300


def test_a_panic_is_explained():
    """Panic codes of the compiler are put into words."""
    error = decode_revert(bytes.fromhex("4e487b71") + (0x11).to_bytes(32, "big"))
    assert "Panic 0x11 (arithmetic overflow)" in str(error)


@pytest.mark.parametrize(
    ("data", "name", "revert_class"),
    [
        (b"", None, RevertClass.RETRY),
        (b"\x01\x02", None, RevertClass.PERMANENT),
        (bytes.fromhex("deadbeef") + bytes(64), None, RevertClass.PERMANENT),
        (bytes.fromhex("b7e7fcee"), "ResultAlreadySubmitted", RevertClass.BENIGN),
        (bytes.fromhex("08c379a0") + b"\xff" * 64, "Error", RevertClass.PERMANENT),
        (bytes.fromhex("783482e9"), "OperatorNotInService", RevertClass.RETRY),
        (bytes.fromhex("9038fe73"), "SchemaValidationFailed", RevertClass.PERMANENT),
    ],
)
def test_every_revert_has_a_class_even_when_truncated(data, name, revert_class):
    """Whatever bytes come back, decoding never raises and the sender knows what to do."""
    error = decode_revert(data)
    assert error.name == name
    assert classify_revert(error) is revert_class


def test_only_finished_work_is_benign():
    """Exactly the errors that mean 'already done' are benign."""
    benign = {error.name for error in CUSTOM_ERRORS.values() if error.revert_class is RevertClass.BENIGN}
    assert benign == {"JobAlreadyCompleted", "ResultAlreadySubmitted", "NothingToRetry"}
