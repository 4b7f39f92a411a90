"""The cloud's own command line, unmodified, agrees with the fake cloud."""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from blueprint.testing.cloud import FakeCloud

PROJECT = Path(__file__).parents[3]
LOCK = PROJECT / "tests/support/cloud_cli"
COMPOSE = "services:\n  web:\n    image: nginx:1.25\n    environment:\n      - GREETING=${GREETING}\n"

CHANGED = COMPOSE.replace("1.25", "1.26")

pytestmark = [pytest.mark.node, pytest.mark.registry, pytest.mark.slow]


@pytest.fixture(scope="module")
def cli() -> Path:
    """The program, in the versions that the lock file names; installed once, then kept."""
    lock = LOCK / "package-lock.json"
    kept = PROJECT / ".dev" / f"cloud_cli-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as made:
            folder = Path(made) / "cli"
            folder.mkdir()
            for name in ("package.json", lock.name):
                shutil.copy(LOCK / name, folder / name)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
            assert done.returncode == 0, done.stderr
            folder.rename(kept)
    return kept / "node_modules/phala/dist/index.js"


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


async def test_the_clouds_own_cli_looks_inside_updates_moves_and_replicates(
    cli: Path, tmp_path: Path
) -> None:
    """Containers and logs have the shapes that it demands; another text keeps app id and variables."""
    compose = tmp_path / "docker-compose.yml"
    compose.write_text(COMPOSE)
    (tmp_path / ".env").write_text("GREETING=hello\n")
    async with FakeCloud() as cloud:
        await run(cli, cloud, tmp_path, "deploy", "-n", "cli-app", "-c", compose.name, "-e", ".env")
        (machine,) = cloud.machines
        before = machine.prepared
        containers = await run(cli, cloud, tmp_path, "ps", "cli-app")
        assert "dstack-web-1" in containers
        assert "started\n" == await run(cli, cloud, tmp_path, "logs", "dstack-web-1", "--cvm-id", "cli-app")
        compose.write_text(CHANGED)
        await run(cli, cloud, tmp_path, "deploy", "--cvm-id", "cli-app", "-c", compose.name)
        assert machine.guest is not None
        assert before.app_id == machine.prepared.app_id
        assert CHANGED == json.loads(machine.guest.app_compose)["docker_compose_file"]
        assert ["hello"] == [found.value for found in machine.guest.variables]
        await run(cli, cloud, tmp_path, "cvms", "stop", "cli-app")
        assert "stopped" == machine.status
        await run(cli, cloud, tmp_path, "cvms", "replicate", "cli-app", "--json")
        assert [before.app_id] * 2 == [made.prepared.app_id for made in cloud.machines]
