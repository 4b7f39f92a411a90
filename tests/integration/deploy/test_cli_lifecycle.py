"""``blueprint deploy`` on deployments that exist: looked at, changed, verified, deleted."""

import asyncio
import hashlib
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from blueprint.cli.exits import ExitCode
from blueprint.tee.sealing import SecretVariable
from blueprint.testing.cloud import FakeCloud, Fault
from jobs.deploy.application import Application
from jobs.deploy.backends.backend import Placement
from jobs.deploy.backends.local.private_engine import PrivateEngine
from jobs.deploy.compose.findings import Allowance
from jobs.deploy.evidence import evidence_document
from tests.support.cloud_service import service_at
from tests.support.deploy_cli import Operator
from tests.support.docker import compose, local

SECRET = "planted secret \u00e9"
COMPOSE = """services:
  web:
    image: nginx:1.25
    environment:
      TOKEN: ${TOKEN}
      COLOR: ${COLOR:-blue}
  worker:
    image: nginx:1.25
"""


@pytest.fixture
async def operator(cloud: FakeCloud, tmp_path: Path) -> Operator:
    """Somebody who has deployed an application with two services to the fake cloud."""
    made = Operator(
        tmp_path,
        settings={
            "BLUEPRINT_CLOUD_URL": cloud.url,
            "BLUEPRINT_CLOUD_API_KEY": cloud.api_key,
            "BLUEPRINT_PCCS_URL": "http://127.0.0.1:9",
        },
        planted=(SECRET, cloud.api_key),
    )
    made.write("vars", f"TOKEN='{SECRET}'\n")
    application = Application(
        name="web-app",
        compose=COMPOSE,
        allow=frozenset({Allowance.TAG}),
        public_logs=True,
        placement=Placement(instance_type="tdx.small", disk_gb=40),
    )
    wanted, _ = application.checked(("TOKEN",))
    async with service_at(cloud, tmp_path / "state") as service:
        await service.up(wanted, [SecretVariable("TOKEN", SECRET)], is_verified=False)
    return made


def values(cloud: FakeCloud) -> list[dict[str, str]]:
    """What reached each machine's guest."""
    return [
        {each.key: each.value for each in machine.guest.variables}
        for machine in cloud.machines
        if machine.guest
    ]


async def test_a_list_shows_records_and_with_a_place_what_has_none(
    operator: Operator, cloud: FakeCloud, tmp_path: Path
) -> None:
    """Without a place nothing is asked; with one, replicas and machines of strangers are told apart."""
    before = len(cloud.requests)
    alone = await operator.run("list")
    assert (alone.code, len(cloud.requests)) == (0, before)
    (machine,) = cloud.machines
    assert alone.stdout.split() == [
        *["name", "place", "is", "app", "id"], "web-app", "phala", "ready,", "not", "verified",
        machine.prepared.app_id,
    ]  # fmt: skip
    other = Operator(tmp_path / "other", settings=operator.settings)
    other.folder.mkdir()
    empty = await other.run("list", "--place", "phala", "--json")
    assert [(row["kind"], row["name"], row["state"]) for row in empty.json] == [
        ("no record", "web-app", "running")
    ]
    assert (await operator.run("replicate", "web-app", "--no-verify")).code == 0
    cloud.machines[1].wanted = "stopped"
    full = await operator.run("list", "--place", "phala", "--json")
    assert [(row["kind"], row["name"], row["state"]) for row in full.json] == [
        ("deployment", "web-app", "running"),
        ("replica", "web-app", "stopped"),
    ]


async def test_status_shows_record_machine_and_containers(operator: Operator, cloud: FakeCloud) -> None:
    """Health, exit code and what a machine runs instead are told; values and keys are not."""
    (machine,) = cloud.machines
    machine.containers[1].state, machine.containers[1].status = "exited", "Exited (3) 2 seconds ago"
    ran = await operator.run("status", "web-app")
    assert ran.code == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0] == "web-app at phala  not verified, as asked"
    assert lines[-3:] == [
        f"machine {machine.vm_uuid}: running",
        "  web     healthy    Up 3 seconds (healthy)",
        "  worker  ended (3)  Exited (3) 2 seconds ago",
    ]
    machine.prepared = replace(machine.prepared, compose_hash="ab" * 32)
    told = await operator.run("status", "web-app", "--json")
    assert [each["exit_code"] for each in told.json["machines"][0]["containers"]] == [None, 3]
    assert told.json["machines"][0]["compose_hash"] == "ab" * 32 != told.json["compose_hash"]
    assert f"runs another compose hash: {'ab' * 32}" in (await operator.run("status", "web-app")).stdout


