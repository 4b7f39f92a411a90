"""Many requests at once in real sandboxes: nothing swaps, nothing starves, nothing stays behind."""

import asyncio
import time
from collections.abc import Callable, Sequence

import psutil
import pytest

from sandbox.backends.backend import Backend, BoxUsage, Mount, OnSample, Sandbox, StageOrder, StageOutcome
from sandbox.capacity import Capacity
from sandbox.errors import BusyError
from sandbox.executor import OWN_MEMORY_BYTES, CodeExecutor
from sandbox.languages import Plan, Stage
from sandbox.languages.language import Provision
from sandbox.request import ExecutionRequest, Limits
from sandbox.result import ExecutionStatus, Guarantees
from sandbox.tree import LanguageTree
from tests.support.sandboxes import SMALL, python_request, sandboxes

pytestmark = pytest.mark.root

BUSY_IN_EIGHT_SESSIONS = """
import os, time
for _ in range(7):
    if os.fork() == 0:
        os.setsid()
        break
print('busy', flush=True)
end = time.monotonic() + 4
while time.monotonic() < end: pass
"""
USES_ONE_CPU_SECOND = """
import time
began = time.monotonic()
while time.process_time() < 1.0: pass
print(time.monotonic() - began)
"""


async def test_many_busy_processes_get_no_more_than_a_neighbours_one() -> None:
    """A program of eight busy processes, each in a session of its own, leaves its neighbour its share."""
    async with sandboxes() as executor, asyncio.TaskGroup() as group:
        hog = group.create_task(executor.execute(python_request(BUSY_IN_EIGHT_SESSIONS)))
        await asyncio.sleep(0.5)
        neighbour = await executor.execute(python_request(USES_ONE_CPU_SECOND))
        stats = (await hog).process_stats
    assert neighbour.status == ExecutionStatus.SUCCESS
    # Over the same time both weigh the same; without groups, eight processes would get eight times as much.
    rate_of_hog = (stats.user_time_s + stats.system_time_s) / stats.wall_time_s
    rate_of_neighbour = 1.0 / float(neighbour.stdout.data)
    assert rate_of_hog < 3 * rate_of_neighbour


MIXED = (
    ("print('hello')", ExecutionStatus.SUCCESS),
    ("sum(range(2_000_000))", ExecutionStatus.SUCCESS),
    ("import time; time.sleep(0.3)", ExecutionStatus.SUCCESS),
    ("b = bytearray(60 << 20); b[::4096] = b'x' * len(b[::4096])", ExecutionStatus.SUCCESS),
    ("b = bytearray(500 << 20); b[::4096] = b'x' * len(b[::4096])", ExecutionStatus.MEMORY_LIMIT),
    ("open('/work/f', 'wb').write(bytes(3 << 20))", ExecutionStatus.SUCCESS),
    ("import os\nfor _ in range(4):\n  if os.fork() == 0: os._exit(0)", ExecutionStatus.SUCCESS),
    ("print('x' * 1_000_000)", ExecutionStatus.SUCCESS),
    ("raise SystemExit(3)", ExecutionStatus.NONZERO_EXIT),
    ("import sys; print(sys.stdin.read())", ExecutionStatus.SUCCESS),
)
CALLERS = ["flood"] * 70 + ["one"] * 10 + ["two"] * 10 + ["three"] * 10
PLACES = 4
TIMEOUT_S = 3.0


