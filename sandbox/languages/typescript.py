"""TypeScript: the compiler checks the types and writes JavaScript, which Node.js runs.

Without the type check there is no compile stage: Node.js strips the types itself, and transforms enums.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from sandbox.languages.entry import WORK, choose_entry, inside
from sandbox.languages.heap import heap_mib
from sandbox.languages.javascript import NODE_HEAP_SHARE
from sandbox.languages.language import HostPrograms, InstallPlan, Plan, Provision, RegistryView, Stage
from sandbox.languages.npm_packages import install_npm_packages
from sandbox.languages.options import SWITCH, read_options
from sandbox.request import ExecutionRequest, Limits, SourceFile
from sandbox.tree import Runtime

__all__ = ["LANGUAGE", "TypeScript"]

SUFFIXES = (".ts", ".mts", ".cts")
OPTIONS = {"type_check": SWITCH, "strict": ("false", "true"), "module": ("auto", "commonjs", "esm")}
OUT = ".js"
"""Where the compiler writes, under ``/work``."""

# Only an ES module may await outside a function or read import.meta. The first is told by an await in a line
# that is not indented; where that guess is wrong, the option ``module`` decides.
_ONLY_IN_ES_MODULES = re.compile(rb"\bimport\.meta\b|^(?:[^\s/*].*?)?\bawait\b", re.MULTILINE)
_INSIDE_FUNCTION = re.compile(rb"\basync\b|=>")
_MAX_BRACKETS = 1000
COMPILED_SUFFIX = {".ts": ".js", ".mts": ".mjs", ".cts": ".cjs"}


def _types_folder(programs: Mapping[str, str]) -> dict[str, str]:
    """Find the types of Node.js beside a compiler that npm has installed."""
    for parent in Path(programs["compile"]).parents:
        if parent.name == "node_modules":
            types = parent / "@types"
            return {"types": str(types)} if (types / "node").is_dir() else {}
    return {}


class TypeScript:
    """TypeScript on Node.js. ``type_check``, ``strict`` and ``module`` are the options."""

    name = "typescript"
    aliases: tuple[str, ...] = ("ts",)
    title = "TypeScript"
    default_file = "main.ts"
    suffixes: tuple[str, ...] = SUFFIXES
    sample = (
        "import { readFileSync } from 'node:fs';\n"
        "const w: string = readFileSync(0, 'utf8').trim();\n"
        "console.log([...w].reverse().join('').toUpperCase());\n"
    )
    host = HostPrograms(
        programs={"run": "node", "compile": "tsc"},
        version=("{run}", "{compile}", "--version"),
        fix="apt-get install nodejs npm, then: npm install --global typescript@5.9",
        beside=_types_folder,
    )
    registry = "npm"

    def plan(self, request: ExecutionRequest, given: Provision) -> Plan:
        """Plan a compile stage (unless ``type_check`` is false), then Node.js.

        Raises:
            RequestError: nothing says which file starts, or an option is unknown.
        """
        options = read_options(request, OPTIONS)
        entry = choose_entry(
            request, suffixes=SUFFIXES, usual=("main.ts", "index.ts", "main.mts", "index.mts")
        )
        node = _node(given, given.bounds.run)
        if options["type_check"] == "false":
            strip = ("--experimental-transform-types", "--disable-warning=ExperimentalWarning")
            return Plan(stages=(Stage(name="run", argv=(*node, *strip, inside(entry.path), *request.args)),))
        is_esm = _is_esm(request, options["module"])
        compiled = str(
            PurePosixPath(entry.path).with_suffix(COMPILED_SUFFIX[PurePosixPath(entry.path).suffix])
        )
        return Plan(
            files=_module_kind_files(request, is_esm=is_esm),
            stages=(
                Stage(
                    name="compile",
                    argv=(
                        *_node(given, given.bounds.compile),
                        given.runtime.programs["compile"],
                        *_compiler_flags(request, given.runtime, entry, options),
                    ),
                    env={
                        "NODE_DISABLE_COMPILE_CACHE": "1"
                    },  # the cache would be written, and never read again
                ),
                Stage(name="run", argv=(*node, inside(f"{OUT}/{compiled}"), *request.args)),
            ),
        )

    def install(
        self, request: ExecutionRequest, given: Provision, registries: Sequence[RegistryView]
    ) -> InstallPlan:
        """Plan the installation of packages from npm."""
        return install_npm_packages(request, given, registries)


LANGUAGE = TypeScript()


def _node(given: Provision, limits: Limits) -> tuple[str, ...]:
    return (given.runtime.programs["run"], f"--max-old-space-size={heap_mib(limits, share=NODE_HEAP_SHARE)}")


def _is_esm(request: ExecutionRequest, option: str) -> bool:
    if option != "auto":
        return option == "esm"
    for file in request.files:
        if file.path == "package.json":
            return _package_type(file.content) == "module"
    return any(_awaits_outside_functions(file.content) for file in request.files if file.path.endswith(".ts"))


def _awaits_outside_functions(source: bytes) -> bool:
    return any(not _INSIDE_FUNCTION.search(match[0]) for match in _ONLY_IN_ES_MODULES.finditer(source))


def _package_type(content: bytes) -> str:
    # SECURITY: the parser recurses in C for each bracket, and a library may have raised the interpreter's
    # limit to where the C stack overflows first; test_a_package_file_of_brackets_ends_nothing
    if content.count(b"[") + content.count(b"{") > _MAX_BRACKETS:
        return ""
    try:
        package = json.loads(content)
    except (ValueError, RecursionError):
        return ""  # Node.js reports the broken file in its own words
    return str(package.get("type", "")) if isinstance(package, dict) else ""


def _module_kind_files(request: ExecutionRequest, *, is_esm: bool) -> list[SourceFile]:
    if any(file.path == f"{OUT}/package.json" for file in request.files):
        return []
    kind = {"type": "module" if is_esm else "commonjs"}
    return [SourceFile(path=f"{OUT}/package.json", content=json.dumps(kind).encode())]


def _compiler_flags(
    request: ExecutionRequest, runtime: Runtime, entry: SourceFile, options: dict[str, str]
) -> tuple[str, ...]:
    output = (
        "--outDir",
        inside(OUT),
        "--rootDir",
        WORK,
        "--noEmit",
        "false",
        "--noEmitOnError",
        "--pretty",
        "false",
    )
    types = (
        ("--types", "node", "--typeRoots", runtime.programs["types"]) if "types" in runtime.programs else ()
    )
    if any(file.path == "tsconfig.json" for file in request.files):
        return ("--project", inside("tsconfig.json"), *output, *types)
    module = (
        ("--module", "esnext", "--moduleResolution", "bundler", "--rewriteRelativeImportExtensions")
        if _is_esm(request, options["module"])
        else ("--module", "commonjs", "--moduleResolution", "node10", "--rewriteRelativeImportExtensions")
    )
    return (
        *module,
        *output,
        *types,
        *("--target", "es2023", "--lib", "es2023", "--moduleDetection", "force"),
        *("--esModuleInterop", "--resolveJsonModule", "--skipLibCheck", "--experimentalDecorators"),
        *("--strict", options["strict"]),
        inside(entry.path),
    )
