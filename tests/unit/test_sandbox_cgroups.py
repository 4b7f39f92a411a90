"""Control groups of both versions, over folders of plain files."""

import os
import resource
from collections.abc import Mapping
from pathlib import Path

import pytest

from sandbox.backends.stage_group import bound_memory_and_tasks
from sandbox.errors import SandboxUnavailableError, SystemFailureError
from sandbox.kernel.cgroups import Group
from sandbox.kernel.grouptree import GroupTree, find_group_tree, own_name, start_time

V1 = {
    "memory.max_usage_in_bytes": "5000\n",
    "memory.stat": "cache 1\ntotal_rss 300\ntotal_cache 200\ntotal_pgfault 90\ntotal_pgmajfault 8\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "memory.limit_in_bytes": "",
    "cpuacct.usage": "2500000000\n",
    "cpuacct.usage_user": "1500000000\n",
    "cpuacct.usage_sys": "1000000000\n",
    "pids.events": "max 4\n",
    "pids.peak": "7\n",
    "pids.max": "",
    "cgroup.procs": "11\n12\n",
}
V2 = {
    "memory.peak": "5000\n",
    "memory.stat": "anon 300\nfile 200\npgfault 90\npgmajfault 8\n",
    "memory.events": "low 0\noom 2\noom_kill 2\n",
    "memory.max": "",
    "memory.oom.group": "",
    "memory.swap.max": "",
    "cpu.stat": "usage_usec 2500000\nuser_usec 1500000\nsystem_usec 1000000\n",
    "pids.events": "max 4\n",
    "pids.peak": "7\n",
    "pids.max": "",
    "cgroup.procs": "11\n12\n",
    "cgroup.kill": "",
}


