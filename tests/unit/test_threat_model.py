"""The threat model claims what is tested: its table is the rows', and each name in it leads to a test."""

import re
from pathlib import Path

import pytest

from tests.adversarial.render import BEGIN, PAGE, page_of
from tests.adversarial.table import ALL

PROJECT = Path(__file__).resolve().parents[2]
TEXT = PAGE.read_text(encoding="utf-8")
PROSE = TEXT.partition(BEGIN)[0]
CLAIMS = [
    line.split(" | ")
    for line in PROSE.partition("## What a program could want")[2].splitlines()
    if line.startswith("| ")
]


def test_table_is_what_the_rows_say() -> None:
    """A table that differs from the rows is stale: run `python -m tests.adversarial.render`."""
    assert page_of(TEXT) == TEXT


@pytest.mark.parametrize("claim", [claim[-1] for claim in CLAIMS[2:]])
def test_claim_names_tests_that_exist(claim: str) -> None:
    """Each row of claims ends with names of attacks, or files and tests; every one of them is there."""
    names = re.findall(r"`([^`]+)`", claim)
    keys = {attack.key for attack in ALL}
    assert names
    for name in names:
        path, _, test = name.partition("::")
        if "/" not in name:
            assert name in keys
        else:
            assert (PROJECT / path).is_file()
            assert not test or f"def {test}(" in (PROJECT / path).read_text(encoding="utf-8")
