"""A chain in memory that speaks the node's RPC port, with reorganisations, a mempool and faults on demand.

Invariant: it tells the truth about its own state at every moment, unless a test asked for a fault; it behaves
as LocalTangle on anvil does in what a node touches, which the conformance tests hold both to.
"""

import asyncio
import copy
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from hexbytes import HexBytes

from blueprint.chain.wire import JsonValue, parse_bytes, parse_object, to_hex
from blueprint.errors import ChainError, RevertedError, RpcError
from blueprint.keccak import keccak256
from blueprint.testing.tangle import FakeLog, FakeService, TangleState
from blueprint.types import Address, CallKey, Hash

__all__ = ["FakeChain"]

_CALLER: Final = Address(b"\xca" * 20)
_GAS_LIMIT: Final = 60_000_000
_TIP_WEI: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Submission:
    """A job that somebody submitted."""

    service_id: int
    job_index: int
    inputs: bytes
    caller: Address
    quoted: tuple[Address, ...] | None


@dataclass(frozen=True, slots=True)
class _Transaction:
    """A signed transaction in the mempool or in a block."""

    hash: Hash
    sender: Address
    nonce: int
    data: bytes
    max_fee_wei: int


@dataclass(slots=True)
class _Block:
    number: int
    hash: Hash
    parent_hash: Hash
    state: TangleState
    nonces: dict[Address, int]
    entries: list[_Submission | _Transaction] = field(default_factory=list)
    logs: list[tuple[Hash, FakeLog]] = field(default_factory=list)


