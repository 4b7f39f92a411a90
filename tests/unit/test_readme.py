"""What the README claims is claimed of tests that exist."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
TEXT = (PROJECT / "README.md").read_text(encoding="utf-8")
ROWS = [line.split(" | ") for line in TEXT.splitlines() if line.startswith("| ")]
FEATURES = [row for row in ROWS if len(row) == 5 and row[1] == "yes"]


def files(cell: str) -> list[Path]:
    """The paths that a cell names."""
    return [PROJECT / name for name in re.findall(r"`((?:tests|contracts)/[^`]+)`", cell)]


def test_the_table_of_features_is_read() -> None:
    """Were it written in another way, nothing would be checked below."""
    assert len(FEATURES) > 10


@pytest.mark.parametrize("row", FEATURES, ids=lambda row: row[0].removeprefix("| "))
def test_a_yes_names_its_test(row: list[str]) -> None:
    """Whatever is claimed of ours has a file with tests, of which one can fail."""
    named = files(row[-1])
    assert named
    for path in named:
        assert "def test_" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:tests|contracts|examples)/[^`]+)`", TEXT))))
def test_a_path_that_is_named_exists(name: str) -> None:
    """A claim whose test was moved away is found here."""
    assert (PROJECT / name).exists()
