"""The connection to the configured chain, checked before anything is sent.

Invariant: inside `connected` the end point reports the right chain id, and the contract has code.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from blueprint.chain.rpc import RpcClient
from blueprint.chain.wire import parse_bytes, parse_quantity, to_hex
from blueprint.cli.session import Session
from blueprint.errors import ConfigError
from blueprint.types import Address

__all__ = ["Link", "connected", "required_contract"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An open connection and what was checked on it."""

    rpc: RpcClient
    chain_id: int
    contract: Address
    head_number: int


def required_contract(session: Session) -> Address:
    """Return the contract's address.

    Raises:
        ConfigError: it is not set.
    """
    contract = session.settings.contract_address
    if contract is None:
        raise ConfigError(
            "the contract's address is not set: give --contract 0x..., or set BLUEPRINT_CONTRACT"
        )
    return contract


@asynccontextmanager
async def connected(session: Session) -> AsyncIterator[Link]:
    """Connect to the end point, check chain id and contract, hand the connection out, close it.

    Raises:
        ConfigError: no contract is set, it has no code, or the chain id is another one.
        RpcError: the end point cannot be reached.
    """
    settings, contract = session.settings, required_contract(session)
    async with RpcClient(settings.rpc_url, timeout_s=settings.rpc_timeout_s) as rpc:
        chain_id = parse_quantity(await rpc.call("eth_chainId"))
        if settings.chain_id is not None and chain_id != settings.chain_id:
            raise ConfigError(
                f"chain id: expected {settings.chain_id}, but {rpc.shown_url} reports {chain_id}; "
                "change BLUEPRINT_RPC_URL or BLUEPRINT_CHAIN_ID"
            )
        if not parse_bytes(await rpc.call("eth_getCode", to_hex(contract), "latest")):
            raise ConfigError(
                f"contract {to_hex(contract)} has no code on chain {chain_id} at {rpc.shown_url}; "
                "check the address and the end point"
            )
        head_number = parse_quantity(await rpc.call("eth_blockNumber"))
        yield Link(rpc=rpc, chain_id=chain_id, contract=contract, head_number=head_number)
