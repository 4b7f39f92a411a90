"""The places that the tests deploy to: a fake cloud for each test, and one Docker engine for all."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from blueprint.testing.cloud import FakeCloud
from jobs.deploy.backends.local import LocalBackend
from jobs.deploy.backends.local.private_engine import PrivateEngine
from jobs.deploy.backends.phala import PhalaBackend
from tests.support.cloud_world import backend_of
from tests.support.docker import engine_of_ours, local


@pytest.fixture
async def cloud() -> AsyncIterator[FakeCloud]:
    """A cloud of its own for each test."""
    async with FakeCloud() as made:
        yield made


@pytest.fixture
async def backend(cloud: FakeCloud) -> AsyncIterator[PhalaBackend]:
    """The adapter to it."""
    made = backend_of(cloud)
    yield made
    await made.aclose()


@pytest.fixture(scope="session")
def engine() -> Iterator[PrivateEngine]:
    """An engine apart from any other on this machine, with the image of the examples."""
    with engine_of_ours() as started:
        yield started


@pytest.fixture
async def place(engine: PrivateEngine, tmp_path: Path) -> AsyncIterator[LocalBackend]:
    """A local place of its own; nothing may be left of it."""
    async with local(tmp_path / "state", engine.socket) as opened:
        yield opened
