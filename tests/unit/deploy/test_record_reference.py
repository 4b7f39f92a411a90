"""The reference of a deployment's record names its members."""

import re
from dataclasses import fields
from pathlib import Path

from jobs.deploy.record import FORMAT, DeploymentRecord, Stage

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "deployment-record.md").read_text()


def test_every_member_is_in_the_reference() -> None:
    """One row each, in the file's order, and none for a member that does not exist."""
    rows = re.findall(r"^\| `([a-z_]+)` \|", PAGE, re.MULTILINE)
    assert rows == [field.name for field in fields(DeploymentRecord)]


def test_every_stage_and_the_format_are_in_the_reference() -> None:
    """Whoever reads a file finds what its words mean."""
    (row,) = re.findall(r"^\| `stage` \|.*$", PAGE, re.MULTILINE)
    assert {stage.value for stage in Stage} <= set(re.findall(r"`([a-z]+)`", row))
    assert f"The number `format` is {FORMAT}." in PAGE
