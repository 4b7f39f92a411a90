"""What the place that the settings name needs on this machine, each with how it stands and the fix.

Invariant: nothing is started and nothing is asked of another machine.
"""

import os

from blueprint.cli.deploy.offer import offered
from blueprint.cli.keyfiles import read_secret_file
from blueprint.cli.session import Session
from blueprint.errors import ConfigError
from jobs.deploy.backends.local.compose_program import find_compose
from jobs.deploy.backends.local.engine import Engine, engine_socket
from jobs.deploy.backends.local.private_engine import PrivateEngine
from jobs.deploy.errors import DeployError
from sandbox.check import Finding, Level

__all__ = ["place_findings"]


async def place_findings(session: Session) -> list[Finding]:
    """Return what concerns deployments; nothing where the settings name no place and offer nothing."""
    found = [] if session.settings.deploy is None else [_offer(session)]
    match session.settings.place:
        case "local":
            return [*found, await _engine(), _compose(), *_root(session)]
        case "phala":
            return [*found, _api_key(session)]
        case None:
            return found


def _offer(session: Session) -> Finding:
    try:
        offered(session)
    except ConfigError as error:
        return Finding(
            name="deployments",
            level=Level.MISSING,
            detail=str(error),
            fix="see docs/how-to/deploy-for-callers.md",
        )
    return Finding(
        name="deployments", level=Level.OK, detail=f"offered to callers, at {session.settings.place}"
    )


async def _engine() -> Finding:
    try:
        socket = engine_socket(os.environ.get("DOCKER_HOST", ""))
        async with Engine(socket) as engine:
            version = await engine.check()
    except DeployError as error:
        if not PrivateEngine.missing():
            detail = "none answers; one is started for this state folder, apart from the host's network"
            return Finding(name="docker engine", level=Level.WEAK, detail=detail, fix=error.advice)
        return Finding(name="docker engine", level=Level.MISSING, detail="none answers", fix=error.advice)
    return Finding(name="docker engine", level=Level.OK, detail=f"{version} at {socket}")


def _compose() -> Finding:
    try:
        return Finding(name="docker compose", level=Level.OK, detail=str(find_compose()))
    except DeployError as error:
        return Finding(name="docker compose", level=Level.MISSING, detail="not installed", fix=error.advice)


def _root(session: Session) -> list[Finding]:
    if session.settings.trust_development_root:
        return []
    fix = "--trust-development-root, or BLUEPRINT_TRUST_DEVELOPMENT_ROOT=true"
    return [
        Finding(
            name="attestation",
            level=Level.WEAK,
            detail="its platform is simulated, and its development root is not trusted: nothing is verified",
            fix=fix,
        )
    ]


def _api_key(session: Session) -> Finding:
    settings = session.settings
    fix = "--cloud-api-key-file FILE, or BLUEPRINT_CLOUD_API_KEY"
    if settings.cloud_api_key is not None:
        return Finding(name="cloud api key", level=Level.OK, detail="BLUEPRINT_CLOUD_API_KEY")
    if settings.cloud_api_key_file is None:
        return Finding(name="cloud api key", level=Level.MISSING, detail="none is set", fix=fix)
    try:
        read_secret_file(settings.cloud_api_key_file)
    except ConfigError as error:
        return Finding(name="cloud api key", level=Level.MISSING, detail=str(error), fix=fix)
    return Finding(
        name="cloud api key", level=Level.OK, detail=f"cloud_api_key_file {settings.cloud_api_key_file}"
    )
