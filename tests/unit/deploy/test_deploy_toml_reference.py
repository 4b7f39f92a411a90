"""The reference of deploy.toml names what is read."""

import re
import tomllib
from pathlib import Path

import pytest

from jobs.deploy.application import Described, DescribedService, read_application

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "deploy-toml.md").read_text()
TOP, _, SERVICE = PAGE.partition("With a `service`")


@pytest.mark.parametrize(("text", "table"), [(TOP, Described), (SERVICE, DescribedService)])
def test_every_key_is_in_the_reference(text: str, table: type[Described]) -> None:
    """One row each, and none for a key that does not exist."""
    assert re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE) == list(table.model_fields)


def test_the_examples_of_the_reference_are_read(tmp_path: Path) -> None:
    """Each block is a description as it stands."""
    blocks = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    for block in blocks:
        (tmp_path / "deploy.toml").write_text(block)
        application = read_application(tmp_path)
        assert application.placement.disk_gb == tomllib.loads(block).get("size", {}).get("disk_gb")
    assert len(blocks) == 2
