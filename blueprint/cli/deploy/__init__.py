"""``blueprint deploy``: puts compose applications into CVMs."""

import click

from blueprint.cli.deploy import request
from blueprint.cli.deploy.engine import engine
from blueprint.cli.deploy.manifest import manifest
from blueprint.cli.deploy.seal import key, seal
from blueprint.cli.deploy.up import plan, prepare, up

__all__ = ["command"]


@click.group("deploy", help="Put a compose application into a CVM, sealed and verified.")
def command() -> None:
    """Group the commands about deployments."""


for each in (up, plan, manifest, prepare, seal, key, engine, request.command):
    command.add_command(each)
