"""Attacks on the kernel by its system calls: what the filter refuses, and what a capability would allow."""

# ruff: noqa: E501 - an attack is one line, so that the table can be read as one
# fmt: off

import re

from sandbox.result import ExecutionStatus as S
from tests.adversarial.attack import Attack, Ending, Without, calls

__all__ = ["ROWS"]

FILTER = ("seccomp filter",)
RIGHTS = ("seccomp filter", "capabilities dropped")
OK = rb"ok\n"

# Name, line of the catalogue, arguments of the call, its answer, the walls without which it succeeds.
CALLS: list[tuple[str, str, str, bytes, tuple[str, ...]]] = [
    ("unshare user", "nested user namespaces", "272, 0x10000000", b"EPERM\n", FILTER),
    ("unshare user and mount", "nested user namespaces", "272, 0x10020000", b"EPERM\n", FILTER),
    ("unshare user and network", "nested user namespaces", "272, 0x50000000", b"EPERM\n", FILTER),
    ("unshare mount", "nested user namespaces", "272, 0x20000", b"EPERM\n", RIGHTS),
    ("unshare time", "nested user namespaces", "272, 0x80", b"EPERM\n", RIGHTS),
    ("clone with a user name space", "raw clone(CLONE_NEWUSER)", "56, 0x10000000 | 17, 0, 0, 0, 0", b"EPERM\n", FILTER),
    ("clone with user and pid name spaces", "raw clone(CLONE_NEWUSER)", "56, 0x30000000 | 17, 0, 0, 0, 0", b"EPERM\n", FILTER),
    ("clone with a pid name space", "raw clone(CLONE_NEWUSER)", "56, 0x20000000 | 17, 0, 0, 0, 0", b"EPERM\n", RIGHTS),
    ("clone with high bits set", "raw clone(CLONE_NEWUSER)", "56, 0xFF00000010000000 - (1 << 64) | 17, 0, 0, 0, 0", b"EPERM\n", FILTER),
    ("clone3 with a user name space", "clone3", "435, (0x10000000).to_bytes(8,'little') + bytes(24) + (17).to_bytes(8,'little') + bytes(24), 64", b"ENOSYS\n", FILTER),
    ("clone3", "clone3", "435, bytes(32) + (17).to_bytes(8,'little') + bytes(24), 64", b"ENOSYS\n", FILTER),
    ("setns", "nested user namespaces", "308, os.open('/proc/self/ns/uts', 0), 0", b"EPERM\n", ()),
    ("x32 getpid", "x32 and i386 system calls", "0x40000000 | 39", b"ENOSYS\n", ()),
    ("x32 ptrace", "x32 and i386 system calls", "0x40000000 | 521, 0, 0, 0, 0", b"ENOSYS\n", ()),
    ("ptrace attach", "ptrace", "101, 16, 1, 0, 0", b"EPERM\n", ()),
    ("process_vm_readv", "ptrace", "310, os.getpid(), 0, 0, 0, 0, 0", b"EPERM\n", FILTER),
    ("process_vm_writev", "ptrace", "311, os.getpid(), 0, 0, 0, 0, 0", b"EPERM\n", FILTER),
    ("kcmp", "ptrace", "312, os.getpid(), os.getpid(), 0, 0, 0", b"EPERM\n", FILTER),
    ("pidfd_getfd", "ptrace", "438, os.pidfd_open(os.getpid()), 0, 0", b"EPERM\n", FILTER),
    ("keyctl of the session's keys", "keyctl and add_key", "250, 0, -3, 1", b"EPERM\n", FILTER),
    ("add_key", "keyctl and add_key", "248, b'user', b'a', b'b', 1, -2", b"EPERM\n", FILTER),
    ("request_key", "keyctl and add_key", "249, b'user', b'a', 0, -2", b"EPERM\n", ()),
    ("io_uring_setup", "io_uring", "425, 8, ctypes.create_string_buffer(120)", b"EPERM\n", (*FILTER, "rlimits")),
    ("io_uring_enter", "io_uring", "426, -1, 0, 0, 0, 0, 0", b"EPERM\n", ()),
    ("bpf", "bpf", "321, 0, ctypes.create_string_buffer((2).to_bytes(4,'little')+(4).to_bytes(4,'little')*2+(1).to_bytes(4,'little'),72), 72", b"EPERM\n", ()),
    ("perf_event_open", "perf_event_open", "298, ctypes.create_string_buffer(b'\\1\\0\\0\\0\\x70\\0\\0\\0', 112), 0, -1, -1, 0", b"EPERM\n", ()),
    ("userfaultfd", "userfaultfd", "323, 1", b"EPERM\n", FILTER),
    ("memfd_secret", "userfaultfd", "447, 0", b"EPERM\n", ()),
    ("vmsplice", "userfaultfd", "278, os.pipe()[1], 0, 0, 0", b"EPERM\n", FILTER),
    ("mount of a tmpfs", "mounts", "165, b'none', b'/tmp', b'tmpfs', 0, 0", b"EPERM\n", ()),
    ("umount of a mask", "mounts", "166, b'/proc/cmdline', 2", b"EPERM\n", ()),
    ("open_tree", "mounts", "428, -100, b'/', 0", b"EPERM\n", FILTER),
    ("fsopen", "mounts", "430, b'tmpfs', 0", b"EPERM\n", ()),
    ("move_mount", "mounts", "429, -100, b'/tmp', -100, b'/work', 0", b"EPERM\n", ()),
    ("mount_setattr", "mounts", "442, -100, b'/', 0, bytes(32), 32", b"EPERM\n", ()),
    ("chroot", "chroot tricks", "161, b'/tmp'", b"EPERM\n", RIGHTS),
    ("pivot_root", "chroot tricks", "155, b'/tmp', b'/tmp'", b"EPERM\n", ()),
    ("open_by_handle_at", "files by handle", "304, os.open('/',0), bytes(16), 0", b"EPERM\n", ()),
    ("name_to_handle_at", "files by handle", "303, -100, b'/work', (100).to_bytes(4,'little')+bytes(116), ctypes.byref(ctypes.c_int()), 0", b"EPERM\n", FILTER),
    ("fanotify_init", "files by handle", "300, 0, 0", b"EPERM\n", ()),
    ("kexec_load", "modules and reboot", "246, 0, 0, 0, 0", b"EPERM\n", ()),
    ("init_module", "modules and reboot", "175, b'x', 1, b''", b"EPERM\n", ()),
    ("finit_module", "modules and reboot", "313, 0, b'', 0", b"EPERM\n", ()),
    ("delete_module", "modules and reboot", "176, b'x', 0", b"EPERM\n", ()),
    ("reboot", "modules and reboot", "169, 0, 0, 0, 0", b"EPERM\n", ()),
    ("swapon", "modules and reboot", "167, b'/work/main.py', 0", b"EPERM\n", ()),
    ("acct", "modules and reboot", "163, b'/work/a'", b"EPERM\n", ()),
    ("syslog", "modules and reboot", "103, 3, ctypes.create_string_buffer(99), 99", b"EPERM\n", ()),
    ("iopl", "modules and reboot", "172, 3", b"EPERM\n", ()),
    ("clock_settime", "clock changes", "227, 0, bytes(16)", b"EPERM\n", ()),
    ("settimeofday", "clock changes", "164, bytes(16), 0", b"EPERM\n", ()),
    ("adjtimex", "clock changes", "159, ctypes.create_string_buffer(208)", b"EPERM\n", FILTER),
    ("sethostname", "modules and reboot", "170, b'x', 1", b"EPERM\n", ()),
    ("personality READ_IMPLIES_EXEC", "memory that is writable and executable", "135, 0x400000", b"EPERM\n", FILTER),
    ("personality of old addresses", "memory that is writable and executable", "135, 0x200000", b"EPERM\n", FILTER),
    ("memfd of huge pages", "memory beside the memory group", "319, b'x', 4", b"ENOMEM\n", FILTER),
    ("map of huge pages", "memory beside the memory group", "9, 0, 1 << 21, 3, 0x40022, -1, 0", b"ENOMEM\n", ()),
    ("System V segment of huge pages", "memory beside the memory group", "29, 0, 1 << 21, 0o5600", b"ENOMEM\n", ()),
    ("modify_ldt", "memory that is writable and executable", "154, 0, ctypes.create_string_buffer(16), 16", b"EPERM\n", FILTER),
    ("TIOCSTI", "terminals", "16, 0, 0x5412, b'x'", b"EPERM\n", ()),
    ("TIOCSTI with high bits set", "terminals", "16, 0, 0x100005412, b'x'", b"EPERM\n", ()),
    ("TIOCLINUX", "terminals", "16, 0, 0x541C, b'x'", b"EPERM\n", ()),
    ("vhangup", "terminals", "153", b"EPERM\n", ()),
    ("mknod of a block device", "mknod", "133, b'/work/d', 0o60600, 0xFE00", b"EPERM\n", ()),
    ("mknod of the memory device", "mknod", "133, b'/work/d', 0o20600, 0x101", b"EPERM\n", ()),
    ("mknod of a null device", "mknod", "133, b'/work/d', 0o20600, 0x103", b"EPERM\n", ()),
    ("migrate_pages", "memory that is writable and executable", "256, 0, 0, 0, 0", b"EPERM\n", ()),
]

