"""``blueprint deploy``: puts compose applications into CVMs."""

import click

from blueprint.cli.deploy import request
from blueprint.cli.deploy.delete import delete
from blueprint.cli.deploy.engine import engine
from blueprint.cli.deploy.listing import listing
from blueprint.cli.deploy.logs import logs
from blueprint.cli.deploy.manifest import manifest
from blueprint.cli.deploy.power import restart, start, stop
from blueprint.cli.deploy.scale import replicate, resize
from blueprint.cli.deploy.seal import key, seal
from blueprint.cli.deploy.stats import stats
from blueprint.cli.deploy.status import status
from blueprint.cli.deploy.up import plan, prepare, up
from blueprint.cli.deploy.variables import env
from blueprint.cli.deploy.verify import verify

__all__ = ["command"]


@click.group("deploy", help="Put a compose application into a CVM, sealed and verified.")
def command() -> None:
    """Group the commands about deployments."""


_COMMANDS = (
    up, plan, manifest, prepare, seal, key,
    listing, status, logs, stats, start, stop, restart, env, resize, replicate, verify, delete,
    engine, request.command,
)  # fmt: skip
for each in _COMMANDS:
    command.add_command(each)
