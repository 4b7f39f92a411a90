"""The fake deployer keeps the rules that every deployer keeps."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from typing_extensions import override

from jobs.deploy.order import Deployer
from jobs.deploy.testing import FakeDeployer
from tests.support.deployer_conformance import DeployerConformance


class TestFakeDeployer(DeployerConformance):
    """The suite over a file."""

    @pytest.fixture(autouse=True)
    def _memory(self, tmp_path: Path) -> None:
        self.path = tmp_path / "fake.json"

    @override
    def opened(self) -> AbstractAsyncContextManager[Deployer]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Deployer]:
            yield FakeDeployer(self.path)

        return opened()

    @override
    def pinned_keys(self) -> list[bytes]:
        return [FakeDeployer(self.path).kms.root_public_key]

    @override
    async def machines(self) -> int:
        return len(FakeDeployer(self.path).running)
