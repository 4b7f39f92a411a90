"""A contract that submits a job and receives the answer in its callback: ``CodeConsumer``, driven from here.

Invariant: the answer is read from the contract's own storage, where only its callback can have put it.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from eth_abi.abi import decode, encode

from blueprint.chain.deployment import transact
from blueprint.chain.rpc import RpcClient
from blueprint.chain.signer import Signer
from blueprint.chain.wire import JsonValue, parse_bytes, parse_quantity, to_hex
from blueprint.cli.answer import status_name
from blueprint.errors import BlueprintError
from blueprint.keccak import keccak256
from blueprint.types import Address

__all__ = ["ContractAnswer", "ask_contract"]

_ASK: Final = keccak256(b"ask(string,string)")[:4]
_ANSWER: Final = keccak256(b"answer(uint64)")[:4]
_ASKED: Final = to_hex(keccak256(b"Asked(uint64,string)"))
_POLL_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractAnswer:
    """What the contract's callback has stored."""

    contract: Address
    call_id: int
    status: int
    stdout: bytes
    block_number: int
    """A block in which the answer was there."""
    is_right: bool

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "contract": to_hex(self.contract),
            "call_id": self.call_id,
            "status": status_name(self.status),
            "stdout": self.stdout.decode(errors="replace"),
            "block": self.block_number,
            "is_right": self.is_right,
        }


async def ask_contract(
    rpc: RpcClient, caller: Signer, consumer: Address, source: str, *, expected: bytes, timeout_s: float
) -> ContractAnswer:
    """Have the contract submit a Python program, and wait until its callback has stored the answer.

    Raises:
        BlueprintError: the contract did not say which call it made.
        TimeoutError: its callback was not called in time.
    """
    receipt = await transact(
        rpc, caller, to=consumer, data=_ASK + encode(("string", "string"), ("python", source))
    )
    call_id = _call_id(receipt, consumer)
    question: JsonValue = {
        "to": to_hex(consumer),
        "data": to_hex(_ANSWER + encode(("uint64",), (call_id,))),
    }
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                number = parse_quantity(await rpc.call("eth_blockNumber"))
                data = parse_bytes(await rpc.call("eth_call", question, "latest"))
                ((arrived, status, _, stdout),) = decode(("(bool,uint8,int32,bytes)",), data)
                if arrived:
                    break
                await rpc.wait_head(_POLL_S)
    except TimeoutError as error:
        raise TimeoutError(
            f"the callback of contract {to_hex(consumer)} was not called within {timeout_s:.0f} s"
        ) from error
    return ContractAnswer(
        contract=consumer,
        call_id=call_id,
        status=status,
        stdout=stdout,
        block_number=number,
        is_right=status == 0 and stdout == expected,
    )


def _call_id(receipt: dict[str, JsonValue], consumer: Address) -> int:
    logs = receipt.get("logs")
    for log in logs if isinstance(logs, list) else []:
        topics = log.get("topics") if isinstance(log, dict) else None
        if isinstance(topics, list) and topics and topics[0] == _ASKED:
            return parse_quantity(topics[1])
    raise BlueprintError(f"contract {to_hex(consumer)} submitted nothing: it emitted no Asked event")
