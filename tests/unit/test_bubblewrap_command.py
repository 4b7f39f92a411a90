"""What bubblewrap is told, and what is read from proc about a stage."""

from pathlib import Path

import pytest

from sandbox.backends.backend import StageOrder
from sandbox.backends.bubblewrap_command import (
    BOX_PLACES,
    Descriptors,
    bubblewrap_argv,
    enter_argv,
    keeper_argv,
)
from sandbox.backends.bubblewrap_watch import look_at
from sandbox.inside.orders import Layout
from sandbox.request import Limits

LAYOUT = Layout(
    binds=[("/tree/usr", "usr")],
    links=[("usr/bin", "bin")],
    texts=[],
    owner_uid=0,
    init_uid=0,
    group_prefix="",
)


def argv(*, counts_processes_exactly: bool = True, env: dict[str, str] | None = None) -> list[str]:
    """Make the command of a small stage."""
    order = StageOrder(
        name="run",
        argv=("/usr/bin/python3", "/work/main.py", "--help"),
        env=env or {},
        limits=Limits(processes=7, file_size_bytes=123, open_files=45, cpu_time_s=1.5),
        tasks_max=64,
        counts_processes_exactly=counts_processes_exactly,
    )
    descriptors = Descriptors(info=5, block=6, seccomp=7, texts=[("etc/passwd", 8)])
    return bubblewrap_argv("/usr/bin/bwrap", order, LAYOUT, Path("/box"), descriptors)


def pairs(words: list[str], option: str) -> list[tuple[str, str]]:
    """Return the two words after each occurrence of an option."""
    return [(words[i + 1], words[i + 2]) for i, word in enumerate(words) if word == option]


def test_everything_is_left_behind() -> None:
    """No name space is shared, the environment is cleared, capabilities are dropped."""
    words = argv()
    assert {"--unshare-all", "--unshare-user", "--clearenv", "--die-with-parent", "--new-session"} <= set(
        words
    )
    assert words[words.index("--cap-drop") + 1] == "ALL"
    assert "--share-net" not in words


def test_only_the_box_is_writable() -> None:
    """The tree is bound read-only; only the three folders of the box are bound for writing."""
    words = argv()
    assert pairs(words, "--ro-bind") == [("/tree/usr", "/usr")]
    assert pairs(words, "--bind") == [(f"/box/{name}", place) for name, place in BOX_PLACES.items()]
    assert [words[i + 1] for i, word in enumerate(words) if word == "--remount-ro"] == ["/dev", "/"]


def test_remounts_come_after_what_they_cover() -> None:
    """Folders are made before the root becomes read-only."""
    words = argv()
    assert max(i for i, w in enumerate(words) if w == "--bind") < words.index("--remount-ro")


@pytest.mark.parametrize(("exactly", "bound"), [(True, 8), (False, 65)])
def test_tasks_are_bounded_inside(*, exactly: bool, bound: int) -> None:
    """The bound on tasks is the processes' where they are the same, else the runtime's own; init is added."""
    words = argv(counts_processes_exactly=exactly)
    assert f"--nproc={bound}:{bound}" in words


def test_limits_stand_between_bubblewrap_and_the_program() -> None:
    """Each bound is soft and hard, set inside, and the program's own words come last and unchanged."""
    words = argv()
    inside = words[words.index("--") + 1 :]
    assert inside[0] == "/usr/bin/prlimit"
    assert {"--fsize=123:123", "--nofile=45:45", "--cpu=4:4", "--core=0:0"} <= set(inside)
    assert not any(word.startswith("--as") for word in inside)
    assert inside[-3:] == ["/usr/bin/python3", "/work/main.py", "--help"]


def test_variables_are_the_programs_alone() -> None:
    """Neither bubblewrap nor what sets the limits gets a variable of the program; it gets no other."""
    words = argv(env={"LD_PRELOAD": "/work/a b.so", "A": ""})
    assert words[words.index("/usr/bin/env") :] == [
        *("/usr/bin/env", "-i", "LD_PRELOAD=/work/a b.so", "A="),
        *("/usr/bin/python3", "/work/main.py", "--help"),
    ]
    assert words.index("/usr/bin/prlimit") < words.index("/usr/bin/env")
    assert "--setenv" not in words


def test_keeper_gets_sizes_as_arguments() -> None:
    """Sizes and the mount point are arguments of the keeper's script, not part of its text."""
    words = keeper_argv(Path("/tmp/a b"), disk_bytes=10, inodes=20)
    assert words[-3:] == ["10", "20", "/tmp/a b"]
    assert enter_argv(42)[:2] == ["nsenter", "--target=42"]


def test_descriptors_list_every_number() -> None:
    """All descriptors that bubblewrap needs are passed on."""
    assert Descriptors(info=5, block=6, seccomp=7, texts=[("a", 8)]).numbers() == (5, 6, 7, 8)


def make_process(
    proc: Path, pid: int, *, children: str = "", statm: str = "0 30 10", state: str = "S"
) -> None:
    """Write what proc says about a process."""
    task = proc / str(pid) / "task" / str(pid)
    task.mkdir(parents=True)
    (task / "children").write_text(children)
    (proc / str(pid) / "statm").write_text(f"{statm} 0 0 0 0")
    fields = f"{state} 1 1 1 0 -1 0 0 0 0 0 100 50 10 5"
    (proc / str(pid) / "stat").write_text(f"{pid} (a ) b) {fields} 20 0 1")


def test_look_adds_up_everything_below_init(tmp_path: Path) -> None:
    """Children and grandchildren count; init and zombies are no processes, but what they used counts."""
    make_process(tmp_path, 1, children="2 3 ")
    make_process(tmp_path, 2, children="4 ")
    make_process(tmp_path, 3, state="Z", statm="0 0 0")
    make_process(tmp_path, 4)
    look = look_at(1, tmp_path)
    assert look.processes == 2
    assert look.anonymous_bytes == 3 * 20 * 4096
    assert (look.user_time_s, look.system_time_s) == pytest.approx((4 * 1.1, 4 * 0.55))


def test_look_survives_processes_that_end(tmp_path: Path) -> None:
    """A process that vanishes between two reads is left out."""
    make_process(tmp_path, 1, children="2 3 ")
    make_process(tmp_path, 2)
    assert look_at(1, tmp_path).processes == 1
    assert look_at(99, tmp_path).processes == 0
