"""What a compose application may name on the local place: its own things, and nothing of the host's."""

from pathlib import Path
from typing import Any

import pytest

from blueprint.tee.sealing import SecretVariable
from jobs.deploy.backends.backend import Placement
from jobs.deploy.backends.local.confinement import confine
from jobs.deploy.backends.local.guest import _make_inside
from jobs.deploy.errors import DeployError

SOCKET = Path("/state/machines/m/agent.sock")
DISK = Path("/state/machines/m/disk")


def confined(
    service: dict[str, Any], *, placement: Placement | None = None, values: tuple[str, ...] = (), **top: Any
) -> tuple[dict[str, Any], frozenset[Path]]:
    """Return the model around one service, and the folders."""
    return confine(
        {"name": "p", "services": {"app": service}, **top},
        project="p",
        agent_socket=SOCKET,
        disk=DISK,
        placement=placement or Placement(),
        variables=[SecretVariable(value.split("=")[0], value.split("=")[1]) for value in values],
    )


def bind(source: str) -> dict[str, Any]:
    """A host mount in its long form."""
    return {"type": "bind", "source": source, "target": "/x", "bind": {"create_host_path": True}}


@pytest.mark.parametrize("source", ["/var/run/dstack.sock", "/run/dstack.sock"])
def test_the_guest_agents_socket_is_the_machines(source: str) -> None:
    """The socket's mount leads to the machine's agent, and is never made as a folder."""
    model, folders = confined({"volumes": [bind(source)]})
    mount = model["services"]["app"]["volumes"][0]
    assert mount["source"] == str(SOCKET)
    assert mount["bind"] == {"create_host_path": False}
    assert folders == frozenset()


@pytest.mark.parametrize(
    ("source", "inside"),
    [
        ("/etc", DISK / "etc"),
        ("/", DISK),
        ("/var/run/docker.sock", DISK / "var/run/docker.sock"),
        (f"{DISK}/own", DISK / "own"),
        ("/state/seed", DISK / "state/seed"),
    ],
)
def test_host_mounts_lie_in_the_machines_folder(source: str, inside: Path) -> None:
    """Whatever path of the host is named, the machine's own disk is mounted."""
    model, folders = confined({"volumes": [bind(source)]})
    assert model["services"]["app"]["volumes"][0]["source"] == str(inside)
    assert folders == {inside}


def test_a_path_with_dots_is_refused() -> None:
    """A path that climbs is not led anywhere."""
    with pytest.raises(DeployError, match=r"'\.\.'"):
        confined({"volumes": [bind(f"{DISK}/../../../seed")]})


def test_names_are_the_projects_own() -> None:
    """Names that a compose file fixes would be shared with others on the engine: they are replaced."""
    model, _ = confined(
        {"container_name": "taken", "volumes": [{"type": "volume", "source": "v", "target": "/v"}]},
        volumes={"v": {"name": "somebody-elses"}},
        networks={"n": {"name": "somebody-elses", "ipam": {}}},
    )
    assert "container_name" not in model["services"]["app"]
    assert model["volumes"]["v"]["name"] == "p_v"
    assert model["networks"]["n"]["name"] == "p_n"


def test_ports_are_on_loopback_and_chosen_by_the_engine() -> None:
    """Two machines may publish the same port, and neither is seen from other computers."""
    model, _ = confined({"ports": [{"target": 80, "published": "8080", "host_ip": "0.0.0.0"}]})
    assert model["services"]["app"]["ports"] == [{"target": 80, "published": "", "host_ip": "127.0.0.1"}]


@pytest.mark.parametrize(
    ("service", "word"),
    [
        ({"provider": {"type": "model"}}, "provider"),
        ({"use_api_socket": True}, "use_api_socket"),
        ({"env_file": ["/etc/passwd"]}, "env_file"),
        ({"label_file": ["/etc/passwd"]}, "label_file"),
        ({"build": {"context": "/"}}, "build"),
        ({"annotations": {"run.oci.hooks.stdout": "/etc/cron.d/x"}}, "annotations"),
        ({"volumes_from": ["container:other"]}, "volumes_from"),
        ({"external_links": ["other"]}, "external_links"),
        ({"credential_spec": {"file": "x"}}, "credential_spec"),
        ({"network_mode": "container:other"}, "network_mode"),
        ({"network_mode": "bridge"}, "network_mode"),
        ({"pid": "container:other"}, "pid"),
        ({"ipc": "container:other"}, "ipc"),
        ({"cgroup_parent": "/other"}, "cgroup_parent"),
    ],
)
def test_what_leaves_the_machine_is_refused(service: dict[str, Any], word: str) -> None:
    """Programs and files of the host, and containers of others, are refused by name."""
    with pytest.raises(DeployError, match=rf"services\.app\.{word}"):
        confined(service)


@pytest.mark.parametrize(
    "top",
    [
        {"volumes": {"v": {"driver_opts": {"type": "none", "o": "bind", "device": "/etc"}}}},
        {"volumes": {"v": {"external": True, "name": "v"}}},
        {"networks": {"n": {"external": True, "name": "n"}}},
        {"networks": {"n": {"driver": "host"}}},
        {"networks": {"n": {"driver_opts": {"com.docker.network.bridge.name": "docker0"}}}},
        {"secrets": {"s": {"file": "/etc/shadow"}}},
        {"configs": {"c": {"environment": "HOME"}}},
    ],
)
def test_a_volume_cannot_mount_the_host(top: dict[str, Any]) -> None:
    """Volumes, networks, configs and secrets that stand for something outside are refused."""
    with pytest.raises(DeployError, match="volumes|networks|secrets|configs"):
        confined({}, **top)


