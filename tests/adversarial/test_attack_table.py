"""Each attack ends as its row says, harms nobody, leaves nothing, and succeeds without its wall."""

from collections import Counter

import pytest

from tests.adversarial.attack import Attack
from tests.adversarial.batch import CONTROL, HOSTS, Batches, Host
from tests.adversarial.catalogue import LINES
from tests.adversarial.guard import INTACT
from tests.adversarial.table import ALL, THEMES, theme_of
from tests.support.walls import known_walls

ANSWER_TIMEOUT_S = 15.0
LAG_TIMEOUT_S = 3.0
MEMORY_BYTES = 64 * 1024 * 1024
THREADS = 40


def marks(host: Host, *attacks: Attack) -> list[pytest.MarkDecorator]:
    """Return what the machine must serve for any of the attacks."""
    needed = [host.marker, "tree"] if all(attack.needs_tree for attack in attacks) else [host.marker]
    return [getattr(pytest.mark, name) for name in needed]


ROWS = [
    pytest.param(attack, host, id=f"{attack.key}-{host.name}", marks=marks(host, attack))
    for attack in ALL
    for host in HOSTS
    if host.rows(attack)
]
CONTROLS = [
    pytest.param(attack, host, id=f"{attack.key}-{host.name}", marks=marks(host, attack))
    for attack in ALL
    for host in HOSTS
    if attack.without is not None
    and host.rows(attack)
    and set(attack.without.walls) <= known_walls(host.name)
]
BATCHES = [
    pytest.param(theme, host, id=f"{theme}-{host.name}", marks=marks(host, *rows))
    for theme, rows in THEMES.items()
    for host in HOSTS
    if any(map(host.rows, rows))
]


@pytest.mark.parametrize(("attack", "host"), ROWS)
def test_attack_ends_as_its_row_says(attack: Attack, host: Host, batches: Batches) -> None:
    """Status, output, touched limits and collected files are those of the row."""
    batch = batches.get(host, (), theme_of(attack))
    attack.ending(host.name).check(batch.report.outcomes[attack.key])


@pytest.mark.parametrize(("attack", "host"), CONTROLS)
def test_attack_succeeds_without_its_wall(attack: Attack, host: Host, batches: Batches) -> None:
    """The same program gets what it wants where the wall is left out: it is the wall that holds it."""
    assert attack.without is not None
    batch = batches.get(host, attack.without.walls, CONTROL)
    attack.without.check(batch.report.outcomes[attack.key])


@pytest.mark.parametrize(("theme", "host"), BATCHES)
def test_attacks_leave_nothing_behind(theme: str, host: Host, batches: Batches) -> None:
    """No process, mount, group, name space, IPC object, key or file is left of the attacks of a theme."""
    batch = batches.get(host, (), theme)
    assert batch.after == batch.before


@pytest.mark.parametrize(("theme", "host"), BATCHES)
def test_attacks_harm_nobody_else(theme: str, host: Host, batches: Batches) -> None:
    """Another's sandbox is untouched, others are answered rightly and in time, the service holds no more."""
    health = batches.get(host, (), theme).report.health
    assert health.guard == INTACT
    assert not health.wrong_answers
    assert health.answers > 0
    assert health.worst_answer_s < ANSWER_TIMEOUT_S
    assert health.worst_lag_s < LAG_TIMEOUT_S
    assert not health.descriptors
    assert health.memory_bytes < MEMORY_BYTES
    assert health.threads < THREADS
    assert not health.children


def test_table_is_large_and_its_attacks_are_distinct() -> None:
    """There are 120 rows at least, and 90 attacks that are not the same one in another language."""
    assert len(ALL) >= 120
    assert len({attack.name for attack in ALL}) >= 90


def test_rows_have_a_name_of_their_own() -> None:
    """No two rows share a name, so that a claim names one test."""
    assert [key for key, count in Counter(attack.key for attack in ALL).items() if count > 1] == []


def test_every_line_of_the_catalogue_has_a_row() -> None:
    """What the catalogue names is attacked, and every row belongs to a line of it."""
    assert {attack.line for attack in ALL} == set(LINES)


def test_rows_that_differ_elsewhere_say_why() -> None:
    """An ending that only one back end has gives its reason, unless it is merely less exact."""
    for attack in ALL:
        for host, ending in attack.elsewhere.items():
            weaker = set(ending.statuses()) - set(attack.ends.statuses())
            assert ending.why or not weaker, f"{attack.key} on {host}"


def test_walls_that_are_left_out_are_known() -> None:
    """Each wall that a row wants left out can be left out of some back end."""
    known = frozenset().union(*(known_walls(host.name) for host in HOSTS))
    assert [row.key for row in ALL if row.without and not set(row.without.walls) <= known] == []
