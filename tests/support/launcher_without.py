"""A launcher of the slot back end that leaves walls out: the program that a control run starts instead.

Production code cannot come here: a launcher runs what the class `SlotBackend` says, no setting, request or
variable changes that, and the tests are in no wheel. A wall is left out by replacing, in this process alone,
the one step that builds it; everything else is the real launcher.

Invariant: a step that no longer exists is an error, never a wall that silently stands.
"""

import ctypes
import os
import struct
from collections.abc import Callable, Mapping, Sequence

from sandbox.inside import init, launcher, root, watch
from sandbox.kernel import mounts, privileges
from sandbox.kernel.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    check,
    libc,
    prctl,
)

__all__ = ["STEPS", "main"]

PR_CAP_AMBIENT_RAISE = 2
CAPABILITIES = 0x1FF_FFFF_FFFF


def _replace(module: object, name: str, value: object) -> None:
    assert hasattr(module, name), f"{module} has no {name} any more: the control run proves nothing"
    setattr(module, name, value)


def _nothing(*_arguments: object, **_options: object) -> None:
    """Stand where a step was."""


def _share(flag: int) -> None:
    """Keep the machine's own name space of one kind."""
    for module in (init, launcher):
        _replace(module, "STAGE_NAMESPACES", module.STAGE_NAMESPACES & ~flag)


def _share_network() -> None:
    real = launcher.unshare
    _replace(launcher, "unshare", lambda flags: real(flags) if flags != CLONE_NEWNET else None)


def _share_hostname() -> None:
    _share(CLONE_NEWUTS)
    _replace(init, "sethostname", _nothing)  # it would be the machine's


def _share_groups() -> None:
    real = init.unshare
    _replace(init, "unshare", lambda flags: real(flags) if flags != CLONE_NEWCGROUP else None)


def _share_processes() -> None:
    _share(CLONE_NEWPID)
    _show_processes()


def _show_processes() -> None:
    """Let proc show everybody's processes."""
    attributes = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOEXEC
    _replace(root, "new_proc", lambda: mounts._new_mount("proc", {}, attributes))


def _unmask_proc() -> None:
    _replace(root, "MASKED_FILES", ())
    _replace(root, "MASKED_FOLDERS", ())


def _keep_capabilities() -> None:
    """Become the program's user, but with every capability of the user name space, for what it starts too."""

    def keep(identity: int) -> None:
        os.setresgid(identity, identity, identity)
        os.setresuid(identity, identity, identity)
        header = struct.pack("<Ii", privileges.LINUX_CAPABILITY_VERSION_3, 0)
        low, high = CAPABILITIES & 0xFFFF_FFFF, CAPABILITIES >> 32
        data = struct.pack("<6I", low, low, low, high, high, high)
        check(int(libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(data))), "capset")
        for number in range(CAPABILITIES.bit_length()):
            prctl(privileges.PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, what="raise")
        prctl(privileges.PR_SET_NO_NEW_PRIVS, 1, what="no new privileges")

    _replace(init, "drop_privileges", keep)


def _write_everywhere() -> None:
    """Leave mounts writable that are to be read-only; files still have their owners and modes."""
    real = root.restrict

    def restrict(mount_fd: int, *, read_only: bool, **options: bool) -> None:
        real(mount_fd, read_only=False, **options)

    _replace(root, "restrict", restrict)


def _free_reading() -> None:
    """Count the program's own time only, not what reading its output costs."""
    _replace(watch.Watch, "_cpu_time_s", lambda self: self.group.cpu_time_s())


STEPS: Mapping[str, Callable[[], None]] = {
    "seccomp filter": lambda: _replace(init, "install_filter", _nothing),
    "pid namespace": _share_processes,
    "hidden processes": _show_processes,
    "network namespace": _share_network,
    "IPC namespace": lambda: _share(CLONE_NEWIPC),
    "UTS namespace": _share_hostname,
    "cgroup namespace": _share_groups,
    "proc masks": _unmask_proc,
    "capabilities dropped": _keep_capabilities,
    "init's own number": lambda: _replace(init, "INIT_ID", init.INSIDE_ID),
    "rlimits": lambda: _replace(init, "apply_rlimits", _nothing),
    "closed descriptors": lambda: _replace(init, "close_except", _nothing),
    "read-only mounts": _write_everywhere,
    "OOM score": lambda: _replace(init, "write_text", _nothing),
    "cost of reading": _free_reading,
}
"""Name of a wall to what leaves it out."""


def main(walls: Sequence[str]) -> None:
    """Run a launcher in which ``walls`` are left out; its arguments are the real one's.

    Landlock is left out too, because it stands behind several of them.
    """
    _replace(init, "landlock_abi", lambda: 0)
    for name in walls:
        STEPS[name]()
    launcher.main()
