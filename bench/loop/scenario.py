"""One measurement: a chain, a node beside it, and jobs one by one, then all at once.

Invariant: every job that was submitted was answered rightly, or the measurement fails.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from bench.loop.caller import Caller, Connection, Observer
from bench.loop.node_process import NodeProcess, started_node
from blueprint.chain.anvil import Anvil
from blueprint.chain.deployment import deploy_local
from blueprint.chain.rpc import RpcClient
from blueprint.chain.signer import Signer

__all__ = ["Burst", "Job", "Measurement", "Scenario", "measure"]

_WARM_UP = 20
_SUBMIT_GAS = 400_000
_BLOCK_GAS_LIMIT = 300_000_000
"""Ten times that of a real chain, so that the node is measured and not the room in the blocks."""
_IN_FLIGHT = 256
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is asked of the node."""

    name: str
    inputs: bytes
    is_right: Callable[[bytes], bool]
    """Whether an output is the right one: a wrong one fails the measurement."""
    node_arguments: tuple[str, ...]
    single: int
    """Jobs submitted one by one, for the latency."""
    burst: int
    """Jobs submitted at once, for the rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Where the loop runs."""

    job: Job
    transport: str
    """``ipc`` or ``ws``: how the node talks to the chain. The caller always uses IPC."""
    block_time_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Many jobs at once."""

    jobs: int
    jobs_per_s: float
    node_cpu_ms: float
    """CPU of the node, for each job."""
    chain_cpu_ms: float
    """CPU of anvil, for each job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Times in milliseconds, CPU in milliseconds a job."""

    job: str
    transport: str
    block_time_s: float | None
    event_to_result_p50_ms: float
    event_to_result_p99_ms: float
    sent_to_result_p50_ms: float
    sent_to_result_p99_ms: float
    single_node_cpu_ms: float
    single: int
    burst: Burst | None
    """None where anvil automines: with hundreds of transactions waiting it may never come back."""


async def measure(scenario: Scenario) -> Measurement:
    """Run one scenario on a fresh chain with a fresh node.

    Raises:
        RuntimeError: the node did not start, or a job was not answered.
    """
    async with Anvil(block_time_s=scenario.block_time_s, ipc=True, block_gas_limit=_BLOCK_GAS_LIMIT) as chain:
        owner, operator = (Signer(account.private_key) for account in chain.accounts[:2])
        async with RpcClient(str(chain.ipc_path)) as rpc:
            deployment = await deploy_local(rpc, owner, operators=[operator.address])
            nonce = int(
                str(await rpc.call("eth_getTransactionCount", "0x" + owner.address.hex(), "latest")), 16
            )
        rpc_url = chain.ws_url if scenario.transport == "ws" else str(chain.ipc_path)
        async with (
            started_node(
                rpc_url=rpc_url,
                deployment=deployment,
                operator=chain.accounts[1],
                arguments=scenario.job.node_arguments,
            ) as node,
            Connection.open(chain.ipc_path) as pushes,
            Connection.open(chain.ipc_path) as sends,
        ):
            run = _Run(
                job=scenario.job,
                block_time_s=scenario.block_time_s,
                node=node,
                chain=psutil.Process(chain.pid),
                caller=Caller(sends, owner, deployment, nonce),
                observer=Observer(),
            )
            async with asyncio.timeout(_TIMEOUT_S), asyncio.TaskGroup() as group:
                watching = group.create_task(run.observer.run(pushes, deployment))
                measurement = await run.measure(scenario.transport)
                watching.cancel()
            wrong = [output for output in run.observer.outputs() if not scenario.job.is_right(output)]
            if wrong:
                raise RuntimeError(f"{len(wrong)} outputs are wrong, the first one is {wrong[0][:200]!r}")
            return measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Everything that is at work during a measurement."""

    job: Job
    block_time_s: float | None
    node: NodeProcess
    chain: psutil.Process
    caller: Caller
    observer: Observer

    async def measure(self, transport: str) -> Measurement:
        await self._one_by_one(self._sign(_WARM_UP), first=0)
        single = self._sign(self.job.single)
        cpu_before = self.node.cpu_s()
        sent_at = await self._one_by_one(single, first=_WARM_UP)
        single_cpu_s = self.node.cpu_s() - cpu_before
        first = _WARM_UP + len(single)
        seen, answered = self.observer.submitted_at, self.observer.answered_at
        from_event = [1e3 * (answered[call] - seen[call]) for call in range(_WARM_UP, first)]
        from_sending = [1e3 * (answered[_WARM_UP + n] - at) for n, at in enumerate(sent_at)]
        return Measurement(
            job=self.job.name,
            transport=transport,
            block_time_s=self.block_time_s,
            event_to_result_p50_ms=statistics.median(from_event),
            event_to_result_p99_ms=_percentile(from_event, 0.99),
            sent_to_result_p50_ms=statistics.median(from_sending),
            sent_to_result_p99_ms=_percentile(from_sending, 0.99),
            single_node_cpu_ms=1e3 * single_cpu_s / len(single),
            single=len(single),
            burst=None if self.block_time_s is None else await self._all_at_once(first),
        )

    async def _all_at_once(self, first: int) -> Burst:
        burst = self._sign(self.job.burst)
        node_before, chain_before = self.node.cpu_s(), _cpu_s(self.chain)
        await self.caller.send(burst, in_flight=_IN_FLIGHT)
        await self.observer.wait_answers(first, len(burst))
        node_cpu_s, chain_cpu_s = self.node.cpu_s() - node_before, _cpu_s(self.chain) - chain_before
        answered = self.observer.answered_at
        ended = max(answered[call] for call in range(first, first + len(burst)))
        return Burst(
            jobs=len(burst),
            jobs_per_s=len(burst) / (ended - self.observer.submitted_at[first]),
            node_cpu_ms=1e3 * node_cpu_s / len(burst),
            chain_cpu_ms=1e3 * chain_cpu_s / len(burst),
        )

    def _sign(self, count: int) -> list[str]:
        return self.caller.sign(self.job.inputs, count, gas=_gas(self.job))

    async def _one_by_one(self, transactions: Sequence[str], *, first: int) -> list[float]:
        """Submit each job once the one before it is answered; returns when each was sent."""
        sent_at = []
        for offset, transaction in enumerate(transactions):
            if self.block_time_s is not None:
                # At a random moment between two blocks, as callers come.
                await asyncio.sleep(random.uniform(0, self.block_time_s))
            sent_at.append(time.perf_counter())
            await self.caller.send([transaction])
            await self.observer.wait_answers(first + offset, 1)
        return sent_at


def _gas(job: Job) -> int:
    return _SUBMIT_GAS + 50 * len(job.inputs)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
