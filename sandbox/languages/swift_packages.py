"""Packages of a Swift package registry: resolved and compiled once by SwiftPM, then linked by every program.

Invariant: what SwiftPM runs (manifests of packages are programs) runs where packages are installed, never
where a program is compiled or run.
"""

import json
from collections.abc import Sequence

from sandbox.languages.language import DEPS, LAYER, LOCK, InstallPlan, Provision, RegistryView, Stage
from sandbox.languages.requirement import Grammar, read_dependencies, registry_of
from sandbox.request import ExecutionRequest, SourceFile

__all__ = ["COMPILER_FLAGS", "install_swift_packages"]

COMPILER_FLAGS = f"@{DEPS}/flags"
"""What the compiler of a program with dependencies is told: where modules and objects are."""

_VERSION = r'"?\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?"?'
GRAMMAR = Grammar(
    name=r"[A-Za-z0-9](-?[A-Za-z0-9]){0,38}\.[A-Za-z0-9]([-_]?[A-Za-z0-9]){0,99}",
    requirement=rf"((from|exact):\s*)?{_VERSION}|{_VERSION}\s*\.\.[.<]\s*{_VERSION}",
    example="mona.LinkedList from: 1.2.0",
)
INSTALL = """\
set -e
package=$1 layer=$2 lock=$3
build="${package%swift-package}swift-build"
"$package" --scratch-path "$layer/build" resolve
python3 packages.py products "$package" "$layer"
"$build" --configuration release --scratch-path "$layer/build" --product Dependencies
python3 packages.py gather "$layer" "$lock"
rm -rf "$layer"/build/*/release/ModuleCache
"""
# Which libraries a package offers only its manifest knows. What was compiled stays where it is: module maps
# name headers by absolute paths, which are made to lead to where the layer is shown. Modules of C are
# compiled again for every program, in a cache that can be written.
PACKAGES = """\
import json, pathlib, subprocess, sys

def pins():
    for pin in json.loads(pathlib.Path("Package.resolved").read_text())["pins"]:
        yield pin["identity"], pin["state"]["version"]

def products(package, layer):
    manifest, found = pathlib.Path("Package.swift").read_text(), []
    for folder in pathlib.Path(layer, "build/registry/downloads").glob("*/*/*"):
        identity = ".".join(folder.parts[-3:-1])
        if f'id: "{identity.lower()}"' in manifest.lower():
            printed = subprocess.run(
                [package, "--package-path", folder, "--scratch-path", "/tmp/scratch", "dump-package"],
                stdout=subprocess.PIPE, check=True,
            ).stdout
            names = [each["name"] for each in json.loads(printed)["products"] if "library" in each["type"]]
            found += [f".product(name: {json.dumps(n)}, package: {json.dumps(identity)})" for n in names]
    pathlib.Path("Package.swift").write_text(manifest.replace("/* products */", ", ".join(found)))

def gather(layer, lock):
    layer, shown = pathlib.Path(layer), pathlib.Path("SHOWN")
    release = (layer / "build/release").resolve()
    (layer / "build/release").unlink()
    flags = ["-I", shown / release.relative_to(layer) / "Modules"]
    for path in sorted(release.glob("*.build/module.modulemap")):
        path.write_text(path.read_text().replace(str(layer), str(shown)))
        flags += ["-Xcc", f"-fmodule-map-file={shown / path.relative_to(layer)}"]
    for path in sorted(layer.glob("build/registry/downloads/*/*/*/**/include/module.modulemap")):
        flags += ["-Xcc", f"-fmodule-map-file={shown / path.relative_to(layer)}"]
    if "-Xcc" in flags:
        flags += ["-module-cache-path", "/tmp/modules"]
    for path in sorted(release.glob("*.build/**/*.o")):
        if path.relative_to(release).parts[0] != "Dependencies.build":
            flags.append(shown / path.relative_to(layer))
    (layer / "flags").write_text("".join(f"{flag}\\n" for flag in flags))
    pathlib.Path(lock).write_text("".join(f"{identity} {version}\\n" for identity, version in pins()))

globals()[sys.argv[1]](*sys.argv[2:])
""".replace("SHOWN", DEPS)
MANIFEST = """\
// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "program",
    products: [.library(name: "Dependencies", type: .static, targets: ["Dependencies"])],
    dependencies: [
%s    ],
    targets: [.target(name: "Dependencies", dependencies: [/* products */])]
)
"""


def install_swift_packages(
    request: ExecutionRequest, given: Provision, registries: Sequence[RegistryView]
) -> InstallPlan:
    """Plan SwiftPM's resolution, and the compilation of every library of the packages that are named."""
    registry = registry_of(request, registries)
    rows = [
        f'        .package(id: "{name}", {_range(wanted)}),\n'
        for name, wanted in read_dependencies(request, GRAMMAR)
    ]
    scopes = {each.scope or "[default]": {"url": each.url} for each in (*reversed(registries), registry)}
    configuration = json.dumps({"registries": scopes, "authentication": {}, "version": 1})
    return InstallPlan(
        files=[
            SourceFile(path="Package.swift", content=(MANIFEST % "".join(rows)).encode()),
            SourceFile(path="Sources/Dependencies/none.swift", content=b""),
            SourceFile(path=".swiftpm/configuration/registries.json", content=configuration.encode()),
            SourceFile(path="packages.py", content=PACKAGES.encode()),
        ],
        stage=Stage(
            name="install",
            argv=("/bin/sh", "-c", INSTALL, "install", given.runtime.programs["install"], LAYER, LOCK),
            env=registry.environment,
            tasks_max=256,
        ),
    )


def _range(wanted: str) -> str:
    """Return a range as a manifest writes it; a lone version is that version, and none is any."""
    text = wanted.replace('"', "")
    if not text:
        return '"0.0.0"..<"9999.0.0"'
    for between in ("..<", "..."):
        if between in text:
            lowest, _, highest = text.partition(between)
            return f'"{lowest.strip()}"{between}"{highest.strip()}"'
    kind, colon, version = text.partition(":")
    return f'{kind}: "{version.strip()}"' if colon else f'exact: "{text}"'
