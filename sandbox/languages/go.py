"""Go: a program of one package is compiled and linked directly, anything else by ``go build``.

Both read the standard library from archives that were compiled once, when the tree was built. The direct way
leaves the ``go`` command out, which costs most of the time of a small program.
"""

import re
from pathlib import PurePosixPath

from sandbox.languages.cpp import PROGRAM
from sandbox.languages.entry import WORK, choose_entry, inside, sources
from sandbox.languages.language import HostPrograms, Plan, Provision, Stage
from sandbox.languages.options import read_options
from sandbox.request import ExecutionRequest, SourceFile
from sandbox.tree import Runtime

__all__ = ["LANGUAGE", "Go"]

SUFFIXES = (".go",)

# What only the go command understands: build constraints, embedded files, C, assembly by directive.
_NEEDS_GO_COMMAND = re.compile(
    rb'^//(go:build|go:embed|\s*\+build)|^\s*import\s+"C"|^\s*"C"\s*$', re.MULTILINE
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


class Go:
    """The Go toolchain, without cgo and without a network. Modules must be vendored."""

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
        is_direct = "packages" in given.runtime.programs and _is_one_plain_package(request, package)
        argv = (
            _direct(given.runtime, package)
            if is_direct
            else _by_go_command(request, given.runtime, package, folder)
        )
        return Plan(
            stages=(
                Stage(
                    name="compile",
                    argv=argv,
                    env=_environment(given.runtime),
                ),
                Stage(name="run", argv=(PROGRAM, *request.args)),
            )
        )


def _is_one_plain_package(request: ExecutionRequest, package: list[SourceFile]) -> bool:
    everything = [file for file in sources(request, SUFFIXES) if not file.path.endswith("_test.go")]
    return len(package) >= len(everything) and not any(
        _NEEDS_GO_COMMAND.search(file.content) or _CONSTRAINED_NAME.search(file.path) for file in package
    )


def _direct(runtime: Runtime, package: list[SourceFile]) -> tuple[str, ...]:
    tools = (runtime.programs["compiler"], runtime.programs["linker"], runtime.programs["packages"])
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


LANGUAGE = Go()
