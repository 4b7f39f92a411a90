"""Files across the wall: written below a folder only, read back only when they are honest."""

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.kernel.files import CollectBounds, CollectionError, collect, has_file_of_size, lay_down

BOUNDS = CollectBounds(files=5, total_bytes=1000, depth=4, time_s=5)


@pytest.fixture
def folder_fd(tmp_path: Path) -> Iterator[int]:
    """A descriptor of an empty folder."""
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def contents(folder_fd: int, *paths: str, bounds: CollectBounds = BOUNDS) -> dict[str, bytes]:
    """Collect and return path to content."""
    return {file.path: file.content for file in collect(folder_fd, paths, bounds)}


def test_files_and_the_folders_between_are_made(folder_fd: int, tmp_path: Path) -> None:
    """Nested paths are written; files are not executable, and belong to the caller."""
    lay_down(folder_fd, [("a/b/c", b"1"), ("a/d", b"2")], None)
    assert ((tmp_path / "a/b/c").read_bytes(), (tmp_path / "a/d").read_bytes()) == (b"1", b"2")
    assert (tmp_path / "a/d").stat().st_mode & 0o777 == 0o644


def test_files_are_never_laid_through_a_link_or_upwards(folder_fd: int, tmp_path: Path) -> None:
    """A planted link, an absolute path and a parent reference all fail; nothing is overwritten."""
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "there").write_text("old")
    for path in ("link/x", "../x", "/x", "there", "there/x"):
        with pytest.raises(OSError, match=r".+"):
            lay_down(folder_fd, [(path, b"new")], None)
    assert list(outside.iterdir()) == []
    assert (tmp_path / "there").read_text() == "old"


def test_honest_files_are_collected_once(folder_fd: int) -> None:
    """Files by name and by folder come once each, missing ones are left out."""
    lay_down(folder_fd, [("a", b"1"), ("d/x", b"2"), ("d/y", b"")], None)
    assert contents(folder_fd, "a", "d", "d/x", "missing") == {"a": b"1", "d/x": b"2", "d/y": b""}


def test_everything_but_regular_files_is_left_out(folder_fd: int, tmp_path: Path) -> None:
    """Links to files and folders, FIFOs, sockets and hard links lead nowhere, and block nothing."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/passwd").symlink_to("/etc/passwd")
    (tmp_path / "d/root").symlink_to("/")
    (tmp_path / "d/up").symlink_to("..")
    os.mkfifo(tmp_path / "d/fifo")
    (tmp_path / "one").write_text("x")
    os.link(tmp_path / "one", tmp_path / "d/two")
    with socket.socket(socket.AF_UNIX) as planted:
        planted.bind(str(tmp_path / "d/socket"))
        asked = ("d", "one", "d/passwd", "d/root/etc/passwd", "d/up/one", "../x", "/etc/passwd", "d/fifo")
        assert contents(folder_fd, *asked) == {}


def test_names_may_hold_anything(folder_fd: int, tmp_path: Path) -> None:
    """A newline and bytes that are no UTF-8 stay what they are."""
    (tmp_path / "d").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/d/a\n\xff")).write_bytes(b"x")
    assert contents(folder_fd, "d") == {"d/a\n\udcff": b"x"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([(f"d/{n}", b"") for n in range(6)], "more than 5 output files"),
        ([("d/a", b"x" * 600), ("d/b", b"x" * 600)], "larger than 1000 bytes"),
        ([("d/1/2/3/4/5", b"")], "nested too deeply"),
    ],
)
def test_passing_a_bound_ends_the_collection(
    folder_fd: int, files: list[tuple[str, bytes]], message: str
) -> None:
    """Count, bytes and depth are bounded; nothing is returned in part."""
    lay_down(folder_fd, files, None)
    with pytest.raises(CollectionError, match=message):
        contents(folder_fd, "d")


def test_sparse_file_is_refused_before_it_is_read(folder_fd: int, tmp_path: Path) -> None:
    """A terabyte of holes is judged by its size."""
    with (tmp_path / "s").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CollectionError, match="larger than"):
        contents(folder_fd, "s")


def test_time_is_bounded(folder_fd: int) -> None:
    """A collection without time left stops at its first file."""
    lay_down(folder_fd, [("a", b"")], None)
    with pytest.raises(CollectionError, match="longer than"):
        contents(folder_fd, "a", bounds=CollectBounds(time_s=-1))


def test_collection_leaves_no_descriptor_open(folder_fd: int, tmp_path: Path) -> None:
    """Neither success nor a bound leaks."""
    lay_down(folder_fd, [("d/a", b"x"), ("d/b", b"x" * 2000)], None)
    (tmp_path / "d/l").symlink_to("/")
    before = len(list(Path("/proc/self/fd").iterdir()))
    contents(folder_fd, "d/a")
    with pytest.raises(CollectionError):
        contents(folder_fd, "d")
    assert has_file_of_size(folder_fd, 2000, bounds=BOUNDS)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_largest_file_is_looked_for_within_bounds(folder_fd: int) -> None:
    """A file of at least the size is found; deeper than the bound it is not, and that is no error."""
    lay_down(folder_fd, [("a", b"x" * 10), ("1/2/3/4/5", b"x" * 99)], None)
    assert has_file_of_size(folder_fd, 10, bounds=BOUNDS)
    assert not has_file_of_size(folder_fd, 99, bounds=BOUNDS)


def test_collection_of_entries_that_are_no_files_ends_in_time(folder_fd: int) -> None:
    """Thousands of entries that yield no file are timed as well."""
    os.mkdir("d", dir_fd=folder_fd)
    for number in range(50):
        os.symlink("nowhere", f"d/{number}", dir_fd=folder_fd)
    with pytest.raises(CollectionError, match="longer than"):
        contents(folder_fd, "d", bounds=CollectBounds(time_s=-1.0))
    assert contents(folder_fd, "d") == {}


def test_file_is_not_taken_for_missing_when_descriptors_run_out(folder_fd: int, tmp_path: Path) -> None:
    """A shortage of ours is an error, never an output that silently stays away."""
    (tmp_path / "x").write_text("x")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (folder_fd, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            collect(folder_fd, ["x"], BOUNDS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
