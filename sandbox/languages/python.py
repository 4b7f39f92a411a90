"""Python: the file is run as it is."""

from sandbox.languages.entry import choose_entry, inside
from sandbox.languages.language import HostPrograms, Plan, Provision, Stage
from sandbox.languages.options import read_options
from sandbox.request import ExecutionRequest

__all__ = ["LANGUAGE", "Python"]


class Python:
    """CPython. The entry's folder is first on the module path, as for ``python3 file``."""

    name = "python"
    aliases: tuple[str, ...] = ("py", "python3")
    title = "Python"
    default_file = "main.py"
    suffixes: tuple[str, ...] = (".py",)
    sample = "print(input()[::-1].upper())\n"
    host = HostPrograms(
        programs={"run": "python3"}, version=("{run}", "--version"), fix="apt-get install python3"
    )

    def plan(self, request: ExecutionRequest, given: Provision) -> Plan:
        """Plan one stage; a syntax error shows as Python itself shows it, with exit code 1."""
        read_options(request, {})
        entry = choose_entry(request, suffixes=self.suffixes, usual=("main.py", "__main__.py", "app.py"))
        return Plan(
            stages=(
                Stage(
                    name="run",
                    argv=(given.runtime.programs["run"], inside(entry.path), *request.args),
                    env={"PYTHONDONTWRITEBYTECODE": "1"},
                    counts_processes_exactly=True,
                ),
            )
        )


LANGUAGE = Python()
