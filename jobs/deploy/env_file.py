r"""Reads a file of variables, strictly: a line that cannot be read is an error, never skipped.

A line is empty, a comment that begins with ``#``, or ``NAME=VALUE``, with ``export`` before it if you like.
A value is taken as it stands, without the spaces and tabs around it; in single quotes everything is
literal; in double quotes ``\n``, ``\r``, ``\t``, ``\"``, ``\$`` and ``\\`` are what they say. Nothing is ever
substituted.

Invariant: no value of a variable, nor a line that may hold one, is in an error.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from blueprint.tee.sealing import SecretVariable
from jobs.deploy.errors import DeployError

__all__ = ["EnvFileError", "parse_env", "read_env_file"]

_MAX_FILE_BYTES = 4 * 1024 * 1024
_BLANKS = " \t\r"
"""Nothing else: a password may well end in another character that Unicode calls a space."""
_LINE = re.compile(r"(?:export[ \t]+)?([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*(.*)")
_LITERAL = re.compile(r"'([^']*)'")
_ESCAPED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")
_MEANING = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "$": "$", "\\": "\\"}


class EnvFileError(DeployError):
    """A file of variables cannot be read as one."""


def read_env_file(path: Path) -> tuple[SecretVariable, ...]:
    """Return the variables of a file, in its order.

    Raises:
        EnvFileError: it cannot be read, or a line of it cannot.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise EnvFileError(f"{path}: {exc.strerror}", advice="check --env-file") from exc
    if len(content) > _MAX_FILE_BYTES:
        raise EnvFileError(f"{path}: over {_MAX_FILE_BYTES} bytes", advice="a guest takes 256 KiB in all")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content[: exc.start].count(b"\n") + 1
        raise EnvFileError(f"{path}, line {line}: not UTF-8") from None
    return parse_env(text, name=str(path))


def parse_env(text: str, *, name: str) -> tuple[SecretVariable, ...]:
    """Return the variables of a text; ``name`` is what errors call it.

    Raises:
        EnvFileError: a line is none of the three kinds, or a variable comes twice.
    """
    variables: list[SecretVariable] = []
    lines: dict[str, int] = {}
    for number, key, value in _pairs(text, name):
        if key in lines:
            raise EnvFileError(f"{name}, line {number}: {key} is set in line {lines[key]} already")
        lines[key] = number
        variables.append(SecretVariable(key, value))
    return tuple(variables)


def _pairs(text: str, name: str) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip(_BLANKS)
        if not stripped or stripped.startswith("#"):
            continue
        # SECURITY: a line that does not parse may be a secret: it is not shown;
        # test_an_error_in_an_env_file_shows_no_value
        found = _LINE.fullmatch(stripped)
        if found is None:
            raise EnvFileError(f"{name}, line {number}: expected NAME=VALUE or a comment")
        yield number, found[1], _value(found[2], f"{name}, line {number}: {found[1]}")


def _value(written: str, where: str) -> str:
    if written[:1] == "'":
        if not (literal := _LITERAL.fullmatch(written)):
            raise EnvFileError(f"{where}: the single quote is not closed at the end of the line")
        return literal[1]
    if written[:1] == '"':
        if not (escaped := _ESCAPED.fullmatch(written)):
            raise EnvFileError(
                f"{where}: the double quote is not closed at the end of the line",
                advice=r"write \n for a line break and \" for a quote",
            )
        unknown = [found for found in _ESCAPE.findall(escaped[1]) if found not in _MEANING]
        if unknown:
            raise EnvFileError(f"{where}: after a backslash one of {' '.join(_MEANING)} is expected")
        return _ESCAPE.sub(lambda found: _MEANING[found[1]], escaped[1])
    return written
