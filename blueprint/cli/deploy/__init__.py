"""``blueprint deploy``: puts compose applications into CVMs."""

import click

from blueprint.cli.deploy import request

__all__ = ["command"]


@click.group("deploy", help="Put a compose application into a CVM, sealed and verified.")
def command() -> None:
    """Group the commands about deployments."""


command.add_command(request.command)
