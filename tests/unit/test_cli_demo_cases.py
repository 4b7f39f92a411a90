"""What the demonstration expects, and how it judges."""

import contextlib
import io
from pathlib import Path

import pytest

from blueprint.cli.demo_cases import expected_output, fault_cases, judge, language_cases, snippet
from jobs.execute_codec import ExecuteResult, decode_request, encode_request
from sandbox.languages import LANGUAGES
from sandbox.result import ExecutionStatus

CASES = language_cases(tuple(LANGUAGES))
FAILS, LOOPS, HOARDS = fault_cases()


def test_expected_output_is_a_known_value() -> None:
    """The expected answer is the nonce reversed and 32-bit FNV-1a of nonce and language."""
    assert expected_output("abc123", "python") == b"321cba 72ef16d7\n"


def test_every_language_has_a_case_with_its_own_nonce() -> None:
    """Eight languages, eight nonces, and no program holds its nonce or its answer."""
    assert [case.name for case in CASES] == list(LANGUAGES)
    assert len({case.request.stdin for case in CASES}) == len(LANGUAGES)
    for case in CASES:
        assert case.request.stdin.strip() not in case.request.files[0].content
        assert case.stdout is not None


def test_two_draws_differ() -> None:
    """Each run asks for something else."""
    assert [case.stdout for case in CASES] != [case.stdout for case in language_cases(tuple(LANGUAGES))]


@pytest.mark.parametrize("case", [*CASES, FAILS, LOOPS, HOARDS], ids=lambda case: case.name)
def test_requests_survive_the_chain(case: object) -> None:
    """What is encoded for the chain decodes to the same request."""
    request = case.request  # type: ignore[attr-defined]
    assert decode_request(encode_request(request)) == request


def answer(status: ExecutionStatus, stdout: bytes = b"", stderr: bytes = b"") -> ExecuteResult:
    """Return an answer as the node would give it."""
    return ExecuteResult(status=status, stdout=stdout, stderr=stderr)


def test_right_answers_are_right() -> None:
    """The expected output, and each fault stopped for its own reason, are accepted."""
    assert judge(CASES[0], answer(ExecutionStatus.SUCCESS, CASES[0].stdout or b""), ()).is_right
    traceback = b"Traceback ...\nIndexError: list index out of range\n"
    assert judge(FAILS, answer(ExecutionStatus.NONZERO_EXIT, b"about to fail\n", traceback), ()).is_right
    assert judge(LOOPS, answer(ExecutionStatus.TIMEOUT), ()).note == "stopped as it must be"
    assert judge(HOARDS, answer(ExecutionStatus.MEMORY_LIMIT), ()).is_enforced


def test_wrong_answers_are_wrong() -> None:
    """Another output, another status, a missing traceback or foreign bytes are not accepted."""
    wrong = [
        judge(CASES[0], answer(ExecutionStatus.SUCCESS, b"321cba 72ef16d7\n"), ()),
        judge(CASES[0], answer(ExecutionStatus.TIMEOUT, CASES[0].stdout or b""), ()),
        judge(FAILS, answer(ExecutionStatus.NONZERO_EXIT, b"about to fail\n"), ()),
        judge(HOARDS, answer(ExecutionStatus.SUCCESS), ()),
        judge(LOOPS, None, ()),
    ]
    assert [verdict.is_right for verdict in wrong] == [False] * 5


@pytest.mark.parametrize("status", [ExecutionStatus.SUCCESS, ExecutionStatus.MEMORY_LIMIT])
def test_limit_that_is_not_in_force_never_counts_as_held(status: ExecutionStatus) -> None:
    """Where memory is not enforced the verdict says so, whatever happened to the program."""
    verdict = judge(HOARDS, answer(status), {"memory": "no group"})
    assert (verdict.note, verdict.is_enforced) == ("not enforced", False)


def test_snippet_of_the_contract_prints_the_nonce_reversed() -> None:
    """What the example contract asks for is a program whose output is known only with the nonce."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(snippet("abc"), {})
    assert printed.getvalue() == "cba"


def test_programs_are_shipped_beside_the_code() -> None:
    """Every program lies in the package, so that an installed wheel has it."""
    folder = Path(__file__).resolve().parents[2] / "blueprint/cli/programs"
    assert len(list(folder.glob("[!_]*.*"))) == 8 + 3
