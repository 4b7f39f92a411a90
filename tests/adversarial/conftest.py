"""Hands the tests their batches: which rows run together, on which back end, without which walls."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

import pytest

from tests.adversarial.batch import CONTROL, Batches
from tests.adversarial.table import THEMES, theme_of


@pytest.fixture(scope="session")
def batches(request: pytest.FixtureRequest) -> Batches:
    """The batches of this session: the rows that were selected, or a whole theme where none of it was."""
    selected: dict[tuple[str, tuple[str, ...], str], list[str]] = defaultdict(list)
    asked = list(_parameters(request.session))
    for name, params in asked:
        if "attack" in params:
            attack, is_control = params["attack"], name == "test_attack_succeeds_without_its_wall"
            walls, theme = (attack.without.walls, CONTROL) if is_control else ((), theme_of(attack))
            selected[params["host"].name, walls, theme].append(attack.key)
    for _, params in asked:
        if "theme" in params:
            rows = [row.key for row in THEMES[params["theme"]] if params["host"].rows(row)]
            selected.setdefault((params["host"].name, (), params["theme"]), rows)
    return Batches(selected)


def _parameters(session: pytest.Session) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield name and parameters of the selected tests that this machine can run."""
    for item in session.items:
        call = getattr(item, "callspec", None)
        if call is not None and "host" in call.params and not item.get_closest_marker("skip"):
            yield item.originalname, call.params  # type: ignore[attr-defined]