async def test_status_shows_the_record_where_the_place_cannot_be_asked(
    operator: Operator, cloud: FakeCloud
) -> None:
    """The command fails with the reason, after what is known; so it does where the machine is gone."""
    cloud.machines.clear()
    gone = await operator.run("status", "web-app")
    assert (gone.code, "is gone from phala" in gone.stderr) == (ExitCode.FAILURE, True)
    assert gone.stdout.startswith("web-app at phala")
    operator.settings["BLUEPRINT_CLOUD_URL"] = "http://127.0.0.1:9"
    ran = await operator.run("status", "web-app", "--json")
    assert (ran.code, ran.json["name"], ran.json["machines"]) == (ExitCode.FAILURE, "web-app", [])
    assert "127.0.0.1:9" in ran.json["error"] or "GET /cvms/" in ran.json["error"]
    del operator.settings["BLUEPRINT_CLOUD_API_KEY"]
    ran = await operator.run("status", "web-app")
    assert (ran.code, "--cloud-api-key-file" in ran.stderr) == (ExitCode.FAILURE, True)
    assert ran.stdout.startswith("web-app at phala")


async def test_logs_cannot_move_the_cursor(operator: Operator, cloud: FakeCloud) -> None:
    """Control characters are escaped; services are told apart unless one is named; JSON is a line a line."""
    web, worker = cloud.machines[0].containers
    web.log, worker.log = b"\x1b[2Jgone\r\nno end \xc3\xa9", b"one\ntwo\n"
    ran = await operator.run("logs", "web-app")
    assert ran.stdout == ("web    | \\x1b[2Jgone\nweb    | no end \u00e9\nworker | one\nworker | two\n")
    one = await operator.run("logs", "web-app", "web", "--json")
    assert [json.loads(line) for line in one.stdout.splitlines()] == [
        {"service": "web", "line": "\x1b[2Jgone"},
        {"service": "web", "line": "no end \u00e9"},
    ]
    wrong = await operator.run("logs", "web-app", "wab")
    assert (wrong.code, "take one of: web, worker" in wrong.stderr) == (ExitCode.FAILURE, True)
    odd = await operator.run("logs", "web-app", "--machine", "0")
    assert (odd.code, cloud.machines[0].vm_uuid in odd.stderr) == (ExitCode.FAILURE, True)
    cloud.machines[0].prepared.compose["public_logs"] = False
    private = await operator.run("logs", "web-app")
    assert (private.code, "the logs of web-app are not public; " in private.stderr) == (1, True)


async def test_an_error_cannot_move_the_cursor(operator: Operator, cloud: FakeCloud) -> None:
    """What a cloud says is shown with its control characters escaped, in errors and in what is told else."""
    cloud.fail("GET", "/cvms/{id}", Fault(status=422, message="\x1b[2Jgone"), times=2)
    for command in (("stats",), ("status", "--debug")):
        ran = await operator.run(*command, "web-app")
        assert (ran.code, "\x1b" in ran.stderr, "\\x1b[2Jgone" in ran.stderr) == (1, False, True), ran.stderr


async def test_a_name_from_the_cloud_cannot_move_the_cursor(operator: Operator, cloud: FakeCloud) -> None:
    """Ids of machines and names of services are its words too; this begins a control sequence in one byte."""
    (machine,) = cloud.machines
    record = operator.folder / "state" / "deployments" / "web-app.json"
    named = json.loads(record.read_text()) | {"machine_id": "\x9b2Jid"}
    record.write_text(json.dumps(named))
    machine.vm_uuid = "\x9b2Jid"
    for container in machine.containers:
        container.service += "\x9b2J"
    for command in ("stats", "status", "logs", "list"):
        ran = await operator.run(command, *([] if command == "list" else ["web-app"]), "--place", "phala")
        assert ("\x9b" in ran.stdout + ran.stderr, ran.code) == (False, 0), (command, ran)


async def test_following_ends_quietly(operator: Operator, cloud: FakeCloud) -> None:
    """Ctrl-C is how it ends: exit code 130, and no word."""
    cloud.fail("GET", "/logs/{id}/{service}", Fault(delay_s=60.0), times=1)
    process = await operator.start("logs", "web-app", "--follow")
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"worker | started\n"
        process.send_signal(signal.SIGINT)
        assert await process.communicate() == (b"", b"")
    assert process.returncode == ExitCode.INTERRUPTED


