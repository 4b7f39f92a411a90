"""Fetches the pinned packages of npm, with the host's npm or with one from PyPI.

Invariant: a file reaches the tree only from an archive whose digest is the recipe's. No package's script is
ever run.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sandbox.errors import SandboxUnavailableError, SystemFailureError
from sandbox.rootfs.process import leashed
from sandbox.rootfs.recipe import NpmPackage, Recipe

__all__ = ["check_integrity", "fetch_packages", "place_files"]

FETCH_TIMEOUT_S = 600.0


def fetch_packages(
    recipe: Recipe, root: Path, workspace: Path, report: Callable[[str], None]
) -> list[NpmPackage]:
    """Fetch every npm package that the recipe's languages name, and place their files in the tree.

    Args:
        recipe: what to fetch.
        root: the tree.
        workspace: an empty folder for archives; it may be removed afterwards.
        report: called with a sentence before each step.

    Raises:
        SandboxUnavailableError: there is neither npm nor pip on this host.
        SystemFailureError: a package could not be fetched, or its digest is not the recipe's.
    """
    packages = list({package.name: package for lang in recipe.languages for package in lang.npm}.values())
    if not packages:
        return []
    workspace.mkdir(parents=True, exist_ok=True)
    npm = _npm_command(recipe, workspace, report)
    for package in packages:
        report(f"fetching {package.name} {package.version} from npm")
        archive = _pack(npm, package, workspace)
        check_integrity(archive, package.integrity)
        unpacked = workspace / package.name.replace("/", "+")
        unpacked.mkdir()
        _require(
            ["tar", "-xzf", str(archive), "-C", str(unpacked), "--strip-components=1", "--no-same-owner"]
        )
        place_files(unpacked, root, package.files)
    return packages


def check_integrity(archive: Path, expected: str) -> None:
    """Compare a file with an integrity string of npm (``sha512-`` and base64).

    Raises:
        SystemFailureError: the digests differ.
    """
    digest = hashlib.sha512(archive.read_bytes()).digest()
    received = "sha512-" + base64.b64encode(digest).decode()
    if received != expected:
        raise SystemFailureError(
            f"language tree: {archive.name} is not the file that the recipe pins: expected {expected}, "
            f"received {received}"
        )


def place_files(unpacked: Path, root: Path, files: Mapping[str, str]) -> None:
    """Copy files of an unpacked package into the tree, readable by all and writable by their owner only."""
    for source, target in files.items():
        for path in sorted(unpacked.glob(source)) if source != "." else [unpacked]:
            place = root / target / path.name if target.endswith("/") else root / target
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, place, symlinks=True)
            else:
                shutil.copyfile(path, place)
                place.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _pack(npm: Sequence[str], package: NpmPackage, workspace: Path) -> Path:
    printed = _require(
        [*npm, "pack", "--json", "--ignore-scripts", f"{package.name}@{package.version}"], cwd=workspace
    )
    try:
        name = json.loads(printed)[0]["filename"]
    except (ValueError, LookupError, TypeError) as exc:
        raise SystemFailureError(
            f"language tree: npm pack printed no file name, but: {printed[:200]}"
        ) from exc
    # Older versions of npm print a scoped name with its slash, and write it with a dash.
    return workspace / str(name).removeprefix("@").replace("/", "-")


def _npm_command(recipe: Recipe, workspace: Path, report: Callable[[str], None]) -> list[str]:
    if shutil.which("npm") and shutil.which("node"):
        return ["npm"]
    report(f"this host has no npm: fetching {recipe.pip_requirement} from PyPI for the build")
    requirement = workspace / "npm.txt"
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in recipe.pip_sha256)
    requirement.write_text(f"{recipe.pip_requirement} {hashes}\n", encoding="utf-8")
    wheels = workspace / "wheels"
    flags = [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--require-hashes",
        "-r",
        str(requirement),
        "-d",
        str(wheels),
    ]
    _require([*_pip_command(), "download", *flags])
    unpacked = workspace / "npm"
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        wheel.extractall(unpacked)  # pip has checked the digest
    node = next(unpacked.glob("*/bin/node"))
    node.chmod(0o755)
    return [str(node), str(next(unpacked.glob("*/lib/node_modules/npm/bin/npm-cli.js")))]


def _pip_command() -> list[str]:
    candidates = [[sys.executable, "-m", "pip"], ["pip3"], ["python3", "-m", "pip"]]
    for candidate in candidates:
        if shutil.which(candidate[0]) is None:
            continue
        if subprocess.run([*candidate, "--version"], capture_output=True, check=False).returncode == 0:
            return candidate
    raise SandboxUnavailableError(
        "language tree: JavaScript and TypeScript come from npm, and this host has neither npm nor pip; "
        "run: apt-get install npm (or python3-pip)"
    )


def _require(argv: Sequence[str], cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            leashed(argv),
            capture_output=True,
            text=True,
            cwd=cwd,
            env=os.environ | {"NODE_DISABLE_COMPILE_CACHE": "1"},  # npm would leave its cache in /tmp
            timeout=FETCH_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise SystemFailureError(
            f"language tree: {argv[0]} did not end within {FETCH_TIMEOUT_S:g} s"
        ) from exc
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-600:]
        raise SystemFailureError(
            f"language tree: {' '.join(argv)[:200]} ended with {done.returncode}: {said}"
        )
    return done.stdout
