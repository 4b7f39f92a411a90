"""Java: every source file is compiled, and the class with ``main`` is found in the source.

A public class must stand in a file of its own name; a file whose name differs (a lone snippet) is compiled
from a copy under the right one. Packages are jars of Maven repositories, resolved by Apache Ivy.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

from sandbox.errors import RequestError
from sandbox.languages.entry import WORK, choose_entry, inside, sources
from sandbox.languages.heap import heap_mib
from sandbox.languages.java_source import JavaSource, scan
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

__all__ = ["LANGUAGE", "Java"]

SUFFIXES = (".java",)
CLASSES = f"{WORK}/.classes"
NOWHERE = "/dev/null"
COMPILER_HEAP_SHARE = 0.5
PROGRAM_HEAP_SHARE = 0.7
"""What the heap may take of the memory limit; the JVM needs 60 to 100 MiB beside it."""
# The serial collector starts quickest and with the fewest threads; perf data would be a file in /tmp.
JVM = ("-XX:+UseSerialGC", "-XX:-UsePerfData")

_VERSION = r"[0-9A-Za-z][0-9A-Za-z._-]*"
GRAMMAR = Grammar(
    name=r"[A-Za-z0-9_][A-Za-z0-9._-]*:[A-Za-z0-9_][A-Za-z0-9._-]*",
    requirement=rf"{_VERSION}\+?|[\[(\]]\s*({_VERSION})?\s*,\s*({_VERSION})?\s*[\])\[]|\[\s*{_VERSION}\s*\]",
    example="com.google.guava:guava [32.0,33.0)",
)
# The names of the jars are the coordinates, with @ between: a colon would part them on the class path.
INSTALL = """\
set -e
java=$1 layer=$2 lock=$3; shift 3
"$java" "$@" -settings ivysettings.xml -ivy ivy.xml -confs default \
    -retrieve "$layer/[organisation]@[artifact]@[revision](@[classifier]).[ext]"
mkdir -p "$layer"
ls "$layer" | sed -n 's/\\.jar$//; s/@/:/gp' >"$lock"
"""
SETTINGS = """\
<ivysettings>
  <settings defaultResolver="registry"/>
  <caches defaultCacheDir="/work/.cache"/>
  <resolvers><ibiblio name="registry" m2compatible="true" root="{url}/"/></resolvers>
