"""The node: one task group in which the chain is followed, calls are run and outputs are sent.

Invariant: a call is in the journal before its handler starts, and its output before it is sent. What is
only in memory can be lost at any moment and is made again from the journal and the chain.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from blueprint.chain.rpc import Rpc
from blueprint.chain.submitter import Submitter
from blueprint.chain.wire import parse_quantity
from blueprint.errors import ChainError, ConfigError, PostponedError
from blueprint.job import Handler
from blueprint.store.journal import Journal
from blueprint.store.records import CallRecord
from blueprint.types import CallKey, CallState, ChainUpdate, JobCall

__all__ = ["Follower", "Node", "NodeHealth", "NodePolicy"]

_log = structlog.get_logger()

_DRAIN_POLL_S: Final = 0.02


class Follower(Protocol):
    """Follows the chain. ``blueprint.chain.listener.Listener`` is the real one."""

    async def run(self, sink: Callable[[ChainUpdate], Awaitable[None]]) -> None:
        """Hand every step of the chain to ``sink``, in order, until cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePolicy:
    """How the node behaves; times in seconds."""

    max_running: int = 64
    """Handlers that run at the same time."""
    output_cap_bytes: int = 96 * 1024
    """The longest output that is sent: public end points refuse transactions of more than 128 KiB."""
    grace_s: float = 30.0
    """How long running handlers and unsent outputs are waited for after `Node.request_stop`."""
    max_attempts: int = 3
    """A handler that fails so often leaves its call closed; `blueprint calls retry` opens it again."""
    retry_s: float = 2.0
    """The pause after a handler's first failure; it doubles with each."""
    max_lag_blocks: int = 5
    """The node counts as caught up while it has read the chain to within so many blocks of its head."""
    maintain_s: float = 5.0
    """Seconds between two rounds of the journal's house-keeping."""
    tick_s: float = 1.0
    """The longest rest of the dispatcher: so soon it notices what the command line changed in the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHealth:
    """What the node knows about itself at one moment."""

    is_running: bool
    is_stopping: bool
    cursor: int | None
    """The newest block that was read."""
    head: int | None
    """The newest block that the end point told of."""
    running: int
    """Handlers at work."""
    in_flight: int
    """Transactions on their way."""
    calls: dict[CallState, int]


class _Aborted(Exception):  # noqa: N818 - not an error: it ends the task group
    """Ends the node's task group at once; never leaves this module."""


