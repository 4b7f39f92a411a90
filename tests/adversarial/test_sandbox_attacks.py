"""Programs that attack: each row is an attack, the status it must end with, and what it must (not) have got.

Every attack runs in a real sandbox; `sandboxes` asserts afterwards that no process, group, mount, file or
descriptor is left.
"""

# ruff: noqa: E501 - an attack is one line, so that the table can be read as one

import asyncio
from dataclasses import dataclass, replace

import pytest

from sandbox.backends.backend import StageOrder
from sandbox.backends.slot import SlotBackend
from sandbox.bounds import StageBounds
from sandbox.executor import CodeExecutor
from sandbox.kernel.landlock import landlock_abi
from sandbox.request import ExecutionRequest, Limits, SourceFile
from sandbox.result import ExecutionStatus, LimitKind
from sandbox.rootfs import find_tree
from tests.conftest import state_dir
from tests.support.sandboxes import MIB, SMALL, host_python, python_request, sandboxes

pytestmark = pytest.mark.root

S = ExecutionStatus
L = LimitKind

# Calls a system call by number and prints the name of its error, or "ok".
CALL = """
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(*a):
    r = libc.syscall(*[ctypes.c_long(x) if isinstance(x, int) else x for x in a])
    print("ok" if r >= 0 else errno.errorcode[ctypes.get_errno()])
    return r
def attempt(f, *a):
    try:
        f(*a); print("ok")
    except OSError as e:
        print(errno.errorcode[e.errno])
"""


@dataclass(frozen=True)
class Attack:
    name: str
    code: str
    status: ExecutionStatus
    stdout: bytes | None = None
    hits: LimitKind | None = None
    limits: Limits = SMALL


