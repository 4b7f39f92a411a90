"""Reads dependencies by the grammar of their ecosystem.

Invariant: what comes out is a package's name and a range of versions, as the grammar of one ecosystem writes
them, and nothing that its installer would read as a path, an address, an alias or an option.
"""

import re
from collections.abc import Sequence

from sandbox.errors import RequestError
from sandbox.languages.language import RegistryView
from sandbox.request import Dependency, ExecutionRequest

__all__ = ["Grammar", "read_dependencies", "registry_of"]


class Grammar:
    """How one ecosystem writes a package and a range of versions.

    SECURITY: the service itself matches what a caller wrote. No part of a pattern may match the same text in
    two ways, or a short text would hold up everybody for years (test_grammars_read_any_text_at_once).

    Args:
        name: what a name must match, whole.
        requirement: what a requirement must match, whole, unless it is empty.
        example: shown to who writes it otherwise.
    """

    def __init__(self, *, name: str, requirement: str, example: str) -> None:
        self._name = re.compile(name)
        self._requirement = re.compile(requirement)
        self.example = example

    def accepts(self, dependency: Dependency) -> bool:
        """Say whether the dependency is written as it should be."""
        requirement = dependency.requirement.strip()
        # SECURITY: an installer takes an address, a path or an alias in a requirement for a place to install
        # from (test_requirements_that_are_no_ranges_are_refused).
        return bool(
            self._name.fullmatch(dependency.name)
            and (not requirement or self._requirement.fullmatch(requirement))
        )


def read_dependencies(request: ExecutionRequest, grammar: Grammar) -> list[tuple[str, str]]:
    """Return name and requirement of every dependency, in the order of their names.

    Raises:
        RequestError: one is not written as the grammar says, or a package comes twice.
    """
    found: dict[str, str] = {}
    for each in request.dependencies:
        if not grammar.accepts(each):
            raise RequestError(
                f"dependencies: a package and a range of versions are expected as in {grammar.example}, "
                f"received {each.name[:60]!r} {each.requirement[:60]!r}"
            )
        if each.name in found:
            raise RequestError(f"dependencies: {each.name[:60]!r} comes twice")
        found[each.name] = each.requirement.strip()
    return sorted(found.items())


def registry_of(request: ExecutionRequest, registries: Sequence[RegistryView]) -> RegistryView:
    """Return the registry that the dependencies name as their source, or the first that serves every package.

    Raises:
        RequestError: there is none of that name, or several are named.
    """
    wanted = {each.source for each in request.dependencies if each.source}
    if not wanted:
        return next((each for each in registries if not each.scope), registries[0])
    named = [each for each in registries if each.name in wanted]
    if len(wanted) != 1 or not named:
        raise RequestError(
            f"dependencies: as source one registry of this node is expected "
            f"({', '.join(each.name for each in registries)}), received {', '.join(sorted(wanted))[:120]!r}"
        )
    return named[0]
