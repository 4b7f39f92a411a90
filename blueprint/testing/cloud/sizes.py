"""The sizes that the fake cloud offers, and what a request may state of one.

Invariant: a size that is not offered is refused, and a disk never shrinks.
"""

from collections.abc import Mapping

from blueprint.foreign_json import JsonValue
from blueprint.testing.cloud.faults import Refusal, refusal

__all__ = ["DISK_GB", "SIZES", "SIZE_MEMBERS", "demand_size"]

SIZES = {
    "tdx.small": (1, 2048, "0.06"),
    "tdx.medium": (2, 4096, "0.12"),
    "tdx.large": (4, 8192, "0.24"),
}
"""Cores, MiB and US dollars an hour of the instance types."""
DISK_GB = 20
"""The disk that comes with each of them."""
SIZE_MEMBERS = {"instance_type": "string", "vcpu": "number", "memory": "number", "disk_size": "number"}
"""The members of a request that state a size, with their types."""


def demand_size(body: Mapping[str, JsonValue], *, disk_gb: int = DISK_GB) -> dict[str, JsonValue]:
    """Return what a request states of a size; ``disk_gb`` is what is there already."""
    if body.get("instance_type") not in (None, *SIZES):
        raise Refusal(refusal(404, "no such instance type", code="ERR-02-001"))
    asked_gb = body.get("disk_size")
    if isinstance(asked_gb, int) and asked_gb < disk_gb:
        raise Refusal(refusal(400, f"the disk has {disk_gb} GB: it cannot be smaller"))
    return {member: body[member] for member in SIZE_MEMBERS if member in body}
