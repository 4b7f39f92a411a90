"""The other side of the loop: submits jobs as fast as the chain takes them, and notes when logs arrive.

Invariant: a time is taken when the line with the log has arrived, before it is parsed; both directions have
a connection of their own, so that sending never delays listening.
"""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from eth_abi.abi import decode

from blueprint.chain.deployment import Deployment
from blueprint.chain.protocol import TOPICS, encode_submit_job
from blueprint.chain.signer import Signer
from blueprint.chain.wire import to_hex

__all__ = ["Caller", "Connection", "Observer"]

_LINE_LIMIT = 2**27
_SUBMITTED = to_hex(TOPICS["JobSubmitted(uint64,uint64,uint8,address,bytes)"])
_ANSWERED = to_hex(TOPICS["JobResultSubmitted(uint64,uint64,address,bytes)"])
_FEE_WEI = 10**12
_TIP_WEI = 10**9


class Connection:
    """JSON-RPC over a chain's Unix socket, one request a line; nothing but what the measurement needs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._ids = itertools.count(1)

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator["Connection"]:
        """Connect to the socket."""
        reader, writer = await asyncio.open_unix_connection(path, limit=_LINE_LIMIT)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()

    def send(self, method: str, params: Sequence[object]) -> None:
        """Send one request without waiting for its answer."""
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        self.writer.write(json.dumps(request).encode() + b"\n")

    async def receive(self) -> object:
        """Return the next answer or push."""
        return json.loads(await self.reader.readline())


class Observer:
    """Notes when each call was seen on the chain, and when its answer was."""

    def __init__(self) -> None:
        self.submitted_at: dict[int, float] = {}
        self.answered_at: dict[int, float] = {}
        self.logs: dict[int, str] = {}
        """The data of each answer's log, to be checked after the measurement."""
        self._changed = asyncio.Event()

    async def run(self, connection: Connection, deployment: Deployment) -> None:
        """Follow the logs of the contract until cancelled."""
        topics = [[_SUBMITTED, _ANSWERED]]
        query = {"address": to_hex(deployment.contract), "topics": topics}
        connection.send("eth_subscribe", ["logs", query])
        while line := await connection.reader.readline():
            now = time.perf_counter()
            message = json.loads(line)
            if isinstance(message, dict) and message.get("method") == "eth_subscription":
                log = message["params"]["result"]
                topic, _, call_id, *_ = log["topics"]
                times = self.submitted_at if topic == _SUBMITTED else self.answered_at
                times.setdefault(int(call_id, 16), now)
                if topic == _ANSWERED:
                    self.logs[int(call_id, 16)] = log["data"]
                self._changed.set()

    def outputs(self) -> list[bytes]:
        """What was answered, by call."""
        return [decode(("bytes",), bytes.fromhex(self.logs[call][2:]))[0] for call in sorted(self.logs)]

    async def wait_answers(self, first: int, count: int) -> None:
        """Wait until calls ``first`` to ``first + count - 1`` are answered."""
        wanted = set(range(first, first + count))
        while not wanted <= self.answered_at.keys():
            self._changed.clear()
            await self._changed.wait()


class Caller:
    """An account that submits jobs, with its own count of its nonces."""

    def __init__(self, connection: Connection, signer: Signer, deployment: Deployment, nonce: int) -> None:
        self._connection = connection
        self._signer = signer
        self._deployment = deployment
        self._nonce = nonce

    def sign(self, inputs: bytes, count: int, *, gas: int) -> list[str]:
        """Sign submissions of the same inputs, ahead of the measurement."""
        data = encode_submit_job(self._deployment.service_id, 0, inputs)
        signed = []
        for _ in range(count):
            transaction = self._signer.sign_transaction(
                chain_id=self._deployment.chain_id,
                nonce=self._nonce,
                to=self._deployment.contract,
                data=data,
                gas=gas,
                max_fee_wei=_FEE_WEI,
                max_priority_fee_wei=_TIP_WEI,
            )
            self._nonce += 1
            signed.append(to_hex(transaction.raw))
        return signed

    async def send(self, transactions: Sequence[str], *, in_flight: int = 1) -> None:
        """Hand signed transactions to the chain, each as a request of its own, ``in_flight`` at a time.

        Raises:
            RuntimeError: the chain refused one.
        """
        waiting = 0
        for raw in transactions:
            self._connection.send("eth_sendRawTransaction", [raw])
            waiting += 1
            if waiting >= in_flight:
                await self._check()
                waiting -= 1
        for _ in range(waiting):
            await self._check()

    async def _check(self) -> None:
        answer = await self._connection.receive()
        if not isinstance(answer, dict) or "error" in answer:
            raise RuntimeError(f"the chain refused a submission: {answer}")
