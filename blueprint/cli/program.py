"""A program as the command line takes it: a file or a folder, and what it is run with.

Invariant: what comes out is an `ExecutionRequest`; every wrong argument is a usage error that names it.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from blueprint.errors import ConfigError
from sandbox.languages import LANGUAGES
from sandbox.request import Dependency, ExecutionRequest, Limits, SourceFile
from sandbox.wellformed import MAX_TIMEOUT_S

__all__ = ["program_options", "read_dependency", "read_program"]

_DEPENDENCY_FORMS: Final = tuple(
    re.compile(form)
    for form in (
        r"(?P<name>\S+)\s+(?P<versions>.+)",  # requests >=2
        r"(?P<name>[^:/]+:[^:]+):(?P<versions>.+)",  # com.google.guava:guava:[32.0,33.0)
        r"(?P<name>[^:]+/[^:]+):(?P<versions>.+)",  # monolog/monolog:^3
        r"(?P<name>@?[^@]+)@(?P<versions>.+)",  # @types/node@^22
        r"(?P<name>[^=<>~!\[]+)(?P<versions>[=<>~!\[].+)",  # requests[socks]>=2,<3
    )
)

F = TypeVar("F", bound=Callable[..., Any])
_MOST_BYTES: Final = 16 * 1024 * 1024
_MOST_FILES: Final = 1000
_LANGUAGE_OF_SUFFIX: Final[Mapping[str, str]] = {
    suffix: language.name for language in LANGUAGES.values() for suffix in language.suffixes
}


def program_options(function: F) -> F:
    """Add the argument and the options that describe a program."""
    options = [
        click.argument("source", type=click.Path(exists=True, path_type=Path)),
        click.option(
            "--language", "-l", metavar="NAME", help="Language; by default told from the file's name."
        ),
        click.option(
            "--runtime",
            default="",
            metavar="VERSION",
            help="Version of the runtime: exact, a prefix or a range.",
        ),
        click.option("--entry-point", default="", metavar="PATH", help="File of a folder that is started."),
        click.option(
            "--stdin",
            "stdin_from",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="What the program reads on stdin; - for this one.",
        ),
        click.option(
            "--arg",
            "arguments",
            multiple=True,
            metavar="TEXT",
            help="Argument of the program; may be repeated.",
        ),
        click.option(
            "--env",
            "env_vars",
            multiple=True,
            metavar="NAME=VALUE",
            help="Environment variable of the program; may be repeated.",
        ),
        click.option(
            "--option",
            "options",
            multiple=True,
            metavar="NAME=VALUE",
            help="Option of the language; may be repeated.",
        ),
        click.option(
            "--dependency",
            "dependencies",
            multiple=True,
            metavar="PACKAGE",
            help="Package that the program needs, with its versions as its ecosystem writes them: "
            "requests>=2, express@^4, com.google.guava:guava:33.0-jre; may be repeated.",
        ),
        click.option(
            "--timeout-s",
            type=click.FloatRange(min=0, min_open=True, max=MAX_TIMEOUT_S),
            help="Wall-clock limit of the run, in seconds.",
        ),
        click.option(
            "--network", default="", metavar="NAME", help="Egress policy of the node to run it under."
        ),
        click.option("--memory-bytes", type=click.IntRange(min=1), help="Memory limit, in bytes."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def read_program(
    *,
    source: Path,
    language: str | None,
    runtime: str,
    entry_point: str,
    stdin_from: Path | None,
    arguments: Iterable[str],
    env_vars: Iterable[str],
    options: Iterable[str],
    timeout_s: float | None,
    network: str,
    memory_bytes: int | None,
    dependencies: Iterable[str] = (),
) -> ExecutionRequest:
    """Read a program from disk and say what it is run with.

    Raises:
        ConfigError: the source is unreadable or too large, its language is unknown, or a pair is wrong.
    """
    files = _read_files(source)
    return ExecutionRequest(
        language=language or _guess_language(source, files),
        files=files,
        runtime=runtime,
        entry_point=entry_point,
        stdin=_read_stdin(stdin_from),
        args=tuple(arguments),
        env_vars=_pairs("--env", env_vars),
        options=_pairs("--option", options),
        dependencies=[read_dependency(text) for text in dependencies],
        timeout_s=timeout_s,
        network=network,
        limits=None if memory_bytes is None else Limits(memory_bytes=memory_bytes),
    )


def read_dependency(text: str) -> Dependency:
    """Part a package from its versions: by a blank, or as pip, npm and go, Maven, or composer write them.

    Raises:
        RequestError: what stands before is no name of a package.
    """
    match = next((found for form in _DEPENDENCY_FORMS if (found := form.fullmatch(text.strip()))), None)
    name, requirement = (match["name"], match["versions"]) if match else (text.strip(), "")
    return Dependency(name=name, requirement=requirement.strip())


def _read_files(source: Path) -> tuple[SourceFile, ...]:
    if not source.is_file() and not source.is_dir():
        raise ConfigError(f"{source} is neither a file nor a folder; name a program")
    if source.is_file():
        return (SourceFile(path=source.name, content=_read(source)),)
    paths = [p for p in sorted(source.rglob("*")) if p.is_file() and not _is_hidden(p.relative_to(source))]
    if not paths:
        raise ConfigError(f"{source} holds no files; name a program or a folder with one")
    if len(paths) > _MOST_FILES or sum(path.stat().st_size for path in paths) > _MOST_BYTES:
        raise ConfigError(
            f"{source} holds {len(paths)} files; at most {_MOST_FILES} files, {_MOST_BYTES} bytes are sent: "
            "name a smaller folder"
        )
    return tuple(SourceFile(path=p.relative_to(source).as_posix(), content=_read(p)) for p in paths)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part in {"node_modules", "__pycache__"} for part in path.parts)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{path} has more than {_MOST_BYTES} bytes; split it, or fetch the data elsewhere")
    return data


def _read_stdin(path: Path | None) -> bytes:
    if path is None:
        return b""
    return sys.stdin.buffer.read(_MOST_BYTES + 1) if str(path) == "-" else _read(path)


def _guess_language(source: Path, files: tuple[SourceFile, ...]) -> str:
    found = {_LANGUAGE_OF_SUFFIX[s] for file in files if (s := Path(file.path).suffix) in _LANGUAGE_OF_SUFFIX}
    if len(found) == 1:
        return found.pop()
    what = f"holds {' and '.join(sorted(found))}" if found else "has no known ending"
    raise ConfigError(f"{source} {what}; say --language, one of {', '.join(LANGUAGES)}")


def _pairs(flag: str, texts: Iterable[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"{flag} {text[:60]!r}: expected NAME=VALUE")
        pairs[name] = value
    return pairs
