"""Choosing a version by what somebody wrote."""

import pytest

from sandbox.errors import RequestError
from sandbox.versions import best_match, is_match

PYTHON = ["3.13.5", "3.11.2", "3.9.25"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("", "3.13.5"),
        ("*", "3.13.5"),
        ("latest", "3.13.5"),
        ("3.11.2", "3.11.2"),
        ("3.11", "3.11.2"),
        ("3", "3.13.5"),
        ("3.x", "3.13.5"),
        ("v3.9", "3.9.25"),
        ("3.9.*", "3.9.25"),
        ("==3.9", "3.9.25"),
        (">=3.10", "3.13.5"),
        (">3.11", "3.13.5"),
        ("<3.11", "3.9.25"),
        ("<=3.11", "3.11.2"),
        (">=3.9,<3.13", "3.11.2"),
        (">= 3.9  < 3.13", "3.11.2"),
        ("!=3.13", "3.11.2"),
        ("^3.9", "3.13.5"),
        ("~3.11", "3.11.2"),
        ("~3.11.1", "3.11.2"),
        ("~=3.11", "3.13.5"),
        ("~=3.9.3", "3.9.25"),
        ("^2 || ~3.9", "3.9.25"),
    ],
)
def test_best_version_of_a_requirement(wanted: str, expected: str) -> None:
    """Exact, prefix and range choose the highest that matches; nothing chooses the first."""
    assert expected == best_match(PYTHON, wanted, what="runtime")


@pytest.mark.parametrize(
    "wanted", ["3.1", "3.130", "13", "^4", "~3.12", ">3.13", "~3.11.3", "~=3.9.26", "^0.9"]
)
def test_version_that_is_not_there(wanted: str) -> None:
    """What matches nothing is refused with everything that is there."""
    with pytest.raises(RequestError, match=r"expected one of 3\.13\.5, 3\.11\.2, 3\.9\.25"):
        best_match(PYTHON, wanted, what="runtime")


@pytest.mark.parametrize(
    "wanted", ["three", ">=", "3.13-rc1", "3..13", ">>3", "3 ||", "|| 3", ",3", "3,", "/etc", "3.13\x00"]
)
def test_text_that_is_no_requirement(wanted: str) -> None:
    """What cannot be read is refused with examples, never taken for a version."""
    with pytest.raises(RequestError, match=r"runtime: expected a version \(3\.13\.5\)"):
        best_match(PYTHON, wanted, what="runtime")


def test_zero_major_version_stays_at_its_minor() -> None:
    """A caret before version 1 keeps the first part that is not zero."""
    assert is_match("0.12.4", "^0.12", what="x")
    assert not is_match("0.13.0", "^0.12", what="x")


def test_numbers_are_compared_as_numbers() -> None:
    """1.10 is more than 1.9, in a choice and in a comparison."""
    assert best_match(["1.9", "1.10"], "1", what="x") == "1.10"
    assert is_match("1.10", ">1.9", what="x")


def test_short_version_counts_as_followed_by_zeros() -> None:
    """A version of one part meets a requirement of three."""
    assert is_match("25", ">=25.0.0", what="x")
    assert not is_match("25", ">=25.0.1", what="x")


def test_nothing_available_is_refused() -> None:
    """Where there is no version at all, even no wish is refused."""
    with pytest.raises(RequestError, match="expected one of none"):
        best_match([], "3", what="runtime")
    with pytest.raises(RequestError, match="expected one of none"):
        best_match([], "", what="runtime")


def test_long_text_is_cut_in_the_message() -> None:
    """A huge requirement does not make a huge message."""
    with pytest.raises(RequestError) as caught:
        best_match(PYTHON, "9" * 1000, what="runtime")
    assert len(str(caught.value)) < 300
