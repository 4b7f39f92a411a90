"""The rules for one service: which keys there are, what form they have, and which of them are risky.

Invariant: a key that is not known here is refused: what we do not understand, we do not deploy.
Source of the rule: the compose specification, chapter Services.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import replace

from jobs.deploy.compose.document import Part
from jobs.deploy.compose.findings import Allowance, Finding
from jobs.deploy.compose.images import check_image
from jobs.deploy.compose.ports import Ports
from jobs.deploy.compose.volumes import check_mount

__all__ = ["check_keys", "check_service", "needed_services"]

_VALUE: frozenset[type] = frozenset({str, int, float, bool})
_LIST: frozenset[type] = frozenset({list})
_MAP: frozenset[type] = frozenset({dict})
_EITHER: frozenset[type] = frozenset({list, dict})
_LINE: frozenset[type] = frozenset({str, list})
_ANY: frozenset[type] = _VALUE | _EITHER | {type(None)}
_FORMS: Mapping[str, frozenset[type]] = {
    **dict.fromkeys(
        (
            "cgroup", "cgroup_parent", "container_name", "cpu_count", "cpu_percent", "cpu_shares", "cpus",
            "cpuset", "domainname", "hostname", "image", "init", "ipc", "mac_address", "mem_limit",
            "mem_reservation",
            "mem_swappiness", "memswap_limit", "network_mode", "oom_kill_disable", "oom_score_adj", "pid",
            "pids_limit", "platform", "privileged", "pull_policy", "read_only", "restart", "runtime", "scale",
            "shm_size", "stdin_open", "stop_grace_period", "stop_signal", "tty", "user", "userns_mode", "uts",
            "working_dir",
        ),
        _VALUE,
    ),
    **dict.fromkeys(
        (
            "cap_add", "cap_drop", "configs", "device_cgroup_rules", "devices", "dns_opt", "expose",
            "external_links", "group_add", "links", "ports", "profiles", "secrets", "security_opt", "volumes",
        ),
        _LIST,
    ),
    **dict.fromkeys(("blkio_config", "deploy", "healthcheck", "logging", "ulimits"), _MAP),
    **dict.fromkeys(
        ("annotations", "depends_on", "environment", "extra_hosts", "labels", "networks", "sysctls"), _EITHER
    ),
    **dict.fromkeys(("dns", "dns_search", "tmpfs"), _LINE),
    **dict.fromkeys(("command", "entrypoint"), _LINE | {type(None)}),
    **dict.fromkeys(("gpus",), _ANY),
}  # fmt: skip
_REFUSED: Mapping[str, str] = {
    "build": "the guest builds nothing: push the image to a registry, and name it with image",
    "env_file": "the guest has no such file: name each variable under environment, and seal its value",
    "extends": "another file does not come along, and is not measured: write the service out",
    "develop": "there is nothing to watch in a guest",
    "credential_spec": "of another operating system",
    "isolation": "of another operating system",
    "volumes_from": "name the volumes of both services instead",
    "label_file": "the guest has no such file: write labels out",
    "provider": "a program on the machine that deploys is not measured",
    "models": "the guest has no runner of models",
    "post_start": "a hook is not supported by all engines: put it into the image",
    "pre_stop": "a hook is not supported by all engines: put it into the image",
}
_RISKS: Mapping[str, tuple[Allowance, str]] = {
    "cap_add": (Allowance.CAPABILITIES, "rights that a container does not have by default"),
    "devices": (Allowance.DEVICES, "devices of the guest"),
    "device_cgroup_rules": (Allowance.DEVICES, "devices of the guest"),
    "gpus": (Allowance.DEVICES, "devices of the guest"),
    "security_opt": (Allowance.SECURITY_OPTIONS, "another confinement than the engine's own"),
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
_HEALTH = {"test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"}
_CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")


def check_keys(part: Part, known: Mapping[str, object] | frozenset[str], what: str) -> Iterator[Finding]:
    """Yield the keys of a mapping that are not known; those that begin with ``x-`` are the user's own."""
    for name, entry in (part.entries or {}).items():
        if name not in known and not name.startswith("x-"):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield entry.finding(f"{what} has no key {name[:40]!r}{hint}")


