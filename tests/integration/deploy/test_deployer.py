"""Orders from the chain, carried out by the real service against the fake cloud."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from blueprint.tee.policy import AttestationPolicy
from blueprint.testing.cloud import FakeCloud, Fault
from jobs.deploy.attestation import Verifier
from jobs.deploy.compose.findings import Allowance
from jobs.deploy.deployer import ServiceDeployer
from jobs.deploy.errors import NoCapacityError, PreparationLostError
from jobs.deploy.order import Deployer
from jobs.deploy.record import RecordStore
from jobs.deploy.service import DockerDeploymentService
from jobs.deploy.trust import KmsTrust
from tests.support.cloud_world import backend_of
from tests.support.deployer_conformance import DeployerConformance


class TestServiceDeployer(DeployerConformance):
    """The suite, on what a node offers."""

    @pytest.fixture(autouse=True)
    async def _cloud(self, tmp_path: Path) -> AsyncIterator[None]:
        self.folder = tmp_path
        async with FakeCloud() as self.cloud:
            yield

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Deployer]:
        async def collateral(quote: bytes) -> str:
            del quote
            return self.cloud.platform.collateral(int(time.time()))

        backend = backend_of(self.cloud)
        policy = AttestationPolicy(development_root=self.cloud.platform.root_ca)
        service = DockerDeploymentService(
            backend,
            RecordStore(self.folder),
            KmsTrust(pinned=self.pinned_keys()),
            Verifier(policy=policy, collateral=collateral),
            look_s=0.02,
            ready_timeout_s=5.0,
        )
        try:
            yield ServiceDeployer(service, allow=[Allowance.TAG])
        finally:
            await backend.aclose()

    def pinned_keys(self) -> list[bytes]:
        return [self.cloud.kms.root_public_key]

    async def machines(self) -> int:
        return len(self.cloud.machines)

    async def test_a_repeated_commit_sends_nothing_again(self, deployer: Deployer) -> None:
        """The same ciphertext neither restarts the machine nor replaces its variables."""
        sealed = self.sealed(await deployer.prepare(self.order()))
        await deployer.commit(self.order().key, sealed)
        before = [each for each in self.cloud.requests if not each.startswith("GET")]
        await deployer.commit(self.order().key, sealed)
        assert [each for each in self.cloud.requests if not each.startswith("GET")] == before

    async def test_what_the_cloud_has_forgotten_has_to_be_prepared_again(self, deployer: Deployer) -> None:
        """The caller has sealed for that identity: that is said, and nothing is made under another one."""
        sealed = self.sealed(await deployer.prepare(self.order()))
        self.cloud.forget_prepared()
        with pytest.raises(PreparationLostError):
            await deployer.commit(self.order().key, sealed)
        assert not self.cloud.machines
        again = self.sealed(await deployer.prepare(self.order()))
        await deployer.commit(self.order().key, again)
        assert len(self.cloud.machines) == 1

    async def test_a_place_without_room_is_no_fault_of_the_order(self, deployer: Deployer) -> None:
        """The caller is told that there is no room now."""
        self.cloud.fail("POST", "/cvms/provision", Fault(status=400, code="ERR-02-002"), times=1)
        with pytest.raises(NoCapacityError):
            await deployer.prepare(self.order())
