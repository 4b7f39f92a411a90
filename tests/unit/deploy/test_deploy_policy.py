"""The operator's policy: what is not named is refused, with what is allowed."""

from dataclasses import replace

import pytest

from blueprint.types import Address
from jobs.deploy.backends.backend import Placement
from jobs.deploy.compose.findings import Allowance
from jobs.deploy.errors import OrderRefusedError
from jobs.deploy.order import Order
from jobs.deploy.policy import DeployPolicy

CALLER, STRANGER = Address(b"\xca" * 20), Address(b"\x5e" * 20)
DIGEST = "sha256:" + "ab" * 32
ORDER = Order(
    key="0" * 64,
    name="web-app",
    compose=f"services: {{web: {{image: 'registry.example/team/web@{DIGEST}'}}}}\n",
    placement=Placement(instance_type="tdx.small", disk_gb=20),
)
POLICY = DeployPolicy(
    callers=frozenset({CALLER}),
    images=("registry.example/team/*@**",),
    instance_types=frozenset({"tdx.small", "tdx.medium"}),
    most=Placement(disk_gb=40, memory_mb=4096),
    max_deployments=2,
)


def test_what_the_policy_names_is_admitted() -> None:
    """A caller, an image, a size and a number that are allowed."""
    POLICY.admit(ORDER, caller=CALLER, deployments=1)
    replace(POLICY, callers=None).admit(ORDER, caller=STRANGER, deployments=0)


def test_nothing_is_admitted_by_default() -> None:
    """A policy without a word takes nobody's orders, and runs no image."""
    with pytest.raises(OrderRefusedError, match="callers that he names"):
        DeployPolicy().admit(ORDER, caller=CALLER, deployments=0)
    with pytest.raises(OrderRefusedError, match="allowed: none"):
        replace(POLICY, images=()).admit(ORDER, caller=CALLER, deployments=0)


def image(name: str) -> Order:
    """The order with another image."""
    return replace(ORDER, compose=f"services: {{web: {{image: '{name}@{DIGEST}'}}}}\n")


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (image("registry.example/other/web"), "not among those that are allowed"),
        (image("registry.example/team/deep/web"), "not among those that are allowed"),
        (image("registry-example/team/web"), "not among those that are allowed"),
        (
            replace(ORDER, placement=Placement(instance_type="tdx.huge")),
            "expected one of tdx.medium, tdx.small",
        ),
        (replace(ORDER, placement=Placement(disk_gb=41)), "at most 40 GB of disk are allowed, 41 were asked"),
        (replace(ORDER, placement=Placement(memory_mb=4097)), "at most 4096 MB of memory"),
        (replace(ORDER, placement=Placement(vcpu=1)), "vCPUs are the operator's choice"),
        (replace(ORDER, placement=Placement(node="7")), "node, region and guest image"),
        (replace(ORDER, public_logs=True), "neither logs nor system information"),
    ],
)
def test_what_is_not_allowed_is_refused_with_what_is(order: Order, expected: str) -> None:
    """Each bound by itself."""
    with pytest.raises(OrderRefusedError, match=expected):
        POLICY.admit(order, caller=CALLER, deployments=0)


def test_no_size_is_given_away_by_default() -> None:
    """Where a policy bounds disk and memory and names no instance type, no type goes round those bounds."""
    with pytest.raises(OrderRefusedError, match="instance types are the operator's choice; leave it out"):
        replace(POLICY, instance_types=frozenset()).admit(ORDER, caller=CALLER, deployments=0)
    order = replace(ORDER, placement=Placement(disk_gb=20))
    replace(POLICY, instance_types=frozenset()).admit(order, caller=CALLER, deployments=0)


def test_a_caller_has_so_many_applications_at_most() -> None:
    """The next one waits until another is removed."""
    with pytest.raises(OrderRefusedError, match="has 2 applications, and 2 are allowed"):
        POLICY.admit(ORDER, caller=CALLER, deployments=2)


def test_a_risk_needs_the_operators_allowance() -> None:
    """A compose text that takes one is refused, until the policy names it."""
    risky = replace(
        ORDER,
        compose=f"services: {{web: {{image: 'registry.example/team/web@{DIGEST}', privileged: true}}}}\n",
    )
    with pytest.raises(OrderRefusedError, match="--allow privileged"):
        POLICY.admit(risky, caller=CALLER, deployments=0)
    replace(POLICY, allow=frozenset({Allowance.PRIVILEGED})).admit(risky, caller=CALLER, deployments=0)
