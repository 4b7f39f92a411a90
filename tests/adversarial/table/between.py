"""Attacks on other programs that run at the same time: the guard (`tests.adversarial.guard`) has all of it."""

# ruff: noqa: E501 - an attack is one line, so that the table can be read as one
# fmt: off

import re

from tests.adversarial.attack import Attack, Ending, Without, calls
from tests.adversarial.guard import IPC_KEY, PORT, SECRET

__all__ = ["ROWS"]

IPC = ("IPC namespace",)
NET = ("network namespace",)
LIBC = "libc.shmat.restype=ctypes.c_void_p\n"

ROWS = [
    Attack(name="System V memory of another", line="System V and POSIX IPC between runs", wall="an IPC name space for each stage",
        code=calls(f"{LIBC}i=libc.shmget({IPC_KEY},0,0)\nprint(ctypes.string_at(libc.shmat(i,None,0o10000),{len(SECRET)}).decode() if i>=0 else errno.errorcode[ctypes.get_errno()])"),
        ends=Ending(stdout=b"ENOENT\n"), without=Without(walls=IPC, stdout=f"{SECRET}\n".encode())),
    Attack(name="System V queue of another", line="System V and POSIX IPC between runs", wall="an IPC name space for each stage",
        code=calls(f"i=libc.msgget({IPC_KEY},0)\nprint('there' if i>=0 else errno.errorcode[ctypes.get_errno()])"), ends=Ending(stdout=b"ENOENT\n"), without=Without(walls=IPC, stdout=b"there\n")),
    Attack(name="System V semaphore of another", line="System V and POSIX IPC between runs", wall="an IPC name space for each stage",
        code=calls(f"i=libc.semget({IPC_KEY},0,0)\nprint('there' if i>=0 else errno.errorcode[ctypes.get_errno()])"), ends=Ending(stdout=b"ENOENT\n"), without=Without(walls=IPC, stdout=b"there\n")),
    Attack(name="list of System V objects", line="System V and POSIX IPC between runs", wall="an IPC name space for each stage",
        code=f"print([k for k in ('shm','sem','msg') if str({IPC_KEY}) in open(f'/proc/sysvipc/{{k}}').read()])", ends=Ending(stdout=b"[]\n"), without=Without(walls=IPC, stdout=b"['shm', 'sem', 'msg']\n")),
    Attack(name="System V memory for the next run", line="System V and POSIX IPC between runs", wall="an IPC name space for each stage: it dies with it",
        code=calls("print(libc.shmget(0x5EED, 4096, 0o1666) >= 0)"), ends=Ending(stdout=b"True\n")),
    Attack(name="POSIX queue", line="System V and POSIX IPC between runs", wall="RLIMIT_MSGQUEUE is 0, and an IPC name space", code=calls("libc.mq_open.restype=ctypes.c_int\nr=libc.mq_open(b'/mine',0o102,0o600,None)\nprint('ok' if r>=0 else errno.errorcode[ctypes.get_errno()]); libc.mq_unlink(b'/mine')"),
        ends=Ending(stdout=b"EMFILE\n"), without=Without(walls=("rlimits",), stdout=b"ok\n")),
    Attack(name="POSIX queue of another", line="System V and POSIX IPC between runs", wall="an IPC name space for each stage, and RLIMIT_MSGQUEUE is 0", code=calls("r=libc.mq_open(b'/guard',0)\nprint('there' if r>=0 else errno.errorcode[ctypes.get_errno()])"),
        ends=Ending(stdout=b"ENOENT\n"), without=Without(walls=("rlimits", "IPC namespace"), stdout=re.compile(rb"(there|EACCES)\n"))),
    Attack(name="POSIX memory of another", line="System V and POSIX IPC between runs", wall="/dev/shm is the sandbox's own", code="import os; print(os.listdir('/dev/shm'))", ends=Ending(stdout=b"[]\n")),
    Attack(name="key of another", line="keyrings between runs", wall="the seccomp filter: no name space separates keys",
        code=calls("i=libc.syscall(250, 10, ctypes.c_long(-3), b'user', b'guard', 0)\nb=ctypes.create_string_buffer(99)\nn=libc.syscall(250, 11, ctypes.c_long(i), b, 99) if i>0 else -1\nprint(b.value.decode() if n>0 else errno.errorcode[ctypes.get_errno()])"),
        ends=Ending(stdout=b"EPERM\n"), without=Without(walls=("seccomp filter",), stdout=f"{SECRET}\n".encode())),
    Attack(name="key for the next run", line="keyrings between runs", wall="the seccomp filter", code=calls("call(248, b'user', b'for-the-next', b'x', 1, -4)"), ends=Ending(stdout=b"EPERM\n"), without=Without(walls=("seccomp filter",), stdout=b"ok\n")),
    Attack(name="abstract socket of another", line="abstract Unix sockets", wall="a network name space for each stage", code=calls("attempt(socket.socket(socket.AF_UNIX).connect, '\\0guard')"), ends=Ending(stdout=b"ECONNREFUSED\n")),
    Attack(name="abstract socket of the service", line="abstract Unix sockets", wall="a network name space for each stage", code=calls("import sys\nattempt(socket.socket(socket.AF_UNIX).connect, '\\0' + sys.argv[1])"), args=["{abstract}"],
        ends=Ending(stdout=b"ECONNREFUSED\n"), without=Without(walls=NET, stdout=b"ok\n")),
    Attack(name="list of sockets", line="abstract Unix sockets", wall="a network name space for each stage", code="print(len(open('/proc/net/unix').readlines()))", ends=Ending(stdout=b"1\n"), without=Without(walls=NET, stdout=re.compile(rb"([2-9]|\d\d+)\n"))),
    Attack(name="port of another", line="loopback", wall="the seccomp filter and a network name space", code=calls(f"attempt(lambda: socket.create_connection(('127.0.0.1', {PORT}), 3))"), ends=Ending(stdout=b"EAFNOSUPPORT\n")),
    Attack(name="files of another", line="files between runs", wall="a tmpfs for each sandbox", code="import os; print([p for p in ('/tmp/guard','/dev/shm/guard','/work/guard') if os.path.exists(p)])", ends=Ending(stdout=b"[]\n")),
    Attack(name="files for the next run", line="files between runs", wall="a tmpfs for each sandbox, destroyed with it", code="import os\nfor p in ('/tmp','/dev/shm','/work'):\n  print(sorted(os.listdir(p))); open(f'{p}/left','w').write('x')", ends=Ending(stdout=b"[]\n[]\n['main.py']\n")),
    Attack(name="processes of another", line="processes between runs", wall="a process name space for each stage", code="import os\nprint(len([p for p in os.listdir('/proc') if p.isdigit()]) <= 2)", ends=Ending(stdout=b"True\n"), without=Without(walls=("pid namespace",), stdout=b"False\n")),
    Attack(name="priority of everybody of one's user", line="processes between runs", wall="a user number for each sandbox", code=calls("attempt(os.setpriority, os.PRIO_USER, 0, 19)"), ends=Ending(stdout=b"ok\n")),
    Attack(name="lock on a file of the tree", line="file locks on shared inodes", wall="known and kept: a lock can be seen by others, and no tool of the tree waits for one", code=calls("import fcntl\nf=open('/usr/bin/id'); attempt(fcntl.flock, f, fcntl.LOCK_EX | fcntl.LOCK_NB)"), ends=Ending(stdout=b"ok\n")),
    Attack(name="lease on a file of the tree", line="file locks on shared inodes", wall="only the owner of a file may take one", code=calls("import fcntl\nf=open('/usr/bin/id'); attempt(fcntl.fcntl, f, fcntl.F_SETLEASE, fcntl.F_RDLCK)"), ends=Ending(stdout=re.compile(rb"(EACCES|EAGAIN)\n"))),
    Attack(name="list of locks", line="file locks on shared inodes", wall="proc shows the locks of one's own process name space", code="print([l for l in open('/proc/locks') if 'POSIX' in l or 'FLOCK' in l])", ends=Ending(stdout=b"[]\n")),
]
