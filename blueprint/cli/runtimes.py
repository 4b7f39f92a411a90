"""``blueprint runtimes``: which languages can be asked for, and the build of the language trees."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import click
from rich.table import Table

from blueprint.cli.outcome import size_text
from blueprint.cli.progress import BuildProgress
from blueprint.cli.sandboxes import layers_of
from blueprint.cli.session import Session, node_command
from blueprint.cli.signals import sigterm_interrupts
from sandbox.dependencies.store import StoredLayer
from sandbox.languages import LANGUAGES
from sandbox.rootfs import (
    HostTree,
    Manifest,
    build_tree,
    build_trees,
    is_current,
    list_trees,
    load_recipes,
    survey_host,
)
from sandbox.tree import LanguageTree, Library, Runtime

__all__ = ["build", "command"]


@click.group("runtimes", help="List or build the language runtimes.")
def command() -> None:
    """Group the commands about runtimes."""


@command.command(
    "list", help="List the languages, versions and C++ libraries of every tree, the host among them."
)
@node_command(settings=("state_dir", "trees_dir"))
def list_command(session: Session) -> None:
    """Print one line a runtime, then one line a library."""
    trees, host = _in_order(list_trees(session.trees_dir)), survey_host()
    table = Table("tree", "language", "version", "installer", "digest", "state", box=None, pad_edge=False)
    for _, manifest in trees:
        state = "current" if is_current(manifest) else "out of date"
        for runtime in manifest.runtimes:
            row = (manifest.tree, _title(runtime), runtime.version, _installer(runtime) or "-")
            table.add_row(*row, manifest.digest[:12], state)
    for runtime in host.tree.runtimes:
        table.add_row("host", _title(runtime), runtime.version, "-", host.tree.digest[:12], "current")
    for language, fix in host.missing.items():
        table.add_row("host", LANGUAGES[language].title, "missing", "-", "-", f"fix: {fix}")
    libraries = _libraries(trees)
    if libraries:
        table.add_section()
    for library in libraries.values():
        table.add_row("", f"C++ library {library.name}", library.version, "in the tree", "", "")
    session.emit([_tree_json(manifest) for _, manifest in trees] + [_host_json(host)], table)
    if not any(is_current(manifest) for _, manifest in trees):
        why = "the language trees are out of date" if trees else "no language tree has been built"
        session.say(f"{why}; the host's own programs can be used with --tree host")
        session.suggest("blueprint runtimes build")
    else:
        session.suggest("blueprint exec FILE")


@command.command("build", help="Build the language trees from Debian, or find those that are there.")
@click.option("--default-only", is_flag=True, help="Build only the default version of each language.")
@click.option("--force", is_flag=True, help="Build again even when a tree of this recipe is there.")
@node_command(settings=("state_dir", "trees_dir", "languages"))
def build_command(session: Session, *, default_only: bool, force: bool) -> None:
    """Build one tree after the other, showing progress, and print where each lies."""
    languages = session.settings.languages
    if default_only:
        trees = [build(session, languages, force=force)]
    else:
        trees = []
        with sigterm_interrupts(), BuildProgress(session.stderr) as progress:
            names = [recipe.name for recipe in load_recipes(languages)]
            session.say(f"language trees {', '.join(names)} below {session.trees_dir / 'trees'}")
            for tree in build_trees(session.trees_dir, languages, progress=progress, force=force):
                _say_built(session, tree)
                trees.append(tree)
    session.emit([_built_json(tree) for tree in trees], "\n".join(str(tree.path) for tree in trees))
    session.suggest("blueprint demo", "blueprint exec FILE")


@command.command("layers", help="List the installed dependencies that are kept, or remove them.")
@click.option("--prune", is_flag=True, help="Remove all that are not in use, and those that are corrupt.")
@node_command(settings=("state_dir", "trees_dir", "layers_dir"))
def layers_command(session: Session, *, prune: bool) -> None:
    """Print one line a layer, the last used first; or how much was removed."""
    store = layers_of(session)
    if prune:
        store.open()
        removed = [*store.verify(), *(layer.key for layer in store.evict(cap_bytes=0))]
        session.say(f"layers removed: {len(removed)}, below {store.folder}")
    kept = sorted(store.layers(), key=lambda layer: -layer.used_at_s)
    table = Table("layer", "language", "version", "size", "last use", "packages", box=None, pad_edge=False)
    for layer in kept:
        what, used = layer.manifest, datetime.fromtimestamp(layer.used_at_s, tz=UTC)
        when = "now" if layer.is_in_use else f"{used:%Y-%m-%d %H:%M}"
        names = ", ".join(what.requested)
        table.add_row(what.key[:12], what.language, what.version, size_text(what.size_bytes), when, names)
    session.emit([_layer_json(layer) for layer in kept], table)


def build(session: Session, languages: tuple[str, ...], *, force: bool = False) -> LanguageTree:
    """Build the tree with the default versions (of all languages when empty), or return what is there.

    Raises:
        RequestError: no language has one of the names.
        SandboxUnavailableError: a program, a right or room on the disk is missing.
        SystemFailureError: the build failed; building again may work.
    """
    titles = ", ".join(language.name for language in load_recipes(languages)[0].languages)
    session.say(f"language tree for {titles} below {session.trees_dir / 'trees'}")
    with sigterm_interrupts(), BuildProgress(session.stderr) as progress:
        tree = build_tree(session.trees_dir, languages, progress=progress, force=force)
    _say_built(session, tree)
    return tree


def _say_built(session: Session, tree: LanguageTree) -> None:
    for folder, manifest in list_trees(session.trees_dir):
        if manifest.digest == tree.digest:
            size = size_text(manifest.size_bytes)
            session.say(f"language tree {tree.digest[:12]}: {size}, {manifest.files} files, {folder}")


def _title(runtime: Runtime) -> str:
    language = LANGUAGES.get(runtime.language)
    return language.title if language is not None else runtime.language


def _in_order(trees: Sequence[tuple[Path, Manifest]]) -> list[tuple[Path, Manifest]]:
    """Put current trees first, that with the default versions before the others; else the newest first."""
    names = [recipe.name for recipe in load_recipes()]

    def key(entry: tuple[Path, Manifest]) -> tuple[bool, int]:
        tree = entry[1].tree
        return not is_current(entry[1]), names.index(tree) if tree in names else len(names)

    return sorted(trees, key=key)


def _installer(runtime: Runtime) -> str:
    """Name what installs a runtime's dependencies; empty where its tree has nothing that does."""
    if "install" in runtime.programs:
        return PurePosixPath(runtime.programs["install"]).name
    return "libraries of the tree" if runtime.libraries else ""


