"""The operator's policy for orders from the chain: whose applications, which, how large and how many.

Invariant: what the policy does not name is refused; a refusal says what is allowed, for the caller to read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from blueprint.types import Address
from jobs.deploy.backends.backend import Placement
from jobs.deploy.compose.check import check_compose
from jobs.deploy.compose.findings import Allowance, ComposeError
from jobs.deploy.errors import OrderRefusedError
from jobs.deploy.order import Order

__all__ = ["DeployPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployPolicy:
    """What an operator deploys for others."""

    callers: frozenset[Address] | None = frozenset()
    """Whose orders are taken; none by default, None takes everybody's."""
    images: tuple[str, ...] = ()
    """Which images may run, none by default: whole references, in which ``*`` stands for any characters but
    ``/`` and ``@``, and ``**`` for any."""
    instance_types: frozenset[str] = frozenset()
    """Which sizes may be asked for by name; none by default, which leaves the size to the operator."""
    most: Placement = field(default_factory=Placement)
    """The largest vCPU count, memory and disk; a member that is None may not be asked for."""
    max_deployments: int = 1
    """How many applications one caller may have, prepared ones among them."""
    allow: frozenset[Allowance] = frozenset()
    """The risks that a compose text may take."""
    is_public_allowed: bool = False
    """Whether logs and system information may be shown to everybody."""

    def admit(self, order: Order, *, caller: Address, deployments: int) -> None:
        """Let an order pass.

        Args:
            order: what is asked for.
            caller: who asks.
            deployments: how many applications of this caller there are already.

        Raises:
            OrderRefusedError: the policy does not allow it, or the compose text is not accepted.
        """
        if self.callers is not None and caller not in self.callers:
            raise OrderRefusedError(
                "this operator takes orders of callers that he names, and not of this one"
            )
        if deployments >= self.max_deployments:
            raise OrderRefusedError(
                f"this caller has {deployments} applications, and {self.max_deployments} are allowed",
                advice="remove one first",
            )
        if (order.public_logs or order.public_sysinfo) and not self.is_public_allowed:
            raise OrderRefusedError("this operator shows neither logs nor system information to everybody")
        self._check_size(order.placement)
        try:
            compose = check_compose(order.compose, names=order.names, allow=self.allow)
        except ComposeError as exc:
            raise OrderRefusedError(str(exc)) from exc
        for image in compose.images:
            if not any(_matches(image, pattern) for pattern in self.images):
                shown = ", ".join(self.images) or "none"
                raise OrderRefusedError(f"the image {image} is not among those that are allowed: {shown}")

    def _check_size(self, asked: Placement) -> None:
        # SECURITY: a size by name would go round the bounds below (test_no_size_is_given_away_by_default).
        if asked.instance_type and not self.instance_types:
            raise OrderRefusedError("instance types are the operator's choice", advice="leave it out")
        if asked.instance_type and asked.instance_type not in self.instance_types:
            shown = ", ".join(sorted(self.instance_types))
            raise OrderRefusedError(f"instance type {asked.instance_type}: expected one of {shown}")
        if asked.node or asked.region or asked.image:
            raise OrderRefusedError("node, region and guest image are the operator's choice")
        sizes: Mapping[str, tuple[int | None, int | None]] = {
            "vCPUs": (asked.vcpu, self.most.vcpu),
            "MB of memory": (asked.memory_mb, self.most.memory_mb),
            "GB of disk": (asked.disk_gb, self.most.disk_gb),
        }
        for unit, (wanted, most) in sizes.items():
            if wanted is None:
                continue
            if most is None:
                raise OrderRefusedError(f"{unit} are the operator's choice", advice="leave them out")
            if wanted > most:
                raise OrderRefusedError(f"at most {most} {unit} are allowed, {wanted} were asked for")


def _matches(image: str, pattern: str) -> bool:
    """Say whether an image is one of a pattern; a pattern without a star is the image itself."""
    parts = re.split(r"(\*\*|\*)", pattern)
    meaning = {"**": ".*", "*": "[^/@]*"}
    return re.fullmatch("".join(meaning.get(part, re.escape(part)) for part in parts), image) is not None
