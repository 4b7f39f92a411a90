"""A plan says what would change, and nothing else would."""

from dataclasses import replace

import pytest

from blueprint.tee.sealing import SecretVariable
from blueprint.tee.simulator.cvm import SimulatedCvm
from blueprint.tee.simulator.kms import SimulatedKms
from blueprint.tee.simulator.platform import MockPlatform
from jobs.deploy.app_compose import AppCompose
from jobs.deploy.backends.backend import Placement
from jobs.deploy.plan import Change, make_plan
from jobs.deploy.record import DeploymentRecord, Stage, VariablesDigest
from jobs.deploy.wanted import DeploymentConflictError, Wanted

SECRET = "s3cret"


def wanted(image: str = "a:1", names: tuple[str, ...] = ("TOKEN",), **placement: object) -> Wanted:
    """An application with one service."""
    text = f"services:\n  web:\n    image: {image}\n    environment: [{', '.join(names)}]\n"
    workload = AppCompose(name="web-app", docker_compose_file=text, allowed_envs=names).workload()
    return Wanted(workload=workload, names=names, placement=Placement(**placement))  # type: ignore[arg-type]


def variables(value: str = SECRET) -> list[SecretVariable]:
    """Its variable."""
    return [SecretVariable("TOKEN", value)]


def record(of: Wanted, stage: Stage = Stage.VERIFIED) -> DeploymentRecord:
    """What is known once it was deployed."""
    return DeploymentRecord(
        name="web-app",
        place="cloud",
        stage=stage,
        app_id="ab" * 20,
        app_compose=of.workload.app_compose.decode(),
        compose_hash=of.workload.compose_hash.hex(),
        names=of.names,
        variables=VariablesDigest.of(variables()),
        placement=of.placement,
    )


def test_a_new_application_is_created() -> None:
    """Everything is new, a mere preparation among it."""
    plan = make_plan(wanted(disk_gb=20), None, variables(), place="cloud")
    assert (plan.is_new, plan.is_noop, plan.added) == (True, False, ("TOKEN",))
    assert plan.changes == (Change(name="disk_gb", before="-", after="20"),)
    assert make_plan(wanted(), record(wanted(), Stage.PREPARED), place="cloud").is_new


def test_what_a_quote_must_show_is_known_beforehand() -> None:
    """The digests are those that a guest of this application measures, and its quote verifies with them."""
    plan = make_plan(wanted(), record(wanted(), Stage.PREPARED), place="cloud")
    guest = SimulatedCvm(
        app_compose=wanted().workload.app_compose,
        sealed=None,
        app_id=bytes.fromhex("ab" * 20),
        kms=SimulatedKms(b"k" * 32),
        platform=MockPlatform(seed=b"p" * 32),
    )
    measured = {f"event {event.name}": event.digest.hex() for event in guest.events}
    expected = dict(plan.expected)
    config = expected.pop("MRCONFIGID, where it is set")
    assert expected.items() <= measured.items()
    assert config == "01" + plan.compose_hash + "00" * 15
    assert all(value in "\n".join(plan.lines()) for value in (*expected.values(), config, plan.app_id))


def test_the_same_again_changes_nothing() -> None:
    """The same text, variables and size, or no variables given at all."""
    for given in (variables(), None):
        plan = make_plan(wanted(), record(wanted()), given, place="cloud")
        assert plan.is_noop
        assert list(plan.lines()) == ["web-app at cloud: nothing changes"]


def test_a_changed_text_is_shown_line_by_line() -> None:
    """The diff, both hashes, and what stays."""
    plan = make_plan(wanted("a:2"), record(wanted("a:1")), place="cloud")
    assert "-    image: a:1\n+    image: a:2" in plan.compose_diff
    assert (plan.kept, plan.changes, plan.is_noop) == (("TOKEN",), (), False)
    assert plan.old_compose_hash != plan.compose_hash


def test_other_variables_are_named_and_never_shown() -> None:
    """Names added, removed and kept; a changed value is a full replacement, said so; no value is anywhere."""
    plan = make_plan(wanted(names=("OTHER", "TOKEN")), record(wanted()), variables("another"), place="cloud")
    assert (plan.added, plan.removed, plan.kept) == (("OTHER",), (), ("TOKEN",))
    assert plan.replaces_variables
    shown = "\n".join(plan.lines()) + str(plan.to_json())
    assert "all variables are replaced" in shown
    assert SECRET not in shown
    assert "another" not in shown


