"""One Docker engine for all tests of the local place."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from jobs.deploy.backends.local import LocalBackend
from jobs.deploy.backends.local.private_engine import PrivateEngine
from tests.support.docker import engine_of_ours, local


@pytest.fixture(scope="session")
def engine() -> Iterator[PrivateEngine]:
    """An engine apart from any other on this machine, with the image of the examples."""
    with engine_of_ours() as started:
        yield started


@pytest.fixture
async def backend(engine: PrivateEngine, tmp_path: Path) -> AsyncIterator[LocalBackend]:
    """A local place of its own; nothing may be left of it."""
    async with local(tmp_path / "state", engine.socket) as opened:
        yield opened
