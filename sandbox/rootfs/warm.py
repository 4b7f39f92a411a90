"""Fills the caches that compilers would otherwise fill on every run, once, as part of the tree.

Invariant: afterwards each cache is only read: both compilers accept one that they cannot write.
"""

import itertools
from pathlib import Path, PurePosixPath

from sandbox.rootfs.recipe import LanguageRecipe
from sandbox.rootfs.shell import TreeShell

__all__ = ["split_packages", "warm_up"]

SWIFT_MODULES = (
    "Foundation",
    "FoundationNetworking",
    "Dispatch",
    "Observation",
    "Synchronization",
    "RegexBuilder",
    "Glibc",
)


def warm_up(language: LanguageRecipe, shell: TreeShell) -> None:
    """Fill the caches of one language; one without caches is left alone.

    Raises:
        SystemFailureError: the language's own compiler failed.
    """
    if language.warm_up == "go":
        _warm_go(language, shell)
    elif language.warm_up == "swift":
        _warm_swift(language, shell)


def split_packages(listing: str) -> tuple[str, str]:
    """Turn ``import path=archive`` lines into two import configurations.

    Returns:
        What a program may import (neither ``internal`` nor vendored), and everything that it is linked from.
    """
    public, everything = [], []
    for line in listing.splitlines():
        path, _, archive = line.partition("=")
        if not archive:
            continue
        everything.append(f"packagefile {path}={archive}\n")
        parts = path.split("/")
        if "internal" not in parts and parts[0] != "vendor":
            public.append(everything[-1])
    return "".join(public), "".join(everything)


def _warm_go(language: LanguageRecipe, shell: TreeShell) -> None:
    go = language.programs["compile"]
    env = {
        "CGO_ENABLED": "0",
        "GOCACHE": language.programs["cache"],
        "GOENV": "off",
        "GOFLAGS": "-trimpath",
        "GOTELEMETRY": "off",
        "GOTOOLCHAIN": "local",
    }
    shell.require([go, "build", "std"], env=env)
    form = "{{if .Export}}{{.ImportPath}}={{.Export}}{{end}}"
    public, everything = split_packages(shell.require([go, "list", "-export", "-f", form, "std"], env=env))
    folder = _on_host(shell, language.programs["packages"])
    folder.mkdir(parents=True)
    (folder / "compile.cfg").write_text(public, encoding="utf-8")
    (folder / "link.cfg").write_text(everything, encoding="utf-8")
    _let_all_read(_on_host(shell, language.programs["cache"]))


def _warm_swift(language: LanguageRecipe, shell: TreeShell) -> None:
    imports = "".join(f"import {module}\n" for module in SWIFT_MODULES)
    (shell.work / "warm.swift").write_text(f"{imports}print(1)\n", encoding="utf-8")
    cache = language.programs["module_cache"]
    # The compiler keeps a cache apart for each of these flags: every option of `languages.swift` must be met.
    for optimize, mode in itertools.product(("-O", "-Onone"), ("5", "6")):
        flags = [
            optimize,
            "-swift-version",
            mode,
            "-use-ld=mold",
            "-module-cache-path",
            cache,
            "-o",
            "/work/warm",
        ]
        shell.require([language.programs["compile"], *flags, "/work/warm.swift"])
    _let_all_read(_on_host(shell, cache))


def _let_all_read(folder: Path) -> None:
    """Compilers keep their caches to themselves; a sandbox reads them as another user."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _on_host(shell: TreeShell, inside: str) -> Path:
    return shell.root / PurePosixPath(inside).relative_to("/")
