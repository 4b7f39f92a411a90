"""A compose file is read strictly: every fault is found, with its line, before anything is sent."""

import re
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.deploy.compose.check import check_compose
from jobs.deploy.compose.findings import Allowance, ComposeError
from jobs.deploy.compose.references import Reference, ReferenceSyntaxError, references_in

DIGEST = "sha256:" + "ab" * 32
SOUND = f"""\
services:
  web:
    image: docker.io/library/nginx@{DIGEST}
    ports: ["8080:80", 127.0.0.1:9090:90/udp]
    environment:
      GREETING: ${{GREETING}}
      LEVEL: ${{LEVEL:-info}}
    depends_on:
      setup: {{condition: service_completed_successfully}}
      store: {{condition: service_healthy}}
    volumes: [data:/data, {{type: tmpfs, target: /run}}]
    restart: unless-stopped
  store:
    image: registry.example:5000/a/b:1.2@{DIGEST}
    healthcheck: {{test: [CMD, "true"], interval: 5s}}
    environment: [TOKEN, "PRICE=$$5"]
  setup:
    image: a@{DIGEST}
volumes:
  data:
x-notes: anything
"""


def service(lines: str, top: str = "") -> str:
    """A file with one service that has more lines."""
    return f"services:\n  web:\n    image: a@{DIGEST}\n    {lines}\n{top}"


def findings(text: str, **options: object) -> list[str]:
    """What is wrong with a text, a line each."""
    with pytest.raises(ComposeError) as caught:
        check_compose(text, **options)  # type: ignore[arg-type]
    return [str(finding) for finding in caught.value.findings]


def test_a_sound_file_is_accepted_and_kept() -> None:
    """Services, images, volumes and one-shots are told; the text stays as it is."""
    compose = check_compose(SOUND, names=["GREETING", "TOKEN"])
    assert compose.text == SOUND
    assert compose.services == ("web", "store", "setup")
    assert (compose.volumes, compose.one_shots, compose.allowed) == (("data",), ("setup",), frozenset())


