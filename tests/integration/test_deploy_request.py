"""``blueprint deploy request``: from a compose file and an env file to what runs."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploy_world import COMPOSE, PROJECT, World, deploy_world

PROGRAM = """
import sys
from blueprint.cli.deploy.request import command
sys.exit(command.main(prog_name="request", standalone_mode=False))
"""
SECRET = "planted secret \u00e9"


@dataclass
class Caller:
    """Somebody with a folder, a key and the program."""

    world: World
    folder: Path

    async def run(self, *arguments: str, account: int = 0) -> tuple[int, dict[str, Any], str]:
        """Run a command; returns exit code, JSON and stderr."""
        deployment = self.world.deployment
        where = [
            "--rpc-url", self.world.chain.ws_url, "--contract", "0x" + deployment.contract.hex(),
            "--service-ids", str(deployment.service_id), "--state-dir", str(self.folder / "state"), "--json",
        ]  # fmt: skip
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(PROJECT),
            "HOME": str(self.folder),
            "BLUEPRINT_PRIVATE_KEY": self.world.chain.accounts[account].private_key.hex(),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, *arguments, *where, cwd=self.folder, env=environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert SECRET.encode() not in out + err
        return process.returncode or 0, json.loads(out or b"{}"), err.decode()

    @property
    def kms_key(self) -> str:
        """The key to pin."""
        return self.world.place.kms.root_public_key.hex()

    def write_env(self, text: str) -> None:
        """Write the file of variables."""
        (self.folder / ".vars").write_text(text)


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    """A caller with a compose file and its variable."""
    async with deploy_world(tmp_path) as world:
        folder = tmp_path / "caller"
        folder.mkdir()
        (folder / "app.yml").write_text(COMPOSE)
        caller = Caller(world, folder)
        caller.write_env(f'TOKEN="{SECRET}"\n')
        yield caller


async def test_a_compose_file_is_prepared_committed_and_removed(caller: Caller) -> None:
    """Three commands; the ticket between them, the chain and the operator never hold the value."""
    files = ("--name", "my-app", "--env-file", ".vars", "--kms-key", caller.kms_key)
    async with caller.world.node():
        code, prepared, err = await caller.run("prepare", "app.yml", *files)
        assert (code, prepared["answer"]["status"]) == (0, "success"), err
        assert prepared["ticket"] == "my-app.ticket.json"
        assert SECRET not in (caller.folder / "my-app.ticket.json").read_text()
        commit = ("commit", "my-app.ticket.json", "--env-file", ".vars", "--kms-key", caller.kms_key)
        code, deployed, err = await caller.run(*commit)
        assert code == 0, err
        assert deployed["answer"]["app_id"] == prepared["answer"]["app_id"]
        assert len(deployed["answer"]["attestation_digest"]) == 64
        assert list(caller.world.place.running.values()) == [["TOKEN"]]
        code, _, err = await caller.run("remove", "my-app.ticket.json", "--yes")
        assert (code, caller.world.place.known) == (0, set()), err


async def test_nothing_is_sealed_to_a_key_that_is_not_believed(caller: Caller) -> None:
    """Another pinned KMS key: exit code 4 at once, and no ticket."""
    other = "02" + "11" * 32
    async with caller.world.node():
        code, told, _ = await caller.run(
            "prepare", "app.yml", "--name", "my-app", "--env-file", ".vars", "--kms-key", other
        )
    assert (code, told["exit_code"]) == (4, 4)
    assert "KMS key" in told["error"]
    assert not (caller.folder / "my-app.ticket.json").exists()


async def test_a_ticket_that_was_changed_is_not_sealed_for(caller: Caller) -> None:
    """The key's signature is checked again when the variables are sealed."""
    async with caller.world.node():
        await caller.run("prepare", "app.yml", "--name", "my-app", "--env-file", ".vars")
        path = caller.folder / "my-app.ticket.json"
        ticket = json.loads(path.read_text())
        path.write_text(json.dumps({**ticket, "public_key": "09" * 32}))
        code, told, _ = await caller.run("commit", path.name, "--env-file", ".vars")
    assert code == 4, told


async def test_other_variables_than_prepared_are_refused_by_name(caller: Caller) -> None:
    """What is missing and what is too much are both named, before anything is sent."""
    async with caller.world.node():
        await caller.run("prepare", "app.yml", "--name", "my-app", "--variable", "TOKEN")
        caller.write_env("OTHER=1\n")
        code, told, _ = await caller.run("commit", "my-app.ticket.json", "--env-file", ".vars")
    assert code == 2
    assert "missing: TOKEN; not prepared: OTHER" in told["error"]


async def test_a_bad_name_is_refused_before_it_is_paid_for(caller: Caller) -> None:
    """No node runs here: the command itself says what is wrong."""
    code, told, _ = await caller.run("prepare", "app.yml", "--name", "x")
    assert (code, "name: expected 5 to 54" in told["error"]) == (2, True)


async def test_a_rejection_is_exit_code_6(caller: Caller) -> None:
    """A commit by somebody else is answered on chain, and the command fails."""
    files = ("--name", "my-app", "--env-file", ".vars", "--kms-key", caller.kms_key)
    async with caller.world.node():
        await caller.run("prepare", "app.yml", *files)
        commit = ("commit", "my-app.ticket.json", "--env-file", ".vars", "--kms-key", caller.kms_key)
        code, told, err = await caller.run(*commit, account=2)
    assert (code, told["answer"]["status"]) == (6, "rejected")
    assert "no preparation of this caller" in err
