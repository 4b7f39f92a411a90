"""Fetches pinned wheels from the host's Python index, with pip.

Invariant: a file reaches the tree only from a wheel whose digest is the recipe's. Nothing of a wheel is run.
"""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from sandbox.errors import SandboxUnavailableError, SystemFailureError
from sandbox.rootfs.place import place_files
from sandbox.rootfs.process import require
from sandbox.rootfs.recipe import Recipe, Wheel

__all__ = ["fetch_wheel", "fetch_wheels", "unpack_wheel"]

_EXECUTABLE = 0o100 << 16
"""The owner's right to execute, where a zip archive keeps a file's mode."""


def fetch_wheels(recipe: Recipe, root: Path, workspace: Path, report: Callable[[str], None]) -> list[Wheel]:
    """Fetch every wheel that the recipe's languages name, and place its files in the tree.

    Raises:
        SandboxUnavailableError: this host has no pip.
        SystemFailureError: a wheel could not be fetched, or its digest is none of the recipe's.
    """
    wheels = list({wheel.name: wheel for language in recipe.languages for wheel in language.wheels}.values())
    for wheel in wheels:
        report(f"fetching {wheel.name} {wheel.version} from the Python index")
        place_files(fetch_wheel(wheel, workspace), root, wheel.files)
    return wheels


def fetch_wheel(wheel: Wheel, workspace: Path) -> Path:
    """Fetch one wheel and return the folder that it was unpacked into.

    Raises:
        SandboxUnavailableError: this host has no pip.
        SystemFailureError: the wheel could not be fetched, or its digest is none of the recipe's.
    """
    folder = workspace / f"wheel-{wheel.name}"
    folder.mkdir(parents=True)
    pins = folder / "pins.txt"
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in wheel.sha256)
    pins.write_text(f"{wheel.name}=={wheel.version} {hashes}\n", encoding="utf-8")
    flags = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(pins), "-d", str(folder)]
    require([*_pip_command(), "download", *flags])
    return unpack_wheel(folder)


def unpack_wheel(folder: Path) -> Path:
    """Unpack the only wheel of a folder, and return the new folder; programs of it stay executable.

    Raises:
        SystemFailureError: there is not exactly one wheel.
    """
    found = list(folder.glob("*.whl"))
    if len(found) != 1:
        raise SystemFailureError(f"language tree: expected one wheel from pip, received {len(found)}")
    unpacked = folder / "unpacked"
    with zipfile.ZipFile(found[0]) as archive:
        archive.extractall(unpacked)  # pip has checked the digest
        for info in archive.infolist():
            if info.external_attr & _EXECUTABLE and not info.is_dir():
                (unpacked / info.filename).chmod(0o755)
    return unpacked


def _pip_command() -> list[str]:
    candidates = [[sys.executable, "-m", "pip"], ["pip3"], ["python3", "-m", "pip"]]
    for candidate in candidates:
        if shutil.which(candidate[0]) is None:
            continue
        if subprocess.run([*candidate, "--version"], capture_output=True, check=False).returncode == 0:
            return candidate
    raise SandboxUnavailableError(
        "language tree: some programs come as wheels from the Python index, and this host has no pip; "
        "run: apt-get install python3-pip"
    )
