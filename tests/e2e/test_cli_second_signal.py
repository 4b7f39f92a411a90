"""The second signal ends a process at once, whatever it still does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
STUBBORN = """
import asyncio
import logging
import structlog
from blueprint.cli.signals import StopSignals
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

async def main():
    async with StopSignals() as stop:
        print("ready", flush=True)
        await stop.requested.wait()
        print("stopping", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def test_second_signal_ends_at_once_with_130(tmp_path: Path) -> None:
    """After the first SIGTERM the process takes its time; the second one ends it there and then."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        for said in ("ready", "stopping"):
            assert process.stdout.readline().strip() == said
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 130
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
