"""Every error that the node raises, in one tree.

::

    BlueprintError
      ConfigError             a setting or an argument is wrong            (exit code 2)
      RegistrationError       a job is registered wrongly                  (at import or start)
      Rejection               a call's inputs are wrong                    (answered on chain)
        UnknownJobError         no handler has this job index
        InputsTooLargeError     more bytes than the node accepts
        InputsUndecodableError  not an encoding of the declared parameters
        InputsInvalidError      decoded, but a value is not allowed
      UnencodableError        a value does not fit the type declared for it
      JobTimeoutError         a handler did not finish in its time
      PostponedError          there is no room for a call now; it is not answered, and runs later
      ChainError
        RpcError                the end point failed; may work later       (exit code 3)
        RevertedError           a contract refused, with the decoded reason
        ReorgedError            a block that was relied on is gone
      AttestationError                                                     (exit code 4)
        QuoteInvalidError, PolicyViolationError, AttestorUnavailableError
      SealingError            variables cannot be sealed or opened; names a key, never a value
      JournalError            the durable state cannot be used; the node stops

Invariant: each class says by ``retryable`` whether the same action may succeed later without a change.
"""

from typing import ClassVar

__all__ = [
    "AttestationError",
    "AttestorUnavailableError",
    "BlueprintError",
    "ChainError",
    "ConfigError",
    "InputsInvalidError",
    "InputsTooLargeError",
    "InputsUndecodableError",
    "JobTimeoutError",
    "JournalError",
    "PolicyViolationError",
    "PostponedError",
    "QuoteInvalidError",
    "RegistrationError",
    "Rejection",
    "ReorgedError",
    "RevertedError",
    "RpcError",
    "SealingError",
    "UnencodableError",
    "UnknownJobError",
]


class BlueprintError(Exception):
    """Root of every error raised on purpose by this package."""

    retryable: ClassVar[bool] = False

    @property
    def lines(self) -> tuple[str, ...]:
        """What it tells, several things one a line."""
        return (str(self),)


class ConfigError(BlueprintError):
    """A setting, flag or argument is wrong; the message names it and what is expected."""


class RegistrationError(BlueprintError):
    """A job cannot be served as it is registered: a clash, an unsupported type, a schema without errors."""


class Rejection(BlueprintError):  # noqa: N818 - the word of the protocol: the call is rejected, nothing went wrong
    """The inputs of a call are wrong; the caller is told in an error result, never by silence."""


class UnknownJobError(Rejection):
    """The call names a job index for which no handler is registered."""


class InputsTooLargeError(Rejection):
    """The inputs hold more bytes than the node accepts."""


class InputsUndecodableError(Rejection):
    """The inputs are not an encoding (ABI or TLV) of the parameters that the job declares."""


class InputsInvalidError(Rejection):
    """The inputs decode, but a value is outside what the job allows."""


class UnencodableError(BlueprintError):
    """A value does not fit the type declared for it; from a handler, it is that handler's mistake."""


class JobTimeoutError(BlueprintError):
    """A handler did not finish in the time that its job is given."""


class PostponedError(BlueprintError):
    """There is no room for a call now: nothing was run, and the node takes it up again later.

    Attributes:
        retry_after_s: when to try again, in seconds.
    """

    retryable = True

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ChainError(BlueprintError):
    """Something between the node and the chain went wrong."""


class RpcError(ChainError):
    """The JSON-RPC end point failed or answered an error.

    Attributes:
        code: the JSON-RPC error code, or an HTTP status, or None for a broken connection.
        data: the error's ``data`` member as it came.
        retry_after_s: seconds that the server asks to wait (HTTP ``Retry-After``).
    """

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        data: object = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.data = data
        self.retry_after_s = retry_after_s


class RevertedError(ChainError):
    """A contract refused a call.

    Attributes:
        data: the revert bytes: a four-byte selector and its arguments, or empty.
        name: the custom error's name when the selector is known, else None.
    """

    def __init__(self, message: str, *, data: bytes = b"", name: str | None = None) -> None:
        super().__init__(message)
        self.data = data
        self.name = name


class ReorgedError(ChainError):
    """A block that was relied on is no longer part of the chain."""

    retryable = True


class AttestationError(BlueprintError):
    """Evidence about a TEE is missing or does not hold."""


class QuoteInvalidError(AttestationError):
    """An attestation quote is malformed, or its signature chain does not verify."""


class PolicyViolationError(AttestationError):
    """An attestation quote verifies, but says something that the policy forbids."""


class AttestorUnavailableError(AttestationError):
    """The TEE's guest agent cannot be reached."""

    retryable = True


class SealingError(BlueprintError):
    """Environment variables cannot be sealed or opened; the message names a key, never a value."""


class JournalError(BlueprintError):
    """The journal cannot be opened, read or written. Fatal: without it nothing can be promised."""
