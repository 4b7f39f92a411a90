"""The guide to adding a language, carried out: its blocks go into a copy of the project, and nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

GUIDE = PROJECT / "docs/how-to/add-a-language.md"
# What has to go on working, without a word about the new language in it.
UNIT = ("test_languages_registry", "test_languages_plans", "test_rootfs_recipe", "test_cli_demo_cases")


def blocks() -> dict[str, str]:
    """Return the guide's blocks by the path in their first line."""
    found = re.findall(
        r"^```(?:python|toml)\n# (\S+)\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL
    )
    return dict(found)


def run(copy: Path, trees: Path, *argv: str) -> str:
    """Run a command of the copy and return what it printed."""
    env = os.environ | {"BLUEPRINT_TREES_DIR": str(trees), "PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, "-m", *argv],
        cwd=copy,
        env=env,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_guide_has_one_file_one_entry_and_one_test() -> None:
    """The guide asks for three things and no more."""
    assert [*blocks()] == [
        "sandbox/languages/lua.py",
        "sandbox/rootfs/recipe.toml",
        "tests/integration/test_lua.py",
    ]


@pytest.mark.root
@pytest.mark.tree
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ninth_language_is_one_file_one_entry_and_one_test(tmp_path: Path) -> None:
    """With the guide's three blocks a tree with Lua is built, its test passes, and every command knows it."""
    copy, trees = tmp_path / "copy", tmp_path / "state"
    skipped = shutil.ignore_patterns(".*", "node_modules", "__pycache__", "docs", "bench")
    shutil.copytree(PROJECT, copy, ignore=skipped)
    for path, text in blocks().items():
        place = copy / path
        place.write_text(place.read_text() + "\n" + text if place.exists() else text)
    run(copy, trees, "sandbox.rootfs", str(trees), "lua")
    printed = run(copy, trees, "pytest", "-q", "-p", "no:randomly", "tests/integration/test_lua.py")
    assert "1 passed" in printed
    run(copy, trees, "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/unit/{name}.py" for name in UNIT))
    listed = json.loads(run(copy, trees, "blueprint", "runtimes", "list", "--json"))
    (tree,) = [entry for entry in listed if entry["kind"] == "debian"]
    assert [runtime["language"] for runtime in tree["runtimes"]] == ["python", "lua"]
    program = tmp_path / "program.lua"
    program.write_text("print(6 * 7, _VERSION)\n")
    ran = json.loads(run(copy, trees, "blueprint", "exec", "--json", str(program)))
    assert ran["stdout"]["text"].split() == ["42", "Lua", "5.4"]
