"""Each error leads to its exit code and to one line."""

import pytest

from blueprint import errors
from blueprint.cli.exits import ExitCode, JobFailedError, exit_code_of, first_cause, one_line
from sandbox.errors import RequestError, SandboxUnavailableError, SystemFailureError

EXPECTED = [
    (errors.ConfigError("x"), ExitCode.USAGE),
    (errors.RegistrationError("x"), ExitCode.USAGE),
    (RequestError("x"), ExitCode.USAGE),
    (errors.RpcError("x"), ExitCode.CHAIN_UNREACHABLE),
    (errors.QuoteInvalidError("x"), ExitCode.ATTESTATION_FAILED),
    (errors.PolicyViolationError("x"), ExitCode.ATTESTATION_FAILED),
    (SandboxUnavailableError("x"), ExitCode.SANDBOX_UNAVAILABLE),
    (JobFailedError("x"), ExitCode.JOB_FAILED),
    (errors.JournalError("x"), ExitCode.FAILURE),
    (errors.RevertedError("x"), ExitCode.FAILURE),
    (SystemFailureError("x"), ExitCode.FAILURE),
    (OSError(28, "No space left on device"), ExitCode.FAILURE),
    (ZeroDivisionError("x"), ExitCode.FAILURE),
]


@pytest.mark.parametrize(("error", "code"), EXPECTED, ids=lambda value: type(value).__name__)
def test_exit_code(error: Exception, code: ExitCode) -> None:
    """An error's class decides the exit code."""
    assert code == exit_code_of(error)


def test_exit_codes_are_the_documented_numbers() -> None:
    """The numbers are an interface for scripts and never change."""
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 5, 6, 130]


def test_cause_inside_groups_is_ours_first() -> None:
    """Among concurrent failures the one that was raised on purpose is reported."""
    ours = errors.RpcError("gone")
    group = ExceptionGroup("a", [KeyError("k"), ExceptionGroup("b", [ours])])
    assert first_cause(group) is ours
    assert isinstance(first_cause(ExceptionGroup("a", [KeyError("k")])), KeyError)


def test_one_line_is_one_line() -> None:
    """Line breaks in a message become spaces."""
    assert one_line(errors.ConfigError("first\n  second")) == "first second"


def test_system_error_names_the_file() -> None:
    """A failing system call is told by file and reason."""
    assert one_line(OSError(28, "No space left on device", "/x/y")) == "/x/y: No space left on device"


def test_unexpected_error_points_to_debug() -> None:
    """An error that nobody foresaw names its type and how to see more."""
    assert one_line(ZeroDivisionError("division by zero")) == (
        "unexpected ZeroDivisionError: division by zero; run again with --debug for the traceback"
    )
