"""An application, and our adapter at a fake cloud, as the tests of both need them."""

import hashlib
import json

import httpx
from pydantic import SecretStr

from blueprint.tee.sealing import SecretVariable, seal
from blueprint.testing.cloud import FakeCloud
from jobs.deploy.backends.backend import Machine, Placement, Workload
from jobs.deploy.backends.phala import PhalaBackend
from jobs.deploy.cloud.client import API_VERSION, CloudClient
from jobs.deploy.cloud.retry import Retrier


def workload(*, name: str = "web-app", image: str = "nginx:1.25", text: str = "") -> Workload:
    """A measured application with one service and one variable, unless a compose text is given."""
    compose = {
        "manifest_version": 2,
        "name": name,
        "runner": "docker-compose",
        "docker_compose_file": text
        or f"services:\n  web:\n    image: {image}\n    environment: [GREETING]\n",
        "kms_enabled": True,
        "gateway_enabled": True,
        "public_logs": True,
        "public_sysinfo": False,
        "allowed_envs": ["GREETING"],
    }
    made = json.dumps(compose, sort_keys=True, separators=(",", ":")).encode()
    return Workload(name=name, app_compose=made, compose_hash=hashlib.sha256(made).digest())


async def no_wait(seconds: float) -> None:
    """Do not wait."""


def backend_of(
    cloud: FakeCloud,
    *,
    key: str | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    api_version: str = API_VERSION,
) -> PhalaBackend:
    """Our adapter, which waits for nothing."""
    retrier = Retrier(sleep=no_wait, jitter=lambda: 0.0)
    client = CloudClient(
        api_key=SecretStr(key or cloud.api_key),
        base_url=cloud.url,
        retrier=retrier,
        timeout_s=5,
        transport=transport,
        api_version=api_version,
    )
    return PhalaBackend(client, poll_s=0.01)


async def deployed(backend: PhalaBackend, value: str = "hello", *, name: str = "web-app") -> Machine:
    """A machine with one variable."""
    made = workload(name=name)
    placement = Placement(instance_type="tdx.small")
    provision = await backend.provisioning.provision(made, placement)
    assert provision.compose_hash == made.compose_hash
    assert provision.public_key is not None
    sealed = seal([SecretVariable("GREETING", value)], provision.public_key.key)
    return await backend.provisioning.commit(made, placement, provision, sealed, ["GREETING"])
