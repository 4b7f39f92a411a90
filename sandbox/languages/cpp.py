"""C++: every source file is compiled and linked into one program."""

from sandbox.errors import RequestError
from sandbox.languages.entry import WORK, choose_entry, inside, sources
from sandbox.languages.language import HostPrograms, Plan, Provision, Stage
from sandbox.languages.libraries import choose_libraries
from sandbox.languages.options import read_options
from sandbox.request import ExecutionRequest

__all__ = ["LANGUAGE", "PROGRAM", "Cpp"]

PROGRAM = f"{WORK}/.program"
"""Where compilers of native code leave the program."""
SUFFIXES = (".cpp", ".cc", ".cxx", ".c++", ".C")
OPTIONS = {
    "standard": ("c++17", "c++11", "c++14", "c++20", "c++23"),
    "optimize": ("2", "0", "1", "3"),
}


class Cpp:
    """GNU C++. Headers are found in ``/work``; ``standard`` and ``optimize`` are the options.

    Its dependencies are libraries of the language tree; nothing is installed.
    """

    name = "cpp"
    aliases: tuple[str, ...] = ("c++", "cxx", "cc", "g++")
    title = "C++"
    default_file = "main.cpp"
    suffixes: tuple[str, ...] = SUFFIXES
    sample = (
        "#include <algorithm>\n#include <cctype>\n#include <iostream>\n#include <string>\n"
        "int main() {\n  std::string w;\n  std::cin >> w;\n  std::reverse(w.begin(), w.end());\n"
        "  for (char &c : w) c = std::toupper(c);\n  std::cout << w << std::endl;\n}\n"
    )
    host = HostPrograms(
        programs={"compile": "g++"},
        version=("{compile}", "-dumpfullversion"),
        fix="apt-get install g++",
        optional={"linker": "mold"},
    )

    def plan(self, request: ExecutionRequest, given: Provision) -> Plan:
        """Plan a compile stage over all sources, then the program itself.

        Raises:
            RequestError: there is no C++ source file, or an option or a library is unknown.
        """
        options = read_options(request, OPTIONS)
        files = sources(request, SUFFIXES)
        if request.entry_point or len(request.files) == 1:
            choose_entry(request, suffixes=SUFFIXES, usual=())
        if not files:
            raise RequestError(
                f"files: C++ expects at least one file that ends in {', '.join(SUFFIXES)}, received "
                f"{', '.join(file.path for file in request.files[:5]) or 'none'}"
            )
        libraries = choose_libraries(request.dependencies, given.runtime)
        linker = ("-fuse-ld=mold",) if "linker" in given.runtime.programs else ()
        argv = (
            given.runtime.programs["compile"],
            f"-std={options['standard']}",
            f"-O{options['optimize']}",
            "-pipe",
            "-pthread",
            f"-I{WORK}",
            *linker,
            "-o",
            PROGRAM,
            *(inside(file.path) for file in files),
            *libraries.flags,
        )
        return Plan(
            stages=(
                Stage(name="compile", argv=argv),
                Stage(name="run", argv=(PROGRAM, *request.args), counts_processes_exactly=True),
            ),
            lock=libraries.lock,
        )


LANGUAGE = Cpp()
