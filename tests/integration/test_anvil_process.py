"""The child process that anvil is: how it starts, what it says when it cannot, and that it always ends."""

import asyncio
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE
from pathlib import Path

import psutil
import pytest

from blueprint.chain.anvil import Anvil, find_anvil
from blueprint.errors import ConfigError
from tests.support.chains import JsonRpc

PROJECT = Path(__file__).resolve().parents[2]


def anvil_folders() -> set[Path]:
    """The working folders that exist now."""
    return set(Path(tempfile.gettempdir()).glob("anvil-*"))


@pytest.mark.anvil
async def test_anvil_listens_everywhere_it_says_and_leaves_nothing() -> None:
    """HTTP, WebSocket and the Unix socket answer; afterwards process and folder are gone."""
    before = anvil_folders()
    async with Anvil(ipc=True) as chain:
        pid = chain.pid
        for url in (chain.http_url, chain.ws_url):
            async with JsonRpc.connect(url) as rpc:
                assert await rpc.call("eth_chainId") == "0x7a69"
        reader, writer = await asyncio.open_unix_connection(chain.ipc_path)
        writer.write(b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}\n')
        assert b"0x7a69" in await reader.readline()
        writer.close()
    assert not psutil.pid_exists(pid)
    assert anvil_folders() == before


@pytest.mark.anvil
async def test_anvil_has_the_accounts_that_we_derive() -> None:
    """The accounts that we name are the ones that anvil funds."""
    async with Anvil(account_count=3) as chain, JsonRpc.connect(chain.http_url) as rpc:
        ours = [account.address_hex.lower() for account in chain.accounts]
        assert await rpc.call("eth_accounts") == ours


@pytest.mark.anvil
async def test_anvil_mines_by_the_clock() -> None:
    """With a block time, blocks come without being asked for."""
    async with Anvil(block_time_s=0.1) as chain, JsonRpc.connect(chain.ws_url) as rpc:
        await rpc.call("eth_subscribe", "newHeads")
        numbers = [int((await rpc.push())["result"]["number"], 16) for _ in range(3)]
        assert numbers == list(range(numbers[0], numbers[0] + 3))


@pytest.mark.anvil
async def test_anvil_dies_with_a_killed_parent(tmp_path: Path) -> None:
    """After SIGKILL to the program that started it, anvil is gone too."""
    program = (
        "import asyncio\n"
        "from blueprint.chain.anvil import Anvil\n"
        "async def main():\n"
        "    async with Anvil() as chain:\n"
        "        print(chain.pid, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # who is killed leaves its folder there
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=PROJECT, stdout=PIPE, env=environment
    )
    assert parent.stdout is not None
    child = psutil.Process(int(await parent.stdout.readline()))
    assert child.is_running()
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    await asyncio.to_thread(child.wait, 5)
    assert not child.is_running()


@pytest.mark.anvil
async def test_taken_port_is_told_with_the_last_words_of_anvil() -> None:
    """Where anvil cannot listen, its own words are in the error, and nothing is left running."""
    async with Anvil() as chain:
        with pytest.raises(ConfigError, match="in use"):
            async with Anvil(port=chain.port, ipc=True):
                pass


async def test_missing_binary_is_told_with_the_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without anvil the error says how to install it."""
    monkeypatch.setattr("blueprint.chain.anvil._NPM_PACKAGES", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="npm ci --prefix contracts"):
        find_anvil()


async def test_binary_that_is_no_program_is_told(tmp_path: Path) -> None:
    """A file that cannot be executed is an error that names it, and leaves no folder behind."""
    before = anvil_folders()
    broken = tmp_path / "anvil"
    broken.write_text("not a program")
    broken.chmod(0o755)
    with pytest.raises(ConfigError, match="cannot be started"):
        async with Anvil(binary=broken):
            pass
    assert anvil_folders() == before


async def test_program_that_ends_at_once_is_told(tmp_path: Path) -> None:
    """A program that ends before it listens is an error with what it printed."""
    script = tmp_path / "anvil"
    script.write_text("#!/bin/sh\necho out of order\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(ConfigError, match="out of order"):
        async with Anvil(binary=script):
            pass


def test_block_time_must_be_positive(tmp_path: Path) -> None:
    """A block time of zero is refused before anything starts."""
    with pytest.raises(ConfigError, match="block_time_s"):
        Anvil(block_time_s=0, binary=tmp_path)
