"""Attacks by the request itself: it is refused before anything is made for it."""

# ruff: noqa: E501 - an attack is one line, so that the table can be read as one
# fmt: off

import math
from collections.abc import Callable
from functools import partial

from sandbox.request import Dependency, ExecutionRequest, Limits, SourceFile
from sandbox.result import ExecutionStatus as S
from tests.adversarial.attack import Attack, Ending

__all__ = ["ROWS"]

MAIN = SourceFile(path="main.py", content=b"print('ran')")
REFUSED = Ending(error="RequestError")
RAN = Ending(stdout=b"ran\n")


def _of(**fields: object) -> Callable[[], ExecutionRequest]:
    """Return what makes a request with some fields; the error, if any, comes when it is called."""
    return partial(ExecutionRequest, **{"language": "python", "files": [MAIN], **fields})  # type: ignore[arg-type]


def _late(field: str, make: Callable[[], object]) -> Callable[[], ExecutionRequest]:
    """Return what makes a request of which one field is made as late."""
    def build() -> ExecutionRequest:
        return _of(**{field: make()})()

    return build


def _dependency(name: str, requirement: str = "", source: str = "") -> Callable[[], ExecutionRequest]:
    return _late("dependencies", lambda: [Dependency(name=name, requirement=requirement, source=source)])


def _limit(**bounds: object) -> Callable[[], ExecutionRequest]:
    return _late("limits", lambda: Limits(**bounds))  # type: ignore[arg-type]


def _file(path: str, content: bytes = b"x") -> Callable[[], ExecutionRequest]:
    return _late("files", lambda: [MAIN, SourceFile(path=path, content=content)])


NUMBERS = "NaN and giant numbers in requests"
NAMES = "dependency names that are paths, URLs or options"
PATHS = "paths of a request"
SIZES = "sizes of a request"
VARIABLES = "variables of a request"