FAULTS = [
    ("", "expected a mapping with the key services"),
    ("- a\n", "expected a mapping with the key services"),
    ("services: {}\n", "line 1: there are no services"),
    ("services:\n  web: [a]\n", "line 2: services.web: expected a mapping, received a list"),
    ("services:\n\tweb: {}\n", "line 2: a tab, where YAML accepts spaces only"),
    ("services: {web: {image: 'a\n", "line 2: the text is no YAML"),
    ("services: {}\n---\nservices: {}\n", "line 2: a second document begins"),
    ("services:\n  web: {}\n  web: {}\n", "line 3: services: the key 'web' comes twice"),
    ("services: !!python/object:os.system {}\n", "the tag tag:yaml.org,2002:python"),
    ("? [a]\n: b\n", "line 1: a key must be text"),
    ("service:\n  web: {}\n", "a compose file has no key 'service'; did you mean services?"),
    ("[" * 40, "line 1: nested deeper than 32 levels"),
    (service("a: &a [*a]"), "nested deeper than 32 levels, or containing itself"),
    (service("imag: b"), "line 4: services.web.imag: a service has no key 'imag'; did you mean image?"),
    ("services:\n  web: {restart: always}\n", "line 2: services.web: a service needs the key image"),
    ("services:\n  web: {build: .}\n", "line 2: services.web.build: the guest builds nothing"),
    (service("env_file: .env"), "line 4: services.web.env_file: the guest has no such file"),
    (service("ports: 80"), "line 4: services.web.ports: expected a list, received a whole number"),
    (service("ports: ['http']"), "line 4: services.web.ports[0]: 'http' is no port"),
    (service("ports: ['0:80']"), "ports lie between 1 and 65535"),
    (service("ports: ['80:70000']"), "ports lie between 1 and 65535"),
    (service("ports: ['8000-8001:80-82']"), "both ranges must hold equally many"),
    (service("ports: ['80:80', '80:81']"), "port 80/tcp is published by web already"),
    (service("ports: [{published: 80}]"), "a port needs the key target"),
    (service("volumes: ['data:/data']"), "the volume 'data' is not declared"),
    (service("volumes: ['./data:/data']"), "the guest has no folder beside this file"),
    (service("volumes: ['data:data']", "volumes: {data: }\n"), "must begin with /"),
    (service("volumes: ['a:/a']", "volumes: {a: {external: true}}\n"), "no volumes from elsewhere"),
    (service("secrets: [key]"), "the secret 'key' is not declared"),
    (service("secrets: [k]", "secrets: {k: {file: ./k}}\n"), "line 5: secrets.k.file: the guest has no such"),
    (service("networks: [back]"), "the network 'back' is not declared"),
    (service("depends_on: [db]"), "there is no service 'db'"),
    (service("depends_on: [web]"), "wait for one another in a circle: web"),
    (service("healthcheck: {test: [curl, x]}"), "a list must begin with CMD, CMD-SHELL or NONE"),
    (service("healthcheck: {tset: x}"), "a health check has no key 'tset'; did you mean test?"),
    (
        service("environment: {A: [b]}"),
        "line 4: services.web.environment.A: expected a single value or nothing, received a list",
    ),
    (service("command: echo $!"), "line 4: services.web.command: a `$` that begins no reference"),
    (service("command: echo ${A"), "`${` is not closed"),
    (service("command: echo ${1}"), "not followed by a name"),
    ("services: {web: {image: 'a b'}}\n", "'a b' is no image"),
    ("services: {web: {image: nginx}}\n", "nginx has neither tag nor digest"),
    ("services: {web: {image: '${IMAGE}'}}\n", "an image is measured, so it cannot come from a variable"),
    (service("init: ${INIT}"), "line 4: services.web.init: expected true or false, received text"),
    (service("mem_limit: ${M:-5m}"), "expected a size such as 512m, written out: it cannot come from a"),
    (service("cpus: many"), "expected a number, received 'many'"),
    (
        service("stop_grace_period: 5"),
        "expected a time such as 1m30s, received a whole number: put it in quotes",
    ),
    (service("restart: no"), "received true or false: put it in quotes"),
    (
        service("command: [sleep, 5]"),
        "line 4: services.web.command[1]: expected text, received a whole number",
    ),
    (service("command: [sleep, 1e5]"), "services.web.command[1]: expected text, received a number"),
    (service("environment: {on: x}"), "line 4: services.web.environment: a key must be text"),
    (service("environment: {DAY: 2024-02-29}"), "timestamp is not accepted; if it is text, put it in quotes"),
    (service('command: "a\\0b"'), "line 4: services.web.command: a sign that no text can hold"),
    (service("labels: {com.docker.compose.project: x}"), "is no name that it may have"),
    (service("labels: ['${A:-com.docker.compose.project}=x']"), "expected NAME or NAME=value"),
    (service("profiles: [debug]"), "a guest asks for no profile, so the service would never start"),
    (service("links: [db]"), "there is no service 'db'"),
    (service("network_mode: service:db"), "there is no service 'db'"),
    (service("ipc: service:web"), "wait for one another in a circle: web"),
    (service("depends_on: {web: {}}"), "a dependency needs the key condition"),
    (service("cap_drop: [ALL, ALL]"), "line 4: services.web.cap_drop[1]: 'ALL' comes twice"),
    (service("network_mode: none\n    networks: [default]"), "keep one of"),
    (service("scale: 2\n    deploy: {replicas: 3}"), "deploy.replicas says this too: keep one of them"),
    (service("scale: 2\n    container_name: one"), "2 containers cannot have one name"),
    (service("ports: ['999.1.1.1:80:80']"), "is no port"),
    (service("volumes: ['data:/x:rx']", "volumes: {data: }\n"), "'data:/x:rx' is no mount"),
    (
        service("init: true", "configs: {a: {content: x, environment: A}}\n"),
        "expected one of content, environm",
    ),
    (service("init: true", "volumes: {'a b': }\n"), "'a b' is no name that it may have"),
    (service("<<: {init: true}\n    <<: {tty: true}"), "`<<` comes twice: give it a list"),
    ("%YAML 1.1\n---\nservices: {}\n", "directives are not accepted"),
    (service("command: x # " + "y" * 205_000), "at most 204800 are accepted"),
]


