"""``blueprint runtimes``: which languages can be asked for, and the build of the language tree."""

from typing import Any

import click
from rich.table import Table

from blueprint.cli.outcome import size_text
from blueprint.cli.progress import BuildProgress
from blueprint.cli.session import Session, node_command
from blueprint.cli.signals import sigterm_interrupts
from sandbox.languages import LANGUAGES
from sandbox.rootfs import HostTree, Manifest, build_tree, list_trees, load_recipe, survey_host
from sandbox.tree import LanguageTree, Runtime

__all__ = ["build", "command"]


@click.group("runtimes", help="List or build the language runtimes.")
def command() -> None:
    """Group the commands about runtimes."""


@command.command("list", help="List the languages and versions of every tree, the host's own among them.")
@node_command(settings=("state_dir", "trees_dir"))
def list_command(session: Session) -> None:
    """Print one line a runtime."""
    trees, host = list_trees(session.trees_dir), survey_host()
    table = Table("tree", "language", "version", "digest", box=None, pad_edge=False)
    for _, manifest in trees:
        for runtime in manifest.runtimes:
            table.add_row("debian", _title(runtime), runtime.version, manifest.digest[:12])
    for runtime in host.tree.runtimes:
        table.add_row("host", _title(runtime), runtime.version, host.tree.digest[:12])
    for language, fix in host.missing.items():
        table.add_row("host", LANGUAGES[language].title, "missing", f"fix: {fix}")
    session.emit([_tree_json(manifest) for _, manifest in trees] + [_host_json(host)], table)
    if not trees:
        session.say("no language tree has been built; the host's own programs can be used with --tree host")
        session.suggest("blueprint runtimes build")
    else:
        session.suggest("blueprint exec FILE")


@command.command("build", help="Build the language tree from Debian trixie, or find the one that is there.")
@click.option("--force", is_flag=True, help="Build again even when a tree of this recipe is there.")
@node_command(settings=("state_dir", "trees_dir", "languages"))
def build_command(session: Session, *, force: bool) -> None:
    """Build, showing progress, and print where the tree lies."""
    tree = build(session, session.settings.languages, force=force)
    session.emit(
        {
            "digest": tree.digest,
            "path": str(tree.path),
            "runtimes": [_runtime_json(r) for r in tree.runtimes],
        },
        str(tree.path),
    )
    session.suggest("blueprint demo", "blueprint exec FILE")


def build(session: Session, languages: tuple[str, ...], *, force: bool = False) -> LanguageTree:
    """Build the tree with these languages (all when empty), or return the one that is there; shows progress.

    Raises:
        RequestError: no language has one of the names.
        SandboxUnavailableError: a program, a right or room on the disk is missing.
        SystemFailureError: the build failed; building again may work.
    """
    recipe = load_recipe(languages)
    titles = ", ".join(language.name for language in recipe.languages)
    session.say(f"language tree for {titles} below {session.trees_dir / 'trees'}")
    with sigterm_interrupts(), BuildProgress(session.stderr) as progress:
        tree = build_tree(session.trees_dir, languages, progress=progress, force=force)
    for folder, manifest in list_trees(session.trees_dir):
        if manifest.digest == tree.digest:
            size = size_text(manifest.size_bytes)
            session.say(f"language tree {tree.digest[:12]}: {size}, {manifest.files} files, {folder}")
    return tree


def _title(runtime: Runtime) -> str:
    language = LANGUAGES.get(runtime.language)
    return language.title if language is not None else runtime.language


def _runtime_json(runtime: Runtime) -> dict[str, Any]:
    return {"language": runtime.language, "version": runtime.version}


def _tree_json(manifest: Manifest) -> dict[str, Any]:
    return {
        "kind": "debian",
        "digest": manifest.digest,
        "size_bytes": manifest.size_bytes,
        "runtimes": [_runtime_json(runtime) for runtime in manifest.runtimes],
    }


def _host_json(host: HostTree) -> dict[str, Any]:
    return {
        "kind": "host",
        "digest": host.tree.digest,
        "runtimes": [_runtime_json(runtime) for runtime in host.tree.runtimes],
        "missing": dict(host.missing),
    }
