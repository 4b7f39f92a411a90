"""``blueprint deploy env``: replaces all variables of a deployment.

Invariant: what is added, removed and kept is shown, and agreed to, before anything is sent; values never are.
"""

import asyncio
from dataclasses import replace
from pathlib import Path

import click

from blueprint.cli.deploy.asked import FILE
from blueprint.cli.deploy.consent import is_agreed, yes_option
from blueprint.cli.deploy.known import known_record, opened_deployment
from blueprint.cli.deploy.place import VERIFY_SETTINGS
from blueprint.cli.deploy.power import no_verify_option
from blueprint.cli.deploy.up import record_json, show_record
from blueprint.cli.exits import ExitCode
from blueprint.cli.session import Session, node_command
from blueprint.log import printable
from jobs.deploy.app_compose import parse_app_compose, with_variables
from jobs.deploy.compose.check import check_compose
from jobs.deploy.compose.findings import Allowance
from jobs.deploy.env_file import read_env_file
from jobs.deploy.envelope import Envelope
from jobs.deploy.plan import make_plan
from jobs.deploy.record import DeploymentRecord
from jobs.deploy.wanted import Variables, Wanted, recorded

__all__ = ["env"]


@click.command("env", help="Replace all variables of a deployment, wait until it is up, and verify it.")
@click.argument("name")
@click.option("--env-file", type=FILE, metavar="FILE", help="All variables: NAME=VALUE lines.")
@click.option("--sealed", type=FILE, metavar="FILE", help="All variables, as `deploy seal` has sealed them.")
@yes_option
@no_verify_option
@node_command(settings=VERIFY_SETTINGS)
def env(
    session: Session, *, name: str, env_file: Path | None, sealed: Path | None, yes: bool, no_verify: bool
) -> int:
    """Show what changes, ask, send."""
    if (env_file is None) == (sealed is None):
        raise click.UsageError("give either --env-file or --sealed")
    record = known_record(session, name)
    wanted, variables = (
        _from_file(record, env_file) if env_file else _from_envelope(record, Path(sealed or ""))
    )
    planned = make_plan(wanted, record, variables, place=record.place)
    for line in planned.lines():
        session.say(printable(line, keep_newlines=False))
    if not planned.is_noop and not is_agreed(f"Replace all variables of {name}?", yes=yes):
        session.say("nothing was sent")
        return ExitCode.FAILURE

    async def replaced() -> DeploymentRecord:
        async with opened_deployment(session, name, is_verifying=not no_verify) as (service, _):
            return await service.up(wanted, variables, is_verified=not no_verify)

    record = asyncio.run(replaced())
    session.emit(record_json(record))
    show_record(session, record)
    return ExitCode.OK


def _from_file(record: DeploymentRecord, path: Path) -> tuple[Wanted, Variables]:
    """Return what is wanted with the variables of a file, which may have other names than before."""
    variables = read_env_file(path)
    names = {variable.key for variable in variables}
    wanted = recorded(record)
    if names == set(record.names):
        return wanted, variables
    members = parse_app_compose(record.app_compose)
    text, script = str(members["docker_compose_file"]), str(members.get("pre_launch_script") or "")
    # Its risks were allowed when it was deployed; whether each variable has its use is asked anew.
    check_compose(text, names=names, allow=frozenset(Allowance), script=script)
    workload = replace(with_variables(record.app_compose, names), name=record.name)
    return replace(wanted, workload=workload, names=tuple(sorted(names))), variables


def _from_envelope(record: DeploymentRecord, path: Path) -> tuple[Wanted, Variables]:
    wanted, envelope = recorded(record), Envelope.read(path)
    envelope.check(wanted, record)
    return wanted, envelope.sealed
