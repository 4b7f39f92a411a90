"""Version 2 of control groups for real: the tests of this machine, run in a guest that has no version 1."""

from fnmatch import fnmatch

import pytest

from tests.support.guest import GuestReport, run_guest

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(600)]

TIMEOUT_S = 500
TESTS = (
    "tests/unit/test_sandbox_cgroups.py",
    "tests/integration/test_guarantees_are_true.py",
    "tests/integration/test_landlock.py",
    "tests/integration/test_sandbox_slot.py",
    "tests/integration/test_sandbox_version_2.py",
)
TOO_LONG = ("without_descriptors", "concurrent_sandboxes", "when_it_succeeds", "bubblewrap", "gvisor")
"""What an emulated processor takes too long for, and what has little to do with the version of the groups."""


@pytest.fixture(scope="module")
def report() -> GuestReport:
    """Run the guest once for all tests here."""
    chosen = " and ".join(f"not {word}" for word in TOO_LONG)
    return run_guest([*TESTS, "-k", chosen, "--color=no"], timeout_s=TIMEOUT_S)


def test_guest_boots_in_seconds(report: GuestReport) -> None:
    """Debian's kernel is up, with everything unpacked, in less than a minute even on a busy machine."""
    print(f"kernel {report.kernel}, booted in {report.boot_time_s} s")
    assert 0 < report.boot_time_s < 60


@pytest.mark.parametrize("file", TESTS)
def test_file_passes_in_the_guest(file: str, report: GuestReport) -> None:
    """Every test of the file that is run there passes; none is skipped."""
    outcomes = {test: outcome for test, outcome in report.outcomes.items() if fnmatch(test, f"{file}::*")}
    wrong = [
        f"{test} {outcomes[test]}:\n{report.texts.get(test)}"
        for test in outcomes
        if outcomes[test] != "passed"
    ]
    assert outcomes, report.console
    assert not wrong, "\n".join(wrong)
