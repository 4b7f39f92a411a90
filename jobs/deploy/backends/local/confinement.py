"""Keeps a compose application inside its machine, although it runs on the engine of this host.

Invariant: what a confined model names is the machine's own: its volumes, networks and containers carry the
project's name, its files lie in the machine's folder, its ports are on loopback. What would reach the host by
a name or a file, and cannot be moved into the machine, is refused.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path, PurePosixPath
from typing import Any, Final

from blueprint.tee.sealing import SecretVariable
from jobs.deploy.backends.backend import Placement
from jobs.deploy.errors import DeployError

__all__ = ["confine"]

_AGENT_SOCKETS: Final = frozenset({"/var/run/dstack.sock", "/run/dstack.sock"})
_FOREIGN: Final = (
    *("annotations", "build", "credential_spec", "env_file", "external_links", "label_file", "provider"),
    *("use_api_socket", "volumes_from"),
)
_SHARED: Final = ("cgroup_parent", "ipc", "network_mode", "pid")
_LOGS: Final = frozenset({"json-file", "local", "none"})
"""Drivers that keep a log with the container; others send it from the host's own network and files."""
_MOST_CONTAINERS: Final = 64
_MOST_TASKS: Final = 4096
"""Of one container."""
_MIB = 1024 * 1024
_Model = dict[str, Any]


def confine(
    model: Mapping[str, Any],
    *,
    project: str,
    agent_socket: Path,
    disk: Path,
    placement: Placement,
    variables: Sequence[SecretVariable],
) -> tuple[_Model, frozenset[Path]]:
    """Return the model as it may run here, and the folders that its mounts need.

    Args:
        model: as Compose resolved it, with long forms.
        project: the Compose project.
        agent_socket: stands for the guest agent's socket.
        disk: stands for the guest's own file system: a mount of ``/x`` becomes one of ``disk/x``.
        placement: CPUs and memory become limits of each container.
        variables: what a bare name under ``environment`` stands for.

    Raises:
        DeployError: a volume or a network is not the machine's own.
    """
    confined: _Model = deepcopy(dict(model))
    folders: set[Path] = set()
    values = {variable.key: variable.value.replace("$", "$$") for variable in variables}
    for kind in ("volumes", "networks"):
        for key, entry in (confined.get(kind) or {}).items():
            _own(kind, key, entry, project)
    for kind in ("configs", "secrets"):
        for key, entry in (confined.get(kind) or {}).items():
            if not {"content"} & entry.keys():
                raise DeployError(f"{kind}: {key}: only an inline 'content' exists inside a machine")
    for name, service in confined["services"].items():
        _refuse_foreign(name, service)
        _rename(service, values)
        for mount in service.get("volumes") or ():
            if mount["type"] == "bind":
                folders |= _moved(mount, agent_socket, disk)
        _limit(service, placement)
        _limit_tasks(service)
    if (number := sum(map(_copies, confined["services"].values()))) > _MOST_CONTAINERS:
        raise DeployError(f"services: {number} containers, at most {_MOST_CONTAINERS} are possible here")
    _check_nesting(folders)
    return confined, frozenset(folders)


def _rename(service: _Model, values: Mapping[str, str]) -> None:
    """Take away what a service would be known by outside, and give it its variables."""
    service.pop("container_name", None)
    service["environment"] = {
        key: values[key] if value is None else value
        for key, value in (service.get("environment") or {}).items()
        if value is not None or key in values
    }
    for port in service.get("ports") or ():
        # As behind a gateway: the engine chooses the port, so that machines do not compete for one.
        port.update(host_ip="127.0.0.1", published="")


def _refuse_foreign(name: str, service: _Model) -> None:
    # SECURITY: each of these reads a file of the host, runs a program of it, or enters a container of
    # somebody else (test_what_leaves_the_machine_is_refused).
    for key in _FOREIGN:
        if service.get(key):
            raise DeployError(f"services.{name}.{key}: there is no such thing inside a machine")
    for key in _SHARED:
        word = str(service.get(key) or "")
        # `bridge` is the one network that all containers of the engine may share.
        if (key == "cgroup_parent" and word) or word.startswith("container:") or word == "bridge":
            raise DeployError(f"services.{name}.{key}: {word!r} is not the application's own")
    # SECURITY: the engine would speak to services of this host (test_a_log_stays_with_its_container).
    if (log := service.get("logging")) and log.get("driver") not in _LOGS:
        shown = ", ".join(sorted(_LOGS))
        raise DeployError(f"services.{name}.logging: expected one of the drivers {shown} by name")