@pytest.mark.parametrize(("text", "expected"), FAULTS)
def test_every_fault_is_named_with_its_line(text: str, expected: str) -> None:
    """One fault, one finding that says where and what."""
    assert any(expected in finding for finding in findings(text)), findings(text)


def test_all_faults_are_told_at_once_in_their_order() -> None:
    """Nobody has to mend one to learn of the next."""
    text = "services:\n  web:\n    imag: a\n    ports: [x]\n  db: {image: b}\n"
    assert [re.match(r"line (\d+)", each)[1] for each in findings(text)] == ["3", "3", "4", "5"]  # type: ignore[index]


RISKS = [
    ("privileged: true", Allowance.PRIVILEGED),
    ("volumes: ['/var/run/dstack.sock:/var/run/dstack.sock']", Allowance.HOST_MOUNT),
    ("volumes: [{type: bind, source: /etc, target: /etc}]", Allowance.HOST_MOUNT),
    ("network_mode: host", Allowance.HOST_NETWORK),
    ("pid: host", Allowance.HOST_NAMESPACE),
    ("cap_add: [SYS_ADMIN]", Allowance.CAPABILITIES),
    ("devices: ['/dev/tdx_guest:/dev/tdx_guest']", Allowance.DEVICES),
    ("security_opt: ['seccomp:unconfined']", Allowance.SECURITY_OPTIONS),
    ("sysctls: {net.core.somaxconn: 5}", Allowance.SECURITY_OPTIONS),
    ("gpus: all", Allowance.DEVICES),
    ("deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}", Allowance.DEVICES),
    ("volumes: [/data]", Allowance.ANONYMOUS_VOLUME),
]


@pytest.mark.parametrize(("line", "allowance"), RISKS)
def test_a_risk_is_taken_by_name_only(line: str, allowance: Allowance) -> None:
    """It is refused with the allowance that it needs, also when all others are given, and then accepted."""
    others = set(Allowance) - {allowance}
    assert [f"--allow {allowance}" in each for each in findings(service(line), allow=others)] == [True]
    assert check_compose(service(line), allow=[allowance]).allowed == {allowance}


@pytest.mark.parametrize("key", ["network_mode", "pid", "ipc", "uts", "userns_mode", "cgroup", "privileged"])
def test_a_risk_cannot_hide_in_a_reference(key: str) -> None:
    """What decides what a container may do is written out: a default or a sealed value could say `host`."""
    for value in ("${MODE:-host}", "${MODE}", "ho${MODE:-}st"):
        assert f"services.web.{key}: expected" in findings(service(f"{key}: {value}"), names=["MODE"])[0]


def test_a_network_of_the_guest_cannot_be_joined_by_another_name() -> None:
    """Neither by a spelling of true that only compose knows, nor by the name that the engine gives it."""
    for said in ("external: true", "external: 'true'", "external: y", "external: '${E:-true}'", "name: host"):
        text = service("networks: [a]", f"networks: {{a: {{{said}}}}}\n")
        assert findings(text, allow=set(Allowance)), said
    assert "expected true or false, received a mapping" in "".join(
        findings(service("networks: [a]", "networks: {a: {external: {name: host}}}\n"), allow=set(Allowance))
    )
    text = service("networks: [a]", "networks: {a: {driver_opts: {parent: eth0}}}\n")
    assert check_compose(text, allow=[Allowance.HOST_NETWORK]).allowed == {Allowance.HOST_NETWORK}


