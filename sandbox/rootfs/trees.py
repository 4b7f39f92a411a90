"""The folder of finished trees: finding one, and the lock under which one is made.

``trees/<digest>/manifest.json`` describes ``trees/<digest>/root``; ``trees/.build-*`` is work in progress and
``trees/.lock`` is held by whoever works on it.

Invariant: a folder named by a digest is complete: it got its name by one rename, after everything in it was
written. What another name is left by a killed builder is removed by the next one, under the lock.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sandbox.errors import SandboxUnavailableError, SystemFailureError
from sandbox.languages import find
from sandbox.rootfs.recipe import Recipe, load_recipes
from sandbox.rootfs.trim import remove_tree
from sandbox.tree import LanguageTree, Library, Runtime

__all__ = [
    "Manifest",
    "build_folder",
    "canonical",
    "find_built",
    "find_tree",
    "find_trees",
    "is_current",
    "list_trees",
    "locked",
    "publish",
]

MANIFEST_FORMAT = 3
LOCK_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is in a tree and where it came from."""

    digest: str
    tree: str
    """Which of the recipe's trees it is."""
    recipe: str
    """The digest of the recipe of what its languages stand on."""
    recipes: Mapping[str, str]
    """Each language and the digest of its recipe."""
    suite: str
    architecture: str
    runtimes: tuple[Runtime, ...]
    packages: Mapping[str, str]
    """Every Debian package and its version."""
    npm: Mapping[str, str]
    """Every npm package and its version."""
    wheels: Mapping[str, str]
    """Every wheel of the Python index and its version."""
    size_bytes: int
    files: int
    phases_s: Mapping[str, float] = field(default_factory=dict)
    """How long each phase of the build took."""
    format: int = MANIFEST_FORMAT


def canonical(languages: Sequence[str]) -> tuple[str, ...]:
    """Return the names of languages for names or aliases.

    Raises:
        RequestError: no language has one of the names.
    """
    return tuple(dict.fromkeys(find(name).name for name in languages))


def find_trees(state_dir: Path, languages: Sequence[str] = ()) -> tuple[LanguageTree, ...]:
    """Find the newest current trees: the one with the default versions, then those with further versions.

    Args:
        state_dir: the node's state directory.
        languages: names or aliases that the first tree must have; empty for any of them.

    Returns:
        Nothing when the first is missing; a missing further tree is left out.
    """
    wanted = set(canonical(languages))
    try:
        recipes = load_recipes()
    except SandboxUnavailableError:  # no recipe for this processor: nothing can have been built
        return ()
    built = list_trees(state_dir)
    found: list[LanguageTree] = []
    for recipe in recipes:
        for folder, manifest in built:
            is_wanted = bool(found) or wanted <= set(manifest.recipes)
            if manifest.tree == recipe.name and is_wanted and _is_made_by(manifest, recipe):
                found.append(as_tree(folder, manifest))
                break
        if not found:
            return ()
    return tuple(found)


def find_tree(state_dir: Path, languages: Sequence[str] = ()) -> LanguageTree | None:
    """Find the newest current tree of the default versions that has all the languages; None without one.

    Args:
        state_dir: the node's state directory.
        languages: names or aliases; empty for any of them.
    """
    return next(iter(find_trees(state_dir, languages)), None)


def find_built(state_dir: Path, recipe: Recipe) -> LanguageTree | None:
    """Find the newest tree that has everything of one recipe; None when there is none."""
    wanted = {language.name: language.digest for language in recipe.languages}
    for folder, manifest in list_trees(state_dir):
        is_same = (manifest.tree, manifest.recipe) == (recipe.name, recipe.digest)
        if is_same and wanted.items() <= manifest.recipes.items():
            return as_tree(folder, manifest)
    return None


def is_current(manifest: Manifest) -> bool:
    """Say whether a tree is as the recipe would make it today."""
    try:
        return any(manifest.tree == each.name and _is_made_by(manifest, each) for each in load_recipes())
    except SandboxUnavailableError:
        return False


def _is_made_by(manifest: Manifest, recipe: Recipe) -> bool:
    digests = {language.name: language.digest for language in recipe.languages}
    return manifest.recipe == recipe.digest and manifest.recipes.items() <= digests.items()