DEPLETION = [
    Attack(
        "fork bomb that gives up",
        "import os\nwhile True: os.fork()",
        S.PROCESS_LIMIT,
        hits=L.PROCESSES,
    ),
    Attack(
        "fork bomb that never gives up",
        "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
        S.CPU_LIMIT,
        hits=L.CPU_TIME | L.PROCESSES,
    ),
    Attack(
        "thread bomb",
        "import threading,time\nwhile True: threading.Thread(target=time.sleep,args=(60,)).start()",
        S.TIMEOUT,
        hits=L.PROCESSES | L.WALL_TIME,
    ),
    Attack(
        "zombie flood",
        "import os,time\nn=0\ntry:\n  while True:\n    if os.fork()==0: os._exit(0)\n    n+=1\nexcept OSError: print(n)",
        S.SUCCESS,
        b"9\n",
        L.PROCESSES,
    ),
    Attack("busy loop", "while True: pass", S.CPU_LIMIT, hits=L.CPU_TIME),
    Attack(
        "CPU time hidden in short-lived children",
        "import os\nwhile True:\n  if os.fork()==0:\n    sum(range(3*10**5)); os._exit(0)\n  os.wait()",
        S.CPU_LIMIT,
    ),
    Attack("sleeping without CPU", "import time; time.sleep(60)", S.TIMEOUT, hits=L.WALL_TIME),
    Attack("stopping itself", "import os,signal; os.kill(os.getpid(), signal.SIGSTOP)", S.TIMEOUT),
    Attack(
        "ignoring SIGTERM and all else",
        "import signal,time\nfor n in range(1,65):\n  try: signal.signal(n, signal.SIG_IGN)\n  except (OSError, ValueError): pass\n"
        "time.sleep(60)",
        S.TIMEOUT,
    ),
    Attack("memory bomb", "a=[]\nwhile True: a.append(bytearray(1<<20))", S.MEMORY_LIMIT, hits=L.MEMORY),
    Attack(
        "memory bomb in children",
        "import os,time\nfor _ in range(5):\n  if os.fork()==0:\n    a=bytearray(40<<20); time.sleep(60)\n"
        "raise SystemExit(max(os.wait()[1] for _ in range(3)) != 0)",
        S.MEMORY_LIMIT,
    ),
    Attack(
        "memory in files of /dev/shm",
        "f=open('/dev/shm/x','wb')\nwhile True: f.write(b'x'*65536); f.flush()",
        S.FILE_SIZE_LIMIT,
    ),
    Attack(
        "memfd bomb",
        "import os\nfd=[]\nwhile True:\n  f=os.memfd_create('x'); fd.append(f)\n  for _ in range(3): os.write(f,b'x'*(1<<20))",
        S.MEMORY_LIMIT,
        limits=replace(SMALL, memory_bytes=48 * MIB),
    ),
    Attack(
        "tmpfs bomb",
        "n=0\nwhile True:\n  open(f'/tmp/{n}','wb').write(b'x'*(1<<20)); n+=1",
        S.DISK_LIMIT,
        hits=L.DISK,
    ),
    Attack(
        "quota shared by /work, /tmp and /dev/shm",
        "import os\nfor p in ('/work/a','/tmp/a','/dev/shm/a'): open(p,'wb').write(b'x'*(3<<20))",
        S.DISK_LIMIT,
        hits=L.DISK,
    ),
    Attack("inode flood", "n=0\nwhile True:\n  open(f'{n}','w'); n+=1", S.DISK_LIMIT, hits=L.INODES),
    Attack(
        "file over its size",
        "open('big','wb').write(b'x'*(5<<20))",
        S.FILE_SIZE_LIMIT,
        hits=L.FILE_SIZE,
    ),
    Attack(
        "file over its size, with the signal's default action",
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL); open('big','wb').write(b'x'*(5<<20))",
        S.FILE_SIZE_LIMIT,
        hits=L.FILE_SIZE,
    ),
    Attack("huge sparse file", "open('s','wb').truncate(1<<40)", S.NONZERO_EXIT),
    Attack(
        "output flood",
        "import os\nwhile True: os.write(1, b'x'*65536)",
        S.TIMEOUT,
        b"x" * SMALL.output_bytes,
        L.WALL_TIME | L.STDOUT,
    ),
    Attack(
        "output flood that costs the reader alone",
        "import os\nf=os.open('z',os.O_RDWR|os.O_CREAT); os.truncate(f,1<<20)\nwhile True: os.sendfile(1,f,0,1<<20)",
        S.CPU_LIMIT,
        b"\0" * SMALL.output_bytes,
        L.CPU_TIME | L.STDOUT,
    ),
    Attack("too many open files", "f=[]\nwhile True: f.append(open('/dev/null'))", S.NONZERO_EXIT),
    Attack("core dump", "import os; os.abort()", S.SIGNALLED),
    Attack("recursion", "import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()", S.MEMORY_LIMIT),
    Attack(
        "thousand-deep folders",
        "import os\nfor _ in range(1000):\n  os.mkdir('d'); os.chdir('d')",
        S.DISK_LIMIT,
        hits=L.INODES,
    ),
]

PERSISTENCE = [
    Attack(
        "orphan daemon",
        "import os,time\nif os.fork()==0:\n  os.setsid()\n  if os.fork()==0: time.sleep(3600)\n  os._exit(0)\nprint('left')",
        S.SUCCESS,
        b"left\n",
    ),
    Attack(
        "orphan that holds stdout open and prints",
        "import os,time\nif os.fork()==0:\n  os.setsid()\n  while True: os.write(1,b'.'); time.sleep(0.01)\n"
        "time.sleep(0.3); os._exit(0)",
        S.SUCCESS,
    ),
    Attack(
        "kill(-1)",
        "import os,signal\nif os.fork()==0:\n  os.kill(-1, signal.SIGKILL)\nos.wait(); print('x')",
        S.SIGNALLED,
        b"",
    ),
    Attack(
        "signals to init",
        "import os\nfor n in range(1,65):\n  try: os.kill(1, n)\n  except OSError: pass\nprint('alive')",
        S.SUCCESS,
        b"alive\n",
    ),
    Attack("signal to the parent of all", "import os; print(os.getppid()); os.kill(0, 9)", S.SIGNALLED),
]

