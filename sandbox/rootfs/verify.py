"""Runs a program in every language of a finished tree, before the tree is given its name.

Invariant: a tree that was sealed has answered right in each of its languages, with a word that was drawn for
that check.
"""

import re
import secrets
from collections.abc import Callable

from sandbox.bounds import StageBounds
from sandbox.errors import SystemFailureError
from sandbox.languages import find
from sandbox.languages.language import Provision
from sandbox.request import ExecutionRequest, SourceFile
from sandbox.rootfs.recipe import LanguageRecipe
from sandbox.rootfs.shell import TreeShell
from sandbox.tree import Runtime

__all__ = ["read_version", "verify"]

_VERSION = re.compile(r"\d+(?:\.\d+)*")


def read_version(printed: str) -> str:
    """Find the version in what a program prints about itself: the first number with its dots.

    Raises:
        SystemFailureError: there is none.
    """
    match = _VERSION.search(printed)
    if match is None:
        raise SystemFailureError(f"language tree: expected a version, received {printed[:100]!r}")
    return match[0]


def verify(
    language: LanguageRecipe, shell: TreeShell, new_word: Callable[[], str] = lambda: secrets.token_hex(8)
) -> Runtime:
    """Ask a language for its version, run its sample, and return the runtime.

    Raises:
        SystemFailureError: a program of it is missing, fails, or answers wrongly.
    """
    for path in language.programs.values():
        if not (shell.root / path.lstrip("/")).exists():
            raise SystemFailureError(f"language tree: {language.name}: {path} is missing in the tree")
    runtime = Runtime(
        language=language.name,
        version=read_version(shell.require(language.version_argv)),
        programs=dict(language.programs),
    )
    word, declared = new_word(), find(language.name)
    request = ExecutionRequest(
        language=language.name,
        files=(SourceFile(path=declared.default_file, content=declared.sample.encode()),),
        stdin=f"{word}\n".encode(),
    )
    plan = declared.plan(request, Provision(runtime=runtime, bounds=StageBounds()))
    for file in (*request.files, *plan.files):
        place = shell.work / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.content)
    printed = ""
    for stage in plan.stages:
        printed = shell.require(stage.argv, env=stage.env, stdin=request.stdin)
    expected = word[::-1].upper()
    if printed.strip() != expected:
        raise SystemFailureError(
            f"language tree: {language.name} {runtime.version}: expected {expected!r}, "
            f"received {printed[:200]!r}"
        )
    return runtime
