"""What the machine can hold, from the control groups around the service."""

from pathlib import Path

import psutil
import pytest

from sandbox.capacity import Capacity, measure_capacity

MIB = 1024 * 1024


def groups(root: Path, files: dict[str, str], *, version: int) -> Path:
    """Lay down a process's view and the control files of its groups; returns what stands for /proc/self."""
    own = "/outer/inner"
    mounts = {1: ("memory", "cpu"), 2: ("unified",)}[version]
    lines = []
    for name in mounts:
        kind = "cgroup2 cgroup2 rw" if version == 2 else f"cgroup cgroup rw,{name}"
        lines.append(f"31 23 0:28 / {root / name} rw - {kind}")
        for folder in ("", "outer", "outer/inner"):
            (root / name / folder).mkdir(parents=True, exist_ok=True)
            (root / name / folder / "cgroup.procs").touch()
    for path, text in files.items():
        (root / path).write_text(text + "\n")
    proc = root / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text("".join(f"1:{'' if n == 'unified' else n}:{own}\n" for n in mounts))
    (proc / "mountinfo").write_text("\n".join(lines) + "\n")
    return proc


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with eight CPUs and 64 GiB to spare."""
    memory = psutil.virtual_memory()._replace(available=65536 * MIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))


def measured(proc: Path) -> Capacity:
    return measure_capacity(memory_reserve_bytes=100 * MIB, executions_per_cpu=2.0, proc=proc)


def test_machine_without_bounds_gives_what_it_has(tmp_path: Path) -> None:
    """Available memory without the reserve, and each CPU as often as configured."""
    proc = groups(
        tmp_path,
        {"memory/outer/memory.limit_in_bytes": str(2**63 - 4096), "cpu/outer/cpu.cfs_quota_us": "-1"},
        version=1,
    )
    assert measured(proc) == Capacity(memory_bytes=(65536 - 100) * MIB, cpus=16.0)


def test_bound_of_a_group_around_the_service_counts_version_1(tmp_path: Path) -> None:
    """The tightest bound of all groups upwards, less what is in use there and cannot be dropped."""
    proc = groups(
        tmp_path,
        {
            "memory/outer/memory.limit_in_bytes": str(2000 * MIB),
            "memory/outer/memory.usage_in_bytes": str(900 * MIB),
            "memory/outer/memory.stat": f"cache 5\ntotal_inactive_file {400 * MIB}",
            "memory/outer/inner/memory.limit_in_bytes": str(4000 * MIB),
            "cpu/outer/inner/cpu.cfs_quota_us": "150000",
            "cpu/outer/inner/cpu.cfs_period_us": "100000",
        },
        version=1,
    )
    assert measured(proc) == Capacity(memory_bytes=(2000 - 500 - 100) * MIB, cpus=3.0)


def test_bound_of_a_group_around_the_service_counts_version_2(tmp_path: Path) -> None:
    """The same on version 2, where one folder holds every controller."""
    proc = groups(
        tmp_path,
        {
            "unified/outer/memory.max": "max",
            "unified/outer/cpu.max": "50000 100000",
            "unified/outer/inner/memory.max": str(1000 * MIB),
            "unified/outer/inner/memory.current": str(300 * MIB),
            "unified/outer/inner/memory.stat": f"anon 7\ninactive_file {100 * MIB}",
            "unified/outer/inner/cpu.max": "max 100000",
        },
        version=2,
    )
    assert measured(proc) == Capacity(memory_bytes=(1000 - 200 - 100) * MIB, cpus=1.0)


def test_small_share_of_a_cpu_holds_one_execution(tmp_path: Path) -> None:
    """A service that may use a tenth of a CPU executes slowly, not never."""
    proc = groups(
        tmp_path, {"cpu/outer/cpu.cfs_quota_us": "1000", "cpu/outer/cpu.cfs_period_us": "10000"}, version=1
    )
    assert measured(proc).cpus == 1.0


def test_reserve_larger_than_what_is_there_leaves_nothing(tmp_path: Path) -> None:
    """Never less than nothing."""
    proc = groups(tmp_path, {"memory/outer/memory.limit_in_bytes": str(50 * MIB)}, version=1)
    assert measured(proc).memory_bytes == 0
