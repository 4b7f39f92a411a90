"""Which error it is when the kernel refuses us something: a shortage passes, a missing mechanism stays."""

from sandbox.errors import SandboxError, SandboxUnavailableError, SystemFailureError
from sandbox.kernel.files import OUR_SHORTAGES

__all__ = ["refusal"]


def refusal(errno: object, what: str, fix: str) -> SandboxError:
    """Return the error for a call that ended with ``errno``.

    Args:
        errno: what the kernel said.
        what: what could not be done, and the kernel's words.
        fix: what is needed, for a refusal that will repeat itself.
    """
    if errno in OUR_SHORTAGES:
        return SystemFailureError(f"{what}: this machine is short of something, try again later")
    return SandboxUnavailableError(f"{what}; {fix}")
