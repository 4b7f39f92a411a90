"""Java: every source file is compiled, and the class with ``main`` is found in the source.

A public class must stand in a file of its own name; a file whose name differs (a lone snippet) is compiled
from a copy under the right one.
"""

from pathlib import PurePosixPath

from sandbox.errors import RequestError
from sandbox.languages.entry import WORK, choose_entry, inside, sources
from sandbox.languages.heap import heap_mib
from sandbox.languages.java_source import JavaSource, scan
from sandbox.languages.language import HostPrograms, Plan, Provision, Stage
from sandbox.languages.options import read_options
from sandbox.request import ExecutionRequest, SourceFile

__all__ = ["LANGUAGE", "Java"]

SUFFIXES = (".java",)
CLASSES = f"{WORK}/.classes"
COMPILER_HEAP_SHARE = 0.5
PROGRAM_HEAP_SHARE = 0.7
"""What the heap may take of the memory limit; the JVM needs 60 to 100 MiB beside it."""
# The serial collector starts quickest and with the fewest threads; perf data would be a file in /tmp.
JVM = ("-XX:+UseSerialGC", "-XX:-UsePerfData")


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
        flags = ("-J-XX:TieredStopAtLevel=1", "-proc:none", "-encoding", "UTF-8", "-d", CLASSES)
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
                    argv=(*javac, *flags, *paths),
                ),
                Stage(name="run", argv=(*java, "-cp", f"{CLASSES}:{WORK}", main_class, *request.args)),
            ),
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


LANGUAGE = Java()
