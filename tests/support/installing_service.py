"""A service that installs one package from a registry, to be killed by a test.

Arguments: the folder of the store, and the address of an index of Python packages.
"""

import asyncio
import sys
from pathlib import Path

from sandbox.egress.registry import Registry, RegistryKind
from tests.support.installing import depending, installing


async def main(folder: str, url: str) -> None:
    """Ask for a program that needs ``hello``."""
    registry = Registry(name="local-pypi", kind=RegistryKind.PYPI, base_url=url)
    async with installing(Path(folder), registry) as executor:
        await executor.execute(depending("python", "import hello\n", ("hello", "")))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
