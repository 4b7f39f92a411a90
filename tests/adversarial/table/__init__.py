"""The adversarial table, one module for each theme; a row belongs to the theme of its module.

Invariant: names are unique, and every line of the catalogue has a row.
"""

from collections.abc import Mapping, Sequence

from tests.adversarial.attack import Attack
from tests.adversarial.table import (
    between,
    compilers,
    depletion,
    escape,
    files,
    furnished,
    identity,
    kernel,
    languages,
    network,
    processes,
    requests,
)

__all__ = ["ALL", "THEMES", "theme_of"]

THEMES: Mapping[str, Sequence[Attack]] = {
    "depletion": depletion.ROWS,
    "processes": processes.ROWS,
    "escape": escape.ROWS,
    "identity": identity.ROWS,
    "kernel": kernel.ROWS,
    "between": between.ROWS,
    "network": network.ROWS,
    "files": files.ROWS,
    "furnished": furnished.ROWS,
    "compilers": compilers.ROWS,
    "languages": languages.ROWS,
    "requests": requests.ROWS,
}
ALL: Sequence[Attack] = [row for rows in THEMES.values() for row in rows]
_THEME_OF = {row.key: theme for theme, rows in THEMES.items() for row in rows}


def theme_of(row: Attack) -> str:
    """Return the theme that a row belongs to."""
    return _THEME_OF[row.key]
