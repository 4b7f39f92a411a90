"""Dependencies by the command line: configured registry, result, and the layers that are kept."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.conftest import state_dir
from tests.support.registries import PackageSite

pytestmark = [pytest.mark.root, pytest.mark.tree]

PROJECT = Path(__file__).resolve().parents[2]


async def blueprint(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run a command in a folder; return exit code, stdout and stderr."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BLUEPRINT_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "blueprint", *arguments),
        cwd=folder,
        env=kept
        | {
            "PYTHONPATH": str(PROJECT),
            "BLUEPRINT_STATE_DIR": str(folder / "state"),
            "BLUEPRINT_TREES_DIR": str(state_dir()),
            "BLUEPRINT_LAYERS_DIR": str(folder / "layers"),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()


async def test_packages_of_a_configured_registry_are_installed_listed_and_pruned(tmp_path: Path) -> None:
    """The table of blueprint.toml says where from; the result holds the lock; the layer is listed once."""
    async with PackageSite() as site:
        site.add_wheel("hello", "1.2.0", {"hello/__init__.py": "import os\nVERSION = '1.2.0'\n"})
        table = f'[registries.company]\nkind = "pypi"\nurl = "{site.url}/simple"\n'
        (tmp_path / "blueprint.toml").write_text(table)
        (tmp_path / "program.py").write_text(
            "import hello, os\nprint(hello.VERSION, os.path.exists(hello.__spec__.cached))\n"
        )
        exec_ = ("exec", "program.py", "--dependency", "hello>=1,<2")
        code, stdout, stderr = await blueprint(tmp_path, *exec_)
        assert (code, stdout) == (0, "1.2.0 True\n"), stderr
        code, stdout, _ = await blueprint(tmp_path, *exec_, "--json")
        body = json.loads(stdout)
        assert (code, body["lock"]) == (0, "hello==1.2.0\n")
        assert [stage["name"] for stage in body["process_stats"]["stages"]] == ["install", "run"]
        code, stdout, _ = await blueprint(tmp_path, "runtimes", "layers", "--json")
        (layer,) = json.loads(stdout)
        assert (code, layer["requested"], layer["is_in_use"]) == (0, ["hello >=1,<2"], False)
        code, stdout, stderr = await blueprint(tmp_path, "runtimes", "layers", "--prune", "--json")
        assert (code, json.loads(stdout)) == (0, [])
        assert "layers removed: 1" in stderr


async def test_failed_installation_and_malformed_names_have_exit_codes_of_their_own(tmp_path: Path) -> None:
    """What the registry does not have is exit code 6, with the words; what is no range is 2."""
    async with PackageSite() as site:
        table = f'[registries.company]\nkind = "pypi"\nurl = "{site.url}/simple"\n'
        (tmp_path / "blueprint.toml").write_text(table)
        (tmp_path / "program.py").write_text("print(1)\n")
        code, stdout, stderr = await blueprint(tmp_path, "exec", "program.py", "--dependency", "absent")
        assert (code, stdout) == (6, "")
        assert "dependency_error" in stderr
        assert "absent" in stderr
        tricky = ("--dependency", "hello @ file:///etc/passwd")
        code, _, stderr = await blueprint(tmp_path, "exec", "program.py", *tricky)
        assert code == 2
        assert "a package and a range of versions are expected" in stderr