def fill(folder: Path, files: Mapping[str, str]) -> int:
    """Write control files into a folder and open it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def group_of(version: int, folder: Path) -> Group:
    """Return a group of either version over plain files."""
    descriptor = fill(folder, V1 if version == 1 else V2)
    names = ("memory", "pids", "cpuacct") if version == 1 else ("unified",)
    return Group(version, dict.fromkeys(names, descriptor))


@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_tell_the_same_usage(version: int, tmp_path: Path) -> None:
    """The counters of either version are read into the same figures, in bytes and seconds."""
    group = group_of(version, tmp_path)
    usage = group.usage()
    assert (usage.memory_peak_bytes, usage.memory_anonymous_bytes, usage.memory_file_bytes) == (
        5000,
        300,
        200,
    )
    assert (usage.user_time_s, usage.system_time_s, group.cpu_time_s()) == (1.5, 1.0, 2.5)
    assert (usage.page_faults, usage.page_faults_major) == (90, 8)
    assert (usage.oom_kills, usage.refused_tasks, usage.tasks_peak) == (2, 4, 7)
    assert group.processes() == [11, 12]
    group.close()


@pytest.mark.parametrize("version", [1, 2])
def test_counter_that_the_kernel_lacks_is_none(version: int, tmp_path: Path) -> None:
    """A missing peak file is told as None, not as zero."""
    group = group_of(version, tmp_path)
    for name in ("memory.max_usage_in_bytes", "memory.peak", "pids.peak"):
        (tmp_path / name).unlink(missing_ok=True)
    usage = group.usage()
    assert (usage.memory_peak_bytes, usage.tasks_peak) == (None, None)
    group.close()


def test_version_1_limits_go_without_swap_accounting(tmp_path: Path) -> None:
    """Memory and tasks are bounded; a kernel without memsw files is no obstacle."""
    group = group_of(1, tmp_path)
    group.limit(memory_bytes=1000, tasks_max=3)
    assert (tmp_path / "memory.limit_in_bytes").read_text() == "1000"
    assert (tmp_path / "pids.max").read_text() == "3"
    group.close()


def test_version_2_kills_the_group_as_a_whole(tmp_path: Path) -> None:
    """No swap, one OOM kill for all, and cgroup.kill."""
    group = group_of(2, tmp_path)
    group.limit(memory_bytes=1000, tasks_max=3)
    group.kill()
    read = {name: (tmp_path / name).read_text() for name in V2 if name.startswith(("memory", "cgroup.k"))}
    assert (read["memory.max"], read["memory.swap.max"], read["memory.oom.group"]) == ("1000", "0", "1")
    assert read["cgroup.kill"] == "1"
    group.close()


def test_limit_that_cannot_be_set_is_an_error(tmp_path: Path) -> None:
    """A group without the pids controller is not silently unbounded."""
    group = group_of(1, tmp_path)
    (tmp_path / "pids.max").unlink()
    with pytest.raises(FileNotFoundError):
        group.limit(memory_bytes=1000, tasks_max=3)
    group.close()


def fake_proc(tmp_path: Path, cgroup: str, mounts: str) -> Path:
    """Lay down what /proc/self says of groups and mounts."""
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(cgroup)
    (proc / "mountinfo").write_text(mounts)
    return proc


def test_version_2_with_controllers_is_preferred(tmp_path: Path) -> None:
    """Where the unified hierarchy has the controllers, groups are made there, below the service's own."""
    own = tmp_path / "cg/system.slice/node.service"
    fill(own, {"cgroup.controllers": "cpu memory pids\n", "cgroup.subtree_control": "", "cgroup.procs": ""})
    mount = f"30 1 0:26 / {tmp_path}/cg rw - cgroup2 cgroup2 rw\n"
    tree = find_group_tree(fake_proc(tmp_path, "0::/system.slice/node.service\n", mount))
    assert tree.version == 2
    tree.prepare()
    assert (own / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert (own / "tee-job-node").is_dir()


def test_service_that_moved_into_its_leaf_finds_its_home_again(tmp_path: Path) -> None:
    """After a restart inside the leaf, groups are made beside it, not below it."""
    home = tmp_path / "cg/node"
    fill(home, {"cgroup.controllers": "cpu memory pids\n"})
    fill(home / "tee-job-node-service", {"cgroup.controllers": ""})
    mount = f"30 1 0:26 / {tmp_path}/cg rw - cgroup2 cgroup2 rw\n"
    tree = find_group_tree(fake_proc(tmp_path, "0::/node/tee-job-node-service\n", mount))
    assert tree._folders == {"unified": home / "tee-job-node"}


def test_hybrid_machine_uses_version_1(tmp_path: Path) -> None:
    """A unified hierarchy without controllers is passed over; each controller keeps its own path."""
    for name in ("unified", "memory/some/where", "pids", "cpu,cpuacct"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "unified/cgroup.controllers").write_text("\n")
    mounts = "".join(
        f"3{n} 1 0:2{n} / {tmp_path}/{path} rw - {kind} {kind} rw,{options}\n"
        for n, (path, kind, options) in enumerate(
            [
                ("unified", "cgroup2", "x"),
                ("memory", "cgroup", "memory"),
                ("pids", "cgroup", "pids"),
                ("cpu,cpuacct", "cgroup", "cpu,cpuacct"),
            ]
        )
    )
    groups = "0::/\n4:memory:/some/where\n3:pids:/gone\n2:cpu,cpuacct:/\n"
    tree = find_group_tree(fake_proc(tmp_path, groups, mounts), owner="1-2")
    assert (tree.version, tree._folders) == (
        1,
        {
            "cpu": tmp_path / "cpu,cpuacct/tee-job-node",
            "memory": tmp_path / "memory/some/where/tee-job-node",
            "pids": tmp_path / "pids/tee-job-node",
            "cpuacct": tmp_path / "cpu,cpuacct/tee-job-node",
        },
    )
    assert tree.folder_name("x") == "1-2-x"


def test_missing_controller_is_named_with_the_fix(tmp_path: Path) -> None:
    """Without pids there is no sandbox, and the error says what to do."""
    mounts = f"30 1 0:26 / {tmp_path} rw - cgroup cgroup rw,memory\n"
    with pytest.raises(SandboxUnavailableError, match=r"pids, cpuacct.*run as root"):
        find_group_tree(fake_proc(tmp_path, "4:memory:/\n", mounts))


def test_leftovers_of_the_dead_are_removed_and_the_living_kept(tmp_path: Path) -> None:
    """Only groups whose service is known to be dead are swept, not those of another name space."""
    tree = GroupTree(version=1, homes={"memory": tmp_path}, owner=own_name())
    namespace = own_name().split("-")[2]
    for name in (f"999999999-5-{namespace}-x", "999999999-5-1-x", f"{own_name()}-y", "stranger"):
        folder = tmp_path / "tee-job-node" / name
        folder.mkdir(parents=True)
    tree.remove_leftovers()
    left = {path.name for path in (tmp_path / "tee-job-node").iterdir()}
    assert left == {f"{own_name()}-y", "999999999-5-1-x", "stranger"}


def test_group_is_made_again_when_another_service_removed_the_folder(tmp_path: Path) -> None:
    """A second service that closes and removes the empty folder does not stop the first."""
    tree = GroupTree(version=1, homes={"memory": tmp_path}, owner="1-1")
    tree.prepare()
    tree.close()
    assert not (tmp_path / "tee-job-node").exists()
    group = tree.create("a")
    assert (tmp_path / "tee-job-node/1-1-a").is_dir()
    group.close()
    assert tree.remove("a")
    assert tree.remove("a")


def test_start_time_of_nobody_is_none() -> None:
    """A process that does not exist has no start time."""
    assert start_time(999999999) is None
    assert start_time(os.getpid())


@pytest.mark.parametrize(("version", "name", "weight"), [(1, "cpu.shares", 1024), (2, "cpu.weight", 100)])
def test_all_sandboxes_weigh_one_task_on_each_cpu(
    version: int, name: str, weight: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our folder gets its weight when it is made; a folder without the controller is left alone."""
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    for home in ("one", "two"):
        (tmp_path / home).mkdir()
        (tmp_path / home / "cgroup.subtree_control").touch()
    make = Path.mkdir

    def mkdir(path: Path, *arguments: object, **options: object) -> None:
        """Make a folder as the kernel does: with its control files."""
        make(path, *arguments, **options)  # type: ignore[arg-type]
        if path.parent.name == "one":
            (path / name).touch()
        (path / "cgroup.subtree_control").touch()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    GroupTree(version=version, homes={"a": tmp_path / "one", "b": tmp_path / "two"}, owner="1-2").prepare()
    assert (tmp_path / "one/tee-job-node" / name).read_text() == str(4 * weight)
    assert not (tmp_path / "two/tee-job-node" / name).exists()


def test_version_1_times_add_up_to_what_was_used(tmp_path: Path) -> None:
    """What was seen at ticks only says how the exact sum is divided; without a tick it is all the user's."""
    group = group_of(1, tmp_path)
    for name, ticks in (("user", 3_000_000_000), ("sys", 1_000_000_000)):
        (tmp_path / f"cpuacct.usage_{name}").write_text(str(ticks))
    usage = group.usage()
    assert (usage.user_time_s, usage.system_time_s) == (2.5 * 3 / 4, 2.5 / 4)
    for name in ("user", "sys"):
        (tmp_path / f"cpuacct.usage_{name}").write_text("0")
    usage = group.usage()
    assert (usage.user_time_s, usage.system_time_s) == (2.5, 0.0)
    group.close()


def test_bounds_that_cannot_be_set_now_are_told_from_bounds_that_never_can(tmp_path: Path) -> None:
    """A service out of descriptors is told to try again; a machine without the controller, what it lacks."""
    group = group_of(1, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(SystemFailureError, match="try again later"):
            bound_memory_and_tasks(group, memory_bytes=1 << 20, held_bytes=0, tasks_max=10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (tmp_path / "pids.max").unlink()
    with pytest.raises(SandboxUnavailableError, match="the memory and pids controllers are needed"):
        bound_memory_and_tasks(group, memory_bytes=1 << 20, held_bytes=0, tasks_max=10)
    group.close()
