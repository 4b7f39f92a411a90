"""The keys of a compose file and what each may hold, as far as a guest can make use of them.

Invariant: whatever fits is accepted by compose too; keys that nobody but a swarm or another operating system
reads are not among them.
Source of the rule: the compose specification.
"""

import re
from collections.abc import Mapping

from jobs.deploy.compose.shapes import Keys, Named, Shape, Value
from jobs.deploy.compose.values import (
    ANY,
    BADNESS,
    COMMAND,
    COUNT,
    COUNT_OR_LESS,
    DURATION,
    FLAG,
    NAME,
    NAME_PATTERN,
    NUMBER,
    NUMBERS,
    OPTIONS,
    OWN_NAME,
    PATH,
    PERCENT,
    SERVICE_OF,
    SIZE,
    SWAP,
    TEXT,
    TEXT_OR_TEXTS,
    TEXTS,
    WHOLE,
    assigned,
    each,
    fixed,
    listed,
    one_of,
    refused,
)

__all__ = ["MOUNT", "PORT", "SERVICE_KEYS", "TOP"]

_LABELS = assigned(OWN_NAME)
_DEVICE: Shape = (
    Keys(
        what="a device",
        keys={
            "capabilities": TEXTS,
            "count": fixed("all or a whole number", r"all|\d{1,4}", WHOLE),
            "device_ids": TEXTS,
            "driver": TEXT,
            "options": assigned(OWN_NAME),
        },
        needed=("capabilities",),
    ),
)
_HEALTH: Shape = (
    Keys(
        what="a health check",
        keys={
            "test": COMMAND,
            **each(DURATION, "interval timeout start_period start_interval"),
            "retries": COUNT,
            "disable": FLAG,
        },
    ),
)
_NEED: Shape = (
    Keys(
        what="a dependency",
        keys={
            "condition": one_of("service_started", "service_healthy", "service_completed_successfully"),
            "restart": FLAG,
            "required": FLAG,
        },
        needed=("condition",),
    ),
)
_JOINED: Shape = (
    Keys(
        what="a service's network",
        keys={
            "aliases": TEXTS,
            **each(TEXT, "interface_name ipv4_address ipv6_address mac_address"),
            "link_local_ips": TEXTS,
        },
    ),
    None,
)
_GIVEN: Shape = (
    *NAME,
    Keys(
        what="a secret or configuration of a service",
        keys={
            "source": NAME,
            **each(TEXT, "target uid gid"),
            "mode": fixed("a mode such as 0440", r"0?[0-7]{3}", WHOLE),
        },
        needed=("source",),
    ),
)
_RATES = listed(
    (Keys(what="a rate", keys={"path": TEXT, "rate": SIZE}, needed=("path", "rate")),), is_set=False
)
_BLOCKS: Shape = (
    Keys(
        what="blkio_config",
        keys={
            **each(_RATES, "device_read_bps device_read_iops device_write_bps device_write_iops"),
            "weight": COUNT,
        },
    ),
)
_DEPLOY: Shape = (
    Keys(
        what="deploy",
        keys={
            "replicas": COUNT,
            "labels": _LABELS,
            "resources": (
                Keys(
                    what="resources",
                    keys={
                        "limits": (
                            Keys(what="limits", keys={"cpus": NUMBER, "memory": SIZE, "pids": COUNT}),
                        ),
                        "reservations": (
                            Keys(
                                what="reservations",
                                keys={
                                    "cpus": NUMBER,
                                    "memory": SIZE,
                                    "devices": listed(_DEVICE, is_set=False),
                                },
                            ),
                        ),
                    },
                ),
            ),
            "restart_policy": (
                Keys(
                    what="a restart policy",
                    keys={
                        "condition": one_of("none", "on-failure", "any"),
                        "delay": DURATION,
                        "max_attempts": COUNT,
                        "window": DURATION,
                    },
                ),
            ),
        },
    ),
)

