"""What only version 2 of control groups gives: run in the guest, where the service has a group of its own."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.kernel.grouptree import SERVICE_LEAF, find_group_tree
from sandbox.result import ExecutionStatus, LimitKind
from tests.support.sandboxes import MIB, SMALL, python_request, sandboxes

pytestmark = [pytest.mark.root, pytest.mark.cgroup2]

PROJECT = Path(__file__).resolve().parents[2]
BURN = """
import os, time
def burn():
    while time.process_time() < 0.5: pass
if os.fork() == 0: burn(); os._exit(0)
os.wait(); burn()
print(sum(os.times()[:4]))
"""
FORK = """
import os, time
try:
    for _ in range(20):
        if os.fork() == 0: time.sleep(0.5); os._exit(0)
except OSError: print('refused')
"""
ALLOCATE = "kept = bytearray({mib} << 20)\nfor at in range(0, len(kept), 4096): kept[at] = 1\n"


async def test_service_moves_into_a_leaf_so_that_its_group_can_hand_down() -> None:
    """Groups are made below the service's own place, out of which its processes have moved."""
    async with sandboxes():
        own = (await asyncio.to_thread(Path("/proc/self/cgroup").read_text)).strip()
        groups = find_group_tree()
    assert groups.version == 2
    assert own.endswith(f"/{SERVICE_LEAF}")


async def test_memory_peak_is_the_kernels_own() -> None:
    """A program of a known size is reported with it, although it lived for less than a look of the watch."""
    async with sandboxes() as executor:
        result = await executor.execute(python_request(ALLOCATE.format(mib=40)))
    peak = result.process_stats.memory_peak_bytes
    assert result.status == ExecutionStatus.SUCCESS
    assert peak is not None
    assert 40 * MIB < peak < 60 * MIB


async def test_whole_group_dies_when_memory_runs_out() -> None:
    """With ``memory.oom.group`` the parent of a greedy child dies too, and the status says why."""
    code = "import os\nif os.fork() == 0: bytearray(200 << 20)\nos.wait()\nprint('parent')"
    async with sandboxes() as executor:
        result = await executor.execute(python_request(code))
    assert (result.status, result.stdout.data) == (ExecutionStatus.MEMORY_LIMIT, b"")
    assert result.limits_hit == LimitKind.MEMORY


async def test_files_and_memory_are_told_apart() -> None:
    """Pages of the writable file system are memory too, and shown as file pages."""
    code = "open('f', 'wb').write(bytes(3 << 20))\nheld = b'x' * (8 << 20)\nimport time; time.sleep(3)"
    async with sandboxes() as executor:
        result = await executor.execute(python_request(code))
    # The figure is of the moment with the most memory; the kernel brings it up to date every two seconds.
    assert (result.process_stats.memory_file_bytes or 0) > 2 * MIB


async def test_cpu_time_is_that_of_the_program() -> None:
    """What the group counts is what the program counted itself, children included."""
    async with sandboxes() as executor:
        result = await executor.execute(python_request(BURN))
    stats = result.process_stats
    assert stats.user_time_s + stats.system_time_s == pytest.approx(float(result.stdout.data), rel=0.1)


async def test_refused_fork_is_counted_as_the_limit() -> None:
    """``pids.max`` refuses, ``pids.peak`` tells how many there were."""
    async with sandboxes(replace(SMALL, processes=4)) as executor:
        result = await executor.execute(python_request(FORK))
    assert result.stdout.data == b"refused\n"
    assert LimitKind.PROCESSES in result.limits_hit
    assert result.process_stats.processes_peak == 4


CHECK = """
import asyncio
from sandbox.check import check
print(*[f"{f.name}: {f.detail}" for f in asyncio.run(check()) if f.level != "ok"], sep="\\n")
"""


def test_every_mechanism_is_found_there() -> None:
    """The self-check has nothing to complain about."""
    ran = subprocess.run(
        [sys.executable, "-c", CHECK], cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.stdout.strip(), ran.stderr) == ("", "")
