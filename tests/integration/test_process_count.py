"""What slips through where processes are counted by looking instead of by the kernel."""

import pytest

from sandbox.backends.backend import StageOrder
from sandbox.backends.slot import SlotBackend
from sandbox.result import LimitKind
from tests.support.sandboxes import SMALL, host_python

pytestmark = pytest.mark.root

TASKS_MAX = 64
# Forks until it is refused, then says how many it has and how long they have lived, until it is killed.
FORKS = """
import os, time
began, count = time.monotonic(), 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(600)
        count += 1
except OSError:
    pass
while True:
    os.write(1, b"%d %f\\n" % (count, time.monotonic() - began))
    time.sleep(0.001)
"""
LONGEST_S = 1.0
"""Generous, for a machine that does other things; the decision record holds what a quiet one shows."""


async def test_processes_over_the_limit_live_until_the_next_look() -> None:
    """Up to the cap of tasks can exist, for as long as the watch does not look; then the stage is killed."""
    backend = SlotBackend()
    try:
        sandbox = await backend.open(host_python(), SMALL, "count")
        try:
            outcome = await sandbox.run(
                StageOrder(
                    name="run",
                    argv=("/usr/bin/python3", "-S", "-c", FORKS),
                    env={},
                    limits=SMALL,
                    tasks_max=TASKS_MAX,
                )
            )
        finally:
            await sandbox.destroy()
    finally:
        await backend.aclose()
    lines = outcome.stdout.data.split(b"\n")[:-1]
    assert outcome.killed_for == LimitKind.PROCESSES
    assert not lines or int(lines[-1].split()[0]) < TASKS_MAX
    assert not lines or float(lines[-1].split()[1]) < LONGEST_S