_UNUSABLE: Mapping[str, str] = {
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
    "profiles": "a guest asks for no profile, so the service would never start",
    "use_api_socket": "the engine's own socket would rule the guest: no allowance is that wide",
}
_ELSEWHERE = {
    "file": "the guest has no such file: take it from `environment`",
    "external": "the guest has no such store: take it from `environment`",
}
PORT: Shape = (
    Keys(
        what="a port",
        keys={
            **each(TEXT, "name app_protocol"),
            "target": fixed("a port", r"\d{1,5}", WHOLE),
            "published": fixed("a port or a range", r"\d{1,5}(-\d{1,5})?", WHOLE),
            "host_ip": fixed("an address", r"[0-9a-fA-F.:]+"),
            "protocol": one_of("tcp", "udp"),
            "mode": one_of("host", "ingress"),
        },
        needed=("target",),
    ),
)
MOUNT: Shape = (
    Keys(
        what="a mount",
        keys={
            "type": one_of("volume", "bind", "tmpfs"),
            "source": fixed("a volume or a path", r".+"),
            "target": PATH,
            "read_only": FLAG,
            "consistency": TEXT,
            "bind": (
                Keys(
                    what="bind",
                    keys={
                        "propagation": fixed("a propagation", "r?(private|shared|slave)"),
                        "create_host_path": FLAG,
                        "selinux": one_of("z", "Z"),
                    },
                ),
            ),
            "volume": (Keys(what="volume", keys={"nocopy": FLAG, "subpath": TEXT, "labels": _LABELS}),),
            "tmpfs": (
                Keys(
                    what="tmpfs",
                    keys={"size": SIZE, "mode": fixed("a mode such as 0700", r"0?[0-7]{3,4}", WHOLE)},
                ),
            ),
        },
        needed=("type", "target"),
    ),
)

