"""Orders from the chain, carried out by the real service: against the fake cloud, and on a real engine."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from blueprint.tee.policy import AttestationPolicy
from blueprint.tee.simulator.platform import MockPlatform
from blueprint.testing.cloud import FakeCloud, Fault
from jobs.deploy.attestation import Verifier
from jobs.deploy.backends.backend import Backend
from jobs.deploy.backends.local import LocalBackend
from jobs.deploy.backends.local.engine import Engine
from jobs.deploy.backends.local.private_engine import PrivateEngine
from jobs.deploy.backends.local.state import StateFolder
from jobs.deploy.compose.findings import Allowance
from jobs.deploy.deployer import ServiceDeployer
from jobs.deploy.errors import ApplicationFailedError, NoCapacityError, PreparationLostError
from jobs.deploy.order import Deployer
from jobs.deploy.record import RecordStore
from jobs.deploy.service import DockerDeploymentService
from jobs.deploy.trust import KmsTrust
from tests.support.cloud_world import backend_of
from tests.support.deployer_conformance import DeployerConformance, order
from tests.support.docker import compose, local


@asynccontextmanager
async def opened(
    backend: Backend, folder: Path, pinned: Sequence[bytes], platform: MockPlatform
) -> AsyncIterator[Deployer]:
    """Open the deployer as a node has it: nothing is kept but the files."""

    async def collateral(quote: bytes) -> str:
        del quote
        return platform.collateral(int(time.time()))

    service = DockerDeploymentService(
        backend,
        RecordStore(folder / "deployments"),
        KmsTrust(pinned=pinned),
        Verifier(policy=AttestationPolicy(development_root=platform.root_ca), collateral=collateral),
        look_s=0.02,
        ready_timeout_s=20.0,
    )
    try:
        yield ServiceDeployer(service, allow=[Allowance.TAG])
    finally:
        await backend.aclose()


class TestOnTheFakeCloud(DeployerConformance):
    """The suite, on what a node offers with the cloud."""

    @pytest.fixture(autouse=True)
    async def _cloud(self, tmp_path: Path) -> AsyncIterator[None]:
        self.folder = tmp_path
        async with FakeCloud() as self.cloud:
            yield

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Deployer]:
        platform = self.cloud.platform
        async with opened(backend_of(self.cloud), self.folder, self.pinned_keys(), platform) as deployer:
            yield deployer

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


@pytest.mark.docker
@pytest.mark.root
class TestOnARealEngine(DeployerConformance):
    """The suite, on what a node offers with the local place: real containers, counted on their engine."""

    compose = compose("exec sleep 600", "environment: ['TOKEN=${TOKEN}']")

    @pytest.fixture(autouse=True)
    async def _place(self, engine: PrivateEngine, tmp_path: Path) -> AsyncIterator[None]:
        self.folder, self.socket = tmp_path, engine.socket
        async with local(tmp_path / "state", engine.socket) as self.place:
            yield

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Deployer]:
        backend = LocalBackend(state_dir=self.folder / "state", engine=self.socket)
        platform = StateFolder(self.folder / "state").platform()
        async with opened(backend, self.folder, self.pinned_keys(), platform) as deployer:
            yield deployer

    def pinned_keys(self) -> list[bytes]:
        return [self.place.kms_key]

    async def machines(self) -> int:
        async with Engine(self.socket) as engine:
            return len(await engine.projects("cvm-"))

    async def test_a_container_that_ends_is_told_with_what_a_caller_can_do(self, deployer: Deployer) -> None:
        """The service and its exit code, and no command that only the operator could run."""
        ending = order("ending", compose=compose("exit 3"), names=())
        await deployer.prepare(ending)
        with pytest.raises(
            ApplicationFailedError, match=r"app ended with exit code 3; .*prepare again"
        ) as caught:
            await deployer.commit(ending.key, b"")
        assert "blueprint deploy" not in str(caught.value)
