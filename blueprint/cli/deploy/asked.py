"""What a command line says about an application: its description, and what is put over it by options.

Invariant: the values of variables come from a file, or sealed; never from the command line.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import click

from jobs.deploy.application import Application, ApplicationError, read_application
from jobs.deploy.backends.backend import Placement
from jobs.deploy.compose.check import Compose
from jobs.deploy.compose.findings import Allowance
from jobs.deploy.env_file import read_env_file
from jobs.deploy.envelope import Envelope
from jobs.deploy.record import DeploymentRecord, RecordStore
from jobs.deploy.wanted import Variables, Wanted

__all__ = ["Asked", "application_options", "size_options", "understood"]

FILE = click.Path(path_type=Path, dir_okay=False)
Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]
_POSITIVE = click.IntRange(min=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An application that was checked, with its variables."""

    wanted: Wanted
    compose: Compose
    variables: Variables | None
    """None leaves those that it has."""
    record: DeploymentRecord | None
    """What is known of a deployment of this name."""


def size_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a machine's size; the values reach it as ``size``."""
    return _bundled(
        function,
        "size",
        {
            "instance_type": click.option("--instance-type", metavar="NAME", help="Size, e.g. tdx.small."),
            "vcpu": click.option("--vcpu", type=_POSITIVE, help="Processors."),
            "memory_mb": click.option("--memory-mb", type=_POSITIVE, help="Memory in MiB."),
            "disk_gb": click.option("--disk-gb", type=_POSITIVE, help="Disk in GiB; it can only grow."),
        },
    )


def application_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what describes an application; the values reach it as ``options``."""
    allowances = click.Choice([allowance.value for allowance in Allowance])
    return _bundled(
        function,
        "options",
        {
            "name": click.option("--name", help="Of the deployment [the folder's, or deploy.toml's]."),
            "env_file": click.option(
                "--env-file", type=FILE, metavar="FILE", help="The variables: NAME=VALUE lines."
            ),
            "sealed": click.option(
                "--sealed", type=FILE, metavar="FILE", help="The variables, as `deploy seal` has sealed them."
            ),
            "variables": click.option(
                "--variable", "variables", multiple=True, metavar="NAME",
                help="The name of a variable whose value somebody else has.",
            ),
            "allow": click.option(
                "--allow", multiple=True, type=allowances, metavar="RISK",
                help="A risk that the compose file may take: " + ", ".join(allowances.choices) + ".",
            ),
            "public_logs": click.option(
                "--public-logs", is_flag=True, help="Let anybody read what the containers print."
            ),
            "public_sysinfo": click.option(
                "--public-sysinfo", is_flag=True, help="Let anybody read what the machine uses."
            ),
            "region": click.option("--region", metavar="NAME", help="Where."),
            "node": click.option("--node", metavar="ID", help="On which host machine."),
            "image": click.option("--image", metavar="NAME", help="The guest's operating system."),
        },
    )  # fmt: skip


def _bundled(
    function: Callable[..., Any], parameter: str, options: dict[str, Decorator]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def collecting(**given: Any) -> Any:
        bundle = {name: given.pop(name) for name in options}
        return function(**given, **{parameter: bundle})

    wrapped: Callable[..., Any] = collecting
    for option in reversed(options.values()):
        wrapped = option(wrapped)
    return wrapped


def understood(path: Path, options: dict[str, Any], size: dict[str, Any], records: RecordStore) -> Asked:
    """Read and check what a command line asks for.

    Raises:
        UsageError: variables are given in two ways.
        DeployError: a file cannot be read, or the application is not accepted.
    """
    application = _overlaid(read_application(path), options, size)
    record = records.get(application.name)
    if options["sealed"] and options["env_file"]:
        raise click.UsageError("--env-file and --sealed are both there: keep one")
    declared = (*options["variables"], *application.variables)
    env_file = options["env_file"] or application.env_file
    envelope = Envelope.read(options["sealed"]) if options["sealed"] else None
    variables: Variables | None = None
    names = declared or (record.names if record is not None else ())
    if envelope is not None:
        variables, names = envelope.sealed, envelope.names
    elif env_file is not None:
        variables = read_env_file(env_file)
        names = tuple(variable.key for variable in variables)
    if declared and set(names) != set(declared):
        odd = ", ".join(sorted(set(names) ^ set(declared)))
        raise ApplicationError(f"the variables given and those that were named differ: {odd}")
    wanted, compose = application.checked(tuple(dict.fromkeys(names)))
    if envelope is not None:
        envelope.check(wanted, record)
    return Asked(wanted=wanted, compose=compose, variables=variables, record=record)


def _overlaid(application: Application, options: dict[str, Any], size: dict[str, Any]) -> Application:
    """Put the options over the description."""
    places = {name: options[name] for name in ("region", "node", "image")}
    over = {name: value for name, value in {**size, **places}.items() if value}
    assert over.keys() <= {each.name for each in fields(Placement)}, "an option of no placement"
    return replace(
        application,
        name=options["name"] or application.name,
        allow=application.allow | {Allowance(name) for name in options["allow"]},
        public_logs=options["public_logs"] or application.public_logs,
        public_sysinfo=options["public_sysinfo"] or application.public_sysinfo,
        placement=replace(application.placement, **over),
    )
