"""The recipes of the language trees: what ``recipe.toml`` says, parsed and resolved for one processor.

Invariant: a `Recipe` that exists is complete: every language's programs are absolute paths inside the tree,
and every package of npm and every wheel has the digest of its archive.
"""

import hashlib
import json
import platform
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sandbox.errors import RequestError, SandboxUnavailableError

__all__ = [
    "LanguageRecipe",
    "LibraryRecipe",
    "NpmPackage",
    "Recipe",
    "UnpackedDeb",
    "Wheel",
    "load_recipes",
]

BUILDER_VERSION = 2
"""Raised when the builder makes other trees of the same recipe file."""
RECIPE_FILE = Path(__file__).with_name("recipe.toml")

PROCESSORS = {
    "x86_64": {"arch": "amd64", "multiarch": "x86_64-linux-gnu", "go_arch": "amd64"},
    "aarch64": {"arch": "arm64", "multiarch": "aarch64-linux-gnu", "go_arch": "arm64"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NpmPackage:
    """A package of npm that comes into the tree."""

    name: str
    version: str
    integrity: str
    """``sha512-`` and the base64 digest of the archive, as npm writes it."""
    files: Mapping[str, str]
    """Path inside the package (``.`` for all of it) to path inside the tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel of the Python index, some files of which come into the tree."""

    name: str
    version: str
    sha256: tuple[str, ...]
    """The digests of the archives that serve, one for each processor."""
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackedDeb:
    """A Debian package, some files of which come into the tree without its being installed."""

    package: str
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryRecipe:
    """A library that a C++ program may ask for."""

    name: str
    deb: UnpackedDeb
    include: str
    """The folder of its headers inside the tree."""
    archives: str
    """The folder of its static archives inside the tree; it may be missing."""
    flags: tuple[str, ...]
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageRecipe:
    """What one version of a language adds to a tree."""

    name: str
    release: str
    """Which release of the language it is, as far as the recipe pins it: ``3.13``."""
    packages: tuple[str, ...]
    npm: tuple[NpmPackage, ...]
    wheels: tuple[Wheel, ...]
    debs: tuple[UnpackedDeb, ...]
    libraries: tuple[LibraryRecipe, ...]
    trims: tuple[str, ...]
    programs: Mapping[str, str]
    version_argv: tuple[str, ...]
    """The command whose output holds the version, run inside the tree."""
    warm_up: str
    """Which cache is filled after the trim: ``go``, ``swift`` or empty."""
    disk_bytes: int
    """What the build needs at its largest moment."""

    @property
    def digest(self) -> str:
        """The hexadecimal SHA-256 of all of this: when it changes, a tree with it is out of date."""
        return _digest(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that one tree is made of."""

    name: str
    suite: str
    architecture: str
    """Debian's name of the processor."""
    base_packages: tuple[str, ...]
    base_trims: tuple[str, ...]
    base_disk_bytes: int
    languages: tuple[LanguageRecipe, ...]
    npm_wheel: Wheel
    """Node.js and npm, for a host without them."""

    @property
    def digest(self) -> str:
        """The hexadecimal SHA-256 of what the languages stand on, and of the builder's own version."""
        base = (BUILDER_VERSION, self.suite, self.architecture, self.base_packages, self.base_trims)
        return _digest(base)

    @property
    def packages(self) -> tuple[str, ...]:
        """Every Debian package that is installed."""
        return self.base_packages + tuple(name for each in self.languages for name in each.packages)

    @property
    def trims(self) -> tuple[str, ...]:
        """What is taken out, as globs."""
        return self.base_trims + tuple(glob for each in self.languages for glob in each.trims)

    @property
    def disk_bytes(self) -> int:
        """What the build needs at its largest moment."""
        return self.base_disk_bytes + sum(each.disk_bytes for each in self.languages)

    @property
    def debs(self) -> tuple[UnpackedDeb, ...]:
        """Every package that is fetched without being installed."""
        return tuple(
            deb
            for language in self.languages
            for deb in (*language.debs, *(library.deb for library in language.libraries))
        )


def load_recipes(languages: Sequence[str] = (), machine: str | None = None) -> tuple[Recipe, ...]:
    """Read the recipes of all trees that some languages need, that of the default versions first.

    Args:
        languages: names of languages; empty for all of them. Those that are always in are added.
        machine: the processor as ``uname -m`` names it; None for this machine's.

    Returns:
        One recipe for each tree: the first tree in any case, another where it has one of the languages.

    Raises:
        RequestError: a language has no recipe.
        SandboxUnavailableError: there is no recipe for this processor.
    """
    machine = machine or platform.machine()
    if machine not in PROCESSORS:
        raise SandboxUnavailableError(
            f"language tree: the recipe knows the processors {', '.join(PROCESSORS)}, "
            f"this one is {machine!r}; use the host tree instead"
        )
    words = PROCESSORS[machine]
    data = tomllib.loads(RECIPE_FILE.read_text(encoding="utf-8"))
    unknown = [name for name in languages if name not in data["languages"]]
    if unknown:
        raise RequestError(
            f"languages: expected some of {', '.join(data['languages'])}, received {', '.join(unknown)}"
        )
    asked = set(languages or data["languages"])
    trees = list(data["trees"])
    return tuple(
        _tree(tree, data, asked | set(data["base"]["languages"]), words)
        for tree in trees
        if tree == trees[0] or any(tree in data["languages"][name]["in"] for name in asked)
    )


def _tree(tree: str, data: Mapping[str, Any], wanted: set[str], words: Mapping[str, str]) -> Recipe:
    base = data["base"]
    return Recipe(
        name=tree,
        suite=data["trees"][tree]["suite"],
        architecture=words["arch"],
        base_packages=tuple(base["packages"]),
        base_trims=_filled(base["trims"], words),
        base_disk_bytes=base["disk_mb"] << 20,
        languages=tuple(
            _language(name, entry | entry["in"][tree], data, words)
            for name, entry in data["languages"].items()
            if name in wanted and tree in entry["in"]
        ),
        npm_wheel=_wheel(data["wheels"]["npm"]),
    )


def _language(
    name: str, data: Mapping[str, object], recipe: Mapping[str, Any], processor: Mapping[str, str]
) -> LanguageRecipe:
    words = {**processor, "release": _text(data.get("release", ""))}
    under = _text(data.get("trims_tools_under", ""))
    tools = tuple(f"{under}/{tool}" for tool in _texts(data.get("trims_tools", [])))
    libraries = recipe["libraries"] if data.get("libraries", False) else {}

    def filled(key: str) -> tuple[str, ...]:
        return _filled(_texts(data.get(key, [])), words)

    return LanguageRecipe(
        name=name,
        release=words["release"],
        packages=filled("packages"),
        npm=tuple(_npm_package(recipe["npm"][key], words["arch"]) for key in filled("npm")),
        wheels=tuple(_wheel(recipe["wheels"][key]) for key in filled("wheels")),
        debs=tuple(_deb(recipe["debs"][key]) for key in filled("debs")),
        libraries=tuple(_library(key, entry, words) for key, entry in libraries.items()),
        trims=filled("trims") + _filled(tools, words),
        programs={role: _fill(path, words) for role, path in _table(data["programs"]).items()},
        version_argv=filled("version"),
        warm_up=_text(data.get("warm_up", "")),
        disk_bytes=int(_text(str(data["disk_mb"]))) << 20,
    )


def _wheel(data: Mapping[str, object]) -> Wheel:
    return Wheel(
        name=_text(data["name"]),
        version=_text(data["version"]),
        sha256=_texts(data["sha256"]),
        files=_table(data.get("files", {})),
    )


def _deb(data: Mapping[str, object]) -> UnpackedDeb:
    return UnpackedDeb(package=_text(data["package"]), files=_table(data["files"]))


def _library(name: str, data: Mapping[str, object], words: Mapping[str, str]) -> LibraryRecipe:
    folder = f"usr/lib/cpp-packages/{name}"
    files = {
        "usr/include": f"{folder}/include",
        "usr/include/{multiarch}": f"{folder}/include",  # those that differ by processor
        "usr/lib/*.a": f"{folder}/lib/",
        "usr/lib/{multiarch}/*.a": f"{folder}/lib/",
    }
    return LibraryRecipe(
        name=name,
        deb=UnpackedDeb(
            package=_text(data["deb"]), files={_fill(source, words): to for source, to in files.items()}
        ),
        include=f"/{folder}/include/{_text(data.get('include', ''))}".rstrip("/"),
        archives=f"/{folder}/lib",
        flags=_texts(data.get("flags", [])),
        needs=_texts(data.get("needs", [])),
    )


def _npm_package(data: Mapping[str, object], architecture: str) -> NpmPackage:
    source = _table(data["any"] if "any" in data else data[architecture])
    return NpmPackage(
        name=source["name"],
        version=_text(data["version"]),
        integrity=source["integrity"],
        files=_table(data["files"]),
    )


def _filled(texts: Sequence[str], words: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(_fill(text, words) for text in texts)


def _fill(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace("{" + word + "}", value)
    return text


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"recipe.toml: expected a string, received {value!r}")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"recipe.toml: expected a list of strings, received {value!r}")
    return tuple(_text(item) for item in value)


def _table(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TypeError(f"recipe.toml: expected a table of strings, received {value!r}")
    return {key: _text(item) for key, item in value.items()}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
