"""What stages share with each other, and sandboxes with each other, gives nobody more than its own."""

import asyncio
import ctypes
import mmap
import os
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.backends.backend import StageOrder
from sandbox.backends.slot import SlotBackend
from sandbox.bounds import StageBounds
from sandbox.egress.registry import RegistryKind
from sandbox.executor import CodeExecutor
from sandbox.request import ExecutionRequest, Limits, SourceFile
from sandbox.rootfs import find_tree
from tests.conftest import state_dir
from tests.support.installing import depending, installing
from tests.support.registries import PackageSite
from tests.support.sandboxes import MIB, SMALL, host_python, python_request

pytestmark = pytest.mark.root

EAT = "kept=[]\nwhile True:\n  kept.append(bytearray(1<<20)); print(len(kept), flush=True)"


async def test_files_of_a_stage_count_against_the_memory_of_the_next() -> None:
    """Memory and files together stay under the memory limit, whichever stage wrote the files."""
    limits = replace(SMALL, memory_bytes=64 * MIB, disk_bytes=40 * MIB, file_size_bytes=40 * MIB)
    backend = SlotBackend()
    sandbox = await backend.open(host_python(), limits, "memory-gap")
    programs = {"compile": "open('/work/f','wb').write(bytes(32 << 20))", "run": EAT}
    try:
        outcomes = {
            name: await sandbox.run(
                StageOrder(
                    name=name,
                    argv=("/usr/bin/python3", "-c", code),
                    env={},
                    limits=limits,
                    tasks_max=10,
                    counts_processes_exactly=True,
                )
            )
            for name, code in programs.items()
        }
    finally:
        await sandbox.destroy()
        await backend.aclose()
    assert outcomes["compile"].exit_code == 0
    assert outcomes["run"].usage.oom_kills > 0
    assert 8 < int(outcomes["run"].stdout.data.split()[-1]) <= 32


FORGET = """
import os
file = os.open('/usr/lib/os-release', os.O_RDONLY)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
os.sync()
print('done')
"""


def is_in_memory(path: Path) -> bool:
    """Say whether the kernel holds the first page of a file (mincore(2)), without reading it."""
    seen = ctypes.create_string_buffer(1)
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_PRIVATE) as pages,
    ):
        address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(1), seen) == 0
    return seen.raw[0] & 1 == 1


@pytest.mark.tree
async def test_files_that_all_share_stay_in_memory() -> None:
    """A program cannot make the kernel forget the pages of the tree; who may change the file can."""
    tree = find_tree(state_dir())
    assert tree is not None
    path = (tree.path / "usr/lib/os-release").resolve()
    path.read_bytes()
    executor = CodeExecutor([tree], SlotBackend(), max_concurrent=1)
    try:
        result = await executor.execute(python_request(FORGET))
    finally:
        await executor.aclose()
    assert result.stdout.data == b"done\n"
    assert is_in_memory(path)
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert not is_in_memory(path)


LOCK_LAYER = """package main

import (
	"os"
	"path/filepath"
	"syscall"
	"time"

	_ "example.test/hello"
)

func main() {
	var held []*os.File
	filepath.Walk("/deps", func(path string, _ os.FileInfo, _ error) error {
		if file, err := os.Open(path); err == nil {
			held = append(held, file)
			syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
		}
		return nil
	})
	println(len(held))
	time.Sleep(40 * time.Second)
	for _, file := range held {
		file.Close()
	}
}
"""
USE_LAYER = 'package main\n\nimport "example.test/hello"\n\nfunc main() { print(hello.V) }\n'
WANTED = ("example.test/hello", "")


@pytest.mark.tree
async def test_lock_on_a_file_of_a_layer_stops_nobody_else(tmp_path: Path) -> None:
    """A program that locks everything in the layer of its modules holds up no other that has them."""
    up = asyncio.Event()
    async with PackageSite() as site, installing(tmp_path, site.registry(RegistryKind.GO)) as executor:
        site.add_go("example.test/hello", "v1.0.0", {"hello.go": 'package hello\n\nconst V = "there"\n'})
        locker = asyncio.ensure_future(
            executor.execute(
                depending("go", LOCK_LAYER, WANTED),
                lambda sample: up.set() if sample.stage == "run" and sample.stderr_bytes else None,
            )
        )
        await asyncio.wait_for(up.wait(), 60)
        victim = await executor.execute(depending("go", USE_LAYER, WANTED))
        has_ended = locker.done()
        locker.cancel()
        await asyncio.gather(locker, return_exceptions=True)
    assert victim.stderr.data == b"there", victim.error_message
    assert not has_ended


LOCK_ALL = """
import fcntl, os, time
held = []
for folder, _, names in os.walk('/usr/lib/go-cache'):
    for name in names[:200 - len(held)]:
        held.append(os.open(os.path.join(folder, name), os.O_RDONLY)); fcntl.flock(held[-1], fcntl.LOCK_EX)
print(len(held), flush=True)
time.sleep(20)
"""


@pytest.mark.tree
async def test_lock_on_a_file_of_the_tree_stops_nobody_else() -> None:
    """A program that locks the files of Go's cache for 20 seconds does not hold up another's compilation."""
    tree = find_tree(state_dir())
    assert tree is not None
    executor = CodeExecutor(
        [tree], SlotBackend(), bounds=StageBounds(run=Limits(wall_time_s=60.0)), max_concurrent=2
    )
    module = [
        SourceFile(path="go.mod", content=b"module x\n\ngo 1.21\n"),
        SourceFile(path="main.go", content=b"//go:build linux\n\npackage main\n\nfunc main() { print(7) }\n"),
    ]
    try:
        locker = asyncio.ensure_future(executor.execute(python_request(LOCK_ALL)))
        await asyncio.sleep(1)
        victim = await executor.execute(ExecutionRequest(language="go", files=module, entry_point="main.go"))
        has_ended = locker.done()
        locker.cancel()
        await asyncio.gather(locker, return_exceptions=True)
    finally:
        await executor.aclose()
    assert (victim.stderr.data, has_ended) == (b"7", False), victim.error_message
