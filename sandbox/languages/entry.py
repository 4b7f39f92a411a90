"""Chooses the file of a program that is started, by the same rules in every language.

Invariant: a path that comes out of here is one of the request's own files, so it cannot leave ``/work``.
"""

import difflib
from collections.abc import Sequence
from pathlib import PurePosixPath

from sandbox.errors import RequestError
from sandbox.request import ExecutionRequest, SourceFile

__all__ = ["WORK", "choose_entry", "inside", "sources"]

WORK = "/work"
"""Where the program's folder is seen inside a sandbox."""


def sources(request: ExecutionRequest, suffixes: Sequence[str]) -> tuple[SourceFile, ...]:
    """Return the files whose names end in one of ``suffixes`` (with their dots), in the request's order."""
    return tuple(file for file in request.files if PurePosixPath(file.path).suffix in suffixes)


def inside(path: str) -> str:
    """Return the absolute path of a file of the request; absolute, so that no tool reads it as an option."""
    return f"{WORK}/{path}"


def choose_entry(request: ExecutionRequest, *, suffixes: Sequence[str], usual: Sequence[str]) -> SourceFile:
    """Choose the file that is started.

    In this order: the request's entry point; the only file; the first of ``usual`` that is there; the only
    file with one of the suffixes.

    Args:
        request: the program.
        suffixes: what the language's source files end in, with the dot.
        usual: names that the language's programs usually start from, best first.

    Raises:
        RequestError: the entry point is not among the files, or nothing says which file it is.
    """
    by_path = {file.path: file for file in request.files}
    if request.entry_point:
        if request.entry_point in by_path:
            return by_path[request.entry_point]
        close = difflib.get_close_matches(request.entry_point, by_path, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise RequestError(
            f"entry_point: expected the path of one of the {len(by_path)} files, "
            f"received {request.entry_point!r}{hint}"
        )
    if len(request.files) == 1:
        return request.files[0]
    for path in usual:
        if path in by_path:
            return by_path[path]
    candidates = sources(request, suffixes)
    if len(candidates) == 1:
        return candidates[0]
    raise RequestError(
        f"entry_point: expected the path of the file to start, received none, and among "
        f"{len(request.files)} files {len(candidates)} end in {' or '.join(suffixes)} and none is named "
        f"{' or '.join(usual)}; set entry_point"
    )