SYSTEM_CALLS = [
    Attack(f"system call {name}", f"{CALL}\ncall({arguments})", S.SUCCESS, answer)
    for name, arguments, answer in [
        ("unshare user", "272, 0x10000000", b"EPERM\n"),
        ("unshare mount", "272, 0x20000", b"EPERM\n"),
        ("clone with a user name space", "56, 0x10000000 | 17, 0, 0, 0, 0", b"EPERM\n"),
        ("clone with a pid name space", "56, 0x20000000 | 17, 0, 0, 0, 0", b"EPERM\n"),
        ("clone3", "435, 0, 0", b"ENOSYS\n"),
        ("setns", "308, 0, 0", b"EPERM\n"),
        ("x32 getpid", "0x40000000 | 39", b"ENOSYS\n"),
        ("x32 ptrace", "0x40000000 | 521, 0, 0, 0, 0", b"ENOSYS\n"),
        ("ptrace", "101, 16, 1, 0, 0", b"EPERM\n"),
        ("ptrace traceme", "101, 0, 0, 0, 0", b"EPERM\n"),
        ("process_vm_readv", "310, 1, 0, 0, 0, 0, 0", b"EPERM\n"),
        ("keyctl", "250, 0, -3, 1", b"EPERM\n"),
        ("add_key", "248, b'user', b'a', b'b', 1, -4", b"EPERM\n"),
        ("io_uring_setup", "425, 8, 0", b"EPERM\n"),
        ("bpf", "321, 0, 0, 0", b"EPERM\n"),
        ("perf_event_open", "298, 0, 0, 0, 0, 0", b"EPERM\n"),
        ("userfaultfd", "323, 0", b"EPERM\n"),
        ("mount", "165, b'none', b'/tmp', b'tmpfs', 0, 0", b"EPERM\n"),
        ("umount of the proc mask", "166, b'/proc/cmdline', 2", b"EPERM\n"),
        ("open_tree", "428, -100, b'/', 1", b"EPERM\n"),
        ("chroot", "161, b'/tmp'", b"EPERM\n"),
        ("pivot_root", "155, b'/tmp', b'/tmp'", b"EPERM\n"),
        ("open_by_handle_at", "304, 0, 0, 0", b"EPERM\n"),
        ("kexec_load", "246, 0, 0, 0, 0", b"EPERM\n"),
        ("finit_module", "313, 0, b'', 0", b"EPERM\n"),
        ("reboot", "169, 0, 0, 0, 0", b"EPERM\n"),
        ("clock_settime", "227, 0, 0", b"EPERM\n"),
        ("sethostname", "170, b'x', 1", b"EPERM\n"),
        ("personality READ_IMPLIES_EXEC", "135, 0x400000", b"EPERM\n"),
        ("TIOCSTI", "16, 0, 0x5412, b'x'", b"EPERM\n"),
        ("TIOCSTI with high bits set", "16, 0, 0x100005412, b'x'", b"EPERM\n"),
        (
            "mknod of a block device",
            "133, b'/work/d', 0o60600, 0",
            b"EACCES\n" if landlock_abi() else b"EPERM\n",
        ),
        ("setuid 0", "105, 0", b"EINVAL\n"),
        ("setgroups", "116, 0, 0", b"EPERM\n"),
        ("inotify_init", "253", b"ENOSYS\n"),
        ("inotify_init1", "294, 0", b"ENOSYS\n"),
        ("io_setup", "206, 60000, ctypes.byref(ctypes.c_ulong())", b"ENOSYS\n"),
        ("capset of everything", "126, bytes.fromhex('2205082000000000'), b'\\xff' * 24", b"EPERM\n"),
    ]
]

