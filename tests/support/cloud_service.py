"""The deployment service at a fake cloud, as one command has it."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from blueprint.tee.policy import AttestationPolicy
from blueprint.testing.cloud import FakeCloud
from jobs.deploy.attestation import Verifier
from jobs.deploy.record import RecordStore
from jobs.deploy.service import DockerDeploymentService
from jobs.deploy.trust import KmsTrust
from tests.support.cloud_world import backend_of

__all__ = ["service_at"]


@asynccontextmanager
async def service_at(
    cloud: FakeCloud, folder: Path, *, say: Callable[[str], None] = lambda _: None, timeout_s: float = 5.0
) -> AsyncIterator[DockerDeploymentService]:
    """Yield a service as one command has it: nothing is kept but the files."""

    async def collateral(quote: bytes) -> str:
        del quote
        return cloud.platform.collateral(int(time.time()))

    backend = backend_of(cloud)
    try:
        yield DockerDeploymentService(
            backend,
            RecordStore(folder / "deployments"),
            KmsTrust(remembered=folder / "kms.json", announce=say),
            Verifier(
                policy=AttestationPolicy(development_root=cloud.platform.root_ca), collateral=collateral
            ),
            say=say,
            ready_timeout_s=timeout_s,
            look_s=0.02,
        )
    finally:
        await backend.aclose()
