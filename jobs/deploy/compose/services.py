"""What one service means: the risks that it takes, and that what it refers to is there.

Invariant: a service runs with what the engine gives to every container, unless an allowance says more.
Source of the rule: the compose specification, chapter Services.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from jobs.deploy.compose.document import Part
from jobs.deploy.compose.findings import Allowance, Finding
from jobs.deploy.compose.images import check_image
from jobs.deploy.compose.ports import Ports
from jobs.deploy.compose.shapes import misshapen
from jobs.deploy.compose.specification import SERVICE_KEYS
from jobs.deploy.compose.volumes import check_mount

__all__ = ["check_service", "needed_services", "sound_entries"]

_RISKS: Mapping[str, tuple[Allowance, str]] = {
    "cap_add": (Allowance.CAPABILITIES, "rights that a container does not have by default"),
    "devices": (Allowance.DEVICES, "devices of the guest"),
    "device_cgroup_rules": (Allowance.DEVICES, "devices of the guest"),
    "gpus": (Allowance.DEVICES, "devices of the guest"),
    "sysctls": (Allowance.SECURITY_OPTIONS, "settings of the kernel"),
    "cgroup_parent": (Allowance.HOST_NAMESPACE, "a control group of the guest"),
    "runtime": (Allowance.SECURITY_OPTIONS, "another runtime than the engine's own"),
}
_HOST: Mapping[str, Allowance] = {
    "network_mode": Allowance.HOST_NETWORK,
    "pid": Allowance.HOST_NAMESPACE,
    "ipc": Allowance.HOST_NAMESPACE,
    "uts": Allowance.HOST_NAMESPACE,
    "userns_mode": Allowance.HOST_NAMESPACE,
    "cgroup": Allowance.HOST_NAMESPACE,
}
_HARMLESS = frozenset({"no-new-privileges", "no-new-privileges:true"})
"""Security options that only take away."""
_TWINS: Mapping[str, tuple[str, ...]] = {
    "scale": ("replicas",),
    "mem_limit": ("resources", "limits", "memory"),
    "cpus": ("resources", "limits", "cpus"),
    "pids_limit": ("resources", "limits", "pids"),
    "mem_reservation": ("resources", "reservations", "memory"),
}
"""Keys that say the same as one below ``deploy``."""


def sound_entries(part: Part) -> dict[str, Part]:
    """Return the entries of a service that have the form they should."""
    return {
        key: entry
        for key, entry in (part.entries or {}).items()
        if key in SERVICE_KEYS and not any(misshapen(entry, SERVICE_KEYS[key]))
    }


def needed_services(part: Part) -> Iterator[tuple[str, Part]]:
    """Yield the services that one cannot be without, each with the part that says so."""
    entries = sound_entries(part)
    for key in ("depends_on", "links"):
        needs = entries.get(key)
        if needs is not None:
            yield from (needs.entries or {}).items()
            yield from ((item.text.partition(":")[0], item) for item in needs.items or ())
    for key in ("network_mode", "ipc", "pid"):
        if (joined := entries.get(key)) is not None and joined.text.startswith("service:"):
            yield joined.text.removeprefix("service:"), joined


def check_service(name: str, part: Part, root: Part, ports: Ports) -> Iterator[Finding]:
    """Yield what is wrong with the meaning of one service; its form is judged elsewhere."""
    entries = sound_entries(part)
    yield from _check_risks(entries)
    yield from _check_pairs(entries)
    if "image" in entries:
        yield from check_image(entries["image"])
    for entry in _items(entries, "ports"):
        yield from ports.check(entry, name)
    for entry in _items(entries, "volumes"):
        yield from check_mount(entry, _declared(root, "volumes"))
    for kind in ("secrets", "configs"):
        for entry in _items(entries, kind):
            yield from _check_named(entry, _declared(root, kind), kind[:-1])
    if "networks" in entries:
        yield from _check_networks(entries["networks"], _declared(root, "networks"))
    if "healthcheck" in entries:
        yield from _check_health(entries["healthcheck"])
    services = _declared(root, "services")
    for other, need in needed_services(part):
        if other not in services:
            yield need.finding(f"there is no service {other[:60]!r}")


def _check_risks(entries: Mapping[str, Part]) -> Iterator[Finding]:
    for key in entries.keys() & _RISKS.keys():
        allowance, what = _RISKS[key]
        yield replace(entries[key].finding(f"gives the container {what}"), allowance=allowance)
    if "privileged" in entries and entries["privileged"].is_true:
        finding = entries["privileged"].finding("gives the container every right over the guest")
        yield replace(finding, allowance=Allowance.PRIVILEGED)
    for item in _items(entries, "security_opt"):
        if item.text not in _HARMLESS:
            finding = item.finding("gives the container another confinement than the engine's own")
            yield replace(finding, allowance=Allowance.SECURITY_OPTIONS)
    for key, allowance in _HOST.items():
        if key in entries and entries[key].text == "host":
            yield replace(entries[key].finding("the guest's own, not the container's"), allowance=allowance)
    devices = _below(entries.get("deploy"), ("resources", "reservations", "devices"))
    if devices is not None:
        finding = devices.finding("gives the container devices of the guest")
        yield replace(finding, allowance=Allowance.DEVICES)


def _check_pairs(entries: Mapping[str, Part]) -> Iterator[Finding]:
    """Yield what compose does not take together."""
    for key, path in _TWINS.items():
        if key in entries and _below(entries.get("deploy"), path) is not None:
            yield entries[key].finding(f"deploy.{'.'.join(path)} says this too: keep one of them")
    if "network_mode" in entries and "networks" in entries:
        yield entries["networks"].finding("network_mode is given too: keep one of them")
    copies = entries.get("scale") or _below(entries.get("deploy"), ("replicas",))
    if "container_name" in entries and copies is not None and copies.text not in ("0", "1"):
        yield entries["container_name"].finding(f"{copies.text} containers cannot have one name")


def _check_named(part: Part, declared: Mapping[str, Part], what: str) -> Iterator[Finding]:
    source = (part.entries or {}).get("source", part)
    if source.text not in declared:
        yield part.finding(f"the {what} {source.text[:60]!r} is not declared at the top")


def _check_networks(part: Part, declared: Mapping[str, Part]) -> Iterator[Finding]:
    named = {item.text: item for item in part.items or ()} | dict(part.entries or {})
    for name, entry in named.items():
        if name not in declared and name != "default":
            yield entry.finding(f"the network {name[:60]!r} is not declared at the top")


def _check_health(part: Part) -> Iterator[Finding]:
    test = (part.entries or {}).get("test")
    if test is None or test.kind is str:
        return
    words = [item.text for item in test.items or ()]
    if not words or words[0] not in ("NONE", "CMD", "CMD-SHELL"):
        yield test.finding("a list must begin with CMD, CMD-SHELL or NONE")
    elif words[0] != "NONE" and len(words) == 1:
        yield test.finding(f"{words[0]} without a command")
    elif words[0] == "CMD-SHELL" and len(words) > 2:  # noqa: PLR2004 - the word and the command
        yield test.finding("CMD-SHELL takes one text; what follows it is dropped")


def _below(part: Part | None, path: tuple[str, ...]) -> Part | None:
    for key in path:
        part = (part.entries or {}).get(key) if part is not None else None
    return part


def _items(entries: Mapping[str, Part], key: str) -> tuple[Part, ...]:
    return (entries[key].items or ()) if key in entries else ()


def _declared(root: Part, key: str) -> Mapping[str, Part]:
    part = (root.entries or {}).get(key)
    return (part.entries or {}) if part is not None else {}
