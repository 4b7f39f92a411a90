"""Where control groups are made and removed: a folder of ours below the service's own group.

Invariant: a group's name starts with the number, start time and process name space of the service that made
it, so that what a dead service left is told from what a living one uses, or one that we cannot see. Nothing
outside our folder is changed, except on version 2 the service's own group, where controllers must be enabled
(no process may then be in it directly).
"""

import contextlib
import errno
import os
import time
from collections.abc import Mapping
from pathlib import Path

from sandbox.errors import SandboxUnavailableError
from sandbox.kernel.cgroups import Group

__all__ = [
    "FOLDER",
    "GroupTree",
    "find_group_tree",
    "own_name",
    "own_places",
    "owner_lives",
    "start_time",
]

FOLDER = "tee-job-node"
SERVICE_LEAF = "tee-job-node-service"
CONTROLLERS_V1 = ("memory", "pids", "cpuacct", "cpu")
CONTROLLERS_V2 = ("memory", "pids", "cpu")
REMOVE_TIMEOUT_S = 5.0
FIX = "run as root with a writable cgroup mount (in a container: privileged, or a delegated cgroup)"


class GroupTree:
    """Makes the groups of one service.

    Args:
        version: 1 or 2.
        homes: controller (or ``unified``) to the folder below which our folder lies.
        owner: what the names start with; see `own_name`.
    """

    def __init__(self, *, version: int, homes: Mapping[str, Path], owner: str) -> None:
        self.version = version
        self._folders = {controller: home / FOLDER for controller, home in homes.items()}
        self._owner = owner

    def prepare(self) -> None:
        """Make our folder and remove what services that are dead left in it.

        Raises:
            SandboxUnavailableError: control groups cannot be written here; the message holds the fix.
        """
        try:
            for folder in self._distinct():
                self._make_folder(folder)
        except OSError as exc:
            raise SandboxUnavailableError(f"control groups cannot be made: {exc}; {FIX}") from exc
        self.remove_leftovers()

    def create(self, name: str) -> Group:
        """Make the group ``name`` and open it; it has no bounds yet.

        Raises:
            OSError: the kernel refuses.
        """
        descriptors: dict[Path, int] = {}
        try:
            for folder in self._distinct():
                path = folder / self.folder_name(name)
                try:
                    path.mkdir()
                except FileNotFoundError:  # another service closed, and removed the folder that it saw empty
                    self._make_folder(folder)
                    path.mkdir()
                descriptors[folder] = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            for descriptor in descriptors.values():
                os.close(descriptor)
            self.remove(name)
            raise
        return Group(self.version, {key: descriptors[folder] for key, folder in self._folders.items()})

    def _make_folder(self, folder: Path) -> None:
        is_new = not folder.exists()
        folder.mkdir(exist_ok=True)
        if self.version == 2:  # noqa: PLR2004 - the version's own name
            _enable_controllers(folder)
        if is_new:
            _weigh(folder)

    def remove(self, name: str) -> bool:
        """Try to remove the group ``name``; False while the kernel still holds something of it."""
        removed = [_remove(folder / self.folder_name(name)) for folder in self._distinct()]
        return all(removed)

    def folder_name(self, name: str) -> str:
        """Return the name of the group's folder in each hierarchy."""
        return f"{self._owner}-{name}"

    def open_folders(self) -> list[int]:
        """Open our folder in each hierarchy; a launcher removes groups there when the service is dead."""
        for folder in self._distinct():
            self._make_folder(folder)
        opened: list[int] = []
        try:
            for folder in self._distinct():
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                opened.append(descriptor)
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            raise
        return opened

    def remove_leftovers(self) -> None:
        """Remove the groups of services that no longer live, with the processes in them."""
        for folder in self._distinct():
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.is_dir() and not owner_lives(path.name):
                    _empty(path, self.version)
                    _remove(path)

    def close(self) -> None:
        """Remove our folder where it is empty; another service may still use it."""
        for folder in self._distinct():
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _distinct(self) -> list[Path]:
        return list(dict.fromkeys(self._folders.values()))


