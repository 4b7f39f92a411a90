"""Where the tools of this host find their packages: one file for each tool."""

from collections.abc import Callable, Mapping, Sequence

from sandbox.egress.registry import Registry, RegistryKind
from sandbox.egress.tools import composer, go, maven, npm, pip, swift

__all__ = ["registries_of_host"]

READERS: Mapping[RegistryKind, Callable[[], Sequence[Registry]]] = {
    RegistryKind.PYPI: pip.registries,
    RegistryKind.NPM: npm.registries,
    RegistryKind.GO: go.registries,
    RegistryKind.MAVEN: maven.registries,
    RegistryKind.COMPOSER: composer.registries,
    RegistryKind.SWIFT: swift.registries,
}


def registries_of_host(kind: RegistryKind) -> Sequence[Registry]:
    """Ask the tool of this host, or read its files where it is missing; blocks for up to some seconds.

    No address stands in this package: where a tool has a default of its own, the tool is asked for it.

    Returns:
        The registries, the preferred first; none where the tool is not configured.

    Raises:
        RegistryConfigError: what the tool says makes no sense to us.
    """
    return READERS[kind]()
