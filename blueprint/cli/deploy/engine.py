"""``blueprint deploy engine``: the Docker engine that the local place uses.

Invariant: an engine that is not ours is never ended.
"""

import asyncio
import os
from pathlib import Path

import click

from blueprint.cli.deploy.place import private_engine
from blueprint.cli.session import Session, node_command
from jobs.deploy.backends.local import engine_socket
from jobs.deploy.backends.local.private_engine import find_engine

__all__ = ["engine"]


@click.command("engine", help="Print the address of the local place's Docker engine, started if need be.")
@click.option("--stop", is_flag=True, help="End the engine of this state folder, with all that it runs.")
@node_command(settings=("state_dir",))
def engine(session: Session, *, stop: bool) -> None:
    """Find or start the engine, or end our own."""
    own = private_engine(session)
    if stop:
        asyncio.run(own.stop())
        session.emit({"stopped": str(own.folder)}, f"no engine runs in {own.folder} any more")
        return
    named = engine_socket(os.environ.get("DOCKER_HOST", ""))
    socket: Path = asyncio.run(find_engine(named, own.folder, session.say))
    session.emit({"engine": f"unix://{socket}"}, f"unix://{socket}")
    session.suggest(f"docker --host unix://{socket} ps")