def test_a_link_within_the_disk_is_no_way_either(tmp_path: Path) -> None:
    """A folder behind a link may be another container's to write to: only folders themselves are mounted."""
    disk = tmp_path / "disk"
    _make_inside(disk / "b" / "etc", disk)
    (disk / "a").symlink_to("b")
    for folder in (disk / "a", disk / "a" / "etc", disk / "a" / "new"):
        with pytest.raises(DeployError, match="by a link"):
            _make_inside(folder, disk)
    assert [path.name for path in (disk / "b").iterdir()] == ["etc"]


def test_a_network_takes_no_addresses() -> None:
    """The host would look for whoever else has them in this network: a chain's end point, a resolver."""
    with pytest.raises(DeployError, match="networks: n: addresses"):
        confined({}, networks={"n": {"ipam": {"config": [{"subnet": "8.8.8.0/24"}]}}})
    model, _ = confined({}, networks={"n": {"ipam": {}}})
    assert model["networks"]["n"] == {"ipam": {}, "name": "p_n"}


@pytest.mark.parametrize(
    "log",
    [
        {"driver": "syslog", "options": {"syslog-address": "unix:///var/run/docker.sock"}},
        {"driver": "fluentd", "options": {"fluentd-address": "127.0.0.1:8545"}},
        {"options": {"syslog-address": "tcp://10.0.0.1:25"}},
    ],
)
def test_a_log_stays_with_its_container(log: dict[str, Any]) -> None:
    """The engine sends it from the host's own network, with what the container printed."""
    with pytest.raises(DeployError, match=r"services\.app\.logging: expected one of the drivers json-file"):
        confined({"logging": log})
    kept = {"driver": "json-file", "options": {"max-size": "1m"}}
    assert confined({"logging": kept})[0]["services"]["app"]["logging"] == kept


@pytest.mark.parametrize(("outer", "inner"), [("/data", "/data/sub/etc"), ("/", "/etc"), ("/a", "/a/b")])
def test_no_mount_lies_within_another(outer: str, inner: str) -> None:
    """A container with the outer one could put a link to the host where the other one's is looked for."""
    for sources in ((outer, inner), (inner, outer)):
        with pytest.raises(DeployError, match="is mounted from within"):
            confined({"volumes": [bind(source) for source in sources]})
    assert len(confined({"volumes": [bind("/a"), bind("/ab"), bind("/a")]})[1]) == 2


def test_a_container_ends_before_the_host() -> None:
    """Where memory ends, a container is ended, never the host's own processes in its place."""
    asked = {"oom_score_adj": -1000, "oom_kill_disable": True, "memswap_limit": "-1"}
    service = confined(asked)[0]["services"]["app"]
    assert (service["oom_score_adj"], asked.keys() & service.keys()) == (0, {"oom_score_adj"})
    assert confined({"oom_score_adj": 500})[0]["services"]["app"]["oom_score_adj"] == 500


@pytest.mark.parametrize(("asked", "given"), [(None, 4096), (-1, 4096), (10, 10), (100_000, 4096)])
def test_no_container_fills_the_table_of_processes(asked: int | None, given: int) -> None:
    """A bound of its own stays where it is smaller, in both ways to say it."""
    assert confined({"pids_limit": asked})[0]["services"]["app"]["pids_limit"] == given
    limits = {"resources": {"limits": {"pids": asked}}}
    service = confined({"deploy": limits})[0]["services"]["app"]
    assert service["deploy"]["resources"]["limits"]["pids"] == service["pids_limit"] == given


@pytest.mark.parametrize("many", [{"scale": 65}, {"deploy": {"replicas": 65}}])
def test_an_application_has_a_bounded_number_of_containers(many: dict[str, Any]) -> None:
    """One line could ask for a million."""
    with pytest.raises(DeployError, match="65 containers, at most 64"):
        confined(many)


def test_a_bare_name_is_the_sealed_variable_and_nothing_of_the_host() -> None:
    """A name without a value takes the sealed one, escaped for Compose, or vanishes."""
    model, _ = confined({"environment": {"A": None, "PATH": None, "C": "c"}}, values=("A=x$y",))
    assert model["services"]["app"]["environment"] == {"A": "x$$y", "C": "c"}


@pytest.mark.parametrize(
    ("service", "memory", "cpus"),
    [
        ({}, str(64 * 2**20), 2.0),
        ({"mem_limit": str(32 * 2**20), "cpus": 0.5}, str(32 * 2**20), 0.5),
        ({"mem_limit": str(96 * 2**20), "cpus": 8}, str(64 * 2**20), 2.0),
    ],
)
def test_no_container_has_more_than_the_machine(service: dict[str, Any], memory: str, cpus: float) -> None:
    """The machine's size is each container's limit, and a smaller limit of its own stays."""
    model, _ = confined(service, placement=Placement(memory_mb=64, vcpu=2))
    assert (model["services"]["app"]["mem_limit"], model["services"]["app"]["cpus"]) == (memory, cpus)


def test_both_ways_to_limit_say_the_same() -> None:
    """Compose refuses two limits that differ, so the second is brought into line."""
    limits = {"memory": str(128 * 2**20), "cpus": 4.0}
    model, _ = confined(
        {"deploy": {"resources": {"limits": limits}}}, placement=Placement(memory_mb=64, vcpu=2)
    )
    service = model["services"]["app"]
    assert service["deploy"]["resources"]["limits"] == {"memory": service["mem_limit"], "cpus": 2.0}


def test_the_given_model_is_left_alone() -> None:
    """What Compose resolved is not changed in place."""
    given = {"services": {"app": {"ports": [{"target": 80}]}}}
    confine(given, project="p", agent_socket=SOCKET, disk=DISK, placement=Placement(), variables=())
    assert given == {"services": {"app": {"ports": [{"target": 80}]}}}
