"""What decides whether a test can run on this machine, and whether a skip was declared beforehand."""

import os
import shutil
import signal
import socket
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sandbox.backends.bubblewrap_command import find_bubblewrap
from sandbox.egress.registry import RegistryConfigError, RegistryKind
from sandbox.egress.tools import registries_of_host
from sandbox.errors import SandboxUnavailableError
from sandbox.kernel.grouptree import find_group_tree
from sandbox.kernel.landlock import landlock_abi
from sandbox.rootfs import find_tree, find_trees, load_recipes
from tests.support.guest import why_no_guest

PROJECT = Path(__file__).resolve().parent.parent
ANVIL = PROJECT / "contracts/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"


def state_dir() -> Path:
    """Return the folder whose trees serve the tests: the one that is named, or the default one."""
    if named := os.environ.get("BLUEPRINT_TREES_DIR"):
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/lib/tee-job-node")
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local/share")) / "tee-job-node"


def has_bubblewrap() -> bool:
    """Say whether the unprivileged back end finds its program."""
    try:
        find_bubblewrap()
    except SandboxUnavailableError:
        return False
    return True


def has_version_2() -> bool:
    """Say whether the slot back end would use version 2 of control groups here."""
    try:
        return find_group_tree().version == 2
    except SandboxUnavailableError:
        return False


def has_docker() -> bool:
    """Say whether a Docker engine of our own can be had."""
    # Here, because in a guest and in containers there is only the sandbox.
    from tests.support.docker import why_no_docker  # noqa: PLC0415

    return not why_no_docker()


def reaches_registries() -> bool:
    """Say whether the index of Python packages that this host is configured for accepts connections."""
    try:
        for registry in registries_of_host(RegistryKind.PYPI)[:1]:
            url = urlsplit(registry.base_url)
            port = url.port or (80 if url.scheme == "http" else 443)
            socket.create_connection((url.hostname or "", port), timeout=5).close()
            return True
    except (OSError, RegistryConfigError):
        return False
    return False


# marker -> (can it run here, the reason to print where it cannot)
REQUIREMENTS: dict[str, tuple[Callable[[], bool], str]] = {
    "root": (lambda: os.geteuid() == 0, "needs root"),
    "tree": (lambda: find_tree(state_dir()) is not None, "needs the language tree"),
    "versions": (
        lambda: len(find_trees(state_dir())) == len(load_recipes()),
        "needs the language trees with further versions",
    ),
    "anvil": (lambda: ANVIL.exists() or shutil.which("anvil") is not None, "needs anvil"),
    "node": (lambda: shutil.which("npm") is not None, "needs Node.js and npm"),
    "cgroup2": (has_version_2, "needs version 2 of control groups"),
    "container": (lambda: shutil.which("crun") is not None, "needs crun"),
    "landlock": (lambda: landlock_abi() > 0, "needs Landlock in the kernel"),
    "bubblewrap": (has_bubblewrap, "needs bubblewrap"),
    "registry": (reaches_registries, "needs the package registries of this host"),
    "gvisor": (lambda: shutil.which("runsc") is not None, "needs gVisor's runsc"),
    "vectors": (
        lambda: bool(os.environ.get("BLUEPRINT_TEST_VECTORS")),
        "needs real evidence in BLUEPRINT_TEST_VECTORS",
    ),
    "docker": (has_docker, "needs a Docker engine of our own"),
    "ps": (lambda: shutil.which("ps") is not None, "needs ps"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--declared-skips", metavar="FILE", help="fail when a test is skipped that no line of FILE declares"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    used = {marker.name for item in items for marker in item.iter_markers()}
    missing = {
        name: reason for name, (serves, reason) in REQUIREMENTS.items() if name in used and not serves()
    }
    if no_guest := why_no_guest():
        missing["guest"] = no_guest
    for item in items:
        for name, reason in missing.items():
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


class SkipLedger:
    """Collects every skip of the session and compares it with the declared ones.

    A line of the file is ``node id pattern | reason pattern``, both in shell style.
    """

    def __init__(self, declared: Path) -> None:
        lines = (line.split("#")[0].strip() for line in declared.read_text().splitlines())
        self.declared = [tuple(part.strip() for part in line.split("|", 1)) for line in lines if line]
        self.undeclared: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not any(fnmatch(report.nodeid, test) and fnmatch(reason, why) for test, why in self.declared):
            self.undeclared.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.undeclared:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.undeclared:
            terminalreporter.write_line(f"undeclared skip: {line}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    # A suite that a shell starts in the background ignores Ctrl-C, and so would the commands under test.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if declared := config.getoption("--declared-skips"):
        config.pluginmanager.register(SkipLedger(Path(declared)), "skip-ledger")
