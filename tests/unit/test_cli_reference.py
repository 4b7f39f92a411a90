"""The pages of reference agree with the code, and the commands keep the common rules."""

from pathlib import Path

import click
import pytest

from blueprint.cli.app import COMMANDS, program
from blueprint.cli.reference import PAGES
from blueprint.cli.session import NEVER_FLAGS
from blueprint.settings import ENV_PREFIX, Settings

PROJECT = Path(__file__).resolve().parents[2]


def leaves(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    """Return every command below a command that can be run, with its path."""
    if not isinstance(command, click.Group):
        return [(path, command)]
    context = click.Context(command)
    found = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
    return [leaf for name, inner in found if inner for leaf in leaves(inner, f"{path} {name}".strip())]


ALL = leaves(program, "")


@pytest.mark.parametrize("name", sorted(PAGES))
def test_page_is_what_the_code_says(name: str) -> None:
    """A page that differs from the code is stale: run `blueprint reference --write .`."""
    assert (PROJECT / name).read_text(encoding="utf-8") == PAGES[name]()


def test_every_setting_is_documented_once() -> None:
    """Each setting has one line in .env.example and one row in the table."""
    example, page = PAGES[".env.example"](), PAGES["docs/reference/settings.md"]()
    for name in Settings.model_fields:
        assert example.count(f"#{ENV_PREFIX}{name.upper()}=") == 1, name
        assert page.count(f"| `{name}` |") == 1, name


def test_help_of_the_list_is_the_help_of_the_command() -> None:
    """The one line that the group shows, without loading the command, is the command's own."""
    context = click.Context(program)
    for name, (_, line) in COMMANDS.items():
        command = program.get_command(context, name)
        assert command is not None
        assert command.help == line, name


@pytest.mark.parametrize(("path", "command"), ALL, ids=[path for path, _ in ALL])
def test_every_command_has_the_common_flags_and_help(path: str, command: click.Command) -> None:
    """--json, --debug, --config and a help text are on every command; no flag takes a secret."""
    flags = {option for parameter in command.params for option in parameter.opts}
    assert flags >= {"--json", "--debug", "--config"}, path
    assert command.help, path
    assert not flags & {"--" + name.replace("_", "-") for name in NEVER_FLAGS}, path
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{path} {parameter.opts}"
