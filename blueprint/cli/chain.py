"""``blueprint chain``: the embedded chain, or anvil, as a JSON-RPC end point with the contracts in place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import click
from rich.table import Table

from blueprint.chain.anvil import Anvil
from blueprint.chain.deployment import Deployment, deploy_consumer, deploy_local
from blueprint.chain.devchain import DevChain
from blueprint.chain.rpc import RpcClient
from blueprint.chain.signer import Signer
from blueprint.cli.session import Session, node_command
from blueprint.cli.signals import StopSignals
from blueprint.types import Address

__all__ = ["command", "deploy_on", "opened_chain"]

OWNER, OPERATOR, CALLER = 0, 1, 2
"""Which of the chain's accounts owns the service, answers, and submits."""


@click.command(
    "chain", help="Serve the embedded chain on loopback, with the contracts deployed, until Ctrl-C."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8545, show_default=True, help="Port; 0 for a free one."
)
@click.option(
    "--block-time-s", type=click.FloatRange(min=0.01), help="Seconds between blocks; unset mines at once."
)
@click.option("--anvil", "use_anvil", is_flag=True, help="Use anvil instead of the embedded chain.")
@click.option("--bare", is_flag=True, help="Deploy nothing.")
@node_command()
def command(session: Session, *, port: int, block_time_s: float | None, use_anvil: bool, bare: bool) -> int:
    """Serve until a signal comes."""
    return asyncio.run(_serve(session, port=port, block_time_s=block_time_s, use_anvil=use_anvil, bare=bare))


@asynccontextmanager
async def opened_chain(
    *, port: int = 0, block_time_s: float | None = None, use_anvil: bool = False
) -> AsyncIterator[DevChain | Anvil]:
    """Start a development chain, hand it out, stop it.

    Raises:
        ConfigError: the port is taken, or there is no anvil.
    """
    if use_anvil:
        async with Anvil(port, block_time_s=block_time_s) as anvil:
            yield anvil
    else:
        async with DevChain(port, block_time_s=block_time_s) as chain:
            yield chain


async def deploy_on(chain: DevChain | Anvil, rpc: RpcClient) -> tuple[Deployment, Address]:
    """Deploy the contracts and the example consumer, and activate a service for the second account."""
    owner = Signer(chain.accounts[OWNER].private_key)
    deployment = await deploy_local(
        rpc,
        owner,
        operators=[chain.accounts[OPERATOR].address],
        permitted_callers=[chain.accounts[CALLER].address],
    )
    return deployment, await deploy_consumer(rpc, owner, deployment)


async def _serve(
    session: Session, *, port: int, block_time_s: float | None, use_anvil: bool, bare: bool
) -> int:
    async with (
        StopSignals() as stop,
        opened_chain(port=port, block_time_s=block_time_s, use_anvil=use_anvil) as chain,
    ):
        facts: dict[str, Any] = {
            "http_url": chain.http_url,
            "ws_url": chain.ws_url,
            "chain_id": chain.chain_id,
            "accounts": [
                {"address": account.address_hex, "private_key": "0x" + account.private_key.hex()}
                for account in chain.accounts
            ],
        }
        if not bare:
            async with RpcClient(chain.ws_url) as rpc:
                deployment, consumer = await deploy_on(chain, rpc)
            facts |= {
                "contract": "0x" + deployment.contract.hex(),
                "manager": "0x" + deployment.manager.hex(),
                "consumer": "0x" + consumer.hex(),
                "blueprint_id": deployment.blueprint_id,
                "service_id": deployment.service_id,
                "operator": chain.accounts[OPERATOR].address_hex,
                "caller": chain.accounts[CALLER].address_hex,
            }
        session.emit(facts, _table(facts))
        session.say(
            "These keys are public test keys: never use them on a real network. Ctrl-C stops the chain."
        )
        if not bare:
            end = f"--rpc-url {chain.ws_url} --contract {facts['contract']}"
            run_key, submit_key = (facts["accounts"][at]["private_key"] for at in (OPERATOR, CALLER))
            session.suggest(
                f"BLUEPRINT_PRIVATE_KEY={run_key} blueprint run {end} --service-ids {facts['service_id']}",
                f"BLUEPRINT_PRIVATE_KEY={submit_key} blueprint submit FILE {end}",
            )
        await stop.requested.wait()
        return stop.exit_code


def _table(facts: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        if name == "accounts":
            for account in value:
                table.add_row("account", f"{account['address']}  {account['private_key']}")
        else:
            table.add_row(name.replace("_", " "), str(value))
    return table
