"""The program ``blueprint``: finds the command that was asked for and loads only that one.

Invariant: this module imports click and nothing else that is large, so that help and usage errors are quick.
"""

import difflib
import importlib
import json
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Final

import click
from typing_extensions import override

from blueprint.cli.exits import ExitCode

__all__ = ["COMMANDS", "program", "run_command_line"]

# name -> (module below blueprint.cli, one line of help); the attribute in the module is `command`.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "demo": ("demo", "Submit real programs on an embedded chain and watch the node answer them."),
    "run": ("run", "Run the node: follow a contract's job calls and answer each exactly once."),
    "submit": ("submit", "Submit a program (a file or a folder) as a job call and print the answer."),
    "calls": ("calls", "Look at the job calls in the node's journal, or retry one."),
    "status": ("status", "Say how the node is doing: readiness, cursor, calls by state."),
    "exec": ("exec", "Run a program (a file or a folder) in the sandbox, without any chain."),
    "deploy": ("deploy", "Put a compose application into a CVM, sealed and verified."),
    "runtimes": ("runtimes", "List or build the language runtimes."),
    "doctor": ("doctor", "Check what this machine offers, and print the fix for what is missing."),
    "keys": ("keys", "Make, import and list the operator's keys."),
    "chain": ("chain", "Serve the embedded chain on loopback, with the contracts deployed, until Ctrl-C."),
    "reference": ("reference", "Print or write the tables of settings and commands."),
}
_HIDDEN: Final = frozenset({"reference"})


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are used, not when they are listed."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if name not in _HIDDEN]

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"blueprint.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean `{near[0]}`?" if near else "`blueprint --help` lists the commands."
            raise click.UsageError(f"no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: object) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"blueprint {metadata.version('tee-job-node')}")
        ctx.exit()


program = _LazyGroup(
    "blueprint",
    help="A job node: turns job calls on a chain into programs run in sandboxes, each answered exactly once.",
    epilog="Every command has --help and --json. Start with `blueprint doctor`, then `blueprint demo`.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_print_version,
            help="Print the version.",
        )
    ],
    no_args_is_help=True,
)


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command line and return the exit code; usage errors and interruptions are told on stderr."""
    try:
        code = program.main(list(arguments), prog_name="blueprint", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        return ExitCode.USAGE
    except click.ClickException as error:
        where = getattr(error, "ctx", None)
        path = where.command_path if where is not None else "blueprint"
        if "--json" in arguments:  # what could not be parsed is told in the form that was asked for
            click.echo(json.dumps({"error": error.format_message(), "exit_code": int(ExitCode.USAGE)}))
        click.echo(f"error: {error.format_message()}\nTry `{path} --help`.", err=True)
        return ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115, PTH123 - whoever read stdout has left: end in silence
        return ExitCode.FAILURE
    return int(code or 0)
