"""Builds a language tree from the recipe.

Invariant: a build either ends in a complete, verified tree or leaves nothing behind; two builders on one
machine never work at the same time, and the second reuses what the first has made.
"""

import errno
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sandbox.errors import SandboxUnavailableError
from sandbox.rootfs.bootstrap import bootstrap, require_tools
from sandbox.rootfs.debs import libraries, place_debs
from sandbox.rootfs.npm import fetching_packages
from sandbox.rootfs.progress import Progress, silent
from sandbox.rootfs.recipe import Recipe, load_recipes
from sandbox.rootfs.reporter import Reporter
from sandbox.rootfs.seal import installed_packages, measure
from sandbox.rootfs.shell import TreeShell
from sandbox.rootfs.trees import Manifest, build_folder, canonical, find_built, locked, publish
from sandbox.rootfs.trim import strip_special_bits, trim
from sandbox.rootfs.verify import verify
from sandbox.rootfs.warm import warm_up
from sandbox.rootfs.wheels import fetching_wheels
from sandbox.tree import LanguageTree, Runtime

__all__ = ["build_tree", "build_trees"]

GIB = 1024**3


def build_tree(
    state_dir: Path, languages: Sequence[str] = (), *, progress: Progress = silent, force: bool = False
) -> LanguageTree:
    """Build the tree with the default versions of the languages, or return one that is already there.

    It takes minutes and gigabytes; call it from the main thread, so that an interrupt ends it.

    Args:
        state_dir: the node's state directory; the tree is made under ``trees`` in it.
        languages: names or aliases; empty for all. Python is always added.
        progress: receives a report at the start and end of each phase, and some within.
        force: build even when a tree of the current recipe is there.

    Raises:
        RequestError: no language has one of the names.
        SandboxUnavailableError: a program, a right or room on the disk is missing; the message holds the fix.
        SystemFailureError: the build failed; building again may work (a mirror that could not be reached).
    """
    return next(build_trees(state_dir, languages, progress=progress, force=force))


def build_trees(
    state_dir: Path, languages: Sequence[str] = (), *, progress: Progress = silent, force: bool = False
) -> Iterator[LanguageTree]:
    """Build every version of the languages, a tree after the other; as `build_tree`, which builds the first.

    A tree is of use as soon as it is yielded, whatever happens to the next.
    """
    for recipe in load_recipes(canonical(languages)):
        yield _build_or_find(state_dir, recipe, progress, force=force)


def _build_or_find(state_dir: Path, recipe: Recipe, progress: Progress, *, force: bool) -> LanguageTree:
    if not force and (tree := find_built(state_dir, recipe)):
        return tree
    require_tools()
    reporter = Reporter(progress)
    with locked(
        state_dir, lambda: reporter.begin("wait", "another build is going on; waiting for it")
    ) as trees:
        if not force and (tree := find_built(state_dir, recipe)):
            reporter.finish()
            return tree
        try:
            with build_folder(trees) as folder:
                _require_room(recipe, folder)
                return publish(folder, trees, _build(recipe, folder, reporter))
        except OSError as exc:
            if exc.errno != errno.ENOSPC:
                raise
            raise SandboxUnavailableError(_full(recipe, trees)) from exc


def _build(recipe: Recipe, folder: Path, reporter: Reporter) -> Manifest:
    root = folder / "root"
    reporter.begin("prepare", "beginning to fetch what comes from npm and from the Python index")
    with (
        fetching_packages(recipe, folder / "npm", reporter.note) as place_npm,
        fetching_wheels(recipe, folder / "wheels") as place_wheels,
    ):
        bootstrap(recipe, root, folder, reporter)
        packages = installed_packages(root) | place_debs(recipe, root, folder)
        reporter.begin("fetch", "waiting for what comes from npm and from the Python index")
        npm_packages, wheels = place_npm(root), place_wheels(root)
    reporter.begin("trim", "taking out what no program needs")
    trim(root, recipe.trims)
    strip_special_bits(root)
    reporter.begin("warm", "filling the caches of compilers")
    for language in recipe.languages:
        reporter.note(f"filling the caches of compilers: {language.name}")
        warm_up(language, TreeShell(root, _work(folder, f"warm-{language.name}")))
    runtimes = _verified(recipe, root, folder, packages, reporter)
    reporter.begin("seal", "measuring the tree")
    content = measure(root)
    reporter.note(
        f"{content.files:,} files, {content.size_bytes / 1000**2:,.0f} MB, digest {content.digest[:16]}"
    )
    reporter.finish()
    return Manifest(
        digest=content.digest,
        tree=recipe.name,
        recipe=recipe.digest,
        recipes={language.name: language.digest for language in recipe.languages},
        suite=recipe.suite,
        architecture=recipe.architecture,
        runtimes=runtimes,
        packages=packages,
        npm={package.name: package.version for package in npm_packages},
        wheels={wheel.name: wheel.version for wheel in wheels},
        size_bytes=content.size_bytes,
        files=content.files,
        phases_s={phase: round(seconds, 1) for phase, seconds in reporter.times_s.items()},
    )


def _verified(
    recipe: Recipe, root: Path, folder: Path, packages: Mapping[str, str], reporter: Reporter
) -> tuple[Runtime, ...]:
    reporter.begin("verify", "running a program in each language")
    runtimes = []
    for language in recipe.languages:
        shell = TreeShell(root, _work(folder, f"verify-{language.name}"), is_unprivileged=True)
        runtime = replace(verify(language, shell), libraries=libraries(language, root, packages))
        runtimes.append(runtime)
        reporter.note(f"{runtime.language} {runtime.version} answers")
    return tuple(runtimes)


def _work(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    return path


def _require_room(recipe: Recipe, folder: Path) -> None:
    if shutil.disk_usage(folder).free < recipe.disk_bytes:
        raise SandboxUnavailableError(_full(recipe, folder))


def _full(recipe: Recipe, folder: Path) -> str:
    free = shutil.disk_usage(folder).free
    return (
        f"language tree: the build needs about {recipe.disk_bytes / GIB:.1f} GiB under {folder.parent}, "
        f"{free / GIB:.1f} GiB are free; make room, choose another state directory, or build fewer languages"
    )
