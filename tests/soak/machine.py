"""What this machine shows of sandboxes: processes, mounts, groups, name spaces, IPC objects, keys, files.

Invariant: looking changes nothing; two looks at a machine on which only sandboxes came and went are equal.
"""

import os
import re
import time
from dataclasses import dataclass, fields
from pathlib import Path

from sandbox.backends.slot import UID_BASE, UID_COUNT
from sandbox.kernel.grouptree import FOLDER, owner_lives

__all__ = ["Machine", "settled"]

SANDBOX_UIDS = range(UID_BASE, UID_BASE + UID_COUNT)
OURS = re.compile(r"sandbox\.inside|bwrap|tests\.soak|(^|/)keeper\b")
TEMPORARY = ("/tmp", "/dev/shm", "/var/tmp", "/run")
NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup")


@dataclass(frozen=True)
class Machine:
    """One look."""

    processes: frozenset[str]
    """Of sandbox users, and of the programs that make sandboxes."""
    mounts: frozenset[str]
    groups: frozenset[str]
    """Folders of ours in every hierarchy of control groups."""
    namespaces: frozenset[str]
    """That processes other than the looker's own live in, with a sandbox's user or program."""
    ipc: frozenset[str]
    """System V objects and POSIX queues of the machine's own name space."""
    keys: frozenset[str]
    """Keyrings of sandbox users."""
    files: frozenset[str]
    """In folders for temporary files: of sandbox users, or named as sandboxes name theirs."""

    @classmethod
    def look(cls) -> "Machine":
        """Look at everything."""
        processes = _processes()
        return cls(
            processes=frozenset(f"{pid} {text}" for pid, text in processes.items()),
            mounts=frozenset(Path("/proc/self/mountinfo").read_text().splitlines()),
            groups=frozenset(_groups()),
            namespaces=frozenset(link for pid in processes for link in _namespaces(pid)),
            ipc=frozenset(_ipc()),
            keys=frozenset(_keys()),
            files=frozenset(_files()),
        )

    def more_than(self, before: "Machine") -> list[str]:
        """List what is here now and was not before."""
        return [
            f"{each.name}: {item}"
            for each in fields(self)
            for item in sorted(getattr(self, each.name) - getattr(before, each.name))
        ]


def settled(before: Machine, *, timeout_s: float = 10.0) -> list[str]:
    """Return what is left over; the kernel gets a moment to bury the dead."""
    deadline_s = time.monotonic() + timeout_s
    while (left := Machine.look().more_than(before)) and time.monotonic() < deadline_s:
        time.sleep(0.2)
    return left


def _processes() -> dict[int, str]:
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if path.stat().st_uid in SANDBOX_UIDS or (OURS.search(command) and int(path.name) != os.getpid()):
                found[int(path.name)] = command[:120]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _namespaces(pid: int) -> list[str]:
    found = []
    for name in NAMESPACES:
        try:
            link = Path(f"/proc/{pid}/ns/{name}").readlink()
        except OSError:
            continue
        if link != Path(f"/proc/self/ns/{name}").readlink():
            found.append(str(link))
    return found


def _groups() -> list[str]:
    """List groups of services that no longer live; another service on this machine keeps its own."""
    folders = [Path(root, FOLDER) for root, names, _ in os.walk("/sys/fs/cgroup") if FOLDER in names]
    return [
        str(path)
        for folder in folders
        for root, names, _ in os.walk(folder)
        for path in (Path(root, name) for name in names)
        if path.is_dir() and not owner_lives(path.name)
    ]


def _ipc() -> list[str]:
    found = []
    for name in ("shm", "msg", "sem"):
        table = Path("/proc/sysvipc", name)
        if table.exists():
            found += [f"{name} {line.split()[1]}" for line in table.read_text().splitlines()[1:]]
    queues = Path("/dev/mqueue")
    return found + ([f"queue {path.name}" for path in queues.iterdir()] if queues.is_dir() else [])


def _keys() -> list[str]:
    table = Path("/proc/keys")
    rows = [line.split(None, 8) for line in table.read_text().splitlines()] if table.exists() else []
    return [" ".join(row[:1] + row[5:]) for row in rows if int(row[5]) in SANDBOX_UIDS]


def _files() -> list[str]:
    found = []
    for folder in map(Path, TEMPORARY):
        for path in folder.iterdir() if folder.is_dir() else ():
            try:
                if path.lstat().st_uid in SANDBOX_UIDS or path.name.startswith(("sandbox-", "launcher-")):
                    found.append(str(path))
            except FileNotFoundError:
                continue
    return found
