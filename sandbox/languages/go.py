"""Go: a program of one package is compiled and linked directly, anything else by ``go build``.

Both read the standard library from archives that were compiled once, when the tree was built. The direct way
leaves the ``go`` command out, which costs most of the time of a small program.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from sandbox.languages.cpp import PROGRAM
from sandbox.languages.entry import WORK, choose_entry, inside, sources
from sandbox.languages.language import (
    DEPS,
    LAYER,
    LOCK,
    HostPrograms,
    InstallPlan,
    Plan,
    Provision,
    RegistryView,
    Stage,
)
from sandbox.languages.options import read_options
from sandbox.languages.requirement import Grammar, read_dependencies, registry_of
from sandbox.request import ExecutionRequest, SourceFile
from sandbox.tree import Runtime

__all__ = ["LANGUAGE", "Go"]

SUFFIXES = (".go",)

# What only the go command understands: build constraints, embedded files, C, assembly by directive.
# SECURITY: no blanks but those of one line: a file of empty lines would be read from each of them to its end
# (test_sources_are_read_at_once).
_NEEDS_GO_COMMAND = re.compile(
    rb'^//(go:build|go:embed|[^\S\n]*\+build)|^[^\S\n]*import\s+"C"|^[^\S\n]*"C"[^\S\n]*$', re.MULTILINE
)
# A name whose end may be an operating system or a processor is a build constraint, and so is a test.
_CONSTRAINED_NAME = re.compile(r"_[a-z0-9]+\.go$")

DIRECT = """\
set -e
compiler=$1 linker=$2 packages=$3; shift 3
object=$TMPDIR/main.a
"$compiler" -p main -complete -pack -trimpath "$PWD=>." -importcfg "$packages/compile.cfg" -o "$object" "$@"
exec "$linker" -s -w -importcfg "$packages/link.cfg" -o .program "$object"
"""

GRAMMAR = Grammar(
    name=r"[A-Za-z0-9][A-Za-z0-9-]*(\.[A-Za-z0-9-]+)+(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*",
    requirement=r"([<>]=?)?v?\d+(\.\d+){0,2}([-+][0-9A-Za-z.+-]+)?|latest",
    example="github.com/google/uuid v1.6.0",
)
# All packages of a module are asked for first, so that every one of them can be imported; where one of them
# needs what is not to be had, the modules alone. The archives of modules are of no use once unpacked.
INSTALL = """\
set -e
go=$1 layer=$2 lock=$3; shift 3
export GOMODCACHE="$layer/modules"
for wanted in "$@"; do set -- "$@" "${wanted%%@*}/...@${wanted#*@}"; shift; done
if ! "$go" get "$@" 2>/tmp/first; then
    for wanted in "$@"; do set -- "$@" "${wanted%%/...@*}@${wanted#*/...@}"; shift; done
    "$go" get "$@"
