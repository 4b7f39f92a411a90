"""The deployment service at a fake cloud, as one command has it, and an application for it."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from blueprint.tee.policy import AttestationPolicy
from blueprint.tee.sealing import SecretVariable
from blueprint.testing.cloud import FakeCloud
from jobs.deploy.app_compose import AppCompose
from jobs.deploy.attestation import Verifier
from jobs.deploy.backends.backend import Placement, Workload
from jobs.deploy.cloud.client import API_VERSION
from jobs.deploy.record import RecordStore
from jobs.deploy.service import DockerDeploymentService
from jobs.deploy.trust import KmsTrust
from jobs.deploy.wanted import Wanted
from tests.support.cloud_world import backend_of

SECRET = "s3cret of the caller"
GREETING = [SecretVariable("GREETING", SECRET)]
SMALL = Placement(instance_type="tdx.small")


def workload(image: str = "nginx:1.25") -> Workload:
    """The application's bytes."""
    text = f"services:\n  web:\n    image: {image}\n    environment: [GREETING]\n"
    return AppCompose(name="web-app", docker_compose_file=text, allowed_envs=("GREETING",)).workload()


def wanted(image: str = "nginx:1.25", placement: Placement = SMALL) -> Wanted:
    """A web application that may receive one variable."""
    return Wanted(workload=workload(image), names=("GREETING",), placement=placement)


@asynccontextmanager
async def service_at(
    cloud: FakeCloud,
    folder: Path,
    *,
    say: Callable[[str], None] = lambda _: None,
    timeout_s: float = 5.0,
    transport: httpx.AsyncBaseTransport | None = None,
    api_version: str = API_VERSION,
) -> AsyncIterator[DockerDeploymentService]:
    """Yield a service as one command has it: nothing is kept but the files."""

    async def collateral(quote: bytes) -> str:
        del quote
        return cloud.platform.collateral(int(time.time()))

    backend = backend_of(cloud, transport=transport, api_version=api_version)
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
