"""Opens the place that the settings name, with the deployment service on it.

Invariant: a development root is trusted only where the settings say so, and whoever does without verifying
has asked for that by name.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import dcap_qvl
from pydantic import SecretStr

from blueprint.cli.deploy.trust import UNASKED, kms_trust
from blueprint.cli.keyfiles import read_secret_file
from blueprint.cli.session import Session
from blueprint.errors import ConfigError
from blueprint.tee.policy import AttestationPolicy, KeyProvider, OsImage
from jobs.deploy.attestation import Verifier, fetch_collateral
from jobs.deploy.backends.backend import Backend
from jobs.deploy.backends.local import LocalBackend, engine_socket
from jobs.deploy.backends.local.private_engine import PrivateEngine, find_engine
from jobs.deploy.backends.phala import PhalaBackend
from jobs.deploy.cloud.client import BASE_URL, CloudClient
from jobs.deploy.record import RecordStore
from jobs.deploy.service import DockerDeploymentService

__all__ = [
    "PLACE_SETTINGS", "VERIFY_SETTINGS", "opened_service", "place_of", "private_engine", "record_store",
    "verifier_of",
]  # fmt: skip

PLACE_SETTINGS: Final = (
    "state_dir", "place", "cloud_api_key_file", "cloud_url", "cloud_timeout_s",
)  # fmt: skip
"""What every command that asks a place can be told."""
VERIFY_SETTINGS: Final = (
    *PLACE_SETTINGS, "ready_timeout_s", "kms_key", "key_provider", "os_image", "tcb_status", "tcb_advisory",
    "pccs_url", "trust_development_root",
)  # fmt: skip
"""What every command that seals, waits and verifies can be told."""


def record_store(session: Session) -> RecordStore:
    """Return the folder with the records of this state folder's deployments."""
    return RecordStore(session.state_dir / "deployments")


def place_of(session: Session, name: str = "") -> str:
    """Return the name of the place that the settings name, else the one where a deployment was recorded.

    Raises:
        ConfigError: neither is there.
    """
    if session.settings.place is not None:
        return session.settings.place
    record = record_store(session).get(name) if name else None
    if record is not None:
        return record.place
    raise ConfigError(
        "where to? --place phala (the cloud; it wants an API key) or --place local (a Docker engine here)"
    )


def private_engine(session: Session) -> PrivateEngine:
    """Return the Docker engine that this state folder would start where none answers."""
    return PrivateEngine(session.state_dir / "local" / "engine")


@asynccontextmanager
async def opened_service(
    session: Session,
    place: str,
    *,
    is_verifying: bool = False,
    say: Callable[[str], None] | None = None,
) -> AsyncIterator[DockerDeploymentService]:
    """Open a place, and close it at the end; machines go on.

    Args:
        session: its settings say how to reach the place and what to believe.
        place: its name.
        is_verifying: whether an attestation is going to be verified.
        say: told of each step, and of KMS keys that are believed from now on; the terminal if None.

    Raises:
        ConfigError: a setting is missing; or the place's root is for development and not trusted.
        DeployError: the place cannot be reached.
    """
    settings = session.settings
    if place == "local" and is_verifying and not settings.trust_development_root:
        raise ConfigError(
            "the local place simulates its platform, so its attestation proves nothing to others; to believe "
            "it all the same: --trust-development-root"
        )
    if place == "local":
        socket = engine_socket(os.environ.get("DOCKER_HOST", ""))
        engine = await find_engine(socket, private_engine(session).folder, say or session.say)
        local = LocalBackend(
            state_dir=session.state_dir / "local", engine=engine, docker_config=_docker_config()
        )
        backend: Backend = local
        pinned: tuple[bytes, ...] = (local.kms_key,)
        root = local.root_ca if settings.trust_development_root else None
    else:
        backend, pinned, root = PhalaBackend(_cloud(session)), (), None
    try:
        yield DockerDeploymentService(
            backend,
            record_store(session),
            kms_trust(session, pinned=pinned, announce=say),
            verifier_of(session, root),
            say=say or session.say,
            ready_timeout_s=settings.ready_timeout_s,
        )
    finally:
        await backend.aclose()


def _cloud(session: Session) -> CloudClient:
    settings = session.settings
    key = settings.cloud_api_key
    if key is None and settings.cloud_api_key_file is not None:
        text = read_secret_file(settings.cloud_api_key_file).partition("\n")[0].strip()
        session.redactor.add(text)
        key = SecretStr(text)
    if key is None:
        raise ConfigError(
            "the cloud wants an API key: give --cloud-api-key-file FILE or BLUEPRINT_CLOUD_API_KEY"
        )
    _check_receiver(session)
    proxy = settings.cloud_proxy
    return CloudClient(
        api_key=key,
        base_url=settings.cloud_url or BASE_URL,
        timeout_s=settings.cloud_timeout_s,
        proxy=proxy.get_secret_value() if proxy else None,
    )


def _check_receiver(session: Session) -> None:
    """Find that a file which is read unasked, because it lies in this folder, says who gets the key."""
    origin = session.origins.get("cloud_url", "")
    # SECURITY: in a folder from elsewhere its author would (test_a_folder_names_no_receiver_of_the_key).
    if origin in UNASKED and session.origins.get("cloud_api_key") != origin:
        raise ConfigError(
            f"cloud_url is from {origin} of this folder, and would get an API key that is not; if that is "
            "meant: --cloud-url, BLUEPRINT_CLOUD_URL, or --config with the file's whole path"
        )


def verifier_of(session: Session, root: bytes | None) -> Verifier:
    """Return what judges attestations as the settings say; ``root`` is believed instead of Intel's."""
    settings = session.settings
    policy = AttestationPolicy(
        tcb_statuses=frozenset(settings.tcb_status),
        allowed_advisories=frozenset(settings.tcb_advisory),
        os_images=frozenset(map(OsImage.parse, settings.os_image)) or None,
        key_providers=frozenset(map(_key_provider, settings.key_provider)) or None,
        development_root=root,
    )
    url = settings.pccs_url or dcap_qvl.PHALA_PCCS_URL
    return Verifier(policy=policy, collateral=partial(fetch_collateral, url=url))


def _key_provider(text: str) -> KeyProvider:
    name, separator, identity = text.partition(":")
    if not (name and separator and identity):
        raise ConfigError(f"key_provider: expected NAME:ID, such as kms:3059..., received {text[:80]!r}")
    return KeyProvider(name=name, id=identity)


def _docker_config() -> Path | None:
    """Return where Docker's own programs keep the credentials of registries, if they keep any."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    return folder if (folder / "config.json").is_file() else None
