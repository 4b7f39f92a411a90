"""Reads what a service mounts, in the short and the long form.

Invariant: a mount is a declared volume, memory, or needs an allowance; nothing is taken from a folder that
the guest does not have.
Source of the rule: the compose specification, ``volumes``.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from jobs.deploy.compose.document import Part
from jobs.deploy.compose.findings import Allowance, Finding

__all__ = ["check_mount", "check_volume"]

_SHORT = re.compile(r"(?:(?P<source>[^:]+):)?(?P<target>/[^:]*)(?::(?P<options>[a-zA-Z,]+))?")
_OPTIONS = frozenset({"ro", "rw", "z", "Z", "nocopy"})
_DRIVE = re.compile(r"[a-zA-Z]")
"""Compose takes a single letter before a colon for a drive of another operating system, and mounts that."""


def check_volume(part: Part) -> Iterator[Finding]:
    """Yield what is wrong with the meaning of a declared volume."""
    entries = part.entries or {}
    if "external" in entries and entries["external"].is_true:
        yield entries["external"].finding("a new guest has no volumes from elsewhere: let this file make it")
    if "driver_opts" in entries:
        finding = entries["driver_opts"].finding("options of a driver can show a folder of the guest")
        yield replace(finding, allowance=Allowance.HOST_MOUNT)


def check_mount(part: Part, declared: Mapping[str, Part]) -> Iterator[Finding]:
    """Yield what is wrong with the meaning of one entry of a service's ``volumes``."""
    if part.entries is not None:
        texts = {name: entry.text for name, entry in part.entries.items()}
        yield from _check(part, texts["type"], texts.get("source", ""), declared)
        return
    match = _SHORT.fullmatch(part.text)
    options = set(match["options"].split(",")) if match is not None and match["options"] else set()
    if match is None or options - _OPTIONS:
        yield part.finding(
            f"{part.text[:60]!r} is no mount: expected name:/path, where the path inside the container must "
            "begin with / and :ro may follow it"
        )
        return
    source = match["source"] or ""
    # SECURITY: what is a volume to us must be one to compose (test_a_volume_is_not_taken_for_a_drive).
    if _DRIVE.fullmatch(source):
        yield part.finding(f"compose takes {source}: for a drive; give the volume a longer name")
        return
    yield from _check(part, "bind" if source.startswith(("/", ".", "~")) else "volume", source, declared)


def _check(part: Part, kind: str, source: str, declared: Mapping[str, Part]) -> Iterator[Finding]:
    if kind == "tmpfs":
        return
    if kind == "bind":
        if not source.startswith("/"):
            yield part.finding("the guest has no folder beside this file: only a path that begins with /")
            return
        finding = part.finding(f"{source[:100]} is of the guest, not of the application")
        yield replace(finding, allowance=Allowance.HOST_MOUNT)
    elif not source:
        finding = part.finding("a volume without a name is left behind by every update; name it")
        yield replace(finding, allowance=Allowance.ANONYMOUS_VOLUME)
    elif source not in declared:
        yield part.finding(f"the volume {source[:60]!r} is not declared under the top-level key volumes")
