"""``blueprint deploy seal`` and ``key``: variables sealed by who has them, for who never sees a value.

Invariant: `seal` needs neither the place nor its API key, and what it writes holds no secret.
"""

import asyncio
from pathlib import Path

import click

from blueprint.cli.deploy.place import PLACE_SETTINGS, opened_service, place_of
from blueprint.cli.deploy.trust import SEAL_SETTINGS, kms_trust
from blueprint.cli.session import Session, node_command
from blueprint.errors import ConfigError
from jobs.deploy.app_compose import AppCompose
from jobs.deploy.env_file import read_env_file
from jobs.deploy.envelope import SealingRequest
from jobs.deploy.record import DeploymentRecord

__all__ = ["key", "seal"]

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("seal", help="Seal variables for a request; no value leaves this machine.")
@click.argument("request", type=_FILE)
@click.option("--env-file", type=_FILE, metavar="FILE", required=True, help="NAME=VALUE lines.")
@click.option("--compose", type=_FILE, metavar="FILE", help="The compose file that you expect to get them.")
@click.option("--script", type=_FILE, metavar="FILE", help="The pre-launch script that you expect beside it.")
@click.option("--sealed", type=_FILE, metavar="FILE", help="What to write [REQUEST.sealed.json].")
@node_command(settings=SEAL_SETTINGS)
def seal(
    session: Session,
    *,
    request: Path,
    env_file: Path,
    compose: Path | None,
    script: Path | None,
    sealed: Path | None,
) -> None:
    """Check the request, seal, write."""
    asked = SealingRequest.read(request)
    _check_expected(request, asked.application, compose, script)
    _warn(session, asked.application)
    variables = read_env_file(env_file)
    envelope = asked.seal(variables, kms_trust(session))
    target = sealed or request.with_name(f"{request.name.removesuffix('.json')}.sealed.json")
    envelope.write(target)
    facts = {"app_id": asked.app_id, "compose_hash": envelope.compose_hash, "names": list(asked.names)}
    session.emit({**facts, "sealed": str(target)})
    session.say(
        f"sealed {', '.join(asked.names)} for the application {asked.app_id}, compose hash "
        f"{envelope.compose_hash}; wrote {target}"
    )
    session.suggest(f"blueprint deploy up PATH --sealed {target}")


@click.command("key", help="Get the present key of a deployment, for others to seal new variables to.")
@click.argument("name")
@click.option("--request", type=_FILE, metavar="FILE", help="What to hand out [NAME.request.json].")
@node_command(settings=(*PLACE_SETTINGS, "kms_key"))
def key(session: Session, *, name: str, request: Path | None) -> None:
    """Fetch the key, have it vouched for, write the request."""

    async def fetched() -> DeploymentRecord:
        async with opened_service(session, place_of(session, name)) as service:
            return await service.rekey(name)

    record = asyncio.run(fetched())
    target = request or Path(f"{record.name}.request.json")
    SealingRequest.of(record).write(target)
    session.emit({"app_id": record.app_id, "public_key": record.public_key, "request": str(target)})
    session.say(f"wrote {target}; it holds no secret")
    session.suggest(f"blueprint deploy seal {target} --env-file FILE")


def _check_expected(request: Path, asked: AppCompose, compose: Path | None, script: Path | None) -> None:
    if compose is not None and _bytes(compose) != asked.docker_compose_file.encode():
        raise ConfigError(f"{request} is for another compose file than {compose}: nothing was sealed")
    # SECURITY: it sees the variables as the containers do (test_a_script_beside_the_text_is_not_passed_over).
    expected = b"" if script is None else _bytes(script)
    if (compose is not None or script is not None) and expected != asked.pre_launch_script.encode():
        what = "a pre-launch script" if asked.pre_launch_script else "no pre-launch script"
        raise ConfigError(
            f"{request} has {what}, which is not what you expect: nothing was sealed; read it there, and "
            "give the one that you expect with --script"
        )


def _warn(session: Session, asked: AppCompose) -> None:
    """Say what of an application concerns its secrets, and does not stand in the compose file."""
    if asked.pre_launch_script:
        session.say("a pre-launch script sees the variables before the containers do", "yellow")
    if asked.public_logs:
        session.say("anybody may read what the containers print", "yellow")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
