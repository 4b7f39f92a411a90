"""What the contracts' README says is what the sources do."""

import re
from pathlib import Path

CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"
README = (CONTRACTS / "README.md").read_text()


def squeezed(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


def constant(file: str, name: str) -> str:
    """A numeric constant as a Solidity source writes it, with commas."""
    found = re.search(rf"constant {name} = ([\d_]+);", (CONTRACTS / "src" / file).read_text())
    assert found is not None
    return found[1].replace("_", ",")


def test_code_in_the_readme_is_the_examples() -> None:
    """Each Solidity block stands word by word in the example, which is compiled and tested."""
    example = squeezed((CONTRACTS / "src/examples/CodeConsumer.sol").read_text())
    blocks = re.findall(r"```solidity\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert squeezed(block) in example


def test_figures_in_the_readme_are_the_sources() -> None:
    """The gas of a callback and the cap of a hook are those of the contracts."""
    assert f"callback has {constant('CodeExecutionManager.sol', 'CALLBACK_GAS')} gas" in README
    assert f"cap of {constant('TangleServices.sol', 'HOOK_GAS')}" in README


def test_links_in_the_readme_lead_somewhere() -> None:
    """Every relative link names a file that exists."""
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert [link for link in links if not (CONTRACTS / link).is_file()] == []