fi
cp go.mod go.sum "$layer"
grep -v '/go.mod ' go.sum >"$lock"
cd "$GOMODCACHE/cache" && rm -rf lock vcs download/sumdb && find . -name '*.zip' -delete
"""
# SECURITY: the go command locks the module file, and what it notes of each module in its cache; in the layer,
# one program could so stop all others (test_lock_on_a_file_of_a_layer_stops_nobody_else).
MODULES = "/work/.modules"
BUILD = f"""\
set -e
mkdir {MODULES} && cp {DEPS}/go.mod {DEPS}/go.sum {MODULES}
mkdir {MODULES}/cached && ln -s {DEPS}/modules/* {MODULES}/cached && rm {MODULES}/cached/cache
cp -r {DEPS}/modules/cache {MODULES}/cached
chmod -R u+w {MODULES}/go.mod {MODULES}/go.sum {MODULES}/cached/cache
exec "$@"
"""


class Go:
    """The Go toolchain, without cgo. Modules are those of the request's dependencies, or vendored.

    A ``go.mod`` at the root of the program is kept, and the dependencies are added to what it requires.
    """

    name = "go"
    aliases: tuple[str, ...] = ("golang",)
    title = "Go"
    default_file = "main.go"
    suffixes: tuple[str, ...] = SUFFIXES
    sample = (
        'package main\n\nimport (\n\t"fmt"\n\t"slices"\n\t"strings"\n)\n\nfunc main() {\n\tvar w string\n'
        "\tfmt.Scan(&w)\n\tb := []byte(w)\n\tslices.Reverse(b)\n"
        "\tfmt.Println(strings.ToUpper(string(b)))\n}\n"
    )
    host = HostPrograms(
        programs={"compile": "go"}, version=("{compile}", "version"), fix="apt-get install golang-go"
    )
    registry = "go"

    def plan(self, request: ExecutionRequest, given: Provision) -> Plan:
        """Plan a compile stage, then the program itself.

        Raises:
            RequestError: nothing says which file starts, or an option is given.
        """
        read_options(request, {})
        entry = choose_entry(request, suffixes=SUFFIXES, usual=("main.go", "cmd/main.go"))
        folder = PurePosixPath(entry.path).parent
        package = [
            file
            for file in sources(request, SUFFIXES)
            if PurePosixPath(file.path).parent == folder and not file.path.endswith("_test.go")
        ]
        if entry not in package:
            package.append(entry)
        has_modules = bool(request.dependencies)
        is_direct = (
            "packages" in given.runtime.programs
            and not has_modules
            and _is_one_plain_package(request, package)
        )
        argv = (
            _direct(given.runtime, package)
            if is_direct
            else _by_go_command(request, given.runtime, package, folder)
        )
        # An index of each module would be written to the cache, which is the tree's and read-only.
        modules = {"GOMODCACHE": f"{MODULES}/cached", "GOSUMDB": "off", "GODEBUG": "goindex=0"}
        return Plan(
            files=_module_file(request, given.runtime) if has_modules else (),
            stages=(
                Stage(
                    name="compile",
                    argv=argv,
                    env=_environment(given.runtime) | (modules if has_modules else {}),
                ),
                Stage(name="run", argv=(PROGRAM, *request.args)),
            ),
        )

    def install(
        self, request: ExecutionRequest, given: Provision, registries: Sequence[RegistryView]
    ) -> InstallPlan:
        """Plan ``go get``, which downloads and checks and runs nothing; without a version, of the newest."""
        wanted = [f"{name}@{_query(version)}" for name, version in read_dependencies(request, GRAMMAR)]
        registry = registry_of(request, registries)
        own = [file for file in request.files if file.path in {"go.mod", "go.sum"}]
        return InstallPlan(
            files=[*own, *_module_file(request, given.runtime)],
            stage=Stage(
                name="install",
                argv=(
                    "/bin/sh",
                    "-c",
                    INSTALL,
                    "install",
                    given.runtime.programs["install"],
                    LAYER,
                    LOCK,
                    *wanted,
                ),
                env={
                    **_environment(given.runtime),
                    "GOCACHE": "/work/.cache",
                    "GOFLAGS": "-modcacherw",
                    "GOPROXY": registry.url,
                    "GOVCS": "*:off",
                    **registry.environment,
                },
                tasks_max=256,
            ),
        )


LANGUAGE = Go()


def _query(version: str) -> str:
    if not version:
        return "latest"
    return f"v{version}" if version[0].isdigit() else re.sub(r"^([<>]=?)(?=\d)", r"\1v", version)


def _module_file(request: ExecutionRequest, runtime: Runtime) -> list[SourceFile]:
    if any(file.path == "go.mod" for file in request.files):
        return []
    minor = ".".join(runtime.version.split(".")[:2])
    return [SourceFile(path="go.mod", content=f"module program\n\ngo {minor}\n".encode())]


def _is_one_plain_package(request: ExecutionRequest, package: list[SourceFile]) -> bool:
    everything = [file for file in sources(request, SUFFIXES) if not file.path.endswith("_test.go")]
    return len(package) >= len(everything) and not any(
        _NEEDS_GO_COMMAND.search(file.content) or _CONSTRAINED_NAME.search(file.path) for file in package
    )


def _direct(runtime: Runtime, package: list[SourceFile]) -> tuple[str, ...]:
    tools = (
        runtime.programs["compiler"],
        runtime.programs["linker"],
        runtime.programs["packages"],
    )
    return ("/bin/sh", "-c", DIRECT, "go", *tools, *(inside(file.path) for file in package))


def _by_go_command(
    request: ExecutionRequest, runtime: Runtime, package: list[SourceFile], folder: PurePosixPath
) -> tuple[str, ...]:
    build = (
        runtime.programs["compile"],
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-ldflags=-s -w",
        "-o",
        PROGRAM,
    )
    if request.dependencies:
        with_modules = ("-mod=mod", f"-modfile={MODULES}/go.mod", f"./{folder}")
        return ("/bin/sh", "-c", BUILD, "build", *build, *with_modules)
    if any(PurePosixPath(file.path).name == "go.mod" for file in request.files):
        return (*build, f"./{folder}")
    return (*build, *(inside(file.path) for file in package))


def _environment(runtime: Runtime) -> dict[str, str]:
    return {
        "CGO_ENABLED": "0",
        "GOCACHE": runtime.programs.get("cache", "/tmp/.go-cache"),  # noqa: S108 - the sandbox's own tmpfs
        "GOENV": "off",
        "GOFLAGS": "",
        "GOPATH": f"{WORK}/.gopath",
        "GOPROXY": "off",
        "GOTELEMETRY": "off",
        "GOTOOLCHAIN": "local",
    }
