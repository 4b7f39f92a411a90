"""Many requests at once in real sandboxes: nothing swaps, nothing starves, nothing stays behind."""

import asyncio

import pytest

from sandbox.result import ExecutionStatus
from tests.support.sandboxes import python_request, sandboxes

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
