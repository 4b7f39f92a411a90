"""Follows the chain and hands it over as linked updates, through disconnects, lies and reorganisations.

Heads are hints: the listener looks at the newest block when one is hinted at, and twice a second anyway.
What it remembers is a window of (number, hash, parent hash) of the newest blocks; its last one is the cursor.

Invariant: updates, applied in order, always describe one chain. An update is handed over only after its
blocks were seen to be linked to each other and to the cursor, and its logs to carry their blocks' hashes; the
cursor moves only after the sink has accepted the update.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import pairwise

import structlog

from blueprint.chain.block_source import BlockSource
from blueprint.chain.events import MalformedEventError, RawLog, decode_log
from blueprint.chain.header import Header
from blueprint.chain.log_range import LogRange, is_range_too_large
from blueprint.chain.rpc import Rpc
from blueprint.chain.window import Window
from blueprint.chain.wire import parse_bytes, parse_quantity, to_hex
from blueprint.errors import ChainError, ConfigError, ReorgedError, RpcError
from blueprint.types import Address, BlockRef, ChainUpdate, JobCall, ResultLog

__all__ = ["WINDOW_BLOCKS", "Listener", "verify_contract"]

WINDOW_BLOCKS = 64
"""How many of the newest blocks are watched for a reorganisation: two epochs, the finality of Ethereum."""

_POLL_S = 0.5
_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 5.0
_FIRST_TORN_DELAY_S = 0.01
_MAX_TORN_DELAY_S = 0.5
_LOUD_AFTER = 5
_RANGE_BLOCKS = 512
_MAX_RANGE_BLOCKS = 8192
_WALK_BLOCKS = 16
_DOUBTS = 3

_log = structlog.get_logger(__name__)


class _TornReadError(RpcError):
    """Answers of one look at the chain come from different states of it; another look will tell."""


async def verify_contract(rpc: Rpc, contract: Address, chain_id: int) -> None:
    """Check that the end point serves this chain and that there is code at this address.

    Raises:
        ConfigError: it is another chain, or the address has no code.
        RpcError: the end point cannot be asked.
    """
    answers = await rpc.batch([("eth_chainId", ()), ("eth_getCode", (to_hex(contract), "latest"))])
    for answer in answers:
        if isinstance(answer, ChainError):
            raise answer
    served, code = answers
    received = parse_quantity(None if isinstance(served, ChainError) else served, what="the chain id")
    if received != chain_id:
        raise ConfigError(
            f"chain id: expected {chain_id}, but the end point serves chain {received}; "
            "check the RPC URL and the chain id"
        )
    if not parse_bytes(None if isinstance(code, ChainError) else code, what="the contract's code"):
        raise ConfigError(
            f"contract: there is no code at {to_hex(contract)} on chain {chain_id}; "
            "check the address, and whether the contract is deployed on this chain"
        )


class Listener:
    """Reads the calls and results of some services, once each, from wherever it left off.

    Args:
        rpc: the end point.
        contract: the job contract.
        chain_id: goes into the calls' keys; see ``verify_contract``.
        service_ids: the services to follow, at least one.
        window: the blocks of the journal, ascending; the last one is the cursor.
        start_block: where to begin when ``window`` is empty; None begins with the newest block.
        window_blocks: how deep a reorganisation is followed block by block.
        poll_s: seconds between two looks when there are no hints.
        rollback_patience_s: seconds for which an end point may be behind our cursor, on our own chain, before
            it is believed that the blocks are gone: a pool of end points often has a slow one.
        clock: monotonic seconds.
        sleep: waits for seconds.

    Raises:
        ConfigError: no service is named, or the window is damaged.
    """

    def __init__(
        self,
        rpc: Rpc,
        *,
        contract: Address,
        chain_id: int,
        service_ids: Collection[int],
        window: Sequence[BlockRef] = (),
        start_block: int | None = None,
        window_blocks: int = WINDOW_BLOCKS,
        poll_s: float = _POLL_S,
        rollback_patience_s: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not service_ids:
            raise ConfigError("services: expected at least one service id to follow, received none")
        self._rpc = rpc
        self._source = BlockSource(rpc, contract=contract, service_ids=service_ids)
        self._chain_id = chain_id
        self._window = Window(window, size=window_blocks)
        self._window_blocks = window_blocks
        newest = self._window.newest
        self._next = start_block if newest is None else newest.number + 1
        self._poll_s = poll_s
        self._rollback_patience_s = rollback_patience_s
        self._clock = clock
        self._sleep = sleep
        self._range = LogRange(size=_RANGE_BLOCKS, max_size=_MAX_RANGE_BLOCKS)
        self._is_at_head = False
        self._behind_since_s: float | None = None
        self._is_lost = False
        self._doubts: dict[bytes, int] = {}

    async def run(self, sink: Callable[[ChainUpdate], Awaitable[None]]) -> None:
        """Hand over updates until cancelled.

        Failures of the end point are logged and outlived; whatever ``sink`` raises ends the listener.
        """
        failures = 0
        while True:
            try:
                update = await self._look()
            except ChainError as exc:
                failures += 1
                await self._pause(exc, failures)
                continue
            failures = 0
            if update is not None:
                await sink(update)
                self._advance(update)
            if update is None or self._is_at_head:
                await self._rpc.wait_head(self._poll_s)

    async def _pause(self, error: ChainError, failures: int) -> None:
        if isinstance(error, _TornReadError):
            delay_s = min(_FIRST_TORN_DELAY_S * 2 ** min(failures - 1, 16), _MAX_TORN_DELAY_S)
            if failures >= _LOUD_AFTER:
                _log.warning("torn_read_repeated", cause=str(error), failures=failures)
        else:
            self._is_at_head = False  # after an outage there may be much to catch up with
            delay_s = min(_FIRST_DELAY_S * 2 ** min(failures - 1, 16), _MAX_DELAY_S)
            if isinstance(error, RpcError) and error.retry_after_s is not None:
                delay_s = max(delay_s, error.retry_after_s)
            _log.warning("chain_read_failed", cause=str(error), failures=failures, delay_s=delay_s)
        await self._sleep(delay_s)

    def _advance(self, update: ChainUpdate) -> None:
        if update.fork_number is not None:
            self._window.cut(update.fork_number)
            self._next = update.fork_number + 1
            self._is_at_head = False
        if update.blocks:
            self._window.extend(update.blocks)
            newest = update.blocks[-1].number
            self._next = newest + 1
            self._is_at_head = newest >= update.head_number
            self._doubts.clear()

    async def _look(self) -> ChainUpdate | None:
        """Return the next update, or None when there is nothing new."""
        cursor = self._window.newest
        head, logs = await self._source.poll(self._next if self._is_at_head else None)
        if cursor is None:
            return await self._look_without_cursor(head)
        if head.block.number < cursor.number:
            return await self._look_behind(head, cursor)
        self._behind_since_s = None
        self._is_lost = False
        if head.block.number == cursor.number:
            return None if head.block.hash == cursor.hash else await self._find_fork(head)
        if head.block.number == cursor.number + 1 and logs is not None and not isinstance(logs, ChainError):
            if head.block.parent_hash != cursor.hash:
                return await self._find_fork(head)
            of_block = [log for log in logs if log.block_number == head.block.number]
            return await self._assemble([head], of_block, head)
        return await self._read_range(cursor.number + 1, head, cursor)

    async def _look_without_cursor(self, head: Header) -> ChainUpdate | None:
        if self._next is None:
            self._next = head.block.number
        if self._next > head.block.number:
            return None
        first_watched = max(0, head.block.number - self._window_blocks + 1)
        if first_watched < self._next:
            # The blocks before the start are no news; those that a reorganisation puts there would be.
            headers = await self._source.headers(range(first_watched, self._next))
            return ChainUpdate(
                blocks=[header.block for header in _linked(headers)], head_number=head.block.number
            )
        return await self._read_range(self._next, head, None)

    async def _look_behind(self, head: Header, cursor: BlockRef) -> ChainUpdate | None:
        """Return what to make of an end point whose newest block is before our cursor."""
        blocks = self._window.newest_first()
        if head.block.number < blocks[-1].number:
            if not self._is_lost:
                self._is_lost = True
                cause = ReorgedError(
                    f"the end point's newest block is {head.block.number}, but {blocks[-1].number} to "
                    f"{cursor.number} were read before; it is behind, or the chain was started anew. Nothing "
                    "is undone; wait for it, or begin with a new state directory"
                )
                _log.error("head_below_window", cause=str(cause))
            return None
        if all(block.hash != head.block.hash for block in blocks):
            return await self._find_fork(head)
        now_s = self._clock()
        if self._behind_since_s is None:
            self._behind_since_s = now_s
            _log.info("head_went_back", head_number=head.block.number, cursor_number=cursor.number)
        if now_s - self._behind_since_s < self._rollback_patience_s:
            return None
        self._behind_since_s = None
        _log.warning("rollback_detected", fork_number=head.block.number, cursor_number=cursor.number)
        return ChainUpdate(fork_number=head.block.number, head_number=head.block.number)

    async def _find_fork(self, head: Header) -> ChainUpdate:
        """Walk back to the newest block of ours that the chain still has."""
        blocks = self._window.newest_first()
        for start in range(0, len(blocks), _WALK_BLOCKS):
            chunk = blocks[start : start + _WALK_BLOCKS]
            headers = await self._source.headers([block.number for block in chunk])
            for block, header in zip(chunk, headers, strict=True):
                if header is None and block.number <= head.block.number:
                    raise _TornReadError(f"block {block.number} is missing below head {head.block.number}")
                if header is not None and header.block.hash == block.hash:
                    if block is blocks[0]:
                        raise _TornReadError(f"block {block.number} is linked in only some answers")
                    depth = blocks[0].number - block.number
                    _log.warning("reorg_detected", fork_number=block.number, depth=depth)
                    return ChainUpdate(fork_number=block.number, head_number=head.block.number)
        oldest = blocks[-1].number
        cause = ReorgedError(
            f"none of the blocks {oldest} to {blocks[0].number} that were relied on is on the chain; "
            f"calls undone before block {oldest} cannot be told, everything from there is read anew"
        )
        _log.error("reorg_exceeded_window", cause=str(cause), read_again_from=oldest)
        return ChainUpdate(fork_number=oldest - 1, head_number=head.block.number)

    async def _read_range(self, first: int, head: Header, cursor: BlockRef | None) -> ChainUpdate:
        """Read the logs from block ``first`` on: as far as the end point lets us in one question."""
        first_watched = head.block.number - self._window_blocks + 1
        while True:
            last = min(first + self._range.size - 1, head.block.number)
            if first < first_watched:
                # Deeper than any reorganisation that is followed: both ends hold the range in place, and its
                # last block is read again after it.
                last = min(last, first_watched - 1)
                numbers: Sequence[int] = (first, last)
            else:
                last = min(last, first + self._window_blocks - 1)
                numbers = range(first, last + 1)
            try:
                answer = await self._source.read_range(first, last, numbers=numbers)
                if isinstance(answer.logs, ChainError):
                    raise answer.logs
            except RpcError as exc:
                asked = last - first + 1
                if not is_range_too_large(exc) or not self._range.shrink(asked, exc):
                    raise
                _log.info("log_range_shrunk", cause=str(exc), asked=asked, size=self._range.size)
                continue
            break
        headers = _present(answer.headers)
        if cursor is not None and headers[0].block.parent_hash != cursor.hash:
            return await self._find_fork(head)
        if first < first_watched:
            (again,) = _present(await self._source.headers([last]))
            if again.block != headers[-1].block:
                raise _TornReadError(f"block {last} changed while logs up to it were read")
            headers = headers[-1:]
        else:
            headers = _linked(headers)
        update = await self._assemble(headers, answer.logs, head)
        self._range.grow()
        _log.debug("log_range_read", first=first, last=last, head_number=head.block.number)
        return update

    async def _assemble(self, headers: Sequence[Header], logs: Sequence[RawLog], head: Header) -> ChainUpdate:
        """Return the update of linked headers and the logs of their range."""
        by_number = {header.block.number: header for header in headers}
        for log in logs:
            header = by_number.get(log.block_number)
            if header is not None and header.block.hash != log.block_hash:
                raise _TornReadError(f"a log of block {log.block_number} has another block's hash")
        having = {log.block_number for log in logs}
        for header in headers:
            if header.block.number not in having and self._source.bloom_filter.may_match(header.bloom):
                logs = [*logs, *await self._resolve_doubt(header)]
        calls: list[JobCall] = []
        results: list[ResultLog] = []
        for log in sorted(logs, key=lambda log: (log.block_number, log.log_index)):
            try:
                decoded = decode_log(log, chain_id=self._chain_id)
            except MalformedEventError as exc:
                _log.error("event_malformed", cause=str(exc), block_number=log.block_number)
                continue
            if isinstance(decoded, JobCall):
                calls.append(decoded)
            elif isinstance(decoded, ResultLog):
                results.append(decoded)
        return ChainUpdate(
            blocks=[header.block for header in headers],
            calls=calls,
            results=results,
            head_number=head.block.number,
        )

    async def _resolve_doubt(self, header: Header) -> Sequence[RawLog]:
        """Return the logs of a block for which there are none, though its bloom says that there may be.

        Blooms are wrong for a small part of full blocks only, and an end point's log index may trail its
        blocks: so ask again a few times, and then read the block's receipts.
        """
        block = header.block
        doubts = self._doubts.get(block.hash, 0) + 1
        self._doubts[block.hash] = doubts
        if doubts <= _DOUBTS:
            raise _TornReadError(f"no logs for block {block.number}, whose bloom says that there may be")
        try:
            logs = await self._source.logs_of_receipts(header)
        except ChainError as exc:
            _log.warning("empty_logs_unverified", block_number=block.number, cause=str(exc))
            return ()
        if logs:
            _log.warning("logs_withheld", block_number=block.number, count=len(logs))
        return logs


def _present(headers: Sequence[Header | None]) -> list[Header]:
    present = [header for header in headers if header is not None]
    if len(present) != len(headers):
        raise _TornReadError("the end point does not know a block below its own head")
    return present


def _linked(headers: Sequence[Header | None]) -> list[Header]:
    linked = _present(headers)
    for parent, child in pairwise(linked):
        if child.block.parent_hash != parent.block.hash or child.block.number != parent.block.number + 1:
            raise _TornReadError(f"block {child.block.number} is not linked to the one before it")
    return linked
