"""Copies chosen files of an unpacked package into a tree.

Invariant: what is placed is readable by all and writable by its owner only.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

__all__ = ["place_files"]


def place_files(unpacked: Path, root: Path, files: Mapping[str, str]) -> None:
    """Copy files and folders of an unpacked package into the tree.

    Args:
        unpacked: the package.
        root: the tree.
        files: path inside the package (a glob, or ``.`` for all of it) to path inside the tree; one that ends
            in ``/`` keeps the names.
    """
    for source, target in files.items():
        for path in sorted(unpacked.glob(source)) if source != "." else [unpacked]:
            place = root / target / path.name if target.endswith("/") else root / target
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, place, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copyfile(path, place)
                place.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
