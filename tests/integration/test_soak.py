"""A thousand requests of every kind, with services killed in between: `./dev soak` runs ten thousand."""

import pytest

from sandbox.languages import LANGUAGES
from tests.conftest import state_dir
from tests.soak.kinds import kinds_for
from tests.soak.machine import Machine, settled
from tests.soak.run import soak

SEED = 20


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("backend", "count"),
    [
        pytest.param("slot", 800, marks=[pytest.mark.root, pytest.mark.tree]),
        pytest.param("bubblewrap", 200, marks=[pytest.mark.bubblewrap, pytest.mark.tree]),
    ],
)
def test_a_soak_leaves_nothing_behind(backend: str, count: int) -> None:
    """Every kind ends as it must, and the machine shows nothing that it did not show before."""
    before = Machine.look()
    outcome = soak(backend=backend, count=count, kills=3, state_dir=state_dir(), seed=SEED)
    assert outcome.wrong == []
    assert settled(before) == []
    assert outcome.kills == 3
    # Four requests are under way in each service that is killed.
    assert count - 3 * 4 <= outcome.answered <= count
    assert set(outcome.kinds) <= {kind.name for kind in kinds_for(list(LANGUAGES))}