TABLE: list[tuple[str, str, Callable[[], ExecutionRequest], Ending]] = [
    ("timeout that is no number", NUMBERS, _of(timeout_s=math.nan), REFUSED),
    ("timeout without end", NUMBERS, _of(timeout_s=math.inf), REFUSED),
    ("timeout before the start", NUMBERS, _of(timeout_s=-1), REFUSED),
    ("timeout of nothing", NUMBERS, _of(timeout_s=0), REFUSED),
    ("timeout of years", NUMBERS, _of(timeout_s=1e300), REFUSED),
    ("timeout that is a truth value", NUMBERS, _of(timeout_s=True), REFUSED),
    ("limit that is no number", NUMBERS, _limit(cpu_time_s=math.nan), REFUSED),
    ("limit without end", NUMBERS, _limit(wall_time_s=math.inf), REFUSED),
    ("limit below zero", NUMBERS, _limit(memory_bytes=-1), REFUSED),
    ("limit of no process", NUMBERS, _limit(processes=0), REFUSED),
    ("limit above the operator's", NUMBERS, _limit(memory_bytes=10**30, disk_bytes=10**30, processes=10**9, output_bytes=10**15), RAN),
    ("limit too large for a float", NUMBERS, _limit(memory_bytes=10**400), RAN),
    ("limit of half a byte", NUMBERS, _limit(memory_bytes=0.5), REFUSED),
    ("smallest limits", NUMBERS, _limit(memory_bytes=1, disk_bytes=1, inodes=1), Ending(status=(S.MEMORY_LIMIT, S.NONZERO_EXIT, S.SIGNALLED))),
    ("dependency that is a path", NAMES, _dependency("../../etc/passwd"), REFUSED),
    ("dependency that is an absolute path", NAMES, _dependency("/etc/passwd"), REFUSED),
    ("dependency that is an address", NAMES, _dependency("git+https://evil.example/x"), REFUSED),
    ("dependency that is an option", NAMES, _dependency("--index-url=http://evil.example"), REFUSED),
    ("dependency with an option as version", NAMES, _dependency("numpy", "--pre"), REFUSED),
    ("dependency with an option as source", NAMES, _dependency("numpy", "", "-e ."), REFUSED),
    ("dependency with a newline", NAMES, _dependency("numpy\nevil"), REFUSED),
    ("dependency with a command", NAMES, _dependency("a;touch /tmp/x"), REFUSED),
    ("dependency with a newline in its version", NAMES, _dependency("numpy", "==1\n--pre"), REFUSED),
    ("dependency with a NUL", NAMES, _dependency("numpy\0"), REFUSED),
    ("dependency of a foreign alphabet", NAMES, _dependency("n\u0443mpy"), REFUSED),
    ("file outside of /work", PATHS, _file("../../etc/cron.d/x"), REFUSED),
    ("file at an absolute path", PATHS, _file("/etc/passwd"), REFUSED),
    ("file with a newline in its name", PATHS, _file("a\nb"), REFUSED),
    ("file with a NUL in its name", PATHS, _file("a\0b"), REFUSED),
    ("file with half a character in its name", PATHS, _file("\ud800"), REFUSED),
    ("file that is a folder of another", PATHS, _late("files", lambda: [MAIN, SourceFile(path="a", content=b""), SourceFile(path="a/b", content=b"")]), REFUSED),
    ("file that comes twice", PATHS, _file("main.py"), REFUSED),
    ("file in a thousand folders", PATHS, _file("a/" * 1000 + "b"), REFUSED),
    ("file named like an option", PATHS, _file("-rf"), RAN),
    ("network that the operator has not named", PATHS, _of(network="internet"), REFUSED),
    ("network that is a path", PATHS, _of(network="../api"), REFUSED),
    ("caller with a newline", VARIABLES, _of(caller="a\nb"), REFUSED),
    ("priority above all others", NUMBERS, _of(priority=10**9), REFUSED),
    ("priority that is no number", NUMBERS, _of(priority=math.nan), REFUSED),
    ("output outside of /work", PATHS, _of(outputs=["../tmp"]), REFUSED),
    ("output of everything", PATHS, _of(outputs=["/"]), REFUSED),
    ("entry point outside of /work", PATHS, _of(entry_point="../usr/bin/id"), REFUSED),
    ("entry point that is an option", PATHS, _late("files", lambda: [SourceFile(path="-c", content=b"print('ran')")]), RAN),
    ("too many files", SIZES, _late("files", lambda: [SourceFile(path=f"{n}.py", content=b"") for n in range(300)]), REFUSED),
    ("files over their size", SIZES, _file("big", bytes(33 << 20)), REFUSED),
    ("files over the disk quota", SIZES, _file("big", bytes(9 << 20)), REFUSED),
    ("input over its size", SIZES, _of(stdin=bytes(17 << 20)), REFUSED),
    ("arguments over their size", SIZES, _of(args=["x" * 70_000]), REFUSED),
    ("too many arguments", SIZES, _of(args=["x"] * 300), REFUSED),
    ("language without end", SIZES, _of(language="p" * 10_000), REFUSED),
    ("language that is a path", PATHS, _of(language="../python"), REFUSED),
    ("version that is a pattern", PATHS, _of(runtime=".*"), REFUSED),
    ("version without end", SIZES, _of(runtime="9" * 5000), REFUSED),
    ("source with a NUL", PATHS, _late("files", lambda: [SourceFile(path="main.py", content=b"print(1)\0evil")]), REFUSED),
    ("option that no language knows", VARIABLES, _of(options={"plugin": "/work/x.so"}), REFUSED),
    ("option with a newline", VARIABLES, _of(options={"a\nb": "x"}), REFUSED),
    ("variable with an equals sign", VARIABLES, _of(env_vars={"A=B": "x"}), REFUSED),
    ("variable with a NUL", VARIABLES, _of(env_vars={"A": "x\0B=y"}), REFUSED),
    ("variable that loads a library", VARIABLES, _of(env_vars={"LD_PRELOAD": "/work/x.so", "PYTHONSTARTUP": "/work/x"}), RAN),
    ("variable that moves the search path", VARIABLES, _of(env_vars={"PATH": "/work", "HOME": "/etc"}), RAN),
    ("variables over their size", VARIABLES, _of(env_vars={f"V{n}": "x" * 1000 for n in range(100)}), REFUSED),
]

ELSEWHERE = {
    "smallest limits": {
        "bubblewrap": Ending(status=(S.SUCCESS, S.MEMORY_LIMIT), why="no memory group: looked at every 30 ms, which a quick program outruns")
    }
}

ROWS = [
    Attack(name=name, line=line, elsewhere=ELSEWHERE.get(name, {}), wall="the request is checked before anything is made" if ending is REFUSED or ending.error else "it concerns the program alone", build=build, ends=ending)
    for name, line, build, ending in TABLE
]