SOCKETS = [
    Attack(
        f"socket of family {family}", f"{CALL}\nattempt(socket.socket, {family}, {kind})", S.SUCCESS, answer
    )
    for family, kind, answer in [
        (1, 1, b"ok\n"),
        (2, 1, b"EAFNOSUPPORT\n"),
        (2, 3, b"EAFNOSUPPORT\n"),
        (10, 2, b"EAFNOSUPPORT\n"),
        (16, 3, b"EAFNOSUPPORT\n"),
        (17, 3, b"EAFNOSUPPORT\n"),
        (38, 5, b"EAFNOSUPPORT\n"),
        (40, 1, b"EAFNOSUPPORT\n"),
    ]
]

REACH = [
    Attack("i386 system call", (
        "import ctypes,mmap\nm=mmap.mmap(-1,4096,prot=7); m.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')\n"
        "print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))())"
    ), S.SIGNALLED, b""),
    Attack("who am I", "import os; print(os.getresuid(), os.getresgid(), os.getgroups())", S.SUCCESS,
        b"(1000, 1000, 1000) (1000, 1000, 1000) []\n"),
    Attack("capabilities", (
        "print([l.split()[1].strip('0') for l in open('/proc/self/status') if l.startswith('Cap')])"
    ), S.SUCCESS, b"['', '', '', '', '']\n"),
    Attack("open descriptors", "import os; print(sorted(os.listdir('/proc/self/fd')))", S.SUCCESS,
        b"['0', '1', '2', '3']\n"),
    Attack("names of the root", "import os; print(*sorted(os.listdir('/')))", S.SUCCESS),
    Attack("host folders", (
        "import os; print([p for p in ('/root','/home','/sys','/var','/run','/boot','/etc/shadow','/etc/ssh',"
        "'/var/run/dstack.sock','/var/run/docker.sock','/dev/tdx_guest','/dev/kmsg','/dev/mem','/dev/vda','/dev/pts')"
        " if os.path.exists(p)])"
    ), S.SUCCESS, b"[]\n"),
    Attack("init in proc", f"{CALL}\nprint([p for p in os.listdir('/proc') if p.isdigit()])\n"
        "for n in ('environ','mem','maps','fd','root','exe','cwd','cmdline','task/1/cmdline','oom_score_adj'):\n"
        "  attempt(os.stat, f'/proc/1/{n}')", S.SUCCESS, b"['2']\n" + b"ENOENT\n" * 10),
    Attack("bounds for init", f"{CALL}\nimport resource as r\n"
        "for n in (r.RLIMIT_AS, r.RLIMIT_CPU, r.RLIMIT_NOFILE): attempt(r.prlimit, 1, n, (0, 0))", S.SUCCESS, b"EPERM\n" * 3),
    Attack("starving init", f"{CALL}\nattempt(os.sched_setscheduler, 1, os.SCHED_IDLE, os.sched_param(0))\n"
        "attempt(os.sched_setaffinity, 1, {0})\nattempt(os.setpriority, os.PRIO_PROCESS, 1, 19)", S.SUCCESS, b"EPERM\n" * 3),
    Attack("OOM score", f"{CALL}\nprint(open('/proc/self/oom_score_adj').read(), end='')\n"
        "attempt(lambda: os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'-1'))", S.SUCCESS, b"500\nEACCES\n"),
    Attack("environment", "import os; print(sorted(os.environ))", S.SUCCESS,
        b"['HOME', 'LANG', 'PATH', 'PYTHONDONTWRITEBYTECODE', 'TMPDIR']\n"),
    Attack("writing kernel settings", f"{CALL}\nfor n in ('kernel/core_pattern','vm/overcommit_memory','kernel/hostname'):\n"
        "  attempt(open, f'/proc/sys/{n}', 'w')", S.SUCCESS, b"EROFS\n" * 3),
    Attack("masked proc", "print(*(len(open(f'/proc/{n}','rb').read()) for n in ('cmdline','keys','kallsyms','timer_list')))",
        S.SUCCESS, b"0 0 0 0\n"),
    Attack("sysrq", f"{CALL}\nattempt(open, '/proc/sysrq-trigger', 'w')", S.SUCCESS),
    Attack("own control group", "print({l.strip().split(':',2)[2] for l in open('/proc/self/cgroup')})", S.SUCCESS, b"{'/'}\n"),
    Attack("control group file system", "import os; print(os.path.exists('/sys/fs/cgroup'), any(l.split()[2].startswith('cgroup') for l in open('/proc/mounts')))",
        S.SUCCESS, b"False False\n"),
    Attack("writing to the tree", f"{CALL}\nfor p in ('/x','/usr/x','/etc/x','/dev/x','/bin/x'): attempt(open, p, 'w')", S.SUCCESS,
        b"EROFS\n" * 5),
    Attack("network interfaces", "print([l.split(':')[0].strip() for l in open('/proc/net/dev').readlines()[2:]])", S.SUCCESS,
        b"['lo']\n"),
    Attack("resolving a name", "import socket\ntry: socket.getaddrinfo('example.com', 80); print('ok')\nexcept OSError: print('no')",
        S.SUCCESS, b"no\n"),
    Attack("abstract unix sockets of the host", "print(len(open('/proc/net/unix').readlines()))", S.SUCCESS, b"1\n"),
    Attack("set-user-id programs", "import os,subprocess; print(subprocess.run(['/usr/bin/su','-c','id'],input=b'',capture_output=True).stdout)",
        S.SUCCESS, b"b''\n"),
    Attack("host name", "import socket; print(socket.gethostname())", S.SUCCESS, b"sandbox\n"),
    Attack("raising a bound", f"{CALL}\nimport resource as r\nfor n in (r.RLIMIT_NOFILE, r.RLIMIT_FSIZE, r.RLIMIT_CORE):\n"
        "  try: r.setrlimit(n, (r.RLIM_INFINITY, r.RLIM_INFINITY)); print('ok')\n  except (ValueError, OSError): print('no')",
        S.SUCCESS, b"no\n" * 3),
    Attack("negative nice", f"{CALL}\nattempt(os.nice, -5)", S.SUCCESS, b"EPERM\n"),
    Attack("executing a memfd", (
        "import os; f=os.memfd_create('x'); os.write(f,open('/usr/bin/id','rb').read())\n"
        "os.execve(f,['id','-u'],{})"
    ), S.SUCCESS, b"1000\n"),
]  # fmt: skip