def test_a_volume_is_not_taken_for_a_drive() -> None:
    """`c:/etc:/x` mounts the volume `c` to some, and the folder `c:/etc` to compose: it is refused."""
    text = service("volumes: ['c:/etc:/x']", "volumes: {c: }\n")
    assert findings(text)[0].startswith("line 4: services.web.volumes[0]: 'c:/etc:/x' is no mount")
    text = service("volumes: ['c:/x']", "volumes: {c: }\n")
    assert findings(text) == [
        "line 4: services.web.volumes[0]: compose takes c: for a drive; give the volume a longer name"
    ]


def test_a_container_of_somebody_else_cannot_be_joined() -> None:
    """No allowance is for that: what runs beside the application is not the application's."""
    for key in ("network_mode", "pid", "ipc"):
        assert findings(service(f"{key}: container:other"), allow=set(Allowance)), key


def test_a_security_option_that_only_takes_away_is_no_risk() -> None:
    """Whoever gives up more rights needs no leave."""
    assert check_compose(service("security_opt: ['no-new-privileges:true']")).allowed == frozenset()


def test_a_value_of_a_variable_is_in_no_finding() -> None:
    """Also where the line that holds it is wrong."""
    for line in ("environment: ['A B=s3cret']", "environment: ['=s3cret']", "environment: {A: {b: s3cret}}"):
        assert "s3cret" not in "".join(findings(service(line))), line


def test_an_image_by_tag_is_a_risk() -> None:
    """A tag can be moved: what runs is then not what was measured."""
    text = "services: {web: {image: 'nginx:1.25'}}\n"
    assert "--allow tag" in findings(text)[0]
    assert check_compose(text, allow=[Allowance.TAG]).images == ("nginx:1.25",)


def test_a_variable_that_nothing_provides_is_refused() -> None:
    """A reference without a default must be sealed; the guest would put nothing in its place."""
    assert (
        "line 4: services.web.command: nothing provides TOKEN" in findings(service("command: a ${TOKEN}"))[0]
    )
    assert "nothing provides TOKEN" in findings(service("environment: [TOKEN]"))[0]
    assert "nothing provides TOKEN" in findings(service("environment: {TOKEN: }"))[0]
    assert "nothing provides TOKEN" in findings(service("command: ${A:-${TOKEN}}"))[0]
    for kind in ("secrets", "configs"):
        text = service("init: true", f"{kind}: {{a: {{environment: TOKEN}}}}\n")
        assert "nothing provides TOKEN" in findings(text)[0]
        assert check_compose(text, names=["TOKEN"]).services
    assert check_compose(service("command: ${TOKEN:-none} ${OTHER+x}")).services


def test_a_variable_that_no_service_uses_is_refused() -> None:
    """A sealed variable reaches a container only through a reference: without one it would vanish."""
    assert findings(service("command: x"), names=["TOKEN"]) == [
        "no service uses TOKEN: add ${TOKEN} where it is wanted"
    ]
    assert findings(service("command: a $$TOKEN # ${TOKEN}"), names=["TOKEN"])
    assert check_compose(service("command: x"), names=["TOKEN"], script="echo $TOKEN").services


def test_a_variable_that_steers_compose_is_refused() -> None:
    """A sealed variable reaches compose itself, which obeys some of them."""
    for name in ("COMPOSE_FILE", "DOCKER_HOST"):
        found = findings(service(f"command: ${{{name}}}"), names=[name])
        assert found == [f"{name} would steer compose itself: choose another name"]


def test_merged_mappings_are_read_as_they_work() -> None:
    """Anchors and `<<` count where they are used; what stands in a service itself comes first."""
    text = (
        f"x-base: &base\n  image: a@{DIGEST}\n  privileged: true\n"
        "services:\n  web:\n    <<: *base\n    privileged: false\n  db:\n    <<: *base\n"
    )
    assert [each.partition(": gives")[0] for each in findings(text)] == ["line 3: services.db.privileged"]


