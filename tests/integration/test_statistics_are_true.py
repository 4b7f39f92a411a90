"""Statistics of programs whose cost is known: within a tenth of the truth, per stage, also when killed."""

import pytest

from sandbox.backends.slot import SlotBackend
from sandbox.bounds import StageBounds
from sandbox.executor import CodeExecutor
from sandbox.request import ExecutionRequest, Limits, SourceFile
from sandbox.result import ExecutionResult, ExecutionStatus, StageStats
from sandbox.rootfs import find_tree
from tests.conftest import state_dir
from tests.support.sandboxes import MIB, run_python

pytestmark = pytest.mark.root

ROOMY = Limits(
    wall_time_s=60.0, cpu_time_s=20.0, memory_bytes=256 * MIB, disk_bytes=100 * MIB, file_size_bytes=64 * MIB
)
PAGE = 4096
HOLDS = "import time\ntime.sleep(0.4)\n"


def run_stage(result: ExecutionResult) -> StageStats:
    """Return the figures of the run stage; the program must have succeeded."""
    assert (result.status, result.error_message) == (ExecutionStatus.SUCCESS, "")
    return result.process_stats.stages[-1]


def number(value: int | None) -> int:
    """Return a figure that this back end must be able to tell."""
    assert value is not None
    return value


async def idle() -> StageStats:
    """Return what the interpreter alone costs: the same program without its cost."""
    return run_stage(await run_python(HOLDS, ROOMY))


async def test_anonymous_memory_is_that_of_the_program() -> None:
    """100 MiB written to: they show as anonymous memory and in the peak, and not as files."""
    bare = await idle()
    code = f"b = bytearray({100 * MIB})\nfor n in range(0, len(b), {PAGE}): b[n] = 1\n{HOLDS}"
    stats = run_stage(await run_python(code, ROOMY))
    added = number(stats.memory_anonymous_bytes) - number(bare.memory_anonymous_bytes)
    assert added == pytest.approx(100 * MIB, rel=0.1)
    assert number(stats.memory_peak_bytes) - number(bare.memory_peak_bytes) == pytest.approx(
        100 * MIB, rel=0.1
    )
    assert abs(number(stats.memory_file_bytes) - number(bare.memory_file_bytes)) < 10 * MIB


async def test_files_are_memory_of_their_own_kind_and_disk() -> None:
    """60 MiB written to a file show as file memory, in the peak and on the disk, and not as anonymous."""
    bare = await idle()
    code = f"f = open('/work/f', 'wb')\nfor _ in range(60): f.write(bytes({MIB}))\nf.flush()\n{HOLDS}"
    result = await run_python(code, ROOMY)
    stats = run_stage(result)
    for name in ("memory_file_bytes", "memory_peak_bytes"):
        added = number(getattr(stats, name)) - number(getattr(bare, name))
        assert added == pytest.approx(60 * MIB, rel=0.1), name
    assert abs(number(stats.memory_anonymous_bytes) - number(bare.memory_anonymous_bytes)) < 6 * MIB
    assert number(result.process_stats.disk_bytes) == pytest.approx(60 * MIB, rel=0.01)


async def test_disk_and_inodes_are_those_of_what_was_left() -> None:
    """A file for each of 50 pages in five folders, and the program itself."""
    code = (
        "import os\nfor d in range(5):\n  os.mkdir(f'/work/{d}')\n"
        f"  for n in range(10): open(f'/work/{{d}}/{{n}}', 'wb').write(bytes({PAGE}))\n"
    )
    stats = (await run_python(code, ROOMY)).process_stats
    assert (stats.inodes, stats.disk_bytes) == (50 + 5 + 1, (50 + 1) * PAGE)


async def test_user_time_is_that_of_the_program() -> None:
    """A program that computes for a second of CPU time, by its own precise clock."""
    code = (
        "import time\nwhile time.process_time() < 1.0:\n  for _ in range(10000): pass\n"
        "print(time.process_time())"
    )
    result = await run_python(code, ROOMY)
    stats = run_stage(result)
    used_s = stats.user_time_s + stats.system_time_s
    assert used_s == pytest.approx(float(result.stdout.data), rel=0.1)
    assert stats.user_time_s > 0.8 * used_s  # the kernel splits the sum by what it saw at its ticks


