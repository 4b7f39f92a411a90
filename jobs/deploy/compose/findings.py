"""What is wrong with a compose file, each with its line, and what may be allowed by name.

Invariant: a finding names the place and the rule, never the value of a variable.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from typing_extensions import override

from jobs.deploy.errors import DeployError

__all__ = ["WHOLE_MACHINE", "Allowance", "ComposeError", "Finding"]


_SHOWN = 50
"""Findings in an error's message: it may end up in a transaction."""


class Allowance(StrEnum):
    """What is risky but may be meant; each must be allowed by name."""

    PRIVILEGED = "privileged"
    """A container with every right over the guest."""
    HOST_MOUNT = "host-mount"
    """A folder or socket of the guest inside a container, its agent's among them."""
    HOST_NETWORK = "host-network"
    """A container in the guest's own network."""
    HOST_NAMESPACE = "host-namespace"
    """A container among the guest's processes, its IPC objects or its users."""
    CAPABILITIES = "capabilities"
    """Rights of root that a container does not have by default."""
    DEVICES = "devices"
    """A device of the guest inside a container."""
    SECURITY_OPTIONS = "security-options"
    """Another seccomp filter or AppArmor profile than the engine's, or kernel settings."""
    TAG = "tag"
    """An image by its tag: whoever owns the registry decides what runs, and the measurement does not tell."""
    ANONYMOUS_VOLUME = "anonymous-volume"
    """A volume without a name, which an update leaves behind."""


WHOLE_MACHINE: Final = frozenset(
    {
        Allowance.PRIVILEGED,
        Allowance.HOST_NETWORK,
        Allowance.HOST_NAMESPACE,
        Allowance.CAPABILITIES,
        Allowance.DEVICES,
        Allowance.SECURITY_OPTIONS,
    }
)
"""Risks with which an application may own the machine that it runs on: a CVM of its own, or, at the local
place, this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    line: int
    """Counted from 1; 0 for the text as a whole."""
    path: str
    """Where in the document, such as ``services.web.ports``."""
    message: str
    allowance: Allowance | None = None
    """What would allow it; None where nothing does."""

    @override
    def __str__(self) -> str:
        """Return the finding as one line."""
        where = f"line {self.line}: " if self.line else ""
        path = f"{self.path}: " if self.path else ""
        how = f"; if it is meant: --allow {self.allowance}" if self.allowance else ""
        return f"{where}{path}{self.message}{how}"


class ComposeError(DeployError):
    """A compose file is not accepted.

    Args:
        findings: all that is wrong with it, by line.
    """

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        more = len(findings) - _SHOWN
        self._lines = (*map(str, findings[:_SHOWN]), *([f"and {more} more"] if more > 0 else []))
        super().__init__("\n".join(self._lines))
        self.findings = findings

    @property
    @override
    def lines(self) -> tuple[str, ...]:
        """The findings, one a line."""
        return self._lines
