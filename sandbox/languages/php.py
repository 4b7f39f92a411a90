"""PHP: the file is run by the command line interpreter; packages are installed by composer."""

import json
from collections.abc import Sequence

from sandbox.languages.entry import choose_entry, inside
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

_VERSION = r"(?:(?:\^|~|[<>]=?|!=|=)\s*)?v?[0-9*][0-9A-Za-z.*+-]*(?:@[a-z]+)?"
_AND = rf"{_VERSION}(?:\s+-\s+{_VERSION}|(?:\s*,\s*|\s+){_VERSION})*"
GRAMMAR = Grammar(
    name=r"[a-z0-9]+([_.-][a-z0-9]+)*/[a-z0-9]+([_.-]{1,2}[a-z0-9]+)*",
    requirement=rf"{_AND}(\s*\|\|?\s*{_AND})*",
    example="monolog/monolog ^3.0",
)
INSTALL = """\
set -e
php=$1 composer=$2 layer=$3 lock=$4
"$php" -d memory_limit=-1 "$composer" install \
    --no-scripts --no-plugins --no-dev --no-interaction --no-progress --prefer-dist --optimize-autoloader
"$php" -r 'foreach (json_decode(file_get_contents("composer.lock"))->packages as $p)
    echo "$p->name $p->version ", $p->dist->shasum ?? "", "\\n";' >"$lock"
mkdir "$layer" && mv vendor "$layer/vendor"
"""
AUTOLOAD = "vendor/autoload.php"


class Php:
    """The PHP command line interpreter.

    A program with dependencies finds ``vendor/autoload.php`` beside it, where composer would have put it.
    """

    name = "php"
    aliases: tuple[str, ...] = ("php8",)
    title = "PHP"
    default_file = "main.php"
    suffixes: tuple[str, ...] = (".php",)
    sample = "<?php\necho strtoupper(strrev(trim(fgets(STDIN)))), PHP_EOL;\n"
    host = HostPrograms(
        programs={"run": "php"}, version=("{run}", "--version"), fix="apt-get install php-cli"
    )
    registry = "composer"

    def plan(self, request: ExecutionRequest, given: Provision) -> Plan:
        """Plan one stage; a parse error shows as PHP itself shows it, with exit code 255."""
        read_options(request, {})
        entry = choose_entry(request, suffixes=self.suffixes, usual=("main.php", "index.php"))
        argv = (given.runtime.programs["run"], *SETTINGS, inside(entry.path), *request.args)
        return Plan(
            files=_autoload(request),
            stages=(Stage(name="run", argv=argv, counts_processes_exactly=True),),
        )

    def install(
        self, request: ExecutionRequest, given: Provision, registries: Sequence[RegistryView]
    ) -> InstallPlan:
        """Plan ``composer install``; a dependency without a range is the newest stable version."""
        wanted = {name: range_ or "*" for name, range_ in read_dependencies(request, GRAMMAR)}
        registry = registry_of(request, registries)
        project = {
            "require": wanted,
            "repositories": [{"type": "composer", "url": registry.url}, {"packagist.org": False}],
            # The way to the registry is the loopback of the sandbox; the mirror of ours checks certificates.
            "config": {"secure-http": False, "allow-plugins": False, "lock": True, "sort-packages": True},
        }
        tools = (given.runtime.programs["run"], given.runtime.programs["install"], LAYER, LOCK)
        return InstallPlan(
            files=[SourceFile(path="composer.json", content=json.dumps(project, indent=1).encode())],
            stage=Stage(
                name="install",
                argv=("/bin/sh", "-c", INSTALL, "install", *tools),
                env={
                    "COMPOSER_CACHE_DIR": "/dev/null",
                    "COMPOSER_HOME": "/tmp/composer",  # noqa: S108 - the sandbox's own
                    **registry.environment,
                },
                tasks_max=64,
            ),
        )


LANGUAGE = Php()


def _autoload(request: ExecutionRequest) -> list[SourceFile]:
    if not request.dependencies or any(file.path == AUTOLOAD for file in request.files):
        return []
    return [SourceFile(path=AUTOLOAD, content=f"<?php\nreturn require '{DEPS}/{AUTOLOAD}';\n".encode())]
