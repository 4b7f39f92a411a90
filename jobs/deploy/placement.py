"""How the size of a machine may change, and where it is.

Invariant: what is not stated stays as it is; a disk never shrinks, and a machine is never moved.
"""

from dataclasses import fields, replace

from jobs.deploy.backends.backend import Placement
from jobs.deploy.wanted import DeploymentConflictError

__all__ = ["check_change", "difference", "resized"]

_FIXED = ("image", "node", "region")
"""Chosen when the machine is made."""


def resized(placement: Placement, given: Placement) -> Placement:
    """Return a placement with what is given put over it.

    An instance type stands for processors and memory, so either makes former wishes for the other void.
    """
    if given.instance_type:
        placement = replace(placement, vcpu=None, memory_mb=None)
    elif given.vcpu or given.memory_mb:
        placement = replace(placement, instance_type="")
    stated = {each.name: value for each in fields(given) if (value := getattr(given, each.name))}
    return replace(placement, **stated)


def difference(before: Placement, after: Placement) -> Placement:
    """Return what `after` states and `before` does not; the rest is left to stay."""
    names = [each.name for each in fields(after)]
    changed = {name: getattr(after, name) for name in names if getattr(after, name) != getattr(before, name)}
    return Placement(**changed)


def check_change(name: str, before: Placement, after: Placement, there: Placement | None = None) -> None:
    """Find what cannot be done, before anything is sent.

    Args:
        name: of the deployment.
        before: what was asked for when it was last changed.
        after: what is asked for now.
        there: what the machine has, as its place tells; None where nobody asked.

    Raises:
        DeploymentConflictError: the disk would shrink, or the machine would have to be moved.
    """
    there = there or Placement()
    disk_gb = max(before.disk_gb or 0, there.disk_gb or 0)
    if after.disk_gb and after.disk_gb < disk_gb:
        raise DeploymentConflictError(
            f"the disk of {name} has {disk_gb} GiB, and a disk cannot shrink to {after.disk_gb}",
            advice="deploy it under another name to have a smaller one",
        )
    for member in _FIXED:
        asked, had = getattr(after, member), (getattr(before, member), getattr(there, member))
        if asked and asked not in had:
            raise DeploymentConflictError(
                f"{name} has the {member} {had[0] or had[1] or 'that its place chose'}, and a machine that "
                f"exists is not given another: {asked}",
                advice="deploy it under another name, or leave that out",
            )