SERVICE_KEYS: Mapping[str, Shape] = {
    **refused(_UNUSABLE),
    **each(FLAG, "attach init oom_kill_disable privileged read_only stdin_open tty"),
    **each(COUNT, "cpu_count cpu_period cpu_quota cpu_shares scale"),
    **each(SIZE, "mem_limit mem_reservation shm_size"),
    **each(PERCENT, "cpu_percent mem_swappiness"),
    **each(TEXT, "cpuset domainname hostname mac_address stop_signal user working_dir"),
    **each(TEXTS, "cap_add cap_drop device_cgroup_rules dns_opt external_links links security_opt"),
    **each(TEXT_OR_TEXTS, "dns dns_search tmpfs"),
    **each((*COMMAND, None), "command entrypoint"),
    **each(_LABELS, "annotations labels"),
    **each(listed(_GIVEN, is_set=False), "configs secrets"),
    "blkio_config": _BLOCKS,
    "cgroup": one_of("host", "private"),
    "cgroup_parent": TEXT,
    "container_name": fixed("a name of two characters or more", r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"),
    "cpus": NUMBER,
    "depends_on": (*listed(NAME), Named(of=_NEED, names=re.compile(NAME_PATTERN))),
    "deploy": _DEPLOY,
    "devices": listed(
        (
            *TEXT,
            Keys(
                what="a device",
                keys=each(TEXT, "source target permissions"),
                needed=("source",),
            ),
        ),
        is_set=False,
    ),
    "environment": assigned(r"[^=$\s]+"),
    "expose": listed(fixed("a port or a range", r"\d{1,5}(-\d{1,5})?(/(tcp|udp))?", WHOLE)),
    "extra_hosts": (
        *listed((Value(word="HOST=ADDRESS", pattern=re.compile(r"[^=:\s]+[=:].+"), is_fixed=False),)),
        Named(of=TEXT, names=ANY),
    ),
    "gpus": (*fixed("all", "all"), *listed(_DEVICE, is_set=False)),
    "group_add": listed(fixed("a group", r"[a-zA-Z0-9_-]+", WHOLE)),
    "healthcheck": _HEALTH,
    "image": (Value(word="an image", is_fixed=False),),
    "ipc": fixed(
        "none, private, shareable, host or service:NAME",
        f"none|private|shareable|host|{SERVICE_OF}",
    ),
    "logging": (Keys(what="logging", keys={"driver": NAME, "options": OPTIONS}),),
    "memswap_limit": SWAP,
    "network_mode": fixed("none, bridge, host or service:NAME", f"none|bridge|host|{SERVICE_OF}"),
    "networks": (*listed(NAME), Named(of=_JOINED, names=re.compile(NAME_PATTERN))),
    "oom_score_adj": BADNESS,
    "pid": fixed("host or service:NAME", f"host|{SERVICE_OF}"),
    "pids_limit": COUNT_OR_LESS,
    "platform": fixed("a platform such as linux/amd64", r"linux(/[a-z0-9]+(/v\d)?)?"),
    "ports": listed((Value(word="a port", kinds=NUMBERS, is_fixed=True), *PORT), is_set=True),
    "pull_policy": one_of("always", "missing", "if_not_present", "never"),
    "restart": fixed(
        "no, always, unless-stopped or on-failure", r"no|always|unless-stopped|on-failure(:\d{1,4})?"
    ),
    "runtime": TEXT,
    "stop_grace_period": DURATION,
    "storage_opt": OPTIONS,
    "sysctls": _LABELS,
    "ulimits": (
        Named(
            of=(
                *COUNT_OR_LESS,
                Keys(
                    what="a limit",
                    keys=each(COUNT_OR_LESS, "soft hard"),
                    needed=("soft", "hard"),
                ),
            ),
            names=re.compile("[a-z]+"),
        ),
    ),
    "userns_mode": one_of("host"),
    "uts": one_of("host"),
    "volumes": listed((Value(word="NAME:/path", is_fixed=True), *MOUNT)),
}
_VOLUME: Shape = (
    Keys(
        what="a volume",
        keys={
            "name": NAME,
            "driver": one_of("local"),
            "driver_opts": OPTIONS,
            "external": FLAG,
            "labels": _LABELS,
        },
    ),
    None,
)
_NETWORK: Shape = (
    Keys(
        what="a network",
        keys={
            "name": fixed("a name other than the engine's own", rf"(?!(host|none|bridge)$){NAME_PATTERN}"),
            "driver": one_of("bridge"),
            "driver_opts": OPTIONS,
            "ipam": (
                Keys(
                    what="ipam",
                    keys={
                        "driver": one_of("default"),
                        "config": listed(
                            (
                                Keys(
                                    what="a subnet",
                                    keys=each(TEXT, "subnet ip_range gateway"),
                                ),
                            ),
                            is_set=False,
                        ),
                    },
                ),
            ),
            **each(FLAG, "external internal attachable enable_ipv4 enable_ipv6"),
            "labels": _LABELS,
        },
    ),
    None,
)
_VARIABLE = fixed("the name of a variable", r"[a-zA-Z_][a-zA-Z0-9_]*")
_SECRET: Shape = (
    Keys(
        what="a secret",
        keys={**refused(_ELSEWHERE), "environment": _VARIABLE, "name": NAME, "labels": _LABELS},
    ),
)
_CONFIG: Shape = (
    Keys(
        what="a configuration",
        keys={
            **refused(_ELSEWHERE),
            "environment": _VARIABLE,
            "content": TEXT,
            "name": NAME,
            "labels": _LABELS,
        },
    ),
)


def _group(shape: Shape) -> Shape:
    return (Named(of=shape, names=re.compile(NAME_PATTERN)), None)


TOP: Shape = (
    Keys(
        what="a compose file",
        keys={
            "version": (Value(word="text"),),
            "name": fixed("a name of small letters, digits, - and _", r"[a-z0-9][a-z0-9_-]*"),
            "services": _group((Keys(what="a service", keys=SERVICE_KEYS, needed=("image",)),)),
            "volumes": _group(_VOLUME),
            "networks": _group(_NETWORK),
            "secrets": _group(_SECRET),
            "configs": _group(_CONFIG),
        },
    ),
)
