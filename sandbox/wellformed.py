"""The rules that a well-formed execution request keeps, as checks of plain values.

Invariant: each check either returns or raises RequestError with the field, what is expected and what came;
contents of files, streams and variables never appear in a message.
"""

import math
import re
from collections.abc import Iterable

from sandbox.errors import RequestError

__all__ = [
    "MAX_ARGS",
    "MAX_ARGS_BYTES",
    "MAX_DEPENDENCIES",
    "MAX_ENV_BYTES",
    "MAX_ENV_VARS",
    "MAX_FILES",
    "MAX_FILES_BYTES",
    "MAX_OPTIONS",
    "MAX_OUTPUTS",
    "MAX_PATH_BYTES",
    "MAX_STDIN_BYTES",
    "MAX_TIMEOUT_S",
    "check_count",
    "check_dependency",
    "check_disjoint",
    "check_env_name",
    "check_option_name",
    "check_path",
    "check_positive",
    "check_size",
    "check_source",
    "check_text",
]

MIB = 1024 * 1024
MAX_FILES = 256
MAX_FILES_BYTES = 32 * MIB
"""Contents of all files together."""
MAX_PATH_BYTES = 1024
MAX_PATH_PART_BYTES = 255
MAX_STDIN_BYTES = 16 * MIB
MAX_ARGS = 256
MAX_ARGS_BYTES = 64 * 1024
MAX_ENV_VARS = 128
MAX_ENV_BYTES = 64 * 1024
"""Names and values of all environment variables together."""
MAX_DEPENDENCIES = 64
MAX_OPTIONS = 32
MAX_OUTPUTS = 64
MAX_TIMEOUT_S = 86_400.0
"""The longest run that can be asked for, a day; what an operator allows is usually far less."""

_SHOWN = 60
MAX_SHOWN = 1 << 64
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_OPTION_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_DEPENDENCY_NAME = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9._:~/@+-]{0,213}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SOURCE_SUFFIXES = (
    *(".py", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx", ".java", ".go", ".php", ".swift"),
    *(".c", ".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp", ".hxx"),
)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def check_count(field: str, count: int, most: int) -> None:
    """Check a number of entries."""
    if count > most:
        raise RequestError(f"{field}: at most {most} entries are accepted, received {count}")


def check_size(field: str, size: int, most: int) -> None:
    """Check a number of bytes."""
    if size > most:
        raise RequestError(f"{field}: at most {most} bytes are accepted, received {size}")


def check_text(field: str, text: str, *, most: int, may_have_controls: bool = False) -> int:
    """Check text that becomes an argument or a value: UTF-8, no NUL; return its size in bytes."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as exc:
        raise RequestError(f"{field}: expected text that UTF-8 can carry, received a lone surrogate") from exc
    if "\0" in text:
        raise RequestError(f"{field}: a NUL character is not accepted (at position {text.index(chr(0))})")
    if not may_have_controls and _CONTROL.search(text):
        raise RequestError(f"{field}: control characters are not accepted, received {_shown(text)}")
    check_size(field, size, most)
    return size


def check_path(field: str, path: str) -> None:
    """Check a path under ``/work``: relative, ``/`` between non-empty parts, none of them ``.`` or ``..``."""
    # SECURITY: a path that leaves /work would be written outside it;
    # test_request_refuses_paths_that_leave_work
    check_text(field, path, most=MAX_PATH_BYTES)
    parts = path.split("/")
    if not path:
        raise RequestError(f"{field}: a path is expected, received an empty text")
    if path.startswith("/"):
        raise RequestError(f"{field}: a path relative to /work is expected, received {_shown(path)}")
    if any(part in ("", ".", "..") for part in parts):
        raise RequestError(f"{field}: no part of a path may be empty, '.' or '..', received {_shown(path)}")
    if any(len(part.encode()) > MAX_PATH_PART_BYTES for part in parts):
        raise RequestError(f"{field}: a part of a path has at most {MAX_PATH_PART_BYTES} bytes")


def check_disjoint(field: str, paths: Iterable[str]) -> None:
    """Check that no path comes twice, and that none is a folder of another."""
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise RequestError(f"{field}: the path {_shown(path)} comes twice")
        seen.add(path)
    for path in seen:
        folder = path
        while "/" in folder:
            folder = folder.rpartition("/")[0]
            if folder in seen:
                raise RequestError(f"{field}: {_shown(folder)} is a file and a folder of {_shown(path)}")


def check_source(field: str, path: str, content: bytes, *, is_started: bool) -> None:
    """Check that source code holds no NUL: compilers and interpreters disagree about what comes after it."""
    if (is_started or path.endswith(_SOURCE_SUFFIXES)) and b"\0" in content:
        raise RequestError(
            f"{field}: source code must not hold a NUL, {_shown(path)} has one at byte {content.index(0)}; "
            "send binary data as a file of its own"
        )


def check_env_name(field: str, name: str) -> None:
    """Check the name of an environment variable."""
    if not _ENV_NAME.fullmatch(name):
        raise RequestError(f"{field}: a name has letters, digits and '_' (128), received {_shown(name)}")


def check_option_name(field: str, name: str) -> None:
    """Check the name of an option."""
    if not _OPTION_NAME.fullmatch(name):
        raise RequestError(f"{field}: an option is named in lower case, at most 64, received {_shown(name)}")


def check_dependency(field: str, name: str, requirement: str, source: str) -> None:
    """Check that a dependency is a package's name, not a path, an address or an option of the installer."""
    # SECURITY: such names make installers run or read what they should not;
    # test_request_refuses_dependency_tricks
    is_path = ".." in name or "//" in name or name.endswith("/")
    if not _DEPENDENCY_NAME.fullmatch(name) or is_path:
        raise RequestError(f"{field}: the name of a package is expected, received {_shown(name)}")
    for part, text in (("requirement", requirement), ("source", source)):
        check_text(f"{field}.{part}", text, most=512)
        if text.startswith("-"):
            raise RequestError(f"{field}.{part}: must not start with '-', received {_shown(text)}")


def check_positive(
    field: str, number: float, *, most: float | None = None, must_be_whole: bool = False
) -> None:
    """Check a limit: finite, over zero, and at most ``most``."""
    # SECURITY: an integer can be too large for the float that `math` would make of it
    # (test_attack_...[limit-too-large-for-a-float...])
    is_number = isinstance(number, int if must_be_whole else int | float) and not isinstance(number, bool)
    if not is_number or not 0 < number < math.inf:
        kind = "a number over 0, and a whole one," if must_be_whole else "a number over 0"
        raise RequestError(f"{field}: {kind} is expected, received {_shown_number(number)}")
    if most is not None and number > most:
        raise RequestError(f"{field}: at most {most:g} is accepted, received {_shown_number(number)}")


def _shown_number(number: float) -> str:
    """Return a number for a message; one of thousands of digits is not for people, nor for `str`."""
    return str(number) if not isinstance(number, int) or abs(number) < MAX_SHOWN else "a number beyond 2**64"
