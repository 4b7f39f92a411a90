"""The cloud's own command line, unmodified, agrees with the fake cloud."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from blueprint.testing.cloud import FakeCloud

LOCK = Path(__file__).parents[2] / "support/cloud_cli"
COMPOSE = "services:\n  web:\n    image: nginx:1.25\n    environment:\n      - GREETING=${GREETING}\n"

pytestmark = [pytest.mark.node, pytest.mark.registry]


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, in the versions that the lock file names."""
    folder = tmp_path_factory.mktemp("cli")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(LOCK / name, folder / name)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    return folder / "node_modules/phala/dist/index.js"


async def run(cli: Path, cloud: FakeCloud, folder: Path, *arguments: str) -> str:
    """Run one command of it against the fake, and return what it prints."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "CI": "1",
        "PHALA_CLOUD_API_KEY": cloud.api_key,
        "PHALA_CLOUD_API_PREFIX": cloud.url,
    }
    process = await asyncio.create_subprocess_exec(
        "node",
        str(cli),
        *arguments,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_the_clouds_own_cli_deploys_updates_lists_and_deletes(cli: Path, tmp_path: Path) -> None:
    """What it seals, the simulated guest opens with the application's key; the machine is gone at the end."""
    (tmp_path / "docker-compose.yml").write_text(COMPOSE)
    (tmp_path / ".env").write_text("GREETING=hello\n")
    async with FakeCloud() as cloud:
        await run(cli, cloud, tmp_path, "deploy", "-n", "cli-app", "-c", "docker-compose.yml", "-e", ".env")
        guest = cloud.machines[0].guest
        assert guest is not None
        assert [(found.key, found.value) for found in guest.variables] == [("GREETING", "hello")]
        await run(cli, cloud, tmp_path, "envs", "update", "cli-app", "-e", "GREETING=bye")
        guest = cloud.machines[0].guest
        assert guest is not None
        assert [(found.key, found.value) for found in guest.variables] == [("GREETING", "bye")]
        listed = json.loads(await run(cli, cloud, tmp_path, "cvms", "list", "--json"))
        assert ["cli-app"] == [item["cvmName"] for item in listed["items"]]
        await run(cli, cloud, tmp_path, "cvms", "delete", "cli-app", "-y")
        assert [] == cloud.machines
        assert ["POST /cvms/provision", "POST /cvms"] == cloud.requests[:2]
