"""The filter of system calls: a deny list with argument filters, compiled here to classic BPF.

Invariant: calls of another architecture's table never run (the i386 table kills the process, x32 numbers get
ENOSYS), calls that nobody should need get EPERM, and calls that a C library falls back from get ENOSYS.
A deny list on purpose: an allow list breaks numpy, the JVM and Go with every new kernel, and its users then
allow everything. What it takes away is what a name space, a capability or a mount does not already guard.
Sources: seccomp(2), the filter format in the kernel's ``filter.rst``.
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence

from sandbox.kernel.syscall_numbers import AUDIT_ARCH, NUMBERS, SYS_SECCOMP, X32_BIT
from sandbox.kernel.syscalls import invoke

__all__ = ["Program", "compile_filter", "install_filter"]

SECCOMP_SET_MODE_FILTER = 1
RET_KILL_PROCESS = 0x8000_0000
RET_ERRNO = 0x0005_0000
RET_ALLOW = 0x7FFF_0000

# struct seccomp_data { int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]; }, little endian
OFFSET_NUMBER = 0
OFFSET_ARCH = 4
OFFSET_ARGUMENTS = 16

LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
JUMP_ALWAYS = 0x05  # BPF_JMP | BPF_JA
RETURN = 0x06  # BPF_RET | BPF_K

NAMESPACE_FLAGS = 0x7E02_0000
"""Every CLONE_NEW* bit that ``clone`` takes; a time name space is made by ``clone3`` and ``unshare`` only."""
SOCKET_TYPE_MASK = 0xF
"""The bits of a socket's type that are not flags (SOCK_NONBLOCK, SOCK_CLOEXEC)."""
FORGET_PAGES = 4  # POSIX_FADV_DONTNEED
TERMINAL_REQUESTS = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: type into the terminal of someone else
HUGE_PAGES = {"mmap": (3, 0x4_0000), "memfd_create": (1, 0x4), "shmget": (2, 0x800)}
"""The argument and the bit by which a call asks for pages that the operator has set aside (hugetlbpage.rst):
no memory group counts them."""
PERSONALITIES = (0x0, 0x0004_0000, 0xFFFF_FFFF)  # PER_LINUX, with ADDR_NO_RANDOMIZE (debuggers, SBCL), query

DENIED: dict[str, Sequence[str]] = {
    "mounts and roots": (
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "open_tree",
        "open_tree_attr",
        "move_mount",
        "mount_setattr",
        "statmount",
        "listmount",
        "swapon",
        "swapoff",
        "quotactl",
        "quotactl_fd",
    ),
    "name spaces": ("unshare", "setns", "sethostname", "setdomainname"),
    "other processes": (
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "process_madvise",
        "kcmp",
        "pidfd_getfd",
    ),
    "files by handle": ("open_by_handle_at", "name_to_handle_at", "fanotify_init", "fanotify_mark"),
    "keys, which no name space separates": ("add_key", "request_key", "keyctl"),
    "large attack surface": (
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "memfd_secret",
        "lsm_get_self_attr",
        "lsm_set_self_attr",
        "lsm_list_modules",
        "vmsplice",
    ),
    "the machine": (
        "kexec_load",
        "kexec_file_load",
        "init_module",
        "finit_module",
        "delete_module",
        "reboot",
        "acct",
        "syslog",
        "iopl",
        "ioperm",
        "settimeofday",
        "clock_settime",
        "adjtimex",
        "clock_adjtime",
        "vhangup",
        "nfsservctl",
        "lookup_dcookie",
        "uselib",
        "ustat",
        "sysfs",
        "_sysctl",
        "modify_ldt",
        "create_module",
        "get_kernel_syms",
        "query_module",
    ),
    "memory of other nodes": (
        "mbind",
        "set_mempolicy",
        "set_mempolicy_home_node",
        "migrate_pages",
        "move_pages",
    ),
}
ABSENT = (
    # Its flags lie in memory, where a filter cannot look; C libraries then use ``clone``.
    "clone3",
    # SECURITY: counted for the whole machine, or for whoever made the user name space, which is the service:
    # one program could use it all up for everyone (inotify(7), io_setup(2); test_attack..."inotify_init1").
    "inotify_init",
    "inotify_init1",
    "io_setup",
    # SECURITY: says which pages of the files that all share were read (test_calls_that_reach_the_cache).
    "cachestat",
)
"""Answered ENOSYS, as by a kernel that was built without it."""
DONE = ("sync", "syncfs")
"""Answered as done: a program's own files have no disk, and those of the machine are not its to flush."""