# Clocks are set by what a row expects, so that a busy machine changes no verdict.
CLOCKS = {S.TIMEOUT: {"wall_time_s": 1.0}, S.CPU_LIMIT: {"cpu_time_s": 1.0, "wall_time_s": 120.0}}
ALL = [*DEPLETION, *PERSISTENCE, *SYSTEM_CALLS, *SOCKETS, *REACH]


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name.replace(" ", "-"))
async def test_attack_ends_as_expected_and_leaves_nothing(attack: Attack) -> None:
    """The attack's status, output and touched limits are those of its row, and nothing is left behind."""
    limits = replace(attack.limits, **CLOCKS.get(attack.status, {}))
    async with sandboxes(limits) as executor:
        result = await executor.execute(python_request(attack.code))
    assert result.status == attack.status, (result.error_message, result.stdout.data, result.stderr.data)
    if attack.stdout is not None:
        assert result.stdout.data == attack.stdout
    if attack.hits is not None:
        assert result.limits_hit == attack.hits


PLANT = """
import os, socket
os.mkdir('out'); os.chdir('out')
os.symlink('/etc/passwd', 'link'); os.symlink('/', 'root'); os.symlink('../../..', 'up')
os.mkfifo('fifo')
open('hard1','w').write('x'); os.link('hard1','hard2')
s = socket.socket(socket.AF_UNIX); s.bind('socket')
open('closed','w').write('x'); os.chmod('closed', 0)
open('new\\nline','w').write('n'); open(b'bad\\xff','w').write('b')
os.mkdir('real'); open('real/file','w').write('ok')
"""