async def test_stats_show_what_is_told_and_nothing_else(operator: Operator, cloud: FakeCloud) -> None:
    """A figure that nobody told is a dash, and all of them come with a reason."""
    ran = await operator.run("stats", "web-app")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[1].startswith(cloud.machines[0].vm_uuid)
    cloud.machines[0].wanted = "stopped"
    still = await operator.run("stats", "web-app", "--json")
    assert (still.json[0]["state"], still.json[0]["cpu_percent"]) == ("stopped", None)
    assert "--public-sysinfo" in still.stderr


async def test_a_deployment_stops_starts_and_restarts(operator: Operator, cloud: FakeCloud) -> None:
    """Each command ends when it is so; a start without verification is recorded as one."""
    stopped = await operator.run("stop", "web-app", "--json")
    assert (stopped.code, stopped.json["machines"][0]["state"]) == (0, "stopped")
    assert cloud.machines[0].status == "stopped"
    started = await operator.run("start", "web-app", "--no-verify", "--json")
    assert (started.code, started.json["is_verification_waived"]) == (0, True)
    assert cloud.machines[0].status == "running"
    again = await operator.run("restart", "web-app")
    assert again.code == ExitCode.ATTESTATION_FAILED
    assert "/restart" in "".join(cloud.requests)


async def test_new_variables_are_shown_and_agreed_to_before_they_are_sent(
    operator: Operator, cloud: FakeCloud
) -> None:
    """Names that come, go and stay are told; off a terminal only --yes agrees; values are never shown."""
    operator.write("new", f"TOKEN='{SECRET}!'\nCOLOR=red\n")
    before = len(cloud.requests)
    asked = await operator.run("env", "web-app", "--env-file", "new", "--no-verify")
    assert (asked.code, "add --yes" in asked.stderr) == (ExitCode.USAGE, True)
    assert {"  variable + COLOR", "  variable = TOKEN"} <= set(asked.stderr.splitlines())
    assert len(cloud.requests) == before
    ran = await operator.run("env", "web-app", "--env-file", "new", "--no-verify", "--yes", "--json")
    assert (ran.code, ran.json["names"]) == (0, ["COLOR", "TOKEN"])
    assert values(cloud) == [{"TOKEN": f"{SECRET}!", "COLOR": "red"}]
    back = await operator.run("env", "web-app", "--env-file", "vars", "--no-verify", "--yes")
    assert (back.code, "  variable - COLOR" in back.stderr.splitlines()) == (0, True)
    assert values(cloud) == [{"TOKEN": SECRET}]
    for content, said in (("OTHER=1\n", "no service uses OTHER"), ("COLOR=1\n", "nothing provides TOKEN")):
        operator.write("bad", content)
        bad = await operator.run("env", "web-app", "--env-file", "bad", "--yes")
        assert (bad.code, said in bad.stderr) == (ExitCode.FAILURE, True)


async def test_variables_sealed_by_somebody_else_replace_all(operator: Operator, cloud: FakeCloud) -> None:
    """The operator hands over ciphertext, for exactly what runs."""
    await operator.run("key", "web-app")
    operator.write("new", "TOKEN=sealed elsewhere\n")
    await operator.run("seal", "web-app.request.json", "--env-file", "new", "--sealed", "sealed.json")
    ran = await operator.run("env", "web-app", "--sealed", "sealed.json", "--yes", "--no-verify")
    assert (ran.code, values(cloud)) == (0, [{"TOKEN": "sealed elsewhere"}])
    envelope = json.loads((operator.folder / "sealed.json").read_text())
    operator.write("other.json", json.dumps(envelope | {"app_id": "00" * 20}))
    other = await operator.run("env", "web-app", "--sealed", "other.json", "--yes", "--no-verify")
    assert (other.code, "sealed for the application 0000" in other.stderr) == (ExitCode.FAILURE, True)


async def test_a_disk_grows_and_never_shrinks(operator: Operator, cloud: FakeCloud) -> None:
    """A smaller disk is refused before anything is sent; a larger one reaches the place and the record."""
    smaller = await operator.run("resize", "web-app", "--disk-gb", "20", "--no-verify")
    assert (smaller.code, "cannot shrink to 20" in smaller.stderr) == (ExitCode.FAILURE, True)
    assert not [each for each in cloud.requests if each.startswith("PATCH")]
    ran = await operator.run("resize", "web-app", "--disk-gb", "80", "--no-verify", "--json")
    assert (ran.code, ran.json["placement"]["disk_gb"]) == (0, 80)
    assert cloud.machines[0].prepared.size["disk_size"] == 80