class Program:
    """Instructions with labels, resolved by `assemble`; jumps go forward only, as the kernel wants it."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, int, str | None, str | None]] = []
        self.labels: dict[str, int] = {}

    def emit(self, code: int, value: int, *, yes: str | None = None, no: str | None = None) -> None:
        """Add an instruction; ``yes`` and ``no`` name the labels of a jump, None means the next line."""
        self.lines.append((code, value, yes, no))

    def label(self, name: str) -> None:
        """Name the place of the next instruction."""
        self.labels[name] = len(self.lines)

    def assemble(self) -> bytes:
        """Return the program as an array of ``struct sock_filter``.

        Raises:
            ValueError: a conditional jump would span more than 255 instructions, or go backwards.
        """
        out = bytearray()
        for place, (code, value, yes, no) in enumerate(self.lines):
            if code == JUMP_ALWAYS:
                out += struct.pack("<HBBI", code, 0, 0, self._distance(place, yes))
                continue
            distances = (self._distance(place, yes), self._distance(place, no))
            if not all(0 <= distance <= 255 for distance in distances):  # noqa: PLR2004 - one byte
                raise ValueError(f"instruction {place}: jump of {distances} does not fit in one byte")
            out += struct.pack("<HBBI", code, *distances, value)
        return bytes(out)

    def _distance(self, place: int, label: str | None) -> int:
        return 0 if label is None else self.labels[label] - place - 1


def compile_filter(machine: str | None = None, *, may_connect: bool = False) -> bytes:
    """Return the filter for this machine's architecture (``uname -m``).

    Args:
        machine: the architecture; None for this machine's.
        may_connect: allow TCP sockets, for a stage that has a gateway on its loopback.

    Raises:
        NotImplementedError: there is no table of system calls for this architecture.
    """
    machine = machine or os.uname().machine
    if machine not in NUMBERS:
        raise NotImplementedError(f"no system call table for {machine!r}; known: {', '.join(NUMBERS)}")
    numbers = NUMBERS[machine]
    verdicts = {numbers[name]: "deny" for group in DENIED.values() for name in group if name in numbers}
    verdicts |= {numbers[name]: "absent" for name in ABSENT if name in numbers}
    verdicts |= {numbers[name]: "done" for name in DONE}
    filtered = {numbers[name]: name for name in ARGUMENT_FILTERS if name in numbers}
    verdicts |= filtered

    program = Program()
    program.emit(LOAD, OFFSET_ARCH)
    program.emit(JUMP_EQUAL, AUDIT_ARCH[machine], yes="same architecture")
    program.emit(RETURN, RET_KILL_PROCESS)
    program.label("same architecture")
    program.emit(LOAD, OFFSET_NUMBER)
    if machine == "x86_64":
        program.emit(JUMP_AT_LEAST, X32_BIT, no="64 bit")
        program.emit(RETURN, RET_ERRNO | errno.ENOSYS)
        program.label("64 bit")
    _emit_tree(program, sorted(verdicts.items()))
    for name in filtered.values():
        program.label(name)
        if name == "socket" and may_connect:
            _filter_socket_tcp(program, name)
        else:
            ARGUMENT_FILTERS[name](program, name)
    return program.assemble()


def _emit_tree(program: Program, verdicts: Sequence[tuple[int, str]]) -> None:
    """Emit a binary search over the numbers: about eight comparisons for any call.

    Each leaf returns at once, so that conditional jumps stay short; a long jump reaches argument filters.
    """
    if len(verdicts) > 1:
        middle = len(verdicts) // 2
        upper = f"from {verdicts[middle][0]}"
        # A conditional jump reaches 255 lines; the unconditional one behind it reaches any.
        program.emit(JUMP_AT_LEAST, verdicts[middle][0], no=f"below {verdicts[middle][0]}")
        program.emit(JUMP_ALWAYS, 0, yes=upper)
        program.label(f"below {verdicts[middle][0]}")
        _emit_tree(program, verdicts[:middle])
        program.label(upper)
        _emit_tree(program, verdicts[middle:])
        return
    number, verdict = verdicts[0]
    program.emit(JUMP_EQUAL, number, yes=f"is {number}")
    program.emit(RETURN, RET_ALLOW)
    program.label(f"is {number}")
    if verdict == "deny":
        program.emit(RETURN, RET_ERRNO | errno.EPERM)
    elif verdict == "absent":
        program.emit(RETURN, RET_ERRNO | errno.ENOSYS)
    elif verdict == "done":
        program.emit(RETURN, RET_ERRNO)
    else:
        program.emit(JUMP_ALWAYS, 0, yes=verdict)


def _filter_clone(program: Program, name: str) -> None:
    """Deny ``clone`` with any name space flag; threads and processes pass."""
    program.emit(LOAD, OFFSET_ARGUMENTS)
    program.emit(AND, NAMESPACE_FLAGS)
    program.emit(JUMP_EQUAL, 0, yes=f"{name} passes")
    program.emit(RETURN, RET_ERRNO | errno.EPERM)
    program.label(f"{name} passes")
    program.emit(RETURN, RET_ALLOW)


def _filter_socket(program: Program, name: str) -> None:
    """Allow AF_UNIX only: a network name space still leaves the other families as an attack surface."""
    program.emit(LOAD, OFFSET_ARGUMENTS)
    program.emit(JUMP_EQUAL, int(socket.AF_UNIX), yes=f"{name} passes")
    program.emit(RETURN, RET_ERRNO | errno.EAFNOSUPPORT)
    program.label(f"{name} passes")
    program.emit(RETURN, RET_ALLOW)


def _filter_socket_tcp(program: Program, name: str) -> None:
    """Allow AF_UNIX, and plain TCP: neither datagrams nor raw packets nor other protocols over IP."""
    program.emit(LOAD, OFFSET_ARGUMENTS)
    program.emit(JUMP_EQUAL, int(socket.AF_UNIX), yes=f"{name} passes")
    program.emit(JUMP_EQUAL, int(socket.AF_INET), yes=f"{name} is internet")
    program.emit(JUMP_EQUAL, int(socket.AF_INET6), yes=f"{name} is internet", no=f"{name} is denied")
    program.label(f"{name} is internet")
    program.emit(LOAD, OFFSET_ARGUMENTS + 8)
    program.emit(AND, SOCKET_TYPE_MASK)
    program.emit(JUMP_EQUAL, int(socket.SOCK_STREAM), no=f"{name} is denied")
    program.emit(LOAD, OFFSET_ARGUMENTS + 16)
    program.emit(JUMP_EQUAL, 0, yes=f"{name} passes")
    program.emit(JUMP_EQUAL, int(socket.IPPROTO_TCP), yes=f"{name} passes")
    program.label(f"{name} is denied")
    program.emit(RETURN, RET_ERRNO | errno.EAFNOSUPPORT)
    program.label(f"{name} passes")
    program.emit(RETURN, RET_ALLOW)


def _filter_ioctl(program: Program, name: str) -> None:
    """Deny the requests that type into a terminal. Only the low word counts, as in the kernel."""
    program.emit(LOAD, OFFSET_ARGUMENTS + 8)
    for request in TERMINAL_REQUESTS:
        program.emit(JUMP_EQUAL, request, yes=f"{name} is denied")
    program.emit(RETURN, RET_ALLOW)
    program.label(f"{name} is denied")
    program.emit(RETURN, RET_ERRNO | errno.EPERM)


def _filter_huge_pages(program: Program, name: str) -> None:
    """Say that none are left, as on a machine that has set none aside.

    SECURITY: they would be memory beside the memory limit (test_attack..."memfd of huge pages").
    """
    argument, bit = HUGE_PAGES[name]
    program.emit(LOAD, OFFSET_ARGUMENTS + 8 * argument)
    program.emit(AND, bit)
    program.emit(JUMP_EQUAL, 0, yes=f"{name} passes")
    program.emit(RETURN, RET_ERRNO | errno.ENOMEM)
    program.label(f"{name} passes")
    program.emit(RETURN, RET_ALLOW)


def _filter_advice(program: Program, name: str) -> None:
    """Take the advice to forget a file's pages, and do nothing.

    SECURITY: the files of a tree are everybody's: who makes the kernel forget them slows others down, and
    sees by the time of the next reading what they read (test_files_that_all_share_stay_in_memory).
    """
    program.emit(LOAD, OFFSET_ARGUMENTS + 24)
    program.emit(JUMP_EQUAL, FORGET_PAGES, no=f"{name} passes")
    program.emit(RETURN, RET_ERRNO)
    program.label(f"{name} passes")
    program.emit(RETURN, RET_ALLOW)


def _filter_personality(program: Program, name: str) -> None:
    """Allow asking and the usual personality; others re-enable old, less guarded behaviour."""
    program.emit(LOAD, OFFSET_ARGUMENTS)
    for value in PERSONALITIES:
        program.emit(JUMP_EQUAL, value, yes=f"{name} passes")
    program.emit(RETURN, RET_ERRNO | errno.EPERM)
    program.label(f"{name} passes")
    program.emit(RETURN, RET_ALLOW)


ARGUMENT_FILTERS: dict[str, Callable[[Program, str], None]] = {
    "clone": _filter_clone,
    "socket": _filter_socket,
    "socketpair": _filter_socket,
    "ioctl": _filter_ioctl,
    "fadvise64": _filter_advice,
    "personality": _filter_personality,
    **dict.fromkeys(HUGE_PAGES, _filter_huge_pages),
}


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install_filter(program: bytes) -> None:
    """Bind the calling process and all that it starts to ``program`` for good; needs no_new_privs."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = _SockFprog(len(program) // 8, ctypes.addressof(buffer))
    invoke(SYS_SECCOMP[os.uname().machine], "seccomp", SECCOMP_SET_MODE_FILTER, 0, ctypes.addressof(header))