def check_service(name: str, part: Part, root: Part, ports: Ports) -> Iterator[Finding]:
    """Yield what is wrong with one service."""
    if part.entries is None:
        yield part.finding(f"expected a mapping, received {part.word}")
        return
    known = {**_FORMS, **_REFUSED}
    yield from check_keys(part, known, "a service")
    entries = part.entries
    for key in entries.keys() & _REFUSED.keys():
        yield entries[key].finding(_REFUSED[key])
    if "image" not in entries and "build" not in entries:
        yield part.finding("an image is missing")
    sound = {}
    for key in entries.keys() & _FORMS.keys():
        if entries[key].kind in _FORMS[key]:
            sound[key] = entries[key]
        else:
            yield entries[key].finding(f"{entries[key].word} where {_expected(_FORMS[key])} is expected")
    yield from _check_risks(sound)
    yield from _check_parts(name, sound, root, ports)


def _check_risks(entries: Mapping[str, Part]) -> Iterator[Finding]:
    for key in entries.keys() & _RISKS.keys():
        allowance, what = _RISKS[key]
        yield replace(entries[key].finding(f"gives the container {what}"), allowance=allowance)
    if (privileged := entries.get("privileged")) is not None:
        if privileged.is_true:
            finding = privileged.finding("gives the container every right over the guest")
            yield replace(finding, allowance=Allowance.PRIVILEGED)
        elif privileged.kind is not bool:
            yield privileged.finding("expected true or false")
    for key, allowance in _HOST.items():
        if (entry := entries.get(key)) is not None and entry.text == "host":
            yield replace(entry.finding("the guest's own, not the container's"), allowance=allowance)


def _check_parts(name: str, entries: Mapping[str, Part], root: Part, ports: Ports) -> Iterator[Finding]:
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
    if "depends_on" in entries:
        yield from _check_needs(entries["depends_on"], _declared(root, "services"))
    if "environment" in entries:
        yield from _check_environment(entries["environment"])


def needed_services(part: Part) -> Iterator[str]:
    """Yield the services that one depends on."""
    needs = (part.entries or {}).get("depends_on")
    if needs is not None:
        yield from needs.entries or ()
        yield from (item.text for item in needs.items or ())


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
    yield from check_keys(part, frozenset(_HEALTH), "a health check")
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


def _check_needs(part: Part, services: Mapping[str, Part]) -> Iterator[Finding]:
    for item in part.items or ():
        if item.text not in services:
            yield item.finding(f"there is no service {item.text[:60]!r}")
    for name, entry in (part.entries or {}).items():
        if name not in services:
            yield entry.finding(f"there is no service {name[:60]!r}")
        condition = (entry.entries or {}).get("condition")
        if condition is not None and condition.text not in _CONDITIONS:
            yield condition.finding(f"expected one of {', '.join(_CONDITIONS)}")


def _check_environment(part: Part) -> Iterator[Finding]:
    for item in part.items or ():
        if item.kind is not str:
            yield item.finding(f"expected NAME or NAME=value, received {item.word}")
    for name, entry in (part.entries or {}).items():
        if entry.kind in (dict, list):
            yield entry.finding(f"the variable {name[:60]} is {entry.word}; expected a single value")


def _items(entries: Mapping[str, Part], key: str) -> tuple[Part, ...]:
    return (entries[key].items or ()) if key in entries else ()


def _declared(root: Part, key: str) -> Mapping[str, Part]:
    part = (root.entries or {}).get(key)
    return (part.entries or {}) if part is not None else {}


def _expected(kinds: frozenset[type]) -> str:
    if kinds == _EITHER:
        return "a list or a mapping"
    if list in kinds:
        return "a text or a list" if str in kinds else "a list"
    return "a mapping" if dict in kinds else "a single value"
