"""Turns the dependencies of a C++ program into what its compiler is told.

Invariant: a program is compiled with the headers of the libraries that it asked for, of those that they need,
and of no others.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sandbox.errors import RequestError
from sandbox.request import Dependency
from sandbox.tree import Library, Runtime
from sandbox.versions import best_match

__all__ = ["ChosenLibraries", "choose_libraries"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenLibraries:
    """What the compiler is told, and what it is built with."""

    flags: tuple[str, ...]
    """Flags that follow the sources, in the order that the linker needs."""
    lock: str
    """One line ``name version`` for each library, sorted; empty without dependencies."""


def choose_libraries(dependencies: Sequence[Dependency], runtime: Runtime) -> ChosenLibraries:
    """Find the libraries that a program asks for, and everything that they need.

    Args:
        dependencies: names of libraries of the runtime, with a version or a range each.
        runtime: one of C++'s, with its libraries.

    Raises:
        RequestError: there is no library of a name, not in that version, or a source is given.
    """
    by_name = {library.name: library for library in runtime.libraries}
    for dependency in dependencies:
        _check(dependency, by_name)
    chosen = _in_link_order((dependency.name for dependency in dependencies), by_name)
    flags: list[str] = []
    for library in chosen:
        flags += ["-isystem", library.include]
        flags += [f"-L{library.archives}"] if library.archives else []
        flags += library.flags
    lock = "".join(sorted(f"{library.name} {library.version}\n" for library in chosen))
    return ChosenLibraries(flags=tuple(flags), lock=lock)


def _check(dependency: Dependency, by_name: dict[str, Library]) -> None:
    library = by_name.get(dependency.name)
    if library is None:
        close = difflib.get_close_matches(dependency.name, by_name, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        there = ", ".join(by_name) or "none"
        raise RequestError(f"dependencies: expected one of {there}, received {dependency.name!r}{hint}")
    if dependency.source:
        raise RequestError(
            f"dependencies: {library.name} comes with the language tree, expected no source, "
            f"received {dependency.source!r}"
        )
    best_match([library.version], dependency.requirement, what=f"dependencies: {library.name}")


def _in_link_order(names: Iterable[str], by_name: dict[str, Library]) -> list[Library]:
    """Return the libraries with each before all that it needs: the linker reads static archives once."""
    order: list[Library] = []

    def visit(name: str) -> None:
        library = by_name[name]
        if library in order:
            return
        for needed in library.needs:
            visit(needed)
        order.append(library)

    for name in names:
        visit(name)
    return order[::-1]
