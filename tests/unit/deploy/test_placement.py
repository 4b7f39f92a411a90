"""What may become of a machine's size, and what may not."""

import pytest

from jobs.deploy.backends.backend import Placement
from jobs.deploy.placement import check_change, difference, resized
from jobs.deploy.wanted import DeploymentConflictError

SMALL = Placement(instance_type="tdx.small", disk_gb=40)


@pytest.mark.parametrize(
    ("given", "expected", "sent"),
    [
        (Placement(), SMALL, Placement()),
        (SMALL, SMALL, Placement()),
        (Placement(disk_gb=50), Placement(instance_type="tdx.small", disk_gb=50), Placement(disk_gb=50)),
        (
            Placement(instance_type="tdx.large"),
            Placement(instance_type="tdx.large", disk_gb=40),
            Placement(instance_type="tdx.large"),
        ),
        (Placement(vcpu=4), Placement(vcpu=4, disk_gb=40), Placement(vcpu=4)),
    ],
    ids=["nothing", "the same", "disk", "type", "processors"],
)
def test_what_is_not_given_stays(given: Placement, expected: Placement, sent: Placement) -> None:
    """A type takes the place of processors and memory, they take its; only what is another is sent."""
    assert resized(SMALL, given) == expected
    assert difference(SMALL, expected) == sent


def test_a_type_makes_former_processors_void() -> None:
    """Otherwise a machine of another type would keep the processors of before."""
    before = Placement(vcpu=2, memory_mb=4096, disk_gb=40)
    assert resized(before, Placement(instance_type="tdx.small")) == SMALL


@pytest.mark.parametrize(
    ("before", "there"),
    [(40, None), (None, 40), (20, 40), (40, 20)],
    ids=["as recorded", "as the place tells", "enlarged elsewhere", "not enlarged yet"],
)
def test_a_disk_does_not_shrink(before: int | None, there: int | None) -> None:
    """Neither below what was asked for, nor below what is there; the same size and a larger one pass."""
    was, has = Placement(disk_gb=before), Placement(disk_gb=there)
    with pytest.raises(DeploymentConflictError, match="has 40 GiB, and a disk cannot shrink to 39"):
        check_change("web-app", was, Placement(disk_gb=39), has)
    for disk_gb in (None, 40, 41):
        check_change("web-app", was, Placement(disk_gb=disk_gb), has)


@pytest.mark.parametrize("member", ["image", "node", "region"])
def test_a_machine_is_not_moved(member: str) -> None:
    """Another image, node or region, which a place would ignore, is refused; the present one may be named."""
    was, there = Placement(), Placement(**{member: "1"})  # type: ignore[arg-type]
    check_change("web-app", was, there, there)
    check_change("web-app", there, there)
    with pytest.raises(DeploymentConflictError, match=f"has the {member} 1, and .* another: 2"):
        check_change("web-app", was, Placement(**{member: "2"}), there)  # type: ignore[arg-type]
