"""Live figures of real programs: they grow with the program, and agree with what ps sees on the machine."""

import subprocess

import pytest

from sandbox.live import watched
from sandbox.request import Limits
from sandbox.result import ExecutionStatus, StageSample
from tests.support.sandboxes import MIB, python_request, sandboxes

pytestmark = pytest.mark.root

ROOMY = Limits(memory_bytes=256 * MIB, disk_bytes=64 * MIB, file_size_bytes=32 * MIB, cpu_time_s=20.0)
STEPS = 4
GROWS = f"""
import time
held = []
for n in range({STEPS}):
    block = bytearray({20 * MIB})
    block[::4096] = b'x' * len(block[::4096])
    held.append(block)
    open(f'/work/{{n}}', 'wb').write(bytes({4 * MIB}))
    print('x' * 99, flush=True)
    time.sleep(0.4)
"""
BUSY = f"""
import os, time
block = bytearray({60 * MIB})
block[::4096] = b'x' * len(block[::4096])
for _ in range(2):
    if os.fork() == 0:
        time.sleep(30)
end = time.monotonic() + 2.5
while time.monotonic() < end: pass
"""


def number(value: int | None) -> int:
    assert value is not None
    return value


async def test_figures_grow_with_the_program() -> None:
    """A program that takes memory, disk and output step by step is seen to: in every figure, in order."""
    async with (
        sandboxes(ROOMY) as executor,
        watched(executor, python_request(GROWS)) as live,
    ):
        samples = [sample async for sample in live]
        result = live.result
    assert result.status == ExecutionStatus.SUCCESS
    assert len(samples) >= 10
    for name in ("elapsed_s", "disk_bytes", "stdout_bytes"):
        values = [getattr(sample, name) for sample in samples]
        assert values == sorted(values), name
    used = [sample.user_time_s + sample.system_time_s for sample in samples]
    assert used == pytest.approx(sorted(used))
    steps = {number(sample.memory_anonymous_bytes) // (20 * MIB) for sample in samples}
    assert steps >= set(range(1, STEPS + 1))
    fullest = max(samples, key=lambda sample: number(sample.memory_bytes))  # the last may see it end
    assert number(fullest.memory_file_bytes) == pytest.approx(STEPS * 4 * MIB, rel=0.1)
    assert number(fullest.memory_bytes) == pytest.approx(STEPS * 24 * MIB, rel=0.15)
    last = samples[-1]
    assert (last.stdout_bytes, last.processes) == (STEPS * 100, 1)
    assert last.elapsed_s <= result.process_stats.wall_time_s


def seen_by_ps(uid: int) -> list[tuple[int, float]]:
    """Return resident bytes and CPU seconds of each process of a program, as ps prints them."""
    text = subprocess.run(
        ["ps", "-e", "-o", "uid=,rss=,cputimes="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in text.splitlines()]
    return [(int(rss) * 1024, float(seconds)) for owner, rss, seconds in rows if int(owner) == uid]


@pytest.mark.ps
async def test_figures_agree_with_ps() -> None:
    """Memory, CPU time and number of processes at one moment, from the group and from ps on the machine."""
    compared: list[tuple[StageSample, list[tuple[int, float]]]] = []
    async with sandboxes(ROOMY) as executor, watched(executor, python_request(BUSY)) as live:
        async for sample in live:
            if sample.elapsed_s > 1.5:
                uid = next(iter(executor._backend._open)).owner_uid  # type: ignore[attr-defined]
                compared.append((sample, seen_by_ps(uid)))
        result = live.result
    assert result.status == ExecutionStatus.SUCCESS
    sample, rows = compared[len(compared) // 2]
    assert (sample.processes, len(rows)) == (3, 3)
    # ps counts a page that three processes share three times: of the program's own it sees the largest.
    largest = max(resident for resident, _ in rows)
    assert number(sample.memory_anonymous_bytes) == pytest.approx(largest, rel=0.15)
    assert sum(resident for resident, _ in rows) > 1.5 * number(sample.memory_anonymous_bytes)
    used_s = sample.user_time_s + sample.system_time_s
    assert used_s == pytest.approx(sum(seconds for _, seconds in rows), abs=1.2)  # ps gives whole seconds