class Node:
    """Follows, runs, answers. Everything it works with is handed in and stays the caller's to close.

    Args:
        rpc: the end point, for readiness only.
        listener: follows the chain from the journal's cursor.
        journal: durable state.
        submitter: sends outputs; its ledger is the same journal.
        handler: turns a call into bytes. It answers failures itself; an exception is a fault.
        policy: limits and times.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        rpc: Rpc,
        listener: Follower,
        journal: Journal,
        submitter: Submitter,
        handler: Handler,
        policy: NodePolicy = NodePolicy(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if policy.max_running < 1:
            raise ConfigError(f"max_running: expected at least 1, received {policy.max_running}")
        self._rpc = rpc
        self._listener = listener
        self._journal = journal
        self._submitter = submitter
        self._handler = handler
        self._policy = policy
        self._clock = clock
        self._tasks: dict[CallKey, tuple[JobCall, asyncio.Task[None]]] = {}
        self._work = asyncio.Event()
        self._stop = asyncio.Event()
        self._abort = asyncio.Event()
        self._placed = asyncio.Event()
        self._is_running = False
        self._cursor: int | None = None
        self._head: int | None = None
        journal.on_end = _log_end

    # Control.

    async def run(self) -> None:
        """Work until `request_stop` or `abort`.

        Raises:
            JournalError: the durable state cannot be used; nothing that was recorded is lost.
            BlueprintError: whatever ends the listener.
        """
        self._is_running = True
        self._cursor = self._journal.cursor()
        if self._cursor is not None:
            self._placed.set()
        self._submitter.advance(-1 if self._cursor is None else self._cursor, is_fork=True)
        _log.info("node_started", cursor=self._cursor, calls=_named(self._journal.counts()))
        ended_by: ExceptionGroup[Exception] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(self._listener.run(self._apply), name="listener")
                others = [
                    group.create_task(self._dispatch(group), name="dispatcher"),
                    group.create_task(self._submitter.run(), name="submitter"),
                    group.create_task(self._maintain(), name="maintenance"),
                ]
                group.create_task(self._end(listening, others), name="stopping")
        except* _Aborted:
            _log.warning("node_aborted", running=len(self._tasks))
        except* Exception as failures:  # noqa: BLE001 - raised below: Python 3.11.2 would wrap what is raised here
            ended_by = failures
        finally:
            self._is_running = False
        if ended_by is not None:
            raise _first(ended_by) from ended_by
        _log.info("node_stopped", calls=_named(self._journal.counts()))

    def request_stop(self) -> None:
        """Stop following; finish what runs and send what is ready within the grace period; then return."""
        self._stop.set()
        self._work.set()

    def abort(self) -> None:
        """Stop now: handlers are cancelled, and everything else stays in the journal."""
        self._abort.set()
        self._stop.set()

    def health(self) -> NodeHealth:
        """Return what the node knows about itself; cheap, and asks nobody."""
        return NodeHealth(
            is_running=self._is_running,
            is_stopping=self._stop.is_set(),
            cursor=self._cursor,
            head=self._head,
            running=len(self._tasks),
            in_flight=self._submitter.in_flight,
            calls=self._journal.counts(),
        )

    async def wait_placed(self) -> None:
        """Wait until the journal has a place in the chain: no call after it is missed, over restarts too."""
        await self._placed.wait()

    async def is_ready(self) -> bool:
        """Say whether the node works and has read the chain to near its head, which it asks the end point."""
        if not self._is_running or self._stop.is_set() or self._cursor is None:
            return False
        try:
            self._head = parse_quantity(await self._rpc.call("eth_blockNumber"), what="eth_blockNumber")
        except ChainError:
            return False
        return self._head - self._cursor <= self._policy.max_lag_blocks

    # The chain.

    async def _apply(self, update: ChainUpdate) -> None:
        """Commit one step of the chain, then tell those whom it concerns."""
        applied = self._journal.apply(update)
        if update.blocks:
            self._cursor = update.blocks[-1].number
        elif update.fork_number is not None:
            self._cursor = update.fork_number
        self._head = update.head_number
        self._placed.set()
        if applied.is_fork:
            _log.warning("reorg_detected", fork_number=update.fork_number, head_number=update.head_number)
        for key in applied.cancelled:
            if key in self._tasks:
                _log.info("call_cancelled", service_id=key.service_id, call_id=key.call_id)
                self._tasks[key][1].cancel()
        if update.calls:
            self._work.set()
        self._submitter.advance(-1 if self._cursor is None else self._cursor, is_fork=applied.is_fork)

    # The work.

    async def _dispatch(self, group: asyncio.TaskGroup) -> None:
        """Start calls as the journal has them and there is room."""
        while not self._stop.is_set():
            self._work.clear()
            room = self._policy.max_running - len(self._tasks)
            for call in self._journal.claim(room):
                name = f"call {call.key.service_id}/{call.key.call_id}"
                self._tasks[call.key] = (call, group.create_task(self._run_call(call), name=name))
            try:
                async with asyncio.timeout(self._policy.tick_s):
                    await self._work.wait()
            except TimeoutError:
                continue

    async def _run_call(self, call: JobCall) -> None:
        """Run the handler and record what comes of it; whatever is logged on the way names the call."""
        structlog.contextvars.bind_contextvars(service_id=call.key.service_id, call_id=call.key.call_id)
        try:
            output = await self._run_handler(call)
            if output is not None and await self._journal.record_output(call, output):
                self._submitter.wake()
        finally:
            # A call that came back with other inputs may have started anew under the same key.
            if self._tasks.get(call.key, (None, None))[0] is call:
                del self._tasks[call.key]
            self._work.set()

    async def _run_handler(self, call: JobCall) -> bytes | None:
        """Return the handler's output, or None after recording that it failed or had no room."""
        try:
            output = await self._handler(call)
        except PostponedError as exc:
            self._journal.postpone(call, retry_s=exc.retry_after_s)
            _log.info(
                "call_postponed", service_id=call.key.service_id, call_id=call.key.call_id,
                retry_after_s=exc.retry_after_s,
            )  # fmt: skip
            return None
        except Exception as exc:  # noqa: BLE001 - a handler may fail in any way, and the node goes on
            self._record_failure(call, exc)
            return None
        if len(output) > self._policy.output_cap_bytes:
            _log.error(
                "output_too_large", service_id=call.key.service_id, call_id=call.key.call_id,
                size=len(output), cap=self._policy.output_cap_bytes,
            )  # fmt: skip
            self._journal.record_failure(call, "output_too_large", retry_s=0.0, max_attempts=0)
            return None
        return output

    def _record_failure(self, call: JobCall, exc: Exception) -> None:
        """Record that the handler failed, which it should never do: it runs again later, a few times."""
        state = self._journal.record_failure(
            call,
            f"handler_failed: {type(exc).__name__}",
            retry_s=self._policy.retry_s,
            max_attempts=self._policy.max_attempts,
        )
        _log.error(
            "handler_failed", service_id=call.key.service_id, call_id=call.key.call_id,
            job_index=call.job_index, state=state, exc_info=exc,
        )  # fmt: skip

    # The house-keeping and the end.

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(self._policy.maintain_s)
            await self._journal.maintain()

    async def _end(self, listening: asyncio.Task[None], others: list[asyncio.Task[None]]) -> None:
        """Wait for the wish to stop, then bring everything to its end."""
        await self._stop.wait()
        listening.cancel()
        _log.info("node_stopping", running=len(self._tasks), in_flight=self._submitter.in_flight)
        deadline = self._clock() + self._policy.grace_s
        while self._clock() < deadline and not self._abort.is_set():
            if not self._tasks and self._submitter.is_idle:
                break
            await asyncio.sleep(_DRAIN_POLL_S)
        if self._abort.is_set():
            raise _Aborted
        for task in [*others, *(task for _, task in self._tasks.values())]:
            task.cancel()


def _log_end(record: CallRecord) -> None:
    """Write the one line that sums up a call."""
    _log.info(
        "call_ended",
        service_id=record.key.service_id,
        call_id=record.key.call_id,
        job_index=record.job_index,
        state=record.state,
        reason=record.reason,
        caller=record.caller,
        inputs_size=record.inputs_bytes,
        inputs_hash=record.inputs_hash,
        output_size=record.output_bytes,
        block_number=record.block_number,
        result_block=record.result_block,
        result_transaction=record.result_transaction,
        run_ms=_milliseconds(record.started_at, record.ready_at),
        total_ms=_milliseconds(record.seen_at, record.ended_at),
    )


def _milliseconds(start: float | None, end: float | None) -> int | None:
    return None if start is None or end is None else round((end - start) * 1000)


def _named(counts: dict[CallState, int]) -> dict[str, int]:
    return {state.value: count for state, count in counts.items() if count}


def _first(failures: BaseExceptionGroup[Exception]) -> Exception:
    """Return the failure that came first: the group holds those that it caused as well."""
    first: Exception | BaseExceptionGroup[Exception] = failures
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