async def test_system_time_is_that_of_the_program() -> None:
    """A program for which the kernel works for a second of CPU time."""
    code = (
        "import os, time\nf = os.open('/dev/zero', os.O_RDONLY)\nb = bytearray(1 << 20)\n"
        "while time.process_time() < 1.0:\n  for _ in range(20): os.readv(f, [b])\n"
        "print(time.process_time())"
    )
    result = await run_python(code, ROOMY)
    stats = run_stage(result)
    used_s = stats.user_time_s + stats.system_time_s
    assert used_s == pytest.approx(float(result.stdout.data), rel=0.1)
    assert stats.system_time_s > 0.8 * used_s


async def test_time_of_children_that_are_gone_counts() -> None:
    """Ten children of a tenth of a second each, one after the other, and what making them cost."""
    code = (
        "import os, resource, time\nfor _ in range(10):\n"
        "  if os.fork() == 0:\n    while time.process_time() < 0.1: pass\n    os._exit(0)\n  os.wait()\n"
        "both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]\n"
        "print(sum(each.ru_utime + each.ru_stime for each in both))\n"
    )
    result = await run_python(code, ROOMY)
    stats = run_stage(result)
    assert stats.user_time_s + stats.system_time_s == pytest.approx(float(result.stdout.data), rel=0.1)
    assert float(result.stdout.data) > 1.0


async def test_peak_of_processes_is_exact() -> None:
    """Five at once, seven in all: the peak is five."""
    code = (
        "import os, time\nfor _ in range(2):\n  if os.fork() == 0: os._exit(0)\n  os.wait()\n"
        f"for _ in range(4):\n  if os.fork() == 0: time.sleep(0.4); os._exit(0)\n{HOLDS}"
    )
    assert run_stage(await run_python(code, ROOMY)).processes_peak == 5


async def test_page_faults_are_counted() -> None:
    """10 000 pages touched one by one in a mapping that may not use large pages are as many minor faults."""
    bare = await idle()
    code = (
        f"import mmap\nm = mmap.mmap(-1, 10_000 * {PAGE})\nm.madvise(mmap.MADV_NOHUGEPAGE)\n"
        f"for n in range(10_000): m[n * {PAGE}] = 1\n{HOLDS}"
    )
    stats = run_stage(await run_python(code, ROOMY))
    assert number(stats.page_faults_minor) - number(bare.page_faults_minor) == pytest.approx(10_000, rel=0.1)
    assert number(stats.page_faults_major) >= 0


async def test_context_switches_are_counted() -> None:
    """A program that sleeps a thousand times gives the CPU away at least as often."""
    code = "import time\nfor _ in range(1000): time.sleep(0.0001)"
    stats = run_stage(await run_python(code, ROOMY))
    assert 1000 <= number(stats.context_switches_voluntary) <= 1100
    assert number(stats.context_switches_involuntary) >= 0


async def test_output_bytes_are_exact() -> None:
    """Every byte is counted, kept or not."""
    code = f"import sys\nsys.stdout.write('a' * {3 * MIB})\nsys.stderr.write('b' * 12345)"
    result = await run_python(code, ROOMY)
    assert (result.stdout.size_bytes, result.stderr.size_bytes) == (3 * MIB, 12345)
    assert (len(result.stdout.data), result.stdout.is_truncated) == (ROOMY.output_bytes, True)


async def test_out_of_memory_is_counted() -> None:
    """A program that was killed for its memory had used what it may have."""
    result = await run_python("b = bytearray(500 << 20)\nfor n in range(0, len(b), 4096): b[n] = 1", ROOMY)
    stats = result.process_stats
    assert (result.status, stats.oom_kills) == (ExecutionStatus.MEMORY_LIMIT, 1)
    assert number(stats.memory_peak_bytes) == pytest.approx(ROOMY.memory_bytes, rel=0.02)
    assert number(stats.memory_anonymous_bytes) > 0


