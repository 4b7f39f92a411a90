"""What the documents show on a console is what the commands print.

A block marked ``console`` is run as it stands, from the project's folder: lines that start with ``$`` are
commands, those below are what they must print on stdout; ``...`` stands for anything. One that is marked
``console registry`` needs the package registries of this host, ``console docker`` a Docker engine with the
image of the examples: it gets one of its own, and leaves nothing on it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.docker import engine_of_ours

PROJECT = Path(__file__).resolve().parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```console( registry| docker)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [
    pytest.param(
        match.group(2),
        needs := (match.group(1) or "").strip(),
        id=f"{page.relative_to(PROJECT)}-{number}",
        marks=[getattr(pytest.mark, needs)] if needs else [],
    )
    for page in PAGES
    for number, match in enumerate(BLOCK.finditer(page.read_text()))
]


def steps(block: str) -> list[tuple[str, str]]:
    """Return (command, expected output) for each ``$`` line of a block."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command.strip(), output) for command, _, output in (part.partition("\n") for part in parts)]


@pytest.mark.root
@pytest.mark.tree
@pytest.mark.parametrize(("block", "needs"), BLOCKS)
def test_console_block_prints_what_it_shows(block: str, needs: str, tmp_path: Path) -> None:
    """Each command exits with 0 and prints the lines below it."""
    if needs != "docker":
        play(block, {})
        return
    with engine_of_ours() as engine:
        play(block, {"BLUEPRINT_STATE_DIR": str(tmp_path), "DOCKER_HOST": f"unix://{engine.socket}"})


def play(block: str, own: dict[str, str]) -> None:
    """Run the commands of a block one after the other, with some variables of its own."""
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NO_COLOR": "1",
        "COLUMNS": "200",
        **own,
    }
    for command, expected in steps(block):
        ran = subprocess.run(
            command,
            shell=True,
            cwd=PROJECT,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, f"{command}: {ran.stderr}"
        pattern = ".*".join(re.escape(piece) for piece in expected.strip().split("..."))
        assert re.fullmatch(pattern, ran.stdout.strip(), re.DOTALL), f"{command} printed:\n{ran.stdout}"


def test_there_are_console_blocks() -> None:
    """The pattern still finds the blocks; a test that finds none would prove nothing."""
    assert BLOCKS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page, and every path of ours that it names, leads to a file that exists."""
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / target).exists(), f"{page.name}: {target}"
    for named in re.findall(r"`((?:tests|blueprint|sandbox|jobs|contracts|examples)/[\w./]+)`", text):
        assert (PROJECT / named).exists(), f"{page.name}: {named}"
