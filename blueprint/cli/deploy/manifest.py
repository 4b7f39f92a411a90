"""``blueprint deploy manifest``: the compose text of an application, as it would be measured.

Invariant: the text is the one that `up` would deploy, byte for byte; it holds no value of a variable.
"""

from pathlib import Path

import click

from blueprint.cli.deploy.asked import application_options, size_options, understood
from blueprint.cli.deploy.place import record_store
from blueprint.cli.session import Session, node_command

__all__ = ["manifest"]


@click.command("manifest", help="Check an application, and print its compose text.")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@application_options
@size_options
@node_command(settings=("state_dir",))
def manifest(session: Session, *, path: Path, options: dict[str, object], size: dict[str, object]) -> None:
    """Print the text, and with it what follows from it."""
    asked = understood(path, options, size, record_store(session))
    compose, workload = asked.compose, asked.wanted.workload
    session.emit(
        {
            "name": workload.name,
            "compose": compose.text,
            "compose_hash": workload.compose_hash.hex(),
            "services": list(compose.services),
            "images": list(compose.images),
            "volumes": list(compose.volumes),
            "variables": list(asked.wanted.names),
            "risks": sorted(compose.allowed),
        }
    )
    if not session.is_json:
        click.echo(compose.text, nl=False)
    session.say(f"compose hash {workload.compose_hash.hex()}")
