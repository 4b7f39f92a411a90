"""Work on a sandbox's files in a thread keeps no descriptor, however it ends."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from sandbox.sandbox import _with_folder


class Box:
    """A folder that stands for a sandbox's file system."""

    owner_uid = None

    def __init__(self, folder: Path) -> None:
        (folder / "work").mkdir()
        self.files_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def open_descriptors() -> set[str]:
    return {f"{path.name} {os.path.realpath(path)}" for path in Path("/proc/self/fd").iterdir()}


async def test_work_that_is_cancelled_before_a_thread_is_free_leaves_no_descriptor(tmp_path: Path) -> None:
    """With every thread busy, a cancelled caller's descriptor is closed as soon as one is free."""
    loop, box, blocked = asyncio.get_running_loop(), Box(tmp_path), threading.Event()
    busy = [loop.run_in_executor(None, blocked.wait) for _ in range(min(32, (os.cpu_count() or 1) + 4))]
    before = {entry for entry in open_descriptors() if str(tmp_path) in entry}
    task = asyncio.create_task(_with_folder(box, lambda _: None))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    blocked.set()
    await asyncio.gather(*busy)
    await loop.run_in_executor(None, lambda: None)
    await loop.shutdown_default_executor()
    after = {entry for entry in open_descriptors() if str(tmp_path) in entry}
    os.close(box.files_fd)
    assert after == before


async def test_work_that_fails_leaves_no_descriptor(tmp_path: Path) -> None:
    """An error of the work is passed on, and its descriptor is closed."""
    box, before = Box(tmp_path), open_descriptors()

    def fail(_folder_fd: int) -> None:
        raise PermissionError(1, "no")

    with pytest.raises(PermissionError):
        await _with_folder(box, fail)  # type: ignore[arg-type]
    assert open_descriptors() == before
    os.close(box.files_fd)