def test_resources_and_measured_members_are_compared() -> None:
    """A larger disk, and a member of app-compose.json that is public now."""
    new = wanted(disk_gb=40)
    text = AppCompose(name="web-app", docker_compose_file="x", public_logs=True)
    plan = make_plan(new, record(wanted(disk_gb=20)), place="cloud")
    assert plan.changes == (Change(name="disk_gb", before="20", after="40"),)
    public = replace(new, workload=text.workload())
    assert (
        Change(name="public_logs", before="False", after="True")
        in make_plan(public, record(new), place="cloud").changes
    )


def test_a_size_that_is_left_out_stays() -> None:
    """Who leaves it to the place again changes nothing; a plan for a smaller disk is none."""
    assert make_plan(wanted(), record(wanted(disk_gb=40)), place="cloud").is_noop
    with pytest.raises(DeploymentConflictError, match="cannot shrink to 20"):
        make_plan(wanted(disk_gb=20), record(wanted(disk_gb=40)), place="cloud")


def test_a_volume_that_is_left_behind_is_warned_of() -> None:
    """Its data is not deleted, and no longer seen."""
    plan = make_plan(
        wanted("a:2"), record(wanted()), place="cloud", old_volumes=("data", "logs"), volumes=("data",)
    )
    assert "the volume logs is no longer used; its data stays on the disk, out of reach" in plan.warnings


def test_who_gives_no_values_is_told_that_another_text_gets_those_that_are_there() -> None:
    """A folder from elsewhere that has a deployment's name would be given its secrets: the plan says so."""
    said = "another text than before gets the values that are there: TOKEN"
    assert make_plan(wanted("b:1"), record(wanted()), place="cloud").warnings == (said,)
    for given in (variables(), variables("other")):
        assert said not in make_plan(wanted("b:1"), record(wanted()), given, place="cloud").warnings
    assert make_plan(wanted(disk_gb=9), record(wanted()), place="cloud").warnings == ()


TEXT = "services:\n  web:\n    image: a:1\n"


def described(text: str, *, names: tuple[str, ...] = (), script: str = "") -> Wanted:
    """An application with this text."""
    app = AppCompose(name="web-app", docker_compose_file=text, allowed_envs=names, pre_launch_script=script)
    return Wanted(workload=app.workload(), names=names)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (TEXT.replace("\n", "\r\n"), "+    image: a:1\\r"),
        (TEXT[:-1], "     image: a:1\n-"),
        (TEXT + "\n", "     image: a:1\n \n+"),
        (TEXT + "# a\u2028+    privileged: true\n", "+# a\\u2028+    privileged: true"),
        (TEXT + "# a\x85+    privileged: true\n", "+# a\\x85+    privileged: true"),
        (TEXT + "# \u202eeurt\u202c \u00fc\n", "+# \\u202eeurt\\u202c \u00fc"),
    ],
)
def test_a_change_that_cannot_be_seen_is_shown(text: str, shown: str) -> None:
    """Line ends are measured too, and a character that breaks or turns a line forges no line of the diff."""
    plan = make_plan(described(text), record(described(TEXT)), place="cloud")
    assert shown in plan.compose_diff
    assert plan.compose_diff in "\n".join(plan.lines())


def test_a_script_is_compared_like_the_text() -> None:
    """It is shown line by line, so that none of its lines passes for one of the plan's."""
    new = described(TEXT, script="mount\n  variable - TOKEN\n")
    plan = make_plan(new, record(described(TEXT)), place="cloud")
    assert plan.changes == ()
    assert "+++ wanted pre_launch_script\n" in plan.compose_diff
    assert "+  variable - TOKEN" in plan.compose_diff
    assert "  variable - TOKEN" not in list(plan.lines())


def test_another_order_of_variables_is_shown() -> None:
    """The order is measured, so it explains why the compose hash is another."""
    old, new = described(TEXT, names=("A", "B")), described(TEXT, names=("B", "A"))
    plan = make_plan(new, record(old), place="cloud")
    assert (plan.kept, plan.is_noop) == (("A", "B"), False)
    assert plan.changes == (Change(name="allowed_envs", before="A, B", after="B, A"),)
