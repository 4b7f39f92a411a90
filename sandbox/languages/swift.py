"""Swift: every source file is compiled into one program; packages come from a package registry."""

import re
from collections.abc import Sequence

from sandbox.errors import RequestError
from sandbox.languages.cpp import PROGRAM
from sandbox.languages.entry import choose_entry, inside, sources
from sandbox.languages.language import HostPrograms, InstallPlan, Plan, Provision, RegistryView, Stage
from sandbox.languages.options import read_options
from sandbox.languages.swift_packages import COMPILER_FLAGS, install_swift_packages
from sandbox.request import ExecutionRequest, SourceFile

__all__ = ["LANGUAGE", "Swift"]

SUFFIXES = (".swift",)
MAIN = ("main.swift", "Sources/main.swift")
OPTIONS = {"optimize": ("true", "false"), "language_mode": ("5", "6")}
_MAIN_ATTRIBUTE = re.compile(rb"^[ \t]*@main\b", re.MULTILINE)


class Swift:
    """The Swift compiler. ``optimize`` and ``language_mode`` are the options.

    Of several files only ``main.swift`` may hold statements outside declarations; an entry point of another
    name is compiled under that one. A program with ``@main`` starts there instead.
    """

    name = "swift"
    aliases: tuple[str, ...] = ()
    title = "Swift"
    default_file = "main.swift"
    suffixes: tuple[str, ...] = SUFFIXES
    sample = (
        'import Foundation\nlet w = readLine() ?? ""\n'
        "print(String(w.reversed()).uppercased().trimmingCharacters(in: .whitespaces))\n"
    )
    host = HostPrograms(
        programs={"compile": "swiftc"},
        version=("{compile}", "--version"),
        fix="apt-get install swiftlang (Debian 13 or later), or build the language tree",
        optional={"linker": "mold"},
    )
    registry = "swift"

    def plan(self, request: ExecutionRequest, given: Provision) -> Plan:
        """Plan a compile stage over all sources, then the program itself.

        Raises:
            RequestError: there is no Swift file, nothing says which one starts, or an option is unknown.
        """
        options = read_options(request, OPTIONS)
        files = list(sources(request, SUFFIXES))
        if not files:
            received = ", ".join(file.path for file in request.files[:5]) or "none"
            raise RequestError(
                f"files: Swift expects at least one file that ends in .swift, received {received}"
            )
        flags: list[str] = ["-O"] if options["optimize"] == "true" else ["-Onone"]
        flags += ["-swift-version", options["language_mode"]]
        extra: list[SourceFile] = []
        entry = choose_entry(request, suffixes=SUFFIXES, usual=MAIN) if request.entry_point else None
        if any(_MAIN_ATTRIBUTE.search(file.content) for file in files):
            flags.append("-parse-as-library")
        elif len(files) > 1:
            entry = entry or choose_entry(request, suffixes=SUFFIXES, usual=MAIN)
            if entry.path.rpartition("/")[2] != "main.swift":
                renamed = SourceFile(path=".entry/main.swift", content=entry.content)
                extra.append(renamed)
                files = [renamed if file is entry else file for file in files]
        if "linker" in given.runtime.programs:
            flags.append("-use-ld=mold")
        if "module_cache" in given.runtime.programs:
            flags += ["-module-cache-path", given.runtime.programs["module_cache"]]
        paths = [inside(file.path) for file in files]
        if request.dependencies:
            paths.append(COMPILER_FLAGS)
        argv = (given.runtime.programs["compile"], *flags, "-module-name", "program", "-o", PROGRAM, *paths)
        return Plan(
            files=extra,
            stages=(
                Stage(name="compile", argv=argv),
                Stage(name="run", argv=(PROGRAM, *request.args)),
            ),
        )

    def install(
        self, request: ExecutionRequest, given: Provision, registries: Sequence[RegistryView]
    ) -> InstallPlan:
        """Plan the installation of packages from a registry."""
        return install_swift_packages(request, given, registries)


LANGUAGE = Swift()