def list_trees(state_dir: Path) -> list[tuple[Path, Manifest]]:
    """List every finished tree with its manifest, the newest first; what is unreadable is left out."""
    found = []
    for path in (state_dir / "trees").glob("*/manifest.json"):
        if path.parent.name.startswith("."):
            continue
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            manifest = _parse(json.loads(path.read_text(encoding="utf-8")))
            found.append((path.stat().st_mtime_ns, path.parent, manifest))
    return [(folder, manifest) for _, folder, manifest in sorted(found, key=lambda item: -item[0])]


def as_tree(folder: Path, manifest: Manifest) -> LanguageTree:
    """Describe a finished tree as an execution sees it."""
    return LanguageTree(
        path=folder / "root", digest=manifest.digest, kind="debian", runtimes=manifest.runtimes
    )


@contextlib.contextmanager
def locked(state_dir: Path, on_wait: Callable[[], None]) -> Iterator[Path]:
    """Hold the builders' lock, waiting for another builder first; yields the folder of trees.

    Args:
        state_dir: the node's state directory; it is made when it is missing.
        on_wait: called once when another builder holds the lock.

    Raises:
        SystemFailureError: the folder cannot be made or written.
    """
    trees = state_dir / "trees"
    try:
        trees.mkdir(parents=True, exist_ok=True)
        lock = os.open(trees / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        raise SystemFailureError(f"language tree: cannot write to {trees}: {exc.strerror}") from exc
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            _wait_for(lock)
        yield trees
    finally:
        os.close(lock)


@contextlib.contextmanager
def build_folder(trees: Path) -> Iterator[Path]:
    """Yield a folder to build in, and remove it at the end whatever happens.

    Call it under the lock: what earlier builders left behind is removed first.
    """
    for stale in trees.glob(".build-*"):
        _unmount_beneath(stale)
        remove_tree(stale)
    folder = Path(tempfile.mkdtemp(prefix=".build-", dir=trees))
    try:
        yield folder
    finally:
        _unmount_beneath(folder)
        remove_tree(folder)


def publish(folder: Path, trees: Path, manifest: Manifest) -> LanguageTree:
    """Give a finished build its name, in one step; an equal tree that is already there stays.

    Args:
        folder: the build's folder; its ``root`` becomes the tree's.
        trees: the folder of trees.
        manifest: what is in it.
    """
    finished = folder / "finished"
    finished.mkdir()
    (folder / "root").rename(finished / "root")
    text = json.dumps(asdict(manifest), indent=2, sort_keys=True)
    (finished / "manifest.json").write_text(text + "\n", encoding="utf-8")
    finished.chmod(0o755)
    # A crash of the machine must not leave a name without the bytes behind it.
    subprocess.run(["sync", "--file-system", str(finished)], check=False)
    place = trees / manifest.digest
    if place.exists():
        (place / "manifest.json").touch()
    else:
        finished.rename(place)
    return as_tree(place, manifest)


def _parse(data: Mapping[str, object]) -> Manifest:
    fields = dict(data)
    if fields.get("format") != MANIFEST_FORMAT:
        raise ValueError(f"manifest: expected format {MANIFEST_FORMAT}, received {fields.get('format')!r}")
    runtimes = fields.pop("runtimes")
    if not isinstance(runtimes, list):
        raise TypeError(f"manifest: expected a list of runtimes, received {runtimes!r}")
    return Manifest(runtimes=tuple(_runtime(runtime) for runtime in runtimes), **fields)  # type: ignore[arg-type] # JSON


def _runtime(data: Mapping[str, Any]) -> Runtime:
    libraries = [
        Library(**entry | {"flags": tuple(entry["flags"]), "needs": tuple(entry["needs"])})
        for entry in data["libraries"]
    ]
    return Runtime(**{**data, "libraries": tuple(libraries)})


def _wait_for(lock: int) -> None:
    # Polled: a blocking flock in a thread could not be interrupted.
    while True:
        time.sleep(LOCK_POLL_S)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return


def _unmount_beneath(folder: Path) -> None:
    """Unmount everything under a folder; as root, a killed build may have left something in our namespace."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        point = line.split()[4].replace("\\040", " ")
        if Path(point).is_relative_to(folder.resolve()):
            mounts.append(point)
    for point in sorted(mounts, key=len, reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
