"""A node that serves the real deploy job over the fake deployer; here, or in a process that dies.

Usage: ``python -m tests.support.deploying_node URL FOLDER CONTRACT SERVICE KEY [STEP]``; STEP is one of
`jobs.deploy.testing.FakeDeployer`'s, before which the process kills itself. SIGTERM asks the node to stop.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from blueprint.chain.listener import Listener
from blueprint.chain.rpc import RpcClient
from blueprint.chain.signer import Signer
from blueprint.chain.submitter import Submitter, SubmitterPolicy
from blueprint.chain.wire import parse_quantity
from blueprint.http.outputs import OutputStore
from blueprint.node import Node
from blueprint.store.journal import Journal
from blueprint.types import Address
from jobs import build_router
from jobs.deploy.handler import DeployJob, DeployTerms
from jobs.deploy.order import Order
from jobs.deploy.order_book import OrderBook
from jobs.deploy.testing import FakeDeployer
from sandbox.testing import FakeExecutor

__all__ = ["deploying_node"]


class AdmitAll:
    """No policy: everybody, everything."""

    def admit(self, order: Order, *, caller: Address, deployments: int) -> None:
        """Let every order pass."""


@asynccontextmanager
async def deploying_node(
    url: str,
    folder: Path,
    contract: Address,
    service_id: int,
    *,
    key: bytes,
    terms: DeployTerms | None = None,
    reach: Callable[[str, str], None] = lambda _step, _key: None,
) -> AsyncIterator[Node]:
    """Build a node out of its real parts, with its memory in a folder; whoever opens it runs it."""
    signer = Signer(key)
    async with RpcClient(url) as rpc:
        chain_id = parse_quantity(await rpc.call("eth_chainId"))
        journal = Journal(
            folder / "journal.db", chain_id=chain_id, contract=contract, operator=signer.address
        )
        with journal, OrderBook(folder / "deployments.db") as book:
            outputs = OutputStore(folder / "outputs", max_bytes=1 << 20, item_max_bytes=1 << 20)
            deploys = DeployJob(
                FakeDeployer(folder / "fake.json", reach=reach),
                book,
                admission=AdmitAll(),
                operator=signer.address,
                evidence=outputs,
                terms=terms or DeployTerms(),
            )
            submitter = Submitter(
                rpc, ledger=journal, signer=signer, chain_id=chain_id, contract=contract,
                policy=SubmitterPolicy(tick_s=0.1, retry_s=0.1, rebroadcast_after_s=1.0),
            )  # fmt: skip
            listener = Listener(
                rpc, contract=contract, chain_id=chain_id, service_ids=[service_id],
                window=journal.window(), start_block=0, poll_s=0.1,
            )  # fmt: skip
            handler = build_router(FakeExecutor(), deploys=deploys).bind({})
            yield Node(rpc=rpc, listener=listener, journal=journal, submitter=submitter, handler=handler)


async def run(arguments: list[str]) -> None:
    """Run a node until SIGTERM, or until its step."""
    url, folder, contract, service, key, *step = arguments

    def reach(reached: str, _key: str) -> None:
        if step and reached == step[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    opened = deploying_node(
        url, Path(folder), Address(bytes.fromhex(contract)), int(service), key=bytes.fromhex(key), reach=reach
    )
    async with opened as node:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, node.request_stop)
        await node.run()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1:]))