def _own(kind: str, key: str, entry: _Model, project: str) -> None:
    if entry.get("external"):
        raise DeployError(
            f"{kind}: {key} is external: nothing exists outside the application", advice="declare it here"
        )
    # SECURITY: a volume's options can mount the host's folders (test_a_volume_cannot_mount_the_host).
    if entry.get("driver_opts"):
        raise DeployError(f"{kind}: {key}: driver options are not possible here", advice="leave them out")
    # SECURITY: the host would look for others' addresses in this network (test_a_network_takes_no_addresses).
    if (entry.get("ipam") or {}).get("config"):
        raise DeployError(f"{kind}: {key}: addresses are chosen by the engine here", advice="leave out ipam")
    if kind == "networks" and entry.get("driver", "bridge") not in {"bridge", ""}:
        raise DeployError(f"networks: {key}: only the driver 'bridge' is possible here")
    entry["name"] = f"{project}_{key}"


def _moved(mount: _Model, agent_socket: Path, disk: Path) -> set[Path]:
    """Lead a bind mount to the agent's socket or into the machine's disk; return the folder that it needs."""
    source = PurePosixPath(mount["source"])
    if str(source) in _AGENT_SOCKETS:
        mount["source"] = str(agent_socket)
        mount["bind"] = {"create_host_path": False}
        return set()
    # SECURITY: the host's files are not the machine's (test_a_host_mount_shows_the_machines_own_disk).
    if ".." in source.parts:
        raise DeployError(f"volumes: {source}: a path with '..'", advice="write the path itself")
    inside = source if source.is_relative_to(disk) else disk / source.relative_to("/")
    mount["source"] = str(inside)
    return {Path(inside)}


def _check_nesting(folders: set[Path]) -> None:
    # SECURITY: who can write to the outer one could put a link to the host in the inner one's place, once it
    # was looked at (test_no_mount_lies_within_another).
    for folder in folders:
        for parent in folder.parents:
            if parent in folders:
                raise DeployError(
                    f"volumes: {folder.name} is mounted from within {parent.name}, which is mounted too",
                    advice="mount one of them, or give each a folder of its own",
                )


def _limit(service: _Model, placement: Placement) -> None:
    """Let no container have more than the whole machine would."""
    limits = ((service.get("deploy") or {}).get("resources") or {}).get("limits") or {}
    if placement.memory_mb:
        most = placement.memory_mb * _MIB
        asked = int(limits.get("memory") or service.get("mem_limit") or most)
        service["mem_limit"] = str(min(asked, most))
        if "memory" in limits:
            limits["memory"] = service["mem_limit"]
    if placement.vcpu:
        cpus = min(float(limits.get("cpus") or service.get("cpus") or placement.vcpu), placement.vcpu)
        service["cpus"] = cpus
        if "cpus" in limits:
            limits["cpus"] = cpus


def _limit_tasks(service: _Model) -> None:
    """Let a container neither fill the table of processes nor outlive the host's own when memory ends."""
    limits = ((service.get("deploy") or {}).get("resources") or {}).get("limits") or {}
    asked = int(limits.get("pids") or service.get("pids_limit") or 0)
    service["pids_limit"] = asked if 0 < asked < _MOST_TASKS else _MOST_TASKS
    if "pids" in limits:
        limits["pids"] = service["pids_limit"]
    # SECURITY: the host's processes would end in its place (test_a_container_ends_before_the_host).
    service["oom_score_adj"] = max(0, int(service.get("oom_score_adj") or 0))
    for key in ("oom_kill_disable", "memswap_limit"):
        service.pop(key, None)


def _copies(service: _Model) -> int:
    stated = service.get("scale"), (service.get("deploy") or {}).get("replicas")
    return next((int(number) for number in stated if number is not None), 1)
