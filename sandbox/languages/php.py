"""PHP: the file is run by the command line interpreter."""

from sandbox.languages.entry import choose_entry, inside
from sandbox.languages.language import HostPrograms, Plan, Provision, Stage
from sandbox.languages.options import read_options
from sandbox.request import ExecutionRequest

__all__ = ["LANGUAGE", "Php"]

# Errors go to stderr once: the packaged settings print them to the log, the program's own output stays clean.
# The heap has no bound of its own (memory_limit=-1): the memory group decides, and says so in the result.
SETTINGS = (
    "-d",
    "display_errors=stderr",
    "-d",
    "log_errors=0",
    "-d",
    "html_errors=0",
    "-d",
    "memory_limit=-1",
    "-d",
    "register_argc_argv=1",
)


class Php:
    """The PHP command line interpreter."""

    name = "php"
    aliases: tuple[str, ...] = ("php8",)
    title = "PHP"
    default_file = "main.php"
    suffixes: tuple[str, ...] = (".php",)
    sample = "<?php\necho strtoupper(strrev(trim(fgets(STDIN)))), PHP_EOL;\n"
    host = HostPrograms(
        programs={"run": "php"}, version=("{run}", "--version"), fix="apt-get install php-cli"
    )

    def plan(self, request: ExecutionRequest, given: Provision) -> Plan:
        """Plan one stage; a parse error shows as PHP itself shows it, with exit code 255."""
        read_options(request, {})
        entry = choose_entry(request, suffixes=self.suffixes, usual=("main.php", "index.php"))
        argv = (given.runtime.programs["run"], *SETTINGS, inside(entry.path), *request.args)
        return Plan(stages=(Stage(name="run", argv=argv, counts_processes_exactly=True),))


LANGUAGE = Php()
