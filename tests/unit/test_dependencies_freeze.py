"""What an installer left is copied with care: only what a layer may hold, and not for ever."""

import os
import socket
import stat
from pathlib import Path

import pytest

from sandbox.dependencies.freeze import FreezeBounds, FreezeError, freeze


def frozen(source: Path, target: Path, *, should_stop: bool = False, **bounds: float) -> Path:
    """Freeze a folder within bounds that are the usual ones but for those given."""
    descriptor = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        freeze(descriptor, target, FreezeBounds(**bounds), lambda: should_stop)  # type: ignore[arg-type]
    finally:
        os.close(descriptor)
    return target


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder with a file in a folder."""
    (tmp_path / "source/lib").mkdir(parents=True)
    (tmp_path / "source/lib/part").write_bytes(b"part")
    return tmp_path / "source"


def test_frozen_files_have_no_special_bits(source: Path, tmp_path: Path) -> None:
    """Nothing is writable or set-uid; what was executable is, and contents and names are the same."""
    program = source / "program"
    program.write_bytes(b"#!")
    program.chmod(0o6777)
    os.link(program, source / "lib/second name")
    (source / "lib").chmod(0o2777)
    target = frozen(source, tmp_path / "target")
    modes = {str(p.relative_to(target)): stat.S_IMODE(p.stat().st_mode) for p in target.rglob("*")}
    assert modes == {"lib": 0o555, "lib/part": 0o444, "lib/second name": 0o555, "program": 0o555}
    assert (target / "program").stat().st_nlink == 1
    assert (target / "lib/part").read_bytes() == b"part"


@pytest.mark.parametrize("leads_to", ["part", "../program", "../lib", "../lib/part", "missing"])
def test_links_that_stay_inside_are_kept(source: Path, tmp_path: Path, leads_to: str) -> None:
    """A relative link below the root comes along as it is."""
    (source / "lib/link").symlink_to(leads_to)
    assert (frozen(source, tmp_path / "target") / "lib/link").readlink() == Path(leads_to)


@pytest.mark.parametrize(
    "leads_to", ["/etc/passwd", "../..", "../../x", "../lib/../../x", "x/../y", "./x", "x//y", "a" * 2000]
)
def test_freezing_refuses_links_that_leave(source: Path, tmp_path: Path, leads_to: str) -> None:
    """An absolute link, one above the root, and one that climbs behind a name are refused by name."""
    (source / "lib/link").symlink_to(leads_to)
    with pytest.raises(FreezeError, match="the link '/lib/link' leads out"):
        frozen(source, tmp_path / "target")


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_freezing_refuses_what_is_neither_file_nor_folder(source: Path, tmp_path: Path, kind: str) -> None:
    """A FIFO is not opened, which would wait for ever; it is refused."""
    if kind == "fifo":
        os.mkfifo(source / "lib/odd")
    else:
        folder = os.open(source / "lib", os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{folder}/odd")
        os.close(folder)
    with pytest.raises(FreezeError, match="'/lib/odd' is neither"):
        frozen(source, tmp_path / "target")


def test_freezing_ends_at_its_bounds(source: Path, tmp_path: Path) -> None:
    """Count, bytes (a sparse file's too, before they are copied), depth and time are bounded."""
    deep = source
    for _ in range(5):
        deep = deep / "d"
        deep.mkdir()
    with pytest.raises(FreezeError, match="more than 6 files"):
        frozen(source, tmp_path / "1", entries=6)
    with pytest.raises(FreezeError, match="more than 4 deep"):
        frozen(source, tmp_path / "2", depth=4)
    with pytest.raises(FreezeError, match="more than 0 s"):
        frozen(source, tmp_path / "3", time_s=0)
    with pytest.raises(FreezeError, match="stopped"):
        frozen(source, tmp_path / "4", should_stop=True)
    with (source / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FreezeError, match="bytes"):
        frozen(source, tmp_path / "5")
    assert not (tmp_path / "5/sparse").exists()
