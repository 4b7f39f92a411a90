"""``blueprint reference``: the tables of settings and commands, made from the code that they describe."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
from pydantic_core import PydanticUndefined

from blueprint.cli.app import COMMANDS, program
from blueprint.cli.session import NEVER_FLAGS, Session, node_command
from blueprint.settings import ENV_PREFIX, Settings, setting_group

__all__ = ["PAGES", "command"]

_MADE = "made by `blueprint reference --write .`"


def env_example() -> str:
    """Return ``.env.example``: every setting as a commented line with its default and meaning."""
    lines = [f"# Every setting of the node, {_MADE}; copy to .env and change what you need."]
    lines.append("# Order: command line, environment, .env, blueprint.toml, default.")
    group = ""
    for name, field in Settings.model_fields.items():
        if setting_group(name) != group:
            group = setting_group(name)
            lines.append(f"\n# --- {group} ---")
        lines += [f"# {field.description}", f"#{ENV_PREFIX}{name.upper()}={_default(name)}"]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """Return the reference page of the settings as Markdown tables, one a group."""
    lines = [
        "# Settings",
        "",
        f"<!-- {_MADE} -->",
        "",
        "The first source that has a value wins: command line, environment, `.env`, `blueprint.toml`.",
        "The variable is `BLUEPRINT_` and the name in capitals; in TOML it is the name. Lists are `a,b`.",
        "A flag exists on the commands that read the setting; secrets have none: a command line is public.",
    ]
    group = ""
    for name, field in Settings.model_fields.items():
        if setting_group(name) != group:
            group = setting_group(name)
            lines += [
                "",
                f"## {group}",
                "",
                "| setting | flag | default | meaning |",
                "| --- | --- | --- | --- |",
            ]
        flag = "" if name in NEVER_FLAGS else f"`--{name.replace('_', '-')}`"
        default = f"`{_default(name)}`" if _default(name) else ""
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{name}` | {flag} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """Return the reference page of the commands: the help text of each, as it is printed."""
    lines = ["# Commands", "", f"<!-- {_MADE} -->", ""]
    lines += [
        "Exit codes: 0 ok, 1 failure, 2 usage or configuration, 3 chain unreachable, 4 attestation failed,"
    ]
    lines += ["5 sandbox unavailable, 6 job failed, 130 interrupted.", ""]
    context = click.Context(program, info_name="blueprint", **program.context_settings)
    for name in program.list_commands(context):
        found = program.get_command(context, name)
        assert found is not None, name
        lines += _describe(found, f"blueprint {name}", context)
    return "\n".join(lines)


PAGES: Final[dict[str, Callable[[], str]]] = {
    ".env.example": env_example,
    "docs/reference/settings.md": settings_page,
    "docs/reference/commands.md": commands_page,
}


@click.command("reference", help=COMMANDS["reference"][1])
@click.argument("page", type=click.Choice(sorted(PAGES)), required=False)
@click.option(
    "--write",
    "folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Write all pages below DIR.",
)
@node_command()
def command(session: Session, *, page: str | None, folder: Path | None) -> None:
    """Print one page, or write all of them."""
    if folder is not None:
        for name, make in PAGES.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(make(), encoding="utf-8")
        session.emit({"written": list(PAGES)}, "\n".join(PAGES))
        return
    text = PAGES[page or "docs/reference/settings.md"]()
    session.emit({"page": text}, None)
    if not session.is_json:
        click.echo(text, nl=False)


def _default(name: str) -> str:
    default = Settings.model_fields[name].default
    if default is PydanticUndefined or default in (None, (), {}):
        return ""
    return ",".join(default) if isinstance(default, tuple) else str(default)


def _describe(found: click.Command, path: str, parent: click.Context) -> list[str]:
    context = click.Context(found, info_name=path.removeprefix("blueprint "), parent=parent)
    context.terminal_width = 100
    lines = [f"## {path}", "", "```text", found.get_help(context).rstrip(), "```", ""]
    if isinstance(found, click.Group):
        for name in found.list_commands(context):
            inner = found.get_command(context, name)
            assert inner is not None, name
            lines += _describe(inner, f"{path} {name}", parent)
    return lines
