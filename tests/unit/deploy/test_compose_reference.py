"""The reference of compose files names what the code knows."""

import re
from pathlib import Path

from jobs.deploy.compose.findings import Allowance
from jobs.deploy.compose.shapes import Refused
from jobs.deploy.compose.specification import SERVICE_KEYS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "compose.md").read_text()


def test_every_allowance_is_in_the_reference() -> None:
    """One row each, and no row for one that does not exist."""
    risks = PAGE.partition("## Risks")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", risks, re.MULTILINE)) == set(Allowance)


def test_every_refused_key_is_in_the_reference() -> None:
    """Whoever meets a refusal finds it there."""
    refused = PAGE.partition("## Refused")[2].partition("\n## ")[0]
    keys = {key for key, shape in SERVICE_KEYS.items() if any(isinstance(form, Refused) for form in shape)}
    assert keys - set(re.findall(r"`([a-z_]+)`", refused)) == set()