async def test_planted_outputs_lead_nowhere() -> None:
    """Links, FIFOs, sockets and second names are not collected; honest files with odd names are."""
    asked = ["out", "out/link", "out/root/etc/passwd", "out/up/etc/passwd", "out/fifo", "out/hard1"]
    async with sandboxes() as executor:
        result = await executor.execute(python_request(PLANT, outputs=asked))
    assert result.status == ExecutionStatus.SUCCESS, result.stderr.data
    assert {file.path: file.content for file in result.files} == {
        "out/closed": b"x",
        "out/new\nline": b"n",
        "out/bad\udcff": b"b",
        "out/real/file": b"ok",
    }


async def test_sparse_output_is_not_read() -> None:
    """A file of many gigabytes that costs nothing on disk is refused by its size."""
    limits = replace(SMALL, file_size_bytes=1 << 40)
    async with sandboxes(limits) as executor:
        code = "open('s','wb').truncate(1<<39)"
        result = await executor.execute(python_request(code, outputs=["s"]))
    assert (result.status, result.files) == (ExecutionStatus.SUCCESS, ())
    assert "larger than" in result.error_message


EAT = "kept=[]\nwhile True:\n  kept.append(bytearray(1<<20)); print(len(kept), flush=True)"


async def test_files_of_a_stage_count_against_the_memory_of_the_next() -> None:
    """Memory and files together stay under the memory limit, whichever stage wrote the files."""
    limits = replace(SMALL, memory_bytes=64 * MIB, disk_bytes=40 * MIB, file_size_bytes=40 * MIB)
    backend = SlotBackend()
    sandbox = await backend.open(host_python(), limits, "memory-gap")
    programs = {"compile": "open('/work/f','wb').write(bytes(32 << 20))", "run": EAT}
    try:
        outcomes = {
            name: await sandbox.run(
                StageOrder(
                    name=name,
                    argv=("/usr/bin/python3", "-c", code),
                    env={},
                    limits=limits,
                    tasks_max=10,
                    counts_processes_exactly=True,
                )
            )
            for name, code in programs.items()
        }
    finally:
        await sandbox.destroy()
        await backend.aclose()
    assert outcomes["compile"].exit_code == 0
    assert outcomes["run"].usage.oom_kills > 0
    assert 8 < int(outcomes["run"].stdout.data.split()[-1]) <= 32


LOCK_ALL = """
import fcntl, os, time
held = []
for folder, _, names in os.walk('/usr/lib/go-cache'):
    for name in names[:200 - len(held)]:
        held.append(os.open(os.path.join(folder, name), os.O_RDONLY)); fcntl.flock(held[-1], fcntl.LOCK_EX)
print(len(held), flush=True)
time.sleep(20)
"""


@pytest.mark.tree
async def test_lock_on_a_file_of_the_tree_stops_nobody_else() -> None:
    """A program that locks the files of Go's cache for 20 seconds does not hold up another's compilation."""
    tree = find_tree(state_dir())
    assert tree is not None
    executor = CodeExecutor(
        [tree], SlotBackend(), bounds=StageBounds(run=Limits(wall_time_s=60.0)), max_concurrent=2
    )
    module = [
        SourceFile(path="go.mod", content=b"module x\n\ngo 1.21\n"),
        SourceFile(path="main.go", content=b"//go:build linux\n\npackage main\n\nfunc main() { print(7) }\n"),
    ]
    try:
        locker = asyncio.ensure_future(executor.execute(python_request(LOCK_ALL)))
        await asyncio.sleep(1)
        victim = await executor.execute(ExecutionRequest(language="go", files=module, entry_point="main.go"))
        has_ended = locker.done()
        locker.cancel()
        await asyncio.gather(locker, return_exceptions=True)
    finally:
        await executor.aclose()
    assert (victim.stderr.data, has_ended) == (b"7", False), victim.error_message
