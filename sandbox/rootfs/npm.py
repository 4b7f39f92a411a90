"""Fetches the pinned packages of npm, with the host's npm or with one from PyPI.

Invariant: a file reaches the tree only from an archive whose digest is the recipe's. No package's script is
ever run.
"""

import base64
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from sandbox.errors import SystemFailureError
from sandbox.rootfs.place import place_files
from sandbox.rootfs.process import require
from sandbox.rootfs.recipe import NpmPackage, Recipe
from sandbox.rootfs.wheels import fetch_wheel

__all__ = ["check_integrity", "fetch_packages"]


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
        require(["tar", "-xzf", str(archive), "-C", str(unpacked), "--strip-components=1", "--no-same-owner"])
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


def _pack(npm: Sequence[str], package: NpmPackage, workspace: Path) -> Path:
    printed = require(
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
    report(f"this host has no npm: fetching {recipe.npm_wheel.name} from the Python index for the build")
    unpacked = fetch_wheel(recipe.npm_wheel, workspace)
    node = next(unpacked.glob("*/bin/node"))
    node.chmod(0o755)
    return [str(node), str(next(unpacked.glob("*/lib/node_modules/npm/bin/npm-cli.js")))]