async def test_delete_asks_and_leaves_nothing_behind(operator: Operator, cloud: FakeCloud) -> None:
    """Off a terminal only --yes agrees; what is lost is named; the replica goes too, and the record."""
    made = await operator.run("replicate", "web-app", "--no-verify", "--json")
    first, second = (machine.vm_uuid for machine in cloud.machines)
    assert (made.code, made.json["replica"]["id"]) == (0, second)
    asked = await operator.run("delete", "web-app")
    assert (asked.code, len(cloud.machines)) == (ExitCode.USAGE, 2)
    assert "All data on their disks is lost." in asked.stderr
    ran = await operator.run("delete", "web-app", "--yes")
    assert (ran.code, ran.stdout) == (0, f"web-app: deleted machine {first}, replica {second}\n")
    assert list(cloud.machines) == []
    assert not list((operator.folder / "state" / "deployments").glob("[!.]*"))
    again = await operator.run("delete", "web-app", "--yes")
    assert (again.code, "no deployment named 'web-app'" in again.stderr) == (ExitCode.FAILURE, True)


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [(b"n\n", ExitCode.FAILURE, "nothing was deleted"), (b"\x03", ExitCode.INTERRUPTED, "interrupted")],
    ids=["no", "Ctrl-C"],
)
async def test_on_a_terminal_a_person_may_say_no(
    operator: Operator, cloud: FakeCloud, typed: bytes, code: int, said: str
) -> None:
    """A refusal and an interruption both leave everything as it is."""
    ours, theirs = os.openpty()
    script = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    script += "os.execv(sys.argv[1], sys.argv[1:])"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, sys.executable, "-m", "blueprint", "deploy", "delete", "web-app",
        cwd=operator.folder, stdin=theirs, stdout=theirs, stderr=theirs,
        env={"PATH": os.environ["PATH"], "BLUEPRINT_STATE_DIR": str(operator.folder / "state"),
             "PYTHONPATH": str(Path(__file__).parents[3]), "TERM": "dumb", **operator.settings},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while not seen.rstrip().endswith(b"[y/N]:"):
        seen += await asyncio.to_thread(os.read, ours, 4096)
    await asyncio.sleep(
        0.5
    )  # what is typed before the line is read is thrown away with the terminal's old mode
    os.write(ours, typed)
    try:
        while piece := await asyncio.to_thread(os.read, ours, 4096):
            seen += piece
    except OSError:  # the terminal's other end is closed
        pass
    os.close(ours)
    assert (await process.wait(), said in seen.decode()) == (code, True), seen
    assert len(cloud.machines) == 1


async def test_anybody_verifies_an_evidence_document(
    operator: Operator, cloud: FakeCloud, tmp_path: Path
) -> None:
    """A file or what a node serves: with the right root and expectations it holds, else exit code 4."""
    async with service_at(cloud, operator.folder / "state") as service:
        _, attestation = await service.verify("web-app")
    content = evidence_document(attestation)
    (operator.folder / "evidence.json").write_bytes(content)
    root = x509.load_der_x509_certificate(cloud.platform.root_ca)
    operator.write("root.pem", root.public_bytes(Encoding.PEM).decode())
    anybody = Operator(tmp_path, settings={"BLUEPRINT_STATE_DIR": str(tmp_path / "none")})
    document = ("verify", "--document", "evidence.json")
    trusting = (*document, "--development-root", "root.pem")
    app_id = cloud.machines[0].prepared.app_id
    ran = await anybody.run(*trusting, "--app-id", app_id, "--json")
    assert ran.code == 0, ran.stderr
    assert ran.json["attestation_digest"] == attestation.digest.hex()
    assert ran.json["evidence_digest"] == hashlib.sha256(content).hexdigest()
    checked = {check["name"]: check["is_checked"] for check in ran.json["checks"]}
    assert (checked["app id"], checked["compose hash"], checked["freshness"]) == (True, False, False)
    seen = ran.json["os_image"]
    pinned = await anybody.run(*trusting, "--os-image", seen, "--json")
    assert next(check["is_checked"] for check in pinned.json["checks"] if check["name"] == "OS image")
    for arguments, said in (
        (document, "a root named 'development'"),
        ((*trusting, "--os-image", "0" * 96 + seen[96:]), f"no known one: {seen}"),
        ((*trusting, "--compose-hash", "00" * 32), "compose hash: expected 0000"),
        ((*trusting, "--app-id", "0x" + "00" * 20), "app id: expected 0000"),
    ):
        wrong = await anybody.run(*arguments)
        assert (wrong.code, said in wrong.stderr) == (ExitCode.ATTESTATION_FAILED, True), wrong.stderr
    operator.write("evidence.json", content.decode().replace("nginx:1.25", "nginx:1.26"))
    forged = await anybody.run(*trusting)
    assert (forged.code, "compose text: expected" in forged.stderr) == (ExitCode.ATTESTATION_FAILED, True)


