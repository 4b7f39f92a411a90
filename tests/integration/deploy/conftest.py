"""A fake cloud and our adapter to it."""

from collections.abc import AsyncIterator

import pytest

from blueprint.testing.cloud import FakeCloud
from jobs.deploy.backends.phala import PhalaBackend
from tests.support.cloud_world import backend_of


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
