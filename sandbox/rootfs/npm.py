"""Fetches the pinned packages of npm, with the host's npm or with one from PyPI.

Invariant: a file reaches the tree only from an archive whose digest is the recipe's. No package's script is
ever run.
"""

import base64
import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from sandbox.errors import SystemFailureError
from sandbox.rootfs.place import place_files
from sandbox.rootfs.process import require, started
from sandbox.rootfs.recipe import NpmPackage, Recipe
from sandbox.rootfs.wheels import fetch_wheel

__all__ = ["check_integrity", "fetching_packages"]


@contextlib.contextmanager
def fetching_packages(
    recipe: Recipe, workspace: Path, report: Callable[[str], None]
) -> Iterator[Callable[[Path], list[NpmPackage]]]:
    """Fetch every npm package that the recipe's languages name while the caller does something else.

    Args:
        recipe: what to fetch.
        workspace: a folder for archives, made here; it may be removed afterwards.
        report: called with a sentence when npm itself has to be fetched.

    Yields:
        A function that waits, places the files in the tree that it is given, and returns the packages. It
        raises `SystemFailureError` when a package could not be fetched, or its digest is not the recipe's.

    Raises:
        SandboxUnavailableError: there is neither npm nor pip on this host.
    """
    packages = list({package.name: package for lang in recipe.languages for package in lang.npm}.values())
    if not packages:
        yield lambda _: []
        return
    workspace.mkdir(parents=True)
    specs = [f"{package.name}@{package.version}" for package in packages]
    npm = _npm_command(recipe, workspace, report)
    with started([*npm, "pack", "--json", "--ignore-scripts", *specs], workspace) as finish:

        def place(root: Path) -> list[NpmPackage]:
            for package, archive in zip(packages, _archives(finish(), workspace), strict=True):
                check_integrity(archive, package.integrity)
                unpacked = workspace / package.name.replace("/", "+")
                unpacked.mkdir()
                folder = ["-C", str(unpacked), "--strip-components=1", "--no-same-owner"]
                require(["tar", "-xzf", str(archive), *folder])
                place_files(unpacked, root, package.files)
            return packages

        yield place


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


def _archives(printed: str, workspace: Path) -> list[Path]:
    """Read the names of the archives, in the order of the packages, from what ``npm pack --json`` printed."""
    try:
        names = [str(entry["filename"]) for entry in json.loads(printed)]
    except (ValueError, LookupError, TypeError) as exc:
        raise SystemFailureError(
            f"language tree: npm pack printed no file names, but: {printed[:200]}"
        ) from exc
    # Older versions of npm print a scoped name with its slash, and write it with a dash.
    return [workspace / name.removeprefix("@").replace("/", "-") for name in names]


def _npm_command(recipe: Recipe, workspace: Path, report: Callable[[str], None]) -> list[str]:
    if shutil.which("npm") and shutil.which("node"):
        return ["npm"]
    report(f"this host has no npm: fetching {recipe.npm_wheel.name} from the Python index for the build")
    unpacked = fetch_wheel(recipe.npm_wheel, workspace)
    node = next(unpacked.glob("*/bin/node"))
    node.chmod(0o755)
    return [str(node), str(next(unpacked.glob("*/lib/node_modules/npm/bin/npm-cli.js")))]