async def test_a_document_with_another_digest_is_refused(operator: Operator, cloud: FakeCloud) -> None:
    """What a node serves has the digest of its address, which the chain names; anything else is discarded."""
    async with service_at(cloud, operator.folder / "state") as service:
        _, attestation = await service.verify("web-app")
    content = evidence_document(attestation)
    (operator.folder / "root.der").write_bytes(cloud.platform.root_ca)
    served = {hashlib.sha256(content).hexdigest(): content, "00" * 32: content}
    app = web.Application()

    async def serve(request: web.Request) -> web.Response:
        return web.Response(body=served[request.match_info["digest"]])

    app.router.add_get("/outputs/{digest}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/outputs/"
    try:
        good, bad = [
            await operator.run("verify", "--url", url + digest, "--development-root", "root.der")
            for digest in served
        ]
    finally:
        await runner.cleanup()
    assert good.code == 0, good.stderr
    assert (bad.code, "they were discarded" in bad.stderr) == (ExitCode.FAILURE, True)
    no_digest = await operator.run("verify", "--url", url)
    assert (no_digest.code, "64 digits" in no_digest.stderr) == (ExitCode.USAGE, True)


async def test_a_wrong_argument_is_one_line_with_advice(operator: Operator, cloud: FakeCloud) -> None:
    """Nothing is sent, and no traceback is shown."""
    before = len(cloud.requests)
    for arguments, code, said in (
        ("verify", 2, "give either NAME, or --document, or --url"),
        ("verify web-app --document x", 2, "give either"),
        (f"verify web-app --app-id {'00' * 20}", 2, "are for a document"),
        ("verify --document none --evidence x", 2, "give NAME"),
        ("verify --document none", 2, "none: No such file"),
        ("verify --document vars", 1, "vars: no evidence document"),
        ("verify --document vars --app-id 12", 2, "expected 40 hexadecimal digits"),
        (
            f"verify --document vars --os-image {'0' * 96}",
            2,
            "--os-image (from command line): string should match",
        ),
        ("status wab-app", 1, "did you mean 'web-app'?"),
        ("status none", 1, "`blueprint deploy list` shows those that are"),
        ("start web-app --place local --no-verify", 1, "use --place phala"),
        ("env web-app --yes", 2, "either --env-file or --sealed"),
        ("resize web-app", 2, "at least one of"),
    ):
        ran = await operator.run(*arguments.split())
        assert (ran.code, said in ran.stderr, "Traceback" in ran.stderr) == (code, True, False), ran.stderr
    assert len(cloud.requests) == before
    assert not (operator.folder / "state" / "local").exists()


@pytest.mark.docker
@pytest.mark.root
async def test_a_deployment_lives_on_a_real_engine(engine: PrivateEngine, tmp_path: Path) -> None:
    """Followed, stopped, started, verified for others, deleted: by its name alone, one command each."""
    operator = Operator(
        tmp_path,
        settings={
            "DOCKER_HOST": f"unix://{engine.socket}",
            "BLUEPRINT_TRUST_DEVELOPMENT_ROOT": "true",
        },
    )
    operator.write("living/compose.yaml", compose("echo started; sleep 600"))
    operator.write("living/deploy.toml", 'allow = ["tag"]\npublic_logs = true\n')
    async with local(tmp_path / "state" / "local", engine.socket) as place:
        up = await operator.run("up", "living", "--place", "local", "--json")
        assert up.code == 0, up.stderr
        following = await operator.start("logs", "living", "--follow")
        assert following.stdout is not None
        assert await following.stdout.readline() == b"started\n"
        following.send_signal(signal.SIGINT)
        assert (await following.communicate(), following.returncode) == ((b"", b""), 130)
        assert (await operator.run("stop", "living", "--force")).code == 0
        assert (await operator.run("status", "living", "--json")).json["machines"][0]["state"] == "stopped"
        assert (await operator.run("start", "living", "--json")).json["stage"] == "verified"
        assert (await operator.run("verify", "living", "--evidence", "e.json")).code == 0
        document = ("verify", "--document", "e.json", "--development-root", "e.json.root.pem")
        assert (await operator.run(*document, "--app-id", up.json["app_id"])).code == 0
        assert (await operator.run("delete", "living", "--yes")).code == 0
        assert await place.machines.list() == []