def _libraries(trees: Sequence[tuple[Path, Manifest]]) -> Mapping[str, Library]:
    """Return the libraries of all current trees, by name; the newest tree's where they differ."""
    return {
        library.name: library
        for _, manifest in reversed(trees)
        if is_current(manifest)
        for runtime in manifest.runtimes
        for library in runtime.libraries
    }


def _built_json(tree: LanguageTree) -> dict[str, Any]:
    runtimes = [_runtime_json(runtime) for runtime in tree.runtimes]
    return {"digest": tree.digest, "path": str(tree.path), "runtimes": runtimes}


def _runtime_json(runtime: Runtime) -> dict[str, Any]:
    return {
        "language": runtime.language,
        "version": runtime.version,
        "installer": _installer(runtime) or None,
        "libraries": [
            {"name": library.name, "version": library.version, "needs": list(library.needs)}
            for library in runtime.libraries
        ],
    }


def _tree_json(manifest: Manifest) -> dict[str, Any]:
    return {
        "kind": "debian",
        "tree": manifest.tree,
        "suite": manifest.suite,
        "digest": manifest.digest,
        "is_current": is_current(manifest),
        "size_bytes": manifest.size_bytes,
        "runtimes": [_runtime_json(runtime) for runtime in manifest.runtimes],
    }


def _layer_json(layer: StoredLayer) -> dict[str, Any]:
    return asdict(layer.manifest) | {"used_at_s": layer.used_at_s, "is_in_use": layer.is_in_use}


def _host_json(host: HostTree) -> dict[str, Any]:
    return {
        "kind": "host",
        "digest": host.tree.digest,
        "runtimes": [_runtime_json(runtime) for runtime in host.tree.runtimes],
        "missing": dict(host.missing),
    }