def find_group_tree(proc: Path = Path("/proc/self"), *, owner: str | None = None) -> GroupTree:
    """Find the service's own place in the hierarchy that has the controllers, version 2 first.

    Raises:
        SandboxUnavailableError: a controller is missing; the message names it and the fix.
    """
    places = own_places(proc)
    owner = owner or own_name()
    home = places.get("unified")
    if home is not None:
        if home.name == SERVICE_LEAF:
            home = home.parent
        known = home / "cgroup.controllers"
        if known.exists() and set(CONTROLLERS_V2) <= set(known.read_text().split()):
            return GroupTree(version=2, homes={"unified": home}, owner=owner)
    missing = [name for name in CONTROLLERS_V1 if name not in places]
    if missing:
        raise SandboxUnavailableError(f"no cgroup controller {', '.join(missing)} is mounted; {FIX}")
    homes = {name: places[name] for name in CONTROLLERS_V1}
    return GroupTree(version=1, homes=homes, owner=owner)


def own_places(proc: Path = Path("/proc/self")) -> dict[str, Path]:
    """Return the service's own group in each mounted hierarchy: controller (or ``unified``) to folder."""
    own = _own_groups(proc)
    return {name: _place(mount, own.get(name, "/")) for name, mount in _mounts(proc).items()}


def own_name() -> str:
    """Return ``<process number>-<start time>-<process name space>`` of the calling process."""
    return f"{os.getpid()}-{start_time(os.getpid())}-{_process_namespace()}"


def start_time(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since boot, or None when there is none (proc(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])


def _own_groups(proc: Path) -> dict[str, str]:
    """Read ``/proc/self/cgroup``: controller to path within its hierarchy."""
    own: dict[str, str] = {}
    for line in (proc / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(",") if controllers else ("unified",):
            own[controller] = path
    return own


def _mounts(proc: Path) -> dict[str, tuple[Path, str]]:
    """Read ``/proc/self/mountinfo``: controller to mount point and the root of what is mounted there."""
    found: dict[str, tuple[Path, str]] = {}
    for line in (proc / "mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind == "cgroup2":
            found.setdefault("unified", (Path(point), root))
        elif kind == "cgroup":
            for option in options.split(","):
                found.setdefault(option, (Path(point), root))
    return found


def _place(mount: tuple[Path, str], own: str) -> Path:
    """Return the folder of the group ``own`` below a mount, or the mount point where it does not show."""
    point, root = mount
    relative = os.path.relpath(own, root)
    path = point if relative.startswith("..") else point / relative
    return path if path.is_dir() else point


def _enable_controllers(folder: Path) -> None:
    """Hand the controllers down to ``folder`` and to its children."""
    home = folder.parent
    wanted = " ".join(f"+{name}" for name in CONTROLLERS_V2)
    try:
        (home / "cgroup.subtree_control").write_text(wanted)
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise
        # A group with processes of its own hands nothing down: they move into a leaf first.
        leaf = home / SERVICE_LEAF
        leaf.mkdir(exist_ok=True)
        for pid in (home / "cgroup.procs").read_text().split():
            (leaf / "cgroup.procs").write_text(pid)
        (home / "cgroup.subtree_control").write_text(wanted)
    (folder / "cgroup.subtree_control").write_text(wanted)


def _weigh(folder: Path) -> None:
    """Let all sandboxes together weigh as much as one ordinary task on each CPU, the service for instance.

    SECURITY: among themselves they weigh the same, however many processes each has (test_many_busy_...).
    """
    for name, weight_of_task, most in (("cpu.shares", 1024, 1 << 18), ("cpu.weight", 100, 10_000)):
        if (folder / name).exists():
            (folder / name).write_text(str(min(most, weight_of_task * (os.cpu_count() or 1))))


def owner_lives(name: str) -> bool:
    """Say whether a group's service lives; in another process name space it counts as living."""
    match name.split("-"):
        case [pid, started, namespace, *_] if pid.isdigit():
            return namespace != str(_process_namespace()) or started == str(start_time(int(pid)))
    return True


def _process_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _empty(path: Path, version: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    group = Group(version, {"unified": descriptor, "pids": descriptor})
    try:
        group.kill()
        deadline = time.monotonic() + REMOVE_TIMEOUT_S
        while group.processes() and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        group.close()


def _remove(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
