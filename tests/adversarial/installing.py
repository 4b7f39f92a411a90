"""A registry and an installer for one attack alone.

Invariant: neither outlives the attack; the installer and its mirror are the real ones.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from sandbox.dependencies.installer import Installer
from sandbox.dependencies.store import LayerStore
from sandbox.egress.mirror import Mirror
from sandbox.egress.registry import RegistryKind
from sandbox.request import Limits
from tests.support.registries import PackageSite
from tests.support.sandboxes import MIB

__all__ = ["INSTALLING", "installing"]

KINDS = (RegistryKind.PYPI, RegistryKind.NPM, RegistryKind.COMPOSER)
INSTALLING = Limits(
    wall_time_s=90.0,
    cpu_time_s=90.0,
    memory_bytes=512 * MIB,
    disk_bytes=24 * MIB,
    inodes=600,
    processes=64,
    file_size_bytes=20 * MIB,
    open_files=1024,
)
"""The operator's limits of an installation."""


@asynccontextmanager
async def installing(
    fill: Callable[[PackageSite], object], folder: Path
) -> AsyncIterator[tuple[Installer, str]]:
    """Yield an installer, and the port of its registry.

    Args:
        fill: puts packages into the registry.
        folder: where layers may lie meanwhile.
    """
    async with PackageSite() as site:
        await asyncio.to_thread(fill, site)
        with tempfile.TemporaryDirectory(dir=folder, prefix="layers-") as layers:
            store = LayerStore(Path(layers), cap_bytes=256 * MIB, max_age_s=3600.0)
            installer = Installer(store, Mirror([site.registry(kind) for kind in KINDS]))
            try:
                yield installer, site.url.rpartition(":")[2]
            finally:
                await installer.aclose()
                store.evict(0)  # its files are read-only, which a folder's removal does not expect