class FakeChain:
    """An ``Rpc`` with one job contract behind it.

    ::

        chain = FakeChain(operators=[signer.address])
        key = chain.submit_job(b"inputs")     # a block with the call
        chain.reorg(1)                        # gone again

    Args:
        operators: who may answer in service 0.
        automine: mine a block for each job and transaction; otherwise `mine` does.
        chain_id: as EIP-155 has it.
    """

    contract: Final = Address(b"\x7a" * 20)

    def __init__(
        self, *, operators: Sequence[Address], automine: bool = True, chain_id: int = 31_337
    ) -> None:
        self.chain_id = chain_id
        self.automine = automine
        self.base_fee_wei = 1_000_000_000
        self.asked: list[str] = []
        """Every method that was called, in order."""
        self._serial = itertools.count()
        self._head_changed = asyncio.Event()
        self._waiting: list[_Submission] = []
        self._pool: dict[tuple[Address, int], _Transaction] = {}
        self._faults: dict[str, deque[ChainError]] = {}
        self._lost_replies: dict[str, int] = {}
        state = TangleState({0: FakeService(set(operators))})
        genesis = Hash(keccak256(b"genesis"))
        self._blocks = [_Block(0, genesis, Hash(bytes(32)), state, {})]

    # What a test does.

    @property
    def head_number(self) -> int:
        """The number of the newest block."""
        return self._blocks[-1].number

    @property
    def service(self) -> FakeService:
        """Service 0 as of the newest block; change it to change the rules from now on."""
        return self._blocks[-1].state.services[0]

    def submit_job(
        self,
        inputs: bytes,
        *,
        job_index: int = 0,
        caller: Address = _CALLER,
        quoted_operators: Sequence[Address] | None = None,
    ) -> CallKey:
        """Submit a job to service 0 and return what names the call, if nothing comes before it."""
        quoted = None if quoted_operators is None else tuple(quoted_operators)
        self._waiting.append(_Submission(0, job_index, inputs, caller, quoted))
        call_id = len(self.service.calls) + len(self._waiting) - 1
        if self.automine:
            self.mine()
        return CallKey(chain_id=self.chain_id, contract=self.contract, service_id=0, call_id=call_id)

    def mine(self, count: int = 1) -> None:
        """Add blocks; the first takes what waits."""
        for _ in range(count):
            self._mine_one()
        self._head_changed.set()

    def reorg(self, depth: int, *, keep: bool = False) -> None:
        """Undo the newest ``depth`` blocks and mine one more than that.

        Args:
            depth: how many blocks are undone; not the genesis block.
            keep: what was in them goes into the first new block, as a mempool would have it; else it is lost.
        """
        undone = self._blocks[len(self._blocks) - depth :]
        del self._blocks[len(self._blocks) - depth :]
        if keep:
            for entry in itertools.chain.from_iterable(block.entries for block in undone):
                if isinstance(entry, _Submission):
                    self._waiting.append(entry)
                else:
                    self._pool.setdefault((entry.sender, entry.nonce), entry)
        self.mine(depth + 1)

    def drop_pool(self) -> None:
        """Lose every transaction that waits."""
        self._pool.clear()

    def outputs(self) -> dict[int, list[bytes]]:
        """The outputs on the chain, by call id of service 0, in their order."""
        found: dict[int, list[bytes]] = {}
        for block in self._blocks:
            for _, log in block.logs:
                if len(log.topics) == 4:  # noqa: PLR2004 - only results have four topics
                    length = int.from_bytes(log.data[32:64], "big")
                    call_id = int.from_bytes(log.topics[2], "big")
                    found.setdefault(call_id, []).append(log.data[64 : 64 + length])
        return found

    def fail_next(self, method: str, *errors: ChainError) -> None:
        """Let the next calls of a method fail, once for each error, without doing anything."""
        self._faults.setdefault(method, deque()).extend(errors)

    def lose_reply(self, method: str, count: int = 1) -> None:
        """Let the next calls of a method take effect, and then fail as if the reply was lost."""
        self._lost_replies[method] = self._lost_replies.get(method, 0) + count

    # The port.

    async def call(self, method: str, *params: JsonValue) -> JsonValue:
        """Answer one call; see ``Rpc.call``."""
        (answer,) = await self.batch([(method, params)])
        if isinstance(answer, ChainError):
            raise answer
        return answer

    async def batch(self, calls: Sequence[tuple[str, Sequence[JsonValue]]]) -> list[JsonValue | ChainError]:
        """Answer several calls; see ``Rpc.batch``."""
        await asyncio.sleep(0)
        return [self._answer(method, params) for method, params in calls]

    async def wait_head(self, timeout_s: float) -> bool:
        """Return True once blocks have changed since the last True; see ``Rpc.wait_head``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._head_changed.wait()
        except TimeoutError:
            return False
        self._head_changed.clear()
        return True

    def _answer(self, method: str, params: Sequence[JsonValue]) -> JsonValue | ChainError:
        self.asked.append(method)
        if faults := self._faults.get(method):
            return faults.popleft()
        answerer = self._answerers().get(method)
        if answerer is None:
            return RpcError(f"the fake chain does not know {method}", code=-32601)
        try:
            answer = answerer(*params)
        except ChainError as exc:
            answer_or_error: JsonValue | ChainError = exc
        else:
            answer_or_error = answer
        if self._lost_replies.get(method, 0) > 0:
            self._lost_replies[method] -= 1
            return RpcError("the reply was lost")
        return answer_or_error

    def _answerers(self) -> dict[str, Callable[..., JsonValue]]:
        return {
            "eth_chainId": lambda: hex(self.chain_id),
            "eth_blockNumber": lambda: hex(self.head_number),
            "eth_getCode": lambda *_: "0xfe",
            "eth_maxPriorityFeePerGas": lambda: hex(_TIP_WEI),
            "eth_getBlockByNumber": lambda number, _full: self._block(number),
            "eth_getTransactionCount": lambda account, _at: hex(self._count(parse_bytes(account))),
            "eth_getLogs": self._logs,
            "eth_call": lambda message, _at: self._call_contract(message),
            "eth_estimateGas": self._estimate,
            "eth_sendRawTransaction": self._send,
        }

    def _block(self, number: JsonValue) -> JsonValue:
        index = self.head_number if number == "latest" else int(str(number), 0)
        if not 0 <= index <= self.head_number:
            return None
        block = self._blocks[index]
        return {
            "number": hex(block.number),
            "hash": to_hex(block.hash),
            "parentHash": to_hex(block.parent_hash),
            "baseFeePerGas": hex(self.base_fee_wei),
            "gasLimit": hex(_GAS_LIMIT),
        }

    def _count(self, account: bytes) -> int:
        return self._blocks[-1].nonces.get(Address(account), 0)

    def _logs(self, where: JsonValue) -> JsonValue:
        wanted = parse_object(where, what="the filter")
        first = int(str(wanted.get("fromBlock", "0x0")), 0)
        last = wanted.get("toBlock", "latest")
        end = self.head_number if last == "latest" else int(str(last), 0)
        topics = wanted.get("topics")
        places = topics if isinstance(topics, list) else []
        return [
            entry
            for block in self._blocks[first : end + 1]
            for index, (transaction_hash, log) in enumerate(block.logs)
            if _matches(log, places)
            for entry in [self._log(block, index, transaction_hash, log)]
        ]

    def _log(self, block: _Block, index: int, transaction_hash: Hash, log: FakeLog) -> JsonValue:
        return {
            "address": to_hex(self.contract),
            "topics": [to_hex(topic) for topic in log.topics],
            "data": to_hex(log.data),
            "blockNumber": hex(block.number),
            "blockHash": to_hex(block.hash),
            "transactionHash": to_hex(transaction_hash),
            "logIndex": hex(index),
            "removed": False,
        }

    def _call_contract(self, message: JsonValue) -> JsonValue:
        fields = parse_object(message, what="the message")
        data = parse_bytes(fields.get("data"))
        state = self._blocks[-1].state
        if state.is_view(data):
            return to_hex(state.read(data))
        copy.deepcopy(state).execute(Address(parse_bytes(fields.get("from"))), data)
        return "0x"

    def _estimate(self, message: JsonValue) -> JsonValue:
        if "data" in parse_object(message, what="the message"):
            self._call_contract(message)
            return hex(100_000)
        return hex(21_000)

    def _send(self, raw: JsonValue) -> JsonValue:
        transaction = _decode(parse_bytes(raw))
        place = (transaction.sender, transaction.nonce)
        if transaction.nonce < self._count(transaction.sender):
            raise RpcError("nonce too low", code=-32003)
        waiting = self._pool.get(place)
        if waiting is not None and waiting.hash == transaction.hash:
            raise RpcError("already known", code=-32000)
        if waiting is not None and transaction.max_fee_wei * 10 < waiting.max_fee_wei * 11:
            raise RpcError("replacement transaction underpriced", code=-32000)
        self._pool[place] = transaction
        if self.automine:
            self.mine()
        return to_hex(transaction.hash)

    # Mining.

    def _mine_one(self) -> None:
        parent = self._blocks[-1]
        block = _Block(
            parent.number + 1,
            Hash(keccak256(parent.hash + next(self._serial).to_bytes(8, "big"))),
            parent.hash,
            copy.deepcopy(parent.state),
            dict(parent.nonces),
        )
        for submission in self._waiting:
            name = Hash(keccak256(block.hash + len(block.logs).to_bytes(8, "big")))
            log = block.state.submit_job(
                submission.service_id,
                submission.job_index,
                submission.inputs,
                caller=submission.caller,
                quoted=submission.quoted,
            )
            block.logs.append((name, log))
            block.entries.append(submission)
        self._waiting.clear()
        for place in sorted(self._pool):
            self._include(block, self._pool[place])
        self._blocks.append(block)

    def _include(self, block: _Block, transaction: _Transaction) -> None:
        """Put a transaction into a block if it is its turn and its fee is enough; a revert uses the nonce."""
        expected = block.nonces.get(transaction.sender, 0)
        if transaction.nonce < expected:
            del self._pool[transaction.sender, transaction.nonce]
        if transaction.nonce != expected or transaction.max_fee_wei < self.base_fee_wei:
            return
        del self._pool[transaction.sender, transaction.nonce]
        block.nonces[transaction.sender] = expected + 1
        block.entries.append(transaction)
        state = copy.deepcopy(block.state)
        try:
            logs = state.execute(transaction.sender, transaction.data) if transaction.data else []
        except RevertedError:
            return
        block.state = state
        block.logs += [(transaction.hash, log) for log in logs]


def _matches(log: FakeLog, places: Sequence[JsonValue]) -> bool:
    for position, values in enumerate(places):
        if values is None:
            continue
        allowed = values if isinstance(values, list) else [values]
        if position >= len(log.topics) or to_hex(log.topics[position]) not in allowed:
            return False
    return True


def _decode(raw: bytes) -> _Transaction:
    fields = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    sender = Account.recover_transaction(raw)
    return _Transaction(
        hash=Hash(keccak256(raw)),
        sender=Address(bytes.fromhex(sender[2:])),
        nonce=int(fields["nonce"]),
        data=bytes(fields["data"]),
        max_fee_wei=int(fields["maxFeePerGas"]),
    )
