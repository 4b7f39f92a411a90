"""Makes a Debian root file system from packages with ``mmdebstrap``.

Invariant: the packages come from the host's own sources for Debian, checked against Debian's archive keys.
"""

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sandbox.errors import SandboxUnavailableError, SystemFailureError
from sandbox.rootfs.apt import host_options, host_sources, sources_for_suite
from sandbox.rootfs.debs import download_hook
from sandbox.rootfs.process import Finished, is_root, leashed, run_streaming
from sandbox.rootfs.recipe import Recipe
from sandbox.rootfs.reporter import Reporter

__all__ = ["BootstrapLog", "bootstrap", "require_tools"]

# Documentation never enters the tree; man1 must exist, or the JDK's configuration fails.
EXCLUDED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
)
SETUP = 'mkdir -p "$1/usr/share/man/man1"'
OUR_OPTIONS = ('Acquire::Languages "none";', 'APT::Install-Recommends "false";')
AUTH_FOLDER = Path("/etc/apt/auth.conf.d")
_UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3}
_NEEDED = re.compile(r"^Need to get (?P<number>[\d.,]+) (?P<unit>[kMG]?B)")
_GOT = re.compile(r"^Get:\d+ .* \[(?P<number>[\d.,]+) (?P<unit>[kMG]?B)\]$")
_COUNT = re.compile(r"(?P<count>\d+) newly installed")


def require_tools() -> None:
    """Check that the programs of a build are there, and the rights.

    Raises:
        SandboxUnavailableError: something is missing; the message holds the command that brings it.
    """
    wanted = {
        "mmdebstrap": "mmdebstrap",
        "mount": "mount",
        "setpriv": "util-linux",
        "tar": "tar",
        "unshare": "util-linux",
    }
    if not is_root():
        wanted["newuidmap"] = "uidmap"
    missing = sorted({package for program, package in wanted.items() if shutil.which(program) is None})
    if missing:
        raise SandboxUnavailableError(
            f"language tree: building needs {', '.join(missing)}; run as root: "
            f"apt-get install {' '.join(missing)}"
        )
    if not is_root() and not _has_subordinate_ids():
        raise SandboxUnavailableError(
            "language tree: building without root needs subordinate user ids; run as root: "
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER (or build as root, "
            "or use the host tree)"
        )


def bootstrap(recipe: Recipe, root: Path, workspace: Path, reporter: Reporter) -> None:
    """Fetch, unpack and configure the recipe's packages into an absent or empty folder.

    Raises:
        SandboxUnavailableError: the host has no Debian source, or the disk is full.
        SystemFailureError: ``mmdebstrap`` failed otherwise, for instance because a mirror cannot be reached.
    """
    reporter.begin("prepare", f"reading the host's sources of Debian for {recipe.suite}")
    sources = workspace / "debian.sources"
    sources.write_text(sources_for_suite(host_sources(), recipe.suite), encoding="utf-8")
    options = [*OUR_OPTIONS, *host_options()]
    if AUTH_FOLDER.is_dir() and any(AUTH_FOLDER.iterdir()):
        options.append(f'Dir::Etc::netrcparts "{AUTH_FOLDER}";')
    argv = [
        "mmdebstrap",
        "--verbose",
        "--variant=essential",
        "--components=main",
        "--skip=check/qemu",
        f"--architectures={recipe.architecture}",
        *(f"--aptopt={option}" for option in options),
        *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED),
        "--dpkgopt=force-unsafe-io",  # the finished tree is synced once, before it gets its name
        f"--setup-hook={SETUP}",
        f"--include={','.join(recipe.packages)}",
        *([f"--customize-hook={download_hook(recipe.debs)}"] if recipe.debs else []),
    ]
    log = BootstrapLog(reporter)
    if is_root():
        target = ["--mode=root", "--format=directory", recipe.suite, str(root), str(sources)]
        # What mmdebstrap keeps in TMPDIR stays behind when it is killed; here the next builder removes it.
        environment = os.environ | {"TMPDIR": str(workspace)}
        finished = run_streaming(leashed([*argv, *target]), log.read, env=environment)
    else:
        finished = _unpack_as_user(
            [*argv, "--mode=unshare", "--format=tar", recipe.suite, "-", str(sources)], root, log
        )
    reporter.finish()
    if finished.exit_code != 0:
        _raise_failure(finished, recipe)


class BootstrapLog:
    """Follows what ``mmdebstrap --verbose`` prints and reports phases, bytes and packages."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._bytes_total = self._bytes = 0
        self._packages_total = self._packages = 0
        self._round = "the base system"

    def read(self, line: str) -> None:
        """Take one line."""
        if line.startswith("I: installing remaining packages"):
            self._round = "the languages"
        if count := _COUNT.search(line):
            self._packages_total, self._packages = int(count["count"]), 0
        elif needed := _NEEDED.match(line):
            self._bytes_total, self._bytes = _size(needed), 0
            self._reporter.begin("download", f"downloading {self._round} ({_mb(self._bytes_total)})")
        elif self._bytes_total and (got := _GOT.match(line)):
            self._bytes = min(self._bytes_total, self._bytes + _size(got))
            self._reporter.advance(self._bytes, self._bytes_total, "bytes")
        elif line.startswith("I: extracting archives"):
            self._reporter.begin("unpack", f"unpacking {self._round}")
        elif line.startswith("Setting up ") and self._packages_total:
            if self._packages == 0:
                self._reporter.begin("install", f"installing {self._round} ({self._packages_total} packages)")
            self._packages = min(self._packages_total, self._packages + 1)
            self._reporter.advance(self._packages, self._packages_total, "packages")


def _unpack_as_user(argv: Sequence[str], root: Path, log: BootstrapLog) -> Finished:
    """Stream the tree as an archive into files of our own: subordinate ids would make them unremovable."""
    root.mkdir()
    tar = ["tar", "-x", "--no-same-owner", "--exclude=./dev/*", "-C", str(root)]
    with subprocess.Popen(tar, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as unpacker:
        assert unpacker.stdin is not None
        with unpacker.stdin as pipe:
            finished = run_streaming(leashed(argv), log.read, stdout=pipe)
        assert unpacker.stderr is not None
        said = unpacker.stderr.read().decode("utf-8", "replace").splitlines()
    if finished.exit_code == 0 and unpacker.returncode != 0:
        return Finished(unpacker.returncode, said)
    return Finished(finished.exit_code, [*finished.lines, *said])


def _raise_failure(finished: Finished, recipe: Recipe) -> None:
    if finished.says("No space left on device"):
        raise SandboxUnavailableError(
            f"language tree: the disk is full; the build needs about {_mb(recipe.disk_bytes)} free"
        )
    errors = [line for line in finished.lines if line.startswith(("E: ", "W: ", "Err:", "dpkg: error"))]
    said = " | ".join((errors or list(finished.lines))[-6:])[-900:]
    raise SystemFailureError(
        f"language tree: mmdebstrap ended with {finished.exit_code}: {said}. "
        "When a mirror cannot be reached, check that apt-get update works on this host, then build again"
    )


def _has_subordinate_ids() -> bool:
    uid = os.getuid()
    user = pwd.getpwuid(uid).pw_name
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        if not any(line.split(":")[0] in (user, str(uid)) for line in lines if ":" in line):
            return False
    return True


def _size(match: re.Match[str]) -> int:
    return int(float(match["number"].replace(",", "")) * _UNITS[match["unit"]])


def _mb(count_bytes: int) -> str:
    return f"{count_bytes / 1000**2:,.0f} MB"