KILLED = {
    ExecutionStatus.TIMEOUT: ("while True: time.sleep(0.001)", {"wall_time_s": 1.5}),
    ExecutionStatus.CPU_LIMIT: (
        "while True:\n  for _ in range(100_000): pass\n  print(time.process_time(), flush=True)",
        {"cpu_time_s": 1.0},
    ),
}


@pytest.mark.parametrize("status", KILLED)
async def test_killed_program_is_counted_too(status: ExecutionStatus) -> None:
    """Memory, time, faults and context switches are told, those of children that were killed with it too."""
    code, bounds = KILLED[status]
    start = (
        "import os, sys, time\nif os.fork() == 0:\n  for _ in range(500): time.sleep(0.0001)\n"
        f"  time.sleep(60)\nb = bytearray({40 * MIB})\nfor n in range(0, len(b), {PAGE}): b[n] = 1\n"
        "time.sleep(0.4)\n"
    )
    limits = Limits(**{**{name: getattr(ROOMY, name) for name in ROOMY.__slots__}, **bounds})
    result = await run_python(start + code, limits)
    stats = result.process_stats
    assert (result.status, result.exit_code) == (status, None)
    assert 40 * MIB < number(stats.memory_anonymous_bytes) < 80 * MIB
    assert number(stats.page_faults_minor) > 1000
    assert number(stats.context_switches_voluntary) >= 500
    assert number(stats.context_switches_involuntary) >= 0
    if status == ExecutionStatus.CPU_LIMIT:
        said_s = float(result.stdout.data.splitlines()[-1])
        assert stats.user_time_s + stats.system_time_s == pytest.approx(said_s, rel=0.1)
    if status == ExecutionStatus.TIMEOUT:
        assert 1.5 <= stats.wall_time_s < 3.0


CPP = """
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cstdio>
static double used() {
  rusage all; getrusage(RUSAGE_SELF, &all);
  return all.ru_utime.tv_sec + all.ru_utime.tv_usec / 1e6 + all.ru_stime.tv_sec + all.ru_stime.tv_usec / 1e6;
}
int main() {
  size_t size = 100u << 20;
  char *held = (char *)mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  madvise(held, size, MADV_NOHUGEPAGE);
  for (size_t at = 0; at < size; at += 4096) held[at] = 1;
  FILE *file = fopen("/work/out", "w");
  for (int n = 0; n < 20 << 20; n++) fputc('x', file);
  fflush(file);
  for (int n = 0; n < 1000; n++) usleep(10);
  while (used() < 1.0) {}
  usleep(200000);
}
"""


@pytest.mark.tree
async def test_compiled_program_is_told_apart_from_its_compiler() -> None:
    """Memory, files, time, faults and switches of the run are the program's, not the compiler's."""
    tree = find_tree(state_dir(), ["cpp"])
    assert tree is not None
    executor = CodeExecutor([tree], SlotBackend(), bounds=StageBounds(run=ROOMY))
    try:
        request = ExecutionRequest(language="cpp", files=[SourceFile(path="main.cpp", content=CPP.encode())])
        result = await executor.execute(request)
    finally:
        await executor.aclose()
    run = run_stage(result)
    (compiling, _) = result.process_stats.stages
    assert number(run.memory_anonymous_bytes) == pytest.approx(100 * MIB, rel=0.1)
    assert number(run.memory_file_bytes) == pytest.approx(20 * MIB, rel=0.1)
    assert number(run.memory_peak_bytes) == pytest.approx(120 * MIB, rel=0.1)
    assert run.user_time_s + run.system_time_s == pytest.approx(1.0, rel=0.1)
    assert number(run.page_faults_minor) == pytest.approx(100 * MIB / PAGE, rel=0.1)
    assert 1000 <= number(run.context_switches_voluntary) <= 1100
    assert run.processes_peak == 1
    assert (compiling.name, compiling.exit_code) == ("compile", 0)
    assert number(compiling.processes_peak) > 1  # the driver, the compiler, the assembler
    whole = result.process_stats
    for name in ("user_time_s", "system_time_s", "wall_time_s", "page_faults_minor"):
        assert getattr(whole, name) == pytest.approx(getattr(run, name) + getattr(compiling, name)), name