</ivysettings>
"""
MODULE = """\
<ivy-module version="2.0">
  <info organisation="sandbox" module="program"/>
  <configurations><conf name="default"/></configurations>
  <dependencies>
{dependencies}  </dependencies>
</ivy-module>
"""


class Java:
    """OpenJDK. The JVM takes 12 to 18 tasks at start, so processes are not counted by them."""

    name = "java"
    aliases: tuple[str, ...] = ("jdk", "openjdk")
    title = "Java"
    default_file = "Main.java"
    suffixes: tuple[str, ...] = SUFFIXES
    sample = (
        "public class Sample {\n  public static void main(String[] args) {\n"
        "    var w = new java.util.Scanner(System.in).next();\n"
        "    System.out.println(new StringBuilder(w).reverse().toString().toUpperCase());\n  }\n}\n"
    )
    host = HostPrograms(
        programs={"run": "java", "compile": "javac"},
        version=("{run}", "--version"),
        fix="apt-get install default-jdk-headless",
    )
    registry = "maven"

    def plan(self, request: ExecutionRequest, given: Provision) -> Plan:
        """Plan a compile stage over all sources, then the JVM with the class that has ``main``.

        Raises:
            RequestError: there is no Java file, or no class with a ``main`` method.
        """
        read_options(request, {})
        files = sources(request, SUFFIXES)
        if not files and len(request.files) == 1:
            files = (request.files[0],)  # a snippet under some other name; it is compiled as a copy
        if not files:
            received = ", ".join(file.path for file in request.files[:5]) or "none"
            raise RequestError(
                f"files: Java expects at least one file that ends in .java, received {received}"
            )
        scanned = {file.path: scan(file.content, PurePosixPath(file.path).stem) for file in files}
        main_class = _main_class(request, scanned)
        copies, paths = _placed(files, scanned)
        compiler_heap = f"-J-Xmx{heap_mib(given.bounds.compile, share=COMPILER_HEAP_SHARE)}m"
        javac = (given.runtime.programs["compile"], compiler_heap, *(f"-J{flag}" for flag in JVM))
        jars = f":{DEPS}/*" if request.dependencies else ""
        # SECURITY: a compiler starts plugins that it finds where processors are, even with -proc:none; they
        # would run within a compiler's limits (test_attack..."plugin that the compiler starts by itself").
        no_code = ("-proc:none", "--processor-path", NOWHERE)
        flags = ("-J-XX:TieredStopAtLevel=1", *no_code, "-encoding", "UTF-8", "-cp", f"{WORK}{jars}")
        java = (
            given.runtime.programs["run"],
            f"-Xmx{heap_mib(given.bounds.run, share=PROGRAM_HEAP_SHARE)}m",
            *JVM,
        )
        return Plan(
            files=copies,
            stages=(
                Stage(
                    name="compile",
                    argv=(*javac, *flags, "-d", CLASSES, *paths),
                ),
                Stage(name="run", argv=(*java, "-cp", f"{CLASSES}:{WORK}{jars}", main_class, *request.args)),
            ),
        )

    def install(
        self, request: ExecutionRequest, given: Provision, registries: Sequence[RegistryView]
    ) -> InstallPlan:
        """Plan Ivy's resolution and retrieval of jars; without a version, of the newest release."""
        wanted = read_dependencies(request, GRAMMAR)
        registry = registry_of(request, registries)
        rows = "".join(_ivy_dependency(name, version) for name, version in wanted)
        ivy = (*JVM, "-Xmx256m", "-Duser.home=/tmp", "-jar", given.runtime.programs["install"])
        return InstallPlan(
            files=[
                SourceFile(path="ivysettings.xml", content=SETTINGS.format(url=registry.url).encode()),
                SourceFile(path="ivy.xml", content=MODULE.format(dependencies=rows).encode()),
            ],
            stage=Stage(
                name="install",
                argv=("/bin/sh", "-c", INSTALL, "install", given.runtime.programs["run"], LAYER, LOCK, *ivy),
                env=registry.environment,
                tasks_max=256,
            ),
        )


LANGUAGE = Java()


def _ivy_dependency(name: str, version: str) -> str:
    # The grammar has let none of XML's own characters through.
    organisation, _, module = name.partition(":")
    revision = version.replace(" ", "") or "latest.release"
    if revision.startswith("[") and "," not in revision:
        revision = revision[1:-1]
    return (
        f'    <dependency org="{organisation}" name="{module}" rev="{revision}" conf="default->default"/>\n'
    )


def _main_class(request: ExecutionRequest, scanned: dict[str, JavaSource]) -> str:
    if request.entry_point or len(scanned) == 1:
        entry = (
            choose_entry(request, suffixes=SUFFIXES, usual=()).path
            if request.entry_point
            else next(iter(scanned))
        )
        source = scanned.get(entry)
        if source is None or source.main_class is None:
            raise RequestError(f"entry_point: expected a class with a main method in {entry!r}, found none")
        return source.main_class
    with_main = {path: source.main_class for path, source in scanned.items() if source.main_class}
    for path, name in with_main.items():
        if PurePosixPath(path).name == "Main.java":
            return name
    if len(with_main) == 1:
        return next(iter(with_main.values()))
    raise RequestError(
        f"entry_point: expected one class with a main method in {len(scanned)} files, found {len(with_main)}"
        + (f" ({', '.join(list(with_main)[:5])}); set entry_point" if with_main else "")
    )


def _placed(
    files: tuple[SourceFile, ...], scanned: dict[str, JavaSource]
) -> tuple[list[SourceFile], list[str]]:
    """Return the copies to make and the paths to compile: a copy where a public class needs another name."""
    copies, paths = [], []
    for file in files:
        name = PurePosixPath(file.path)
        wanted = scanned[file.path].public_type or name.stem
        if name.stem == wanted and name.suffix == ".java":
            paths.append(inside(file.path))
            continue
        package = (scanned[file.path].package or "").replace(".", "/")
        copy = SourceFile(path=str(PurePosixPath(".entry", package, f"{wanted}.java")), content=file.content)
        copies.append(copy)
        paths.append(inside(copy.path))
    return copies, paths
