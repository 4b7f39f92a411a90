"""The adversarial table, one module for each theme; a row belongs to the theme of its module.

Invariant: names are unique, and every line of the catalogue has a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tests.adversarial.attack import Attack
from tests.adversarial.guest import ENDINGS
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
    packages,
    processes,
    requests,
)

__all__ = ["ALL", "THEMES", "theme_of"]

_WRITTEN: Mapping[str, Sequence[Attack]] = {
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
    "packages": packages.ROWS,
}


def _with_guest(row: Attack) -> Attack:
    """Add how a row ends in a guest of gVisor, where that differs."""
    if row.key not in ENDINGS:
        return row
    return replace(row, elsewhere={**row.elsewhere, "gvisor": ENDINGS[row.key]})


THEMES: Mapping[str, Sequence[Attack]] = {
    theme: [_with_guest(row) for row in rows] for theme, rows in _WRITTEN.items()
}
ALL: Sequence[Attack] = [row for rows in THEMES.values() for row in rows]
_THEME_OF = {row.key: theme for theme, rows in THEMES.items() for row in rows}


def theme_of(row: Attack) -> str:
    """Return the theme that a row belongs to."""
    return _THEME_OF[row.key]
