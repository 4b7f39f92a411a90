"""Reads what a service mounts, in the short and the long form.

Invariant: a mount is a declared volume, memory, or needs an allowance; nothing is taken from a folder that
the guest does not have.
Source of the rule: the compose specification, ``volumes``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from jobs.deploy.compose.document import Part
from jobs.deploy.compose.findings import Allowance, Finding

__all__ = ["check_mount", "check_volume"]

_LONG = {"type", "source", "target", "read_only", "bind", "volume", "tmpfs", "consistency"}
_VOLUME = {"name", "driver", "driver_opts", "labels", "external"}


def check_volume(part: Part) -> Iterator[Finding]:
    """Yield what is wrong with a declared volume."""
    if part.entries is None:
        if part.kind is not type(None):
            yield part.finding(f"expected nothing or a mapping, received {part.word}")
        return
    for name in part.entries.keys() - _VOLUME:
        if not name.startswith("x-"):
            yield part.entries[name].finding(f"a volume has no {name[:40]!r}")
    if (external := part.entries.get("external")) is not None and external.is_true:
        yield external.finding("a new guest has no volumes from elsewhere: let this file make it")
    if (options := part.entries.get("driver_opts")) is not None:
        finding = options.finding("options of a volume's driver can show a folder of the guest")
        yield replace(finding, allowance=Allowance.HOST_MOUNT)


def check_mount(part: Part, declared: Mapping[str, Part]) -> Iterator[Finding]:
    """Yield what is wrong with one entry of a service's ``volumes``."""
    if part.entries is None:
        if part.kind is not str:
            yield part.finding(f"expected name:/path, received {part.word}")
            return
        source, target = _short(part.text)
        kind = "volume" if not source.startswith(("/", ".", "~", "$")) else "bind"
    else:
        for name in part.entries.keys() - _LONG:
            yield part.entries[name].finding(f"a mount has no {name[:40]!r}")
        texts = {name: entry.text for name, entry in part.entries.items()}
        kind, source, target = texts.get("type", ""), texts.get("source", ""), texts.get("target", "")
    if not target.startswith("/"):
        yield part.finding("the path inside the container must begin with /")
    yield from _check(part, kind, source, declared)


def _check(part: Part, kind: str, source: str, declared: Mapping[str, Part]) -> Iterator[Finding]:
    if kind == "tmpfs":
        return
    if kind == "volume" and not source:
        finding = part.finding("a volume without a name is left behind by every update; name it")
        yield replace(finding, allowance=Allowance.ANONYMOUS_VOLUME)
    elif kind == "volume":
        if source not in declared:
            yield part.finding(f"the volume {source[:60]!r} is not declared under the top-level key volumes")
    elif kind == "bind":
        if not source.startswith("/"):
            yield part.finding("the guest has no folder beside this file: only a path that begins with /")
            return
        finding = part.finding(f"{source[:100]} is of the guest, not of the application")
        yield replace(finding, allowance=Allowance.HOST_MOUNT)
    else:
        yield part.finding(f"a mount's type is volume, bind or tmpfs, not {kind[:40]!r}")


def _short(text: str) -> tuple[str, str]:
    """Split ``source:target:options``; a lone path is the target of a volume without a name."""
    source, separator, rest = text.partition(":")
    if not separator:
        return "", source
    return source, rest.partition(":")[0]
