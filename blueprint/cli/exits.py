"""The exit codes, and which error leads to which.

Invariant: every error that leaves a command has exactly one code, and one line of text.
"""

from enum import IntEnum

from blueprint.errors import AttestationError, BlueprintError, ConfigError, RegistrationError, RpcError
from sandbox.errors import RequestError, SandboxError, SandboxUnavailableError

__all__ = ["ExitCode", "JobFailedError", "exit_code_of", "first_cause", "in_lines", "one_line"]


class ExitCode(IntEnum):
    """What the program's exit code means."""

    OK = 0
    FAILURE = 1
    USAGE = 2  # a wrong argument, flag or setting
    CHAIN_UNREACHABLE = 3
    ATTESTATION_FAILED = 4
    SANDBOX_UNAVAILABLE = 5
    JOB_FAILED = 6  # the job was answered, with a failure of the program
    INTERRUPTED = 130


class JobFailedError(Exception):
    """The job was run and answered, but the program did not succeed."""


_CODES: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (ConfigError, ExitCode.USAGE),
    (RegistrationError, ExitCode.USAGE),
    (RequestError, ExitCode.USAGE),
    (RpcError, ExitCode.CHAIN_UNREACHABLE),
    (AttestationError, ExitCode.ATTESTATION_FAILED),
    (SandboxUnavailableError, ExitCode.SANDBOX_UNAVAILABLE),
    (JobFailedError, ExitCode.JOB_FAILED),
)


def first_cause(error: BaseException) -> BaseException:
    """Return the error that matters: inside groups of concurrent failures, the first that is ours."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [first_cause(member) for member in error.exceptions]
    ours = [cause for cause in causes if isinstance(cause, BlueprintError | SandboxError)]
    return (ours or causes)[0]


def exit_code_of(error: BaseException) -> ExitCode:
    """Return the exit code of an error."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return ExitCode.FAILURE


def in_lines(error: BaseException) -> str:
    """Return the error as people read it: like `one_line`, and a line for each of several things it tells."""
    told = error.lines if isinstance(error, BlueprintError) else ()
    return "\n  ".join(" ".join(line.split()) for line in told) if len(told) > 1 else one_line(error)


def one_line(error: BaseException) -> str:
    """Return the error as one line: the message of one raised on purpose, else its type as well."""
    text = " ".join(str(error).split())
    if isinstance(error, BlueprintError | SandboxError | JobFailedError | TimeoutError):
        return text or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"unexpected {type(error).__name__}: {text}; run again with --debug for the traceback"
