"""Whatever a program leaves, the collector reads nothing outside, and keeps its bounds."""

# ruff: noqa: PTH101, PTH104, PTH208 - what the kernel does with paths is the matter here

import contextlib
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sandbox.kernel.files import CollectBounds, CollectionError, collect, has_file_of_size, lay_down

SECRET = b"secret of the host"
BOUNDS = CollectBounds(files=8, total_bytes=200, depth=4, time_s=10)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

NAMES = st.sampled_from(["a", "b", "new\nline", "bad\udcff", "-rf", " ", "é", "x" * 255, "\x1b[2J", "..."])
PLACES = st.lists(NAMES, min_size=1, max_size=6).map("/".join)
TARGETS = st.sampled_from(
    [
        "/",
        "..",
        "../secret",
        "../..",
        "a",
        "b",
        ".",
        "/proc/self/environ",
        "/dev/zero",
        "OUTSIDE/secret",
        "OUTSIDE",
        "loop",
    ]
)
THINGS = st.one_of(
    st.tuples(st.just("file"), st.sampled_from([0, 1, 30, 199, 200, 201])),
    st.tuples(st.just("sparse"), st.sampled_from([201, 1 << 20, 1 << 40])),
    st.tuples(st.just("link"), TARGETS),
    st.tuples(st.just("hard"), st.sampled_from(["a", "b", "a/a", "OUTSIDE/secret"])),
    st.tuples(st.just("fifo"), st.none()),
    st.tuples(st.just("socket"), st.none()),
    st.tuples(st.just("device"), st.none()),
    st.tuples(st.just("folder"), st.sampled_from([0o755, 0o000, 0o1777])),
)
TREES = st.lists(st.tuples(PLACES, THINGS), max_size=12)
ASKED = st.lists(
    st.one_of(PLACES, st.sampled_from(["..", "/etc/passwd", ".", "a/../b", "loop/x"])), max_size=5
)


@contextmanager
def a_work_folder() -> Iterator[tuple[Path, Path]]:
    """Yield a folder like ``/work``, and one outside of it that holds a secret."""
    home = Path(tempfile.mkdtemp(prefix="collect-fuzz-"))
    (home / "work").mkdir()
    (home / "outside").mkdir()
    (home / "outside/secret").write_bytes(SECRET)
    (home / "secret").write_bytes(SECRET)
    try:
        yield home / "work", home / "outside"
    finally:
        for folder, _, _ in os.walk(home):
            os.chmod(folder, 0o700)
        shutil.rmtree(home)


def plant(work: Path, outside: Path, place: str, kind: str, detail: object) -> None:
    """Lay one thing down as a program could; what the kernel refuses a program cannot leave either."""
    path = work / place
    with contextlib.suppress(OSError):
        if not path.parent.resolve().is_relative_to(work.resolve()):
            return  # a program sees another root: it cannot write through a link to here
        path.parent.mkdir(parents=True, exist_ok=True)
        aim = str(detail).replace("OUTSIDE", str(outside))
        if kind == "file":
            with path.open("xb") as file:
                file.write(b"x" * detail)  # type: ignore[operator]
        elif kind == "sparse":
            with path.open("xb") as file:
                file.truncate(detail)  # type: ignore[arg-type]
        elif kind == "link":
            path.symlink_to(aim)
        elif kind == "hard":
            os.link(aim if aim.startswith("/") else work / aim, path)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as planted:
                planted.bind(str(path))
        elif kind == "device" and os.geteuid() == 0:
            os.mknod(path, 0o20600, os.makedev(1, 5))
        elif kind == "folder":
            path.mkdir(mode=detail)  # type: ignore[arg-type]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@QUICK
@given(TREES, ASKED)
@example([("a", ("link", "OUTSIDE/secret"))], ["a"])
@example([("a", ("link", "OUTSIDE"))], ["a/secret"])
@example([("a", ("hard", "OUTSIDE/secret"))], ["a"])
@example([("a/a/a/a/a/a", ("file", 1))], ["a"])
@example([("a", ("sparse", 1 << 40))], ["a"])
@example([("a", ("device", None)), ("b", ("fifo", None))], ["a", "b", "."])
def test_collector_reads_honest_files_only(
    tree: list[tuple[str, tuple[str, object]]], asked: list[str]
) -> None:
    """Regular files below the folder come back whole, within every bound; nothing else is read."""
    with a_work_folder() as (work, outside):
        for place, (kind, detail) in tree:
            plant(work, outside, place, kind, detail)
        folder_fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
        before = descriptors()
        try:
            found = collect(folder_fd, asked, BOUNDS)
            has_file_of_size(folder_fd, 200, bounds=BOUNDS)
        except CollectionError:
            found = []
        finally:
            after = descriptors()
            os.close(folder_fd)
        assert after == before
        assert len(found) <= BOUNDS.files
        assert sum(len(file.content) for file in found) <= BOUNDS.total_bytes
        assert len({file.path for file in found}) == len(found)
        for file in found:
            path = work / file.path
            assert SECRET not in file.content
            assert path.resolve().is_relative_to(work.resolve())
            assert not any(part.is_symlink() for part in (path, *path.parents) if part.is_relative_to(work))
            assert path.is_file()
            assert path.stat().st_nlink == 1
            assert file.content == path.read_bytes()


@settings(QUICK, max_examples=25)
@given(st.sampled_from(["file", "folder", "middle"]), st.integers(10, 60))
def test_swaps_while_collecting_lead_nowhere(what: str, rounds: int) -> None:
    """With a file, a folder or a part of the path swapped for links all the while, no secret comes back."""
    with a_work_folder() as (work, outside):
        (work / "d/e").mkdir(parents=True)
        (work / "d/e/secret").write_bytes(b"honest")
        victim = {"file": work / "d/e/secret", "folder": work / "d/e", "middle": work / "d"}[what]
        aim = {"file": outside / "secret", "folder": outside, "middle": outside}[what]
        (outside / "e").mkdir()
        (outside / "e/secret").write_bytes(SECRET)
        (work / "link").symlink_to(aim)
        is_over = threading.Event()

        def swap() -> None:
            while not is_over.is_set():
                os.rename(victim, work / "aside")
                os.rename(work / "link", victim)
                os.rename(victim, work / "link")
                os.rename(work / "aside", victim)

        swapper = threading.Thread(target=swap)
        folder_fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
        before = descriptors()
        swapper.start()
        try:
            for _ in range(rounds):
                for file in collect(folder_fd, ["d", "d/e/secret", "link"], BOUNDS):
                    assert file.content == b"honest"
        finally:
            is_over.set()
            swapper.join()
            os.close(folder_fd)
        assert descriptors() == before - 1


@QUICK
@given(st.lists(st.tuples(PLACES, st.binary(max_size=20)), max_size=6), TREES)
@example([], [("a", ("link", "OUTSIDE")), ("a/a/a", ("fifo", None))])
def test_files_are_laid_down_below_the_folder_only(
    files: list[tuple[str, bytes]], tree: list[tuple[str, tuple[str, object]]]
) -> None:
    """Whatever stands there already, nothing outside is written, and no descriptor stays open."""
    with a_work_folder() as (work, outside):
        for place, (kind, detail) in tree:
            plant(work, outside, place, kind, detail)
        folder_fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
        before = descriptors()
        with contextlib.suppress(OSError):
            lay_down(folder_fd, files, None)
        assert descriptors() == before
        os.close(folder_fd)
        assert sorted(outside.iterdir()) == [outside / "secret"]
        assert (outside / "secret").read_bytes() == (work.parent / "secret").read_bytes() == SECRET