def test_bombs_of_aliases_are_bounded() -> None:
    """Nine lines that mean a thousand million parts are refused at once; so are merges of merges."""
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "aliases make more than 20000 parts" in findings("\n".join(lines))[0]
    merges = ["a0: &a0 {x: 1}"] + [
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 10)
    ]
    assert "aliases make more than 20000 parts" in findings("\n".join(merges))[0]


def test_large_ranges_of_ports_take_no_time() -> None:
    """A range is bounded: five thousand of sixty thousand ports each would keep a node busy for minutes."""
    ranges = "".join(f"      - '{low}-{low + 60_000}:{low}-{low + 60_000}'\n" for low in range(1, 5_001))
    found = findings(service(f"ports:\n{ranges}"))
    assert len(found) == 500
    assert "a range holds at most 1000" in found[0]
    assert check_compose(service("ports: ['8000-8999:8000-8999']")).services == ("web",)


def test_a_text_of_nothing_but_faults_is_not_read_to_its_end() -> None:
    """Some hundreds are enough to refuse it; risks that are allowed do not count, and hide no fault."""
    many = "".join(f"    reable{number:04}: 1\n" for number in range(9000))
    with pytest.raises(ComposeError) as caught:
        check_compose(f"services:\n  web:\n    image: a:1\n{many}", allow=[Allowance.TAG])
    assert len(caught.value.findings) == 500
    tags = "".join(f"  s{number}: {{image: 'a:1'}}\n" for number in range(3000))
    with pytest.raises(ComposeError) as caught:
        check_compose(f"services:\n{tags}  last: {{image: 'a:1', privileged: true}}\n", allow=[Allowance.TAG])
    assert [finding.allowance for finding in caught.value.findings] == [Allowance.PRIVILEGED]


def test_an_error_with_many_findings_stays_short() -> None:
    """It may be told in a transaction; the findings themselves are all there."""
    keys = "".join(f"    k{number}: 1\n" for number in range(400))
    with pytest.raises(ComposeError) as caught:
        check_compose(service("init: true") + keys)
    assert len(caught.value.findings) == 400
    assert str(caught.value).endswith("\nand 350 more")
    assert len(str(caught.value)) < 10_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A-${B}", [Reference("A", is_needed=True), Reference("B", is_needed=True)]),
        ("$$A $${B} $$$C", [Reference("C", is_needed=True)]),
        ("${A:-x} ${B-}", [Reference("A", is_needed=False), Reference("B", is_needed=False)]),
        ("${A:?why ${B}}", [Reference("A", is_needed=True)]),
        (
            "${A:-${B:-${C}}}",
            [
                Reference("A", is_needed=False),
                Reference("B", is_needed=False),
                Reference("C", is_needed=True),
            ],
        ),
        ("no reference", []),
    ],
)
def test_references_are_found_as_compose_finds_them(text: str, expected: list[Reference]) -> None:
    """Every form of a reference, and a doubled dollar sign, which is none."""
    assert list(references_in(text)) == expected


@pytest.mark.parametrize(
    "text", ["$", "a$", "$1", "${", "${}", "${A", "${A!b}", "${A:-${}}", "${A:-" * 20 + "}" * 20]
)
def test_references_that_compose_refuses_are_refused(text: str) -> None:
    """A dollar sign that begins nothing is an error, not text."""
    with pytest.raises(ReferenceSyntaxError):
        list(references_in(text))


@given(st.text(alphabet="services:\n web{}[]image&*<-|>'\"\t#$!?,%@`\\0a", max_size=200))
@settings(max_examples=300, deadline=None)
def test_whatever_is_written_is_accepted_or_refused(text: str) -> None:
    """No text leads to anything but a result or findings."""
    with suppress(ComposeError):
        assert check_compose(text).services