async def test_hundred_requests_at_once_of_every_kind() -> None:
    """None fails for having waited, memory stays within the capacity, and few do not wait behind many."""
    place_bytes = SMALL.memory_bytes + OWN_MEMORY_BYTES
    capacity = Capacity(memory_bytes=PLACES * place_bytes + place_bytes // 2, cpus=64.0)
    ends: list[tuple[str, float]] = []
    most_bytes = 0

    async def one(executor: CodeExecutor, number: int) -> None:
        code, status = MIXED[number % len(MIXED)]
        request = python_request(code, stdin=b"in", timeout_s=TIMEOUT_S, caller=CALLERS[number])
        result = await executor.execute(request, lambda _sample: look(executor))
        assert (number, result.status, result.error_message if result.status != status else "") == (
            number, status, "",
        )  # fmt: skip
        ends.append((CALLERS[number], time.monotonic() - began_s))

    def look(executor: CodeExecutor) -> None:
        nonlocal most_bytes
        load = executor.scheduler.load
        assert load.running <= PLACES
        most_bytes = max(most_bytes, load.reserved.memory_bytes)

    swapped = psutil.swap_memory().sout
    began_s = time.monotonic()
    async with sandboxes(capacity=capacity, max_concurrent=None) as executor:
        async with asyncio.TaskGroup() as group:
            for number in range(len(CALLERS)):
                group.create_task(one(executor, number))
        assert executor.scheduler.load.reserved.memory_bytes == 0
    assert psutil.swap_memory().sout == swapped
    assert most_bytes == PLACES * place_bytes
    assert ends[-1][1] > TIMEOUT_S, "waiting took no longer than the timeout: this proves nothing"
    # Of four callers in turn, the thirty of the small ones are through after forty, or a few more.
    last_of_few = max(place for place, (caller, _) in enumerate(ends) if caller != "flood")
    assert last_of_few < 4 * 10 + 2 * PLACES


class Noticing:
    """A back end whose sandboxes say what happens to them: the name of the phase, when it begins."""

    def __init__(self, inner: Backend, notice: Callable[[str], None]) -> None:
        self.name = inner.name
        self.inner = inner
        self.notice = notice

    def guarantees(self) -> Guarantees:
        return self.inner.guarantees()

    async def open(
        self, tree: LanguageTree, limits: Limits, sandbox_id: str, mounts: Sequence[Mount] = ()
    ) -> "NoticedSandbox":
        self.notice("opening")
        return NoticedSandbox(await self.inner.open(tree, limits, sandbox_id, mounts), self.notice)

    async def aclose(self) -> None:
        await self.inner.aclose()


class NoticedSandbox:
    """One sandbox of a `Noticing` back end."""

    def __init__(self, inner: Sandbox, notice: Callable[[str], None]) -> None:
        self.inner = inner
        self.notice = notice
        notice("filling")

    @property
    def files_fd(self) -> int:
        return self.inner.files_fd

    @property
    def owner_uid(self) -> int | None:
        return self.inner.owner_uid

    async def run(self, order: StageOrder, on_sample: OnSample | None = None) -> StageOutcome:
        self.notice(order.name)
        outcome = await self.inner.run(order, on_sample)
        self.notice("collecting" if order.name == "run" else "between")
        return outcome

    def usage(self) -> BoxUsage | None:
        return self.inner.usage()

    async def destroy(self) -> None:
        self.notice("destroying")
        await self.inner.destroy()


class Compiled:
    """Python with a stage before it that counts as compiling."""

    name = "python"
    aliases: tuple[str, ...] = ()
    title = "Python"
    default_file = "main.py"

    def plan(self, request: ExecutionRequest, provision: Provision) -> Plan:
        argv = (provision.runtime.programs["run"], "main.py")
        return Plan(stages=(Stage(name="compile", argv=argv, tasks_max=10), Stage(name="run", argv=argv)))


WRITES_MUCH = """
import os, time
os.fork()
os.makedirs('/work/out', exist_ok=True)
for n in range(60): open(f'/work/out/{n}', 'wb').write(bytes(20_000))
time.sleep(0.2)
"""
PHASES = ["waiting", "opening", "filling", "compile", "between", "run", "collecting", "destroying"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("delay_s", [0.0, 0.02])
async def test_cancellation_in_any_phase_leaves_nothing(phase: str, delay_s: float) -> None:
    """Cancelled as a phase begins, or a moment later: the caller hears of it, and no trace is left."""
    begun = asyncio.Event()

    def notice(name: str) -> None:
        if name == phase:
            begun.set()

    options = {"max_concurrent": 1, "languages": {"python": Compiled()}}
    async with sandboxes(wrap=lambda inner: Noticing(inner, notice), **options) as executor:
        async with asyncio.TaskGroup() as group:
            if phase == "waiting":
                group.create_task(executor.execute(python_request("import time; time.sleep(0.2)")))
                await asyncio.sleep(0)
                begun.set()
            task = group.create_task(executor.execute(python_request(WRITES_MUCH, outputs=["out"])))
            async with asyncio.timeout(20):
                await begun.wait()
            await asyncio.sleep(delay_s)
            is_in_time = task.cancel()
        assert task.cancelled() == is_in_time  # the last phases may be over before the cancellation comes
        assert (executor.scheduler.running, executor.scheduler.waiting) == (0, 0)
        after = await executor.execute(python_request("print('next')"))
    assert after.stdout.data == b"next\n"


async def test_drain_lets_end_what_runs_and_refuses_what_waits() -> None:
    """At shutdown two programs finish, three that wait are told to come back, and a newcomer too."""
    async with sandboxes(max_concurrent=2) as executor:
        sleeping = [python_request("import time; time.sleep(0.5); print('done')") for _ in range(5)]
        tasks = [asyncio.create_task(executor.execute(request)) for request in sleeping]
        await asyncio.sleep(0.1)
        assert await executor.scheduler.drain(20) == 0
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends[2:]] == [BusyError] * 3
        assert [end.stdout.data for end in ends[:2] if not isinstance(end, BaseException)] == [b"done\n"] * 2
        with pytest.raises(BusyError, match="being stopped"):
            await executor.execute(python_request("print(1)"))
