"""A stage's only way out is one socket of ours, and live figures come while it runs."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from sandbox.backends.backend import Gateway, Sandbox, StageOrder, StageOutcome
from sandbox.backends.slot import SlotBackend
from sandbox.errors import SystemFailureError
from sandbox.result import StageSample
from tests.support.sandboxes import MIB, SMALL, host_python, python_request, sandboxes

pytestmark = pytest.mark.root


class Echo:
    """Answers each connection with what it sends, in capitals."""

    name = "echo"
    port = 3128

    def __init__(self) -> None:
        self.is_cancelled = False

    async def serve(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                peer, _ = await loop.sock_accept(listener)
                with peer:
                    await loop.sock_sendall(peer, (await loop.sock_recv(peer, 1000)).upper())
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise


class Broken:
    """Fails as soon as it serves."""

    name = "broken"
    port = 3128

    async def serve(self, listener: socket.socket) -> None:
        raise OSError("out of luck")


@asynccontextmanager
async def a_sandbox() -> AsyncIterator[Sandbox]:
    backend = SlotBackend()
    sandbox = await backend.open(host_python(), SMALL, "gateway")
    try:
        yield sandbox
    finally:
        await sandbox.destroy()
        await backend.aclose()


def an_order(code: str, gateway: Gateway | None) -> StageOrder:
    return StageOrder(
        name="run", argv=("/usr/bin/python3", "-c", code), env={}, limits=SMALL, tasks_max=10, gateway=gateway
    )


async def run(code: str, gateway: Gateway | None) -> StageOutcome:
    async with a_sandbox() as sandbox:
        return await sandbox.run(an_order(code, gateway))


ASK = """
import socket
s = socket.create_connection(("127.0.0.1", 3128)); s.sendall(b"hello"); print(s.recv(99).decode())
"""


async def test_gateway_answers_inside_and_nothing_else_does() -> None:
    """The program reaches the gateway's port, no other port of its loopback and no other address."""
    code = ASK + (
        "for to in (('127.0.0.1', 22), ('127.0.0.1', 8545), ('169.254.169.254', 80), ('192.0.2.1', 443)):\n"
        "  try: socket.create_connection(to, 2); print('connected')\n"
        "  except OSError as e: print(e.strerror)\n"
    )
    echo = Echo()
    outcome = await run(code, echo)
    assert outcome.stdout.data.decode().split("\n")[:5] == [
        "HELLO",
        "Connection refused",
        "Connection refused",
        "Network is unreachable",
        "Network is unreachable",
    ]
    assert echo.is_cancelled
    assert "network_policy:echo" in outcome.guarantees.enforced
    assert "network_none" not in outcome.guarantees.enforced


async def test_gateway_opens_no_other_kind_of_socket() -> None:
    """Datagrams, raw packets, netlink, VSOCK and other protocols over IP stay refused."""
    code = (
        "import socket\n"
        "kinds = (2, 2, 0), (2, 3, 1), (10, 2, 0), (16, 3, 0), (17, 3, 0), (40, 1, 0), (2, 1, 262)\n"
        "for f, t, p in kinds:\n"
        "  try: socket.socket(f, t, p); print('ok')\n"
        "  except OSError as e: print(e.errno)\n"
    )
    outcome = await run(code, Echo())
    assert outcome.stdout.data.split() == [b"97"] * 7


async def test_without_a_gateway_loopback_itself_is_down() -> None:
    """A stage after one with a gateway has no network at all, and says so."""
    code = "import socket\ntry: socket.socket()\nexcept OSError as e: print(e.errno)"
    async with a_sandbox() as sandbox:
        await sandbox.run(an_order(ASK, Echo()))
        outcome = await sandbox.run(an_order(code, None))
    assert outcome.stdout.data == b"97\n"
    assert "network_none" in outcome.guarantees.enforced


async def test_gateway_that_fails_is_our_failure() -> None:
    """The stage is killed and the failure is not passed off as the program's."""
    with pytest.raises(SystemFailureError, match="gateway broken failed: out of luck"):
        await run("import time; time.sleep(20)", Broken())


async def test_live_figures_follow_the_program() -> None:
    """Memory that a program takes step by step shows step by step, with its processes and its output."""
    code = (
        "import os, time\nkept = []\n"
        "for step in range(4):\n"
        "  kept.append(bytearray(os.urandom(1)) * (8 << 20)); print('x' * 999, flush=True); time.sleep(0.4)\n"
        "open('f', 'wb').write(bytes(1 << 20)); time.sleep(0.4)\n"
    )
    samples: list[StageSample] = []
    async with sandboxes() as executor:
        result = await executor.execute(python_request(code), samples.append)
    assert result.exit_code == 0
    assert len(samples) >= 10
    anonymous = [sample.memory_anonymous_bytes or 0 for sample in samples]
    assert all(later >= earlier for earlier, later in pairwise(anonymous))
    assert max(anonymous) - min(anonymous) >= 16 * MIB
    last = samples[-1]
    assert (last.stage, last.processes, last.stdout_bytes, last.disk_bytes >= MIB) == ("run", 1, 4000, True)
