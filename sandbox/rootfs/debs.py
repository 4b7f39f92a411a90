"""Takes files out of Debian packages that are fetched but not installed: they bring no dependencies.

The C++ libraries that a program may ask for come this way, each into a folder of its own, so that a program
sees the headers of those that it asked for and of no others.

Invariant: the packages come from the archive that the tree came from, and apt has checked their signatures.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox.errors import SystemFailureError
from sandbox.rootfs.place import place_files
from sandbox.rootfs.process import require
from sandbox.rootfs.recipe import LanguageRecipe, Recipe, UnpackedDeb
from sandbox.tree import Library

__all__ = ["DEBS", "download_hook", "libraries", "place_debs", "upstream_version"]

DEBS = "debs"
"""The folder of the tree under construction that apt downloads into; it is gone before the tree is sealed."""


def download_hook(debs: Sequence[UnpackedDeb]) -> str:
    """Return the shell command that downloads the packages, for ``mmdebstrap --customize-hook``."""
    names = " ".join(sorted({deb.package for deb in debs}))
    return (
        f'mkdir -p "$1/{DEBS}" && cd "$1/{DEBS}" && '
        f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -o APT::Sandbox::User=root download {names}'
    )


def place_debs(recipe: Recipe, root: Path, workspace: Path) -> dict[str, str]:
    """Unpack what was downloaded, place the files that the recipe names, and return the packages' versions.

    Raises:
        SystemFailureError: a package is missing among the downloads, or could not be unpacked.
    """
    versions = {}
    for deb in recipe.debs:
        found = list((root / DEBS).glob(f"{deb.package}_*.deb"))
        if len(found) != 1:
            raise SystemFailureError(
                f"language tree: expected one download of {deb.package}, received {len(found)}"
            )
        unpacked = workspace / f"deb-{deb.package}"
        if not unpacked.exists():
            require(["dpkg-deb", "--extract", str(found[0]), str(unpacked)])
        versions[deb.package] = require(["dpkg-deb", "--field", str(found[0]), "Version"]).strip()
        place_files(unpacked, root, deb.files)
    shutil.rmtree(root / DEBS, ignore_errors=True)
    return versions


def libraries(language: LanguageRecipe, root: Path, versions: Mapping[str, str]) -> tuple[Library, ...]:
    """Describe the libraries that one language's programs may ask for.

    Args:
        language: its recipe.
        root: the tree, after `place_debs`.
        versions: Debian package to its version.

    Raises:
        SystemFailureError: the headers of one are not in the tree.
    """
    found = []
    for library in language.libraries:
        if not (root / library.include.lstrip("/")).is_dir():
            raise SystemFailureError(
                f"language tree: {library.name}: {library.include} is missing in the tree"
            )
        found.append(
            Library(
                name=library.name,
                version=upstream_version(versions[library.deb.package]),
                include=library.include,
                archives=library.archives if (root / library.archives.lstrip("/")).is_dir() else "",
                flags=library.flags,
                needs=library.needs,
            )
        )
    return tuple(found)


def upstream_version(version: str) -> str:
    """Return the authors' own version: ``1:1.3.dfsg+really1.3.1-1`` is 1.3.1 (``deb-version(7)``)."""
    without_epoch = version.rpartition(":")[2]
    match = re.search(r"\d+(?:\.\d+)*", without_epoch.rpartition("+really")[2])
    return match[0] if match else version
