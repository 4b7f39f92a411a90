"""Asks a person before something that cannot be undone.

Invariant: nobody is asked where nobody can answer: off a terminal the answer is to be given by an option.
"""

import sys

import click

from blueprint.errors import ConfigError

__all__ = ["is_agreed", "yes_option"]

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def is_agreed(question: str, *, yes: bool) -> bool:
    """Return whether it may be done: asked, or agreed to by the option.

    Raises:
        ConfigError: stdin is no terminal.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Nobody can be asked here: add --yes")
    return click.confirm(question, err=True)
