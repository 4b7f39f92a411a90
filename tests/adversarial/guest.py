"""What gVisor answers otherwise: its guests have a kernel of their own, which grants what harms nobody else.

Invariant: an ending here is of a guest alone. That nothing of the machine was touched is shown for these rows
as for all: by the guard, by the clients beside it, and by what is left; and where the answer itself could
tell of the machine (a file, a device, an address), it is given here.
"""

import re
from collections.abc import Mapping

from sandbox.result import ExecutionStatus as S
from tests.adversarial.attack import Ending

__all__ = ["ENDINGS"]

WHY = "the guest's own kernel answers"
ANY = (S.SUCCESS, S.NONZERO_EXIT, S.SIGNALLED)

# Rows whose answer says nothing of the machine.
GRANTED = (
    "descriptors-in-flight", "inotify_init", "inotify_init1", "io_setup", "waiting-to-be-traced", "kill-1",
    "signals-to-init", "init-in-proc", "bounds-for-init", "starving-init", "OOM-score",
    "real-time-scheduling", "writing-to-init-s-report",
    "own-memory-through-proc", "memory-of-a-file-that-is-read-only",
    "environment-of-init", "the-machine-in-proc", "keys-of-the-machine", "own-control-group",
    "terminal-of-the-service", "capabilities-in-a-file", "ambient-capabilities-and-secure-bits",
    "raising-a-bound-in-proc", "unshare-user", "unshare-user-and-mount", "unshare-user-and-network",
    "unshare-mount", "unshare-time", "clone-with-a-user-name-space", "clone-with-user-and-pid-name-spaces",
    "clone-with-high-bits-set", "setns", "process_vm_readv", "process_vm_writev", "pidfd_getfd",
    "keyctl-of-the-session-s-keys", "add_key", "request_key", "io_uring_setup", "perf_event_open",
    "userfaultfd", "memfd_secret", "vmsplice", "open_tree", "fsopen", "move_mount", "mount_setattr",
    "open_by_handle_at", "name_to_handle_at", "fanotify_init", "syslog", "personality-READ_IMPLIES_EXEC",
    "personality-of-old-addresses", "TIOCSTI", "TIOCSTI-with-high-bits-set", "TIOCLINUX", "i386-system-call",
    "i386-mount", "executing-a-memfd-that-asks-for-more", "program-that-asks-for-a-second-filter",
    "list-of-System-V-objects", "POSIX-queue", "lease-on-a-file-of-the-tree", "list-of-locks",
    "IPv4-stream-socket", "IPv4-datagram-socket", "IPv4-raw-socket", "IPv6-raw-socket",
    "IPv6-datagram-socket", "netlink-socket", "packet-socket", "pair-of-IPv4-sockets",
    "memfd-of-huge-pages", "map-of-huge-pages", "System-V-segment-of-huge-pages",
    "family-with-high-bits-set", "asking-a-resolver", "a-tunnel-device",

)  # fmt: skip

# Rows whose answer could tell of the machine: what it is instead.
TOLD: Mapping[str, bytes] = {
    "names-of-the-root": rb"\[('sys')?\]\n",
    "host-folders": rb"\[('/sys')?\]\n",
    "mounts-of-the-host": rb"\[('/sys')?\]\n",
    "a-root-folder-that-was-opened-before": rb"\[('sys')?\]\n",
    "scanning-dev": rb"\['fd', 'full', ('fuse', )?('net', )?'null', .*'zero'\]\n",
    "devices-of-the-machine": rb"\[('fuse')?(, )?('net/tun')?\]\n",
    "writing-to-the-tree": rb"((EACCES|EROFS|ENOENT)\n){5}",
    "changing-the-tree": rb"((EACCES|EROFS|EPERM)\n){6}",
    "mapping-more-users": rb"((EPERM|EACCES|ENOENT)\n){3}",
    "a-set-user-id-program-of-one-s-own": rb"1000 (True|False)\n",
    "capabilities": rb"\[('', )*''\]\n",
    "key-of-another": rb"(EACCES|EPERM)\n",
    "key-for-the-next-run": rb"(EACCES|EPERM)\n",
    "port-of-another": rb"ECONNREFUSED\n",
    "loopback-of-the-service": rb"ECONNREFUSED\n",
    "metadata-of-the-cloud": rb"E(HOST|NET)UNREACH\n",
}

# The guest counts a process's time in ticks of its own, a little ahead of the group that ends it.
AHEAD = Ending(status=S.CPU_LIMIT, why="the guest's clock of a process may be ahead of the group's")

# Bounds that work, but are not seen to have been touched, or that only the memory group sets.
BOUNDED: Mapping[str, Ending] = {
    "fork-bomb-that-gives-up": Ending(status=S.NONZERO_EXIT),
    "fork-bomb-that-never-gives-up": Ending(status=S.CPU_LIMIT),
    "thirty-processes": Ending(status=S.NONZERO_EXIT, stdout=b"9\n"),
    "thread-bomb": Ending(status=S.TIMEOUT),
    "sixty-threads": Ending(stdout=b"9\n"),
    "vfork-storm-that-never-waits": Ending(stdout=b"9\n"),
    "zombie-flood": Ending(stdout=b"9\n"),
    "POSIX-timers-and-signals-in-the-queue": Ending(status=(S.SUCCESS, S.MEMORY_LIMIT)),
    "exit-code-of-a-signal": Ending(status=S.SIGNALLED),
}
NOT_SEEN = "the guest bounds processes and threads together, and does not tell when it refused one"

ENDINGS: Mapping[str, Ending] = {
    **{name: Ending(status=ANY, why=WHY) for name in GRANTED},
    **{name: Ending(stdout=re.compile(said, re.DOTALL), why=WHY) for name, said in TOLD.items()},
    **{
        name: Ending(status=ending.status, stdout=ending.stdout, why=NOT_SEEN)
        for name, ending in BOUNDED.items()
    },
    "a-second-of-CPU": AHEAD,
}
"""Name of a row to its ending in a guest."""
