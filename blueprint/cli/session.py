"""What every command has: its settings, where it prints, and the flags ``--json``, ``--debug``, ``--config``.

Invariant: data goes to stdout, everything else to stderr; with ``--json`` stdout holds one JSON
document a line, also when the command fails.
"""

import contextlib
import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from blueprint import log
from blueprint.cli.exits import exit_code_of, first_cause, in_lines, one_line
from blueprint.log import printable
from blueprint.settings import Settings
from blueprint.settings_sources import load_settings

__all__ = ["NEVER_FLAGS", "Json", "Session", "node_command"]

Json = Mapping[str, Any] | Sequence[Any]
Command = Callable[..., int]
"""A click callback: keyword arguments in, exit code out."""
NEVER_FLAGS: Final = frozenset(
    {"private_key", "keystore_password", "cloud_api_key", "cloud_proxy", "egress", "registries", "deploy"}
)
"""Secrets: a command line is visible to every account of the machine; and tables, which have no flag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One run of one command."""

    settings: Settings
    origins: Mapping[str, str]
    is_json: bool
    is_debug: bool
    stdout: Console
    stderr: Console
    redactor: log.Redactor

    @property
    def state_dir(self) -> Path:
        """The folder of everything durable."""
        if self.settings.state_dir is not None:
            return self.settings.state_dir.expanduser().absolute()
        if os.geteuid() == 0:
            return Path("/var/lib/tee-job-node")
        home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        return Path(home).expanduser() / "tee-job-node"

    @property
    def trees_dir(self) -> Path:
        """The folder below which the language trees lie."""
        folder = self.settings.trees_dir
        return self.state_dir if folder is None else folder.expanduser().absolute()

    @property
    def journal(self) -> Path:
        """The node's journal."""
        return self.state_dir / "journal.sqlite"

    def emit(self, value: Json, shown: RenderableType | None = None) -> None:
        """Print the command's data: as one JSON document with ``--json``, else as ``shown``."""
        if self.is_json:
            sys.stdout.write(json.dumps(value, default=str) + "\n")
            sys.stdout.flush()
        elif shown is not None:
            if isinstance(shown, Table):
                for column in shown.columns:
                    column.overflow = "fold"  # an address that is cut short is of no use
            self.stdout.print(shown)

    def say(self, text: RenderableType, style: str = "") -> None:
        """Print something that is no data, to stderr."""
        self.stderr.print(Text(printable(text), style=style) if isinstance(text, str) else text)

    def suggest(self, *commands: str) -> None:
        """End with the next useful commands; nothing with ``--json``."""
        if not self.is_json:
            for command in commands:
                self.stderr.print(Text.assemble(("next: ", "dim"), (command, "bold")))


def _open(
    flags: Mapping[str, object], *, config: Path | None, is_json: bool, is_debug: bool, logs: bool
) -> Session:
    loaded = load_settings(flags, toml_file=config)
    settings = loaded.settings
    known = [settings.private_key, settings.keystore_password, settings.cloud_api_key, settings.cloud_proxy]
    known += [secret for each in settings.registries.values() for secret in (each.password, each.token)]
    secrets = [secret.get_secret_value() for secret in known if secret]
    redactor = log.configure(
        level="debug" if is_debug else settings.log_level if logs else "warning",
        style=settings.log_format,
        secrets=secrets,
    )
    stderr = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
    for warning in loaded.warnings:
        stderr.print(Text(f"warning: {warning}", style="yellow"))
    return Session(
        settings=settings,
        origins=loaded.origins,
        is_json=is_json,
        is_debug=is_debug,
        stdout=Console(
            highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 240
        ),
        stderr=stderr,
        redactor=redactor,
    )


def node_command(
    *, settings: Sequence[str] = (), logs: bool = False
) -> Callable[[Callable[..., int | None]], Command]:
    """Give a click callback its session, the common flags, one flag per setting, and one way to fail.

    Args:
        settings: the settings that this command reads and that may be given as flags.
        logs: whether the command logs at the level of the settings, as a service does; others only warn.

    The wrapped function returns an exit code or None for 0. Whatever it raises becomes one line on stderr
    (with ``--json`` also a document on stdout) and the exit code of its class.
    """

    def wrap(function: Callable[..., int | None]) -> Command:
        @functools.wraps(function)
        def callback(**given: Any) -> int:
            is_json, is_debug = bool(given.pop("json_output")), bool(given.pop("debug"))
            config = given.pop("config")
            flags = {name: given.pop(name) for name in settings}
            redactor = log.Redactor()
            try:
                session = _open(flags, config=config, is_json=is_json, is_debug=is_debug, logs=logs)
                redactor = session.redactor
                return function(session, **given) or 0
            except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
                raise
            except Exception as error:  # noqa: BLE001 - a command's outermost frame: one line instead of a traceback
                return _report(error, redactor, is_json=is_json, is_debug=is_debug)

        return _with_options(callback, settings)

    return wrap


def _report(error: Exception, redactor: log.Redactor, *, is_json: bool, is_debug: bool) -> int:
    cause = first_cause(error)
    # SECURITY: it may quote what a cloud, a chain or a file says (test_an_error_cannot_move_the_cursor).
    code, line = exit_code_of(cause), printable(redactor.text(one_line(cause)), keep_newlines=False)
    if is_debug:
        sys.stderr.write(printable(redactor.text("".join(traceback.format_exception(error)))))
    if is_json:
        print(json.dumps({"error": line, "exit_code": int(code)}))  # noqa: T201 - the data of a failed command
    with contextlib.suppress(BrokenPipeError):
        Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False).print(
            Text(f"error: {printable(redactor.text(in_lines(cause)))}", style="red")
        )
    return code


def _with_options(callback: Command, settings: Sequence[str]) -> Command:
    options: list[Callable[[Command], Command]] = [
        *(_setting_option(name) for name in settings),
        click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="TOML file of settings [blueprint.toml].",
        ),
        click.option("--json", "json_output", is_flag=True, help="Print JSON on stdout, for machines."),
        click.option("--debug", is_flag=True, help="Show tracebacks and debug log lines."),
    ]
    for option in reversed(options):
        callback = option(callback)
    return callback


def _setting_option(name: str) -> Callable[[Command], Command]:
    assert name not in NEVER_FLAGS, "a secret must not be a flag"
    field = Settings.model_fields[name]
    kind = str(field.annotation)
    metavar = "N" if "int" in kind or "float" in kind else "FILE" if "Path" in kind else "VALUE"
    choices = [
        choice
        for part in (field.annotation, *get_args(field.annotation))
        if get_origin(part) is Literal
        for choice in get_args(part)
    ]
    if choices:
        metavar = f"[{'|'.join(choices)}]"
    if field.annotation is bool:
        return click.option(f"--{name.replace('_', '-')}", name, flag_value="true", help=field.description)
    usual = ",".join(field.default) if isinstance(field.default, tuple) else field.default
    default = "" if usual in (None, "") else f" [{usual}]"
    return click.option(
        f"--{name.replace('_', '-')}", name, metavar=metavar, help=f"{field.description}{default}"
    )