I386 = (
    "import ctypes,mmap,os\nm=mmap.mmap(-1,4096,prot=7); m.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')\n"
    "f=ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n"
    "print(f() == os.getpid(), flush=True)"
)

ROWS = [
    *(
        Attack(name=name, line=line, wall="the seccomp filter" if answer != b"EINVAL\n" else "the kernel", code=calls(f"call({arguments})"),
            ends=Ending(stdout=re.compile(rb"(EPERM|EACCES)\n") if line == "mknod" else answer), without=Without(walls=walls, stdout=re.compile(rb"(ok\n)+")) if walls else None)
        for name, line, arguments, answer, walls in CALLS
    ),
    Attack(name="i386 system call", line="x32 and i386 system calls", wall="the filter kills on a foreign table",
        code=I386, ends=Ending(status=S.SIGNALLED, stdout=b""), without=Without(walls=FILTER, stdout=b"True\n")),
    Attack(name="i386 mount", line="x32 and i386 system calls", wall="the filter kills on a foreign table",
        code=I386.replace("\\x14", "\\x15"), ends=Ending(status=S.SIGNALLED, stdout=b"")),
    Attack(name="executing a memfd", line="memfd_create + exec", wall="allowed: it is the same program under the same walls",
        code="import os; f=os.memfd_create('x'); os.write(f,open('/usr/bin/id','rb').read())\nos.execve(f,['id','-u'],{})", ends=Ending(stdout=b"1000\n")),
    Attack(name="executing a memfd that asks for more", line="memfd_create + exec", wall="filter and no_new_privs outlive an exec",
        code="import os; f=os.memfd_create('x'); os.write(f,open('/usr/bin/unshare','rb').read())\nos.execve(f,['unshare','-Ur','id','-u'],{})",
        ends=Ending(status=S.NONZERO_EXIT, stdout=b""), without=Without(walls=FILTER, stdout=b"0\n")),
    Attack(name="program that asks for a second filter", line="memfd_create + exec", wall="filters only add up",
        code=calls("import struct\np=struct.pack('<HBBI',6,0,0,0x7fff0000); b=ctypes.create_string_buffer(p,8)\n"
        "class F(ctypes.Structure): _fields_=[('n',ctypes.c_ushort),('p',ctypes.c_void_p)]\nh=F(1,ctypes.addressof(b))\n"
        "call(317,1,0,ctypes.byref(h)); call(272,0x10000000)"), ends=Ending(stdout=b"ok\nEPERM\n"), without=Without(walls=FILTER, stdout=b"ok\nok\n")),
    Attack(name="user name space, then a mount of one's own", line="nested user namespaces", wall="the seccomp filter",
        code="import subprocess\nr=subprocess.run(['/usr/bin/unshare','-Urm','/bin/sh','-c','mount -t tmpfs none /tmp && echo mounted'],capture_output=True); print(r.stdout)",
        ends=Ending(stdout=b"b''\n"), without=Without(walls=FILTER, stdout=b"b'mounted\\n'\n")),
    Attack(name="chroot and out again", line="chroot tricks", wall="no capability, and a root that was pivoted to: nothing lies behind it",
        code=calls("os.mkdir('j'); attempt(os.chroot, 'j')\nfor _ in range(50): os.chdir('..')\nprint('main.py' in os.listdir('.'), os.path.exists('root'))"),
        ends=Ending(stdout=b"EPERM\nFalse False\n"), without=Without(walls=RIGHTS, stdout=b"ok\nFalse False\n")),
    Attack(name="a root folder that was opened before", line="chroot tricks", wall="the old root is detached",
        code=calls("f=os.open('/',0)\nfor _ in range(50): f=os.open('..',0,dir_fd=f)\nprint(sorted(set(os.listdir(f)) & {'root','home','boot','sys','var'}))"),
        ends=Ending(stdout=b"[]\n")),
]
