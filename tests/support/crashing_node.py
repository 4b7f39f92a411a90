"""A node in its own process that kills itself at a chosen step; run by the crash tests.

Usage: ``python -m tests.support.crashing_node URL JOURNAL CONTRACT SERVICE KEY [POINT]``; the job answers
with its inputs reversed. SIGTERM asks the node to stop.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from blueprint.chain.listener import Listener
from blueprint.chain.rpc import JsonValue, RpcClient
from blueprint.chain.signer import Signer
from blueprint.chain.submitter import Submitter, SubmitterPolicy
from blueprint.chain.wire import parse_quantity
from blueprint.errors import ChainError
from blueprint.node import Node
from blueprint.store.journal import Applied, Journal
from blueprint.types import Address, ChainUpdate, JobCall, ReadyResult, SentTransaction

POINTS = (
    "before_calls_recorded",
    "after_calls_recorded",
    "after_claim",
    "in_handler",
    "before_outputs_recorded",
    "after_outputs_recorded",
    "before_transaction_recorded",
    "after_transaction_recorded",
    "after_transaction_sent",
    "before_results_recorded",
    "after_results_recorded",
)
"""Where the process can be made to die, in the order of a call's life."""


class Fault:
    """Kills this process, without any clean-up, when its point is reached."""

    def __init__(self, point: str | None) -> None:
        self._point = point

    def reach(self, point: str) -> None:
        """Say that this point of the program is reached."""
        if point == self._point:
            os.kill(os.getpid(), signal.SIGKILL)


class CrashingJournal(Journal):
    """The real journal, with a death before and after each of its commits."""

    fault: Fault

    @override
    def apply(self, update: ChainUpdate) -> Applied:
        if update.calls:
            self.fault.reach("before_calls_recorded")
        if update.results:
            self.fault.reach("before_results_recorded")
        applied = super().apply(update)
        if update.calls:
            self.fault.reach("after_calls_recorded")
        if update.results:
            self.fault.reach("after_results_recorded")
        return applied

    @override
    def claim(self, limit: int) -> Sequence[JobCall]:
        calls = super().claim(limit)
        if calls:
            self.fault.reach("after_claim")
        return calls

    @override
    async def record_output(self, call: JobCall, output: bytes) -> bool:
        self.fault.reach("before_outputs_recorded")
        recorded = await super().record_output(call, output)
        self.fault.reach("after_outputs_recorded")
        return recorded

    @override
    def record_sent(self, transaction: SentTransaction, results: Sequence[ReadyResult] | None) -> bool:
        self.fault.reach("before_transaction_recorded")
        recorded = super().record_sent(transaction, results)
        self.fault.reach("after_transaction_recorded")
        return recorded


class CrashingRpc(RpcClient):
    """The real client, with a death between a transaction's sending and the reading of the reply."""

    fault: Fault

    @override
    async def batch(self, calls: Sequence[tuple[str, Sequence[JsonValue]]]) -> list[JsonValue | ChainError]:
        answers = await super().batch(calls)
        if any(method == "eth_sendRawTransaction" for method, _ in calls):
            self.fault.reach("after_transaction_sent")
        return answers


async def run(
    url: str, journal: Path, contract: Address, service_id: int, *, key: bytes, fault: Fault
) -> None:
    """Run a node until SIGTERM."""

    async def reverse(call: JobCall) -> bytes:
        fault.reach("in_handler")
        return call.inputs[::-1]

    signer = Signer(key)
    async with CrashingRpc(url) as rpc:
        rpc.fault = fault
        chain_id = parse_quantity(await rpc.call("eth_chainId"))
        with CrashingJournal(
            journal, chain_id=chain_id, contract=contract, operator=signer.address
        ) as opened:
            opened.fault = fault
            submitter = Submitter(
                rpc,
                ledger=opened,
                signer=signer,
                chain_id=chain_id,
                contract=contract,
                policy=SubmitterPolicy(tick_s=0.1, retry_s=0.1, rebroadcast_after_s=1.0, bump_after_s=3.0),
            )
            listener = Listener(
                rpc,
                contract=contract,
                chain_id=chain_id,
                service_ids=[service_id],
                window=opened.window(),
                start_block=0,
                poll_s=0.1,
            )
            node = Node(rpc=rpc, listener=listener, journal=opened, submitter=submitter, handler=reverse)
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, node.request_stop)
            await node.run()


if __name__ == "__main__":
    url_, journal_, contract_, service_, key_, *point_ = sys.argv[1:]
    asyncio.run(
        run(
            url_,
            Path(journal_),
            Address(bytes.fromhex(contract_)),
            int(service_),
            key=bytes.fromhex(key_),
            fault=Fault(point_[0] if point_ else None),
        )
    )
