"""Packages of npm, for JavaScript and TypeScript alike: installed by bun into one flat folder.

Invariant: no script of a package runs, and nothing that the request names is an address or a path.
"""

import json
from collections.abc import Sequence

from sandbox.languages.language import LAYER, LOCK, InstallPlan, Provision, RegistryView, Stage
from sandbox.languages.requirement import Grammar, read_dependencies, registry_of
from sandbox.request import ExecutionRequest, SourceFile

__all__ = ["install_npm_packages"]

_PART = r"(?:\d+|[xX*])"
_VERSION = rf"v?{_PART}(?:\.{_PART}){{0,2}}(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?"
_BOUND = rf"(?:(?:[\^~=]|[<>]=?)\s*)?{_VERSION}"
_AND = rf"{_BOUND}(?:\s+-\s+{_VERSION}|(?:\s+{_BOUND})*)"
_WORD = r"[A-Za-z0-9~_-][A-Za-z0-9._~-]*"
GRAMMAR = Grammar(
    name=rf"(@{_WORD}/)?{_WORD}",
    requirement=rf"{_AND}(\s*\|\|\s*{_AND})*|[A-Za-z][A-Za-z-]*",
    example="express ^4.18",
)
# Node.js finds packages in a folder of this name in any folder above the program, for both kinds of modules.
TARGET = "/node_modules"
INSTALL = """\
set -e
bun=$1 registry=$2
"$bun" install --ignore-scripts --linker=hoisted --backend=hardlink --save-text-lockfile \
    --no-progress --network-concurrency=16 --registry="$registry" --cache-dir=/work/.cache
sed -n 's/^    "[^"]*": \\["\\([^"]*\\)".*"\\(sha[0-9]*-[^"]*\\)"\\],*$/\\1 \\2/p' bun.lock >"$4"
mv node_modules "$3"
"""


def install_npm_packages(
    request: ExecutionRequest, given: Provision, registries: Sequence[RegistryView]
) -> InstallPlan:
    """Plan ``bun install`` of a package file that names the dependencies; no range means the newest."""
    wanted = {name: requirement or "latest" for name, requirement in read_dependencies(request, GRAMMAR)}
    registry = registry_of(request, registries)
    package = json.dumps({"name": "program", "private": True, "dependencies": wanted}, indent=1)
    scopes = "".join(
        f"{each.scope}:registry={each.url}/\n" for each in registries if each.scope and each != registry
    )
    return InstallPlan(
        files=[
            SourceFile(path="package.json", content=package.encode()),
            SourceFile(path=".npmrc", content=scopes.encode()),
        ],
        stage=Stage(
            name="install",
            argv=(
                "/bin/sh",
                "-c",
                INSTALL,
                "install",
                given.runtime.programs["install"],
                f"{registry.url}/",
                LAYER,
                LOCK,
            ),
            env={"DO_NOT_TRACK": "1", **registry.environment},
            tasks_max=256,
        ),
        target=TARGET,
    )
