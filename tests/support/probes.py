"""For every guarantee that a result can name: a program that tries to break it, and what must come of that.

Invariant: a probe judges by what the program reached, never by what a back end says of itself. Programs are
Python, run by the machine's own interpreter; the harmless ones hurt nobody where nothing holds them.
"""

import ctypes
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from sandbox.backends.backend import Sandbox, StageOrder, StageOutcome
from sandbox.request import Limits
from tests.support.sandboxes import MIB, SMALL

__all__ = ["PROBES", "Facts", "Probe", "Seen", "facts_of_this_machine", "order_of", "program_of", "try_probe"]

IPC_CREATE, IPC_REMOVE = 0o1000, 0
NAMESPACES = ("pid", "mnt", "net", "ipc", "uts", "user")

PRELUDE = """
import ctypes, errno, json, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def say(*words): print(*words, flush=True)
def attempt(function, *arguments):
    try: function(*arguments)
    except OSError as e: return errno.errorcode.get(e.errno, 'refused')
    return 'reached'
def name_of(link):
    try: return os.readlink(link)
    except OSError: return 'unnamed'
def call(*arguments):
    return 'reached' if libc.syscall(*arguments) >= 0 else errno.errorcode[ctypes.get_errno()]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What stands on this machine for a program to reach."""

    pid: int
    port: int
    abstract_name: str
    marker: str
    shm_key: int
    host_name: str
    kernel: str
    command_line: str
    namespaces: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What came of a program."""

    words: list[str]
    """What it said."""
    limits: Limits
    facts: Facts
    outcome: StageOutcome | None = None
    """None where it ran without any sandbox."""
    file_uid: int | None = None
    """Who owns the file ``mine`` that it made in its working directory."""
    other_uid: int | None = None
    """Who programs of another sandbox are."""


Verdict = Callable[[Seen], bool]


@dataclass(frozen=True, slots=True)
class Probe:
    """A program, and whether what came of it shows that the guarantee holds."""

    code: str
    holds: Verdict
    limits: Mapping[str, float] = field(default_factory=dict)
    """Bounds that the program is given in place of the usual ones."""
    counts_exactly: bool = True
    """Whether processes are bounded by the kernel; else they are counted from outside."""
    is_harmless: bool = True


def never(word: str) -> Verdict:
    """Expect that the program began and did not come as far as ``word``."""
    return lambda seen: seen.words[:1] == ["begun"] and word not in seen.words


def at_most(limit: str) -> Verdict:
    """Expect that the figure said last is above 0 and not above the limit, or that it came to none."""
    return lambda seen: seen.words == ["begun"] or 0 < int(seen.words[-1]) <= getattr(seen.limits, limit)


def all_are(*allowed: str) -> Verdict:
    """Expect that something was said, and nothing but these words."""
    return lambda seen: bool(seen.words) and set(seen.words) <= set(allowed)


def own_namespace(kind: str, attempts: str = "") -> Probe:
    """Expect a name space other than this machine's, and that no attempt reaches out of it.

    A guest kernel shows no name for some of its own.
    """

    def holds(seen: Seen) -> bool:
        return bool(seen.words) and not {seen.facts.namespaces[kind], "reached"} & set(seen.words)

    return Probe(f"say(name_of('/proc/self/ns/{kind}'))\n{attempts}", holds)


EATERS = """
say('begun')
for _ in range(3):
    if os.fork() == 0:
        kept = bytearray(40 << 20)
        for at in range(0, len(kept), 4096): kept[at] = 1
        time.sleep(1); os._exit(0)
if [os.wait()[1] for _ in range(3)] == [0, 0, 0]: say('ate')
"""
FILE_AND_HEAP_EATER = """
say('begun')
for number in range(10):
    with open(f'/tmp/{number}', 'wb') as f: f.write(bytes(4 << 20))
kept = bytearray(70 << 20)
for at in range(0, len(kept), 4096): kept[at] = 1
say('ate')
"""
FORKERS = """
say('begun')
alive = 1
for _ in range(20):
    try: pid = os.fork()
    except OSError: break
    if pid == 0: time.sleep(30)
    alive += 1
time.sleep(1)
say(alive)
"""
BURNERS = """
say('begun')
def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until: pass
for _ in range(40):
    for _ in range(2):
        if os.fork() == 0: burn(0.1); os._exit(0)
    for _ in range(2): os.wait()
    used = os.times()
    if used.children_user + used.children_system > 3: say('burned'); break
"""
SLEEPER = """
import signal
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(number, signal.SIG_IGN)
say('begun')
time.sleep(4)
say('slept')
"""
FILLER = """
written = 0
for folder in ('/work', '/tmp', '/dev/shm'):
    for number in range(4):
        try:
            with open(f'{folder}/{number}', 'wb', buffering=0) as f:
                for _ in range(64): written += f.write(bytes(65536))
        except OSError: pass
say(written)
"""
FILES = """
made = 0
for folder in ('/work', '/tmp', '/dev/shm'):
    try:
        for number in range(300): open(f'{folder}/{number}', 'w').close(); made += 1
    except OSError: pass
say(made)
"""
LARGE_FILE = """
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open('large', 'wb', buffering=0) as f:
    for _ in range(128): attempt(f.write, bytes(65536))
    say(os.fstat(f.fileno()).st_size)
"""
OPENER = """
kept = []
try:
    while len(kept) < 500: kept.append(os.open('/dev/null', os.O_RDONLY))
except OSError: pass
say(len(kept))
"""
ABORT = """
import resource
try: resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)); say('raised')
except (OSError, ValueError): say('none')
pid = os.fork()
if pid == 0: os.abort()
say('dumped' if os.WCOREDUMP(os.waitpid(pid, 0)[1]) else 'none')
"""
MASKED = """
def stands(name, flags):
    try: f = os.open('/proc/' + name, flags)
    except OSError: return 'none'
    if os.fstat(f).st_rdev == os.makedev(1, 3): return 'none'
    return 'none' if flags == os.O_RDONLY and not os.read(f, 64) else 'reached'
# A guest kernel has a command line of its own.
try: say('reached' if open('/proc/cmdline').read() == facts['command_line'] else 'none')
except OSError: say('none')
for name in 'kcore keys key-users kallsyms timer_list interrupts swaps modules'.split():
    say(stands(name, os.O_RDONLY))
for name in ('sys/kernel/core_pattern', 'sys/kernel/hostname', 'sys/vm/overcommit_memory', 'sysrq-trigger'):
    say(stands(name, os.O_WRONLY))
say('reached' if os.getpid() != 1 and os.path.exists('/proc/1/environ') else 'none')
"""
WRITER = """
for folder, folders, _ in os.walk('/'):
    if folder in ('/work', '/tmp', '/dev/shm', '/proc') or folder.count('/') > 3: folders[:] = []; continue
    if attempt(os.open, folder + '/probe', os.O_CREAT | os.O_WRONLY) == 'reached': say(folder)
for file in ('/usr/bin/env', '/etc/passwd'):
    if attempt(os.open, file, os.O_WRONLY) == 'reached': say(file)
say('refused')
"""
CAPABLE = """
for line in open('/proc/self/status'):
    if line.startswith('Cap'): say('none' if int(line.split()[1], 16) == 0 else 'some')
say('none' if attempt(os.mknod, 'device', 0o60600, os.makedev(7, 200)) != 'reached' else 'some')
"""
PRIVILEGED = """
say('none' if libc.prctl(39, 0, 0, 0, 0) == 1 else 'some')
"""
CALLS = """
# keyctl, ptrace, bpf, perf_event_open, unshare, io_uring_setup, inotify_init, clone3
for arguments in (250, 0, -3, 0), (101, 0, 0, 0, 0), (321, 99, 0, 0), (298, 0, 0, -1, -1, 0):
    say(call(*arguments))
for arguments in (272, 0), (425, 0, 0), (253,), (435, 0, 0):
    say(call(*arguments))
"""
LOOPBACK = """
say(attempt(socket.create_connection, ('127.0.0.1', facts['port']), 2))
say(attempt(lambda: socket.socket(socket.AF_UNIX).connect(facts['abstract_name'])))
say(attempt(socket.create_connection, ('192.0.2.1', 80), 0.2))
"""

PROBES: Mapping[str, tuple[Probe, ...]] = {
    "memory": (
        Probe(EATERS, never("ate"), is_harmless=False),
        Probe(FILE_AND_HEAP_EATER, never("ate"), {"disk_bytes": 50 * MIB}, is_harmless=False),
    ),
    "processes": (
        Probe(FORKERS, at_most("processes"), is_harmless=False),
        Probe(FORKERS, at_most("processes"), counts_exactly=False, is_harmless=False),
    ),
    "cpu_time": (Probe(BURNERS, never("burned"), {"cpu_time_s": 1.0}, is_harmless=False),),
    "wall_time": (Probe(SLEEPER, never("slept"), {"wall_time_s": 1.0}),),
    "disk": (Probe(FILLER, at_most("disk_bytes"), is_harmless=False),),
    "inodes": (Probe(FILES, at_most("inodes"), is_harmless=False),),
    "file_size": (Probe(LARGE_FILE, at_most("file_size_bytes"), {"disk_bytes": 50 * MIB}),),
    "open_files": (Probe(OPENER, at_most("open_files")),),
    "output": (
        Probe("print('x' * 200000, end='')", lambda seen: len(seen.words[0]) <= seen.limits.output_bytes),
    ),
    "core_dumps_none": (Probe(ABORT, all_are("none")),),
    "unique_uid": (
        Probe(
            "open('mine', 'w'); say('begun')",
            lambda seen: seen.file_uid not in (None, seen.other_uid, os.geteuid()),
        ),
    ),
    "pid_namespace": (own_namespace("pid", "say(attempt(os.kill, facts['pid'], 0))"),),
    "mount_namespace": (own_namespace("mnt", "say(attempt(os.stat, facts['marker']))"),),
    "network_namespace": (own_namespace("net"),),
    "network_none": (
        Probe(LOOPBACK, lambda seen: len(seen.words) == 3 and "reached" not in seen.words),
        Probe("say(len(open('/proc/net/route').readlines()))", all_are("0", "1")),
    ),
    "ipc_namespace": (
        own_namespace("ipc", "say('none' if libc.shmget(facts['shm_key'], 0, 0) < 0 else 'reached')"),
    ),
    "uts_namespace": (
        own_namespace("uts", "say('reached' if socket.gethostname() == facts['host_name'] else 'none')"),
    ),
    "user_namespace": (own_namespace("user", "say(call(105, 0))"),),
    "cgroup_namespace": (
        Probe("for l in open('/proc/self/cgroup'): say(l.strip().split(':', 2)[2])", all_are("/")),
    ),
    "read_only_root": (Probe(WRITER, all_are("refused"), is_harmless=False),),
    "proc_masked": (Probe(MASKED, all_are("none")),),
    "capabilities_none": (Probe(CAPABLE, all_are("none")),),
    "no_new_privileges": (Probe(PRIVILEGED, all_are("none")),),
    "guest_kernel": (
        Probe(
            "say('reached' if open('/proc/version').read() == facts['kernel'] else 'none')", all_are("none")
        ),
    ),
    "seccomp": (Probe(CALLS, all_are("EPERM", "ENOSYS")),),
    # Everybody may write there: neither mode, mount nor capability is in the way.
    "landlock": (Probe("say(attempt(os.open, '/proc/self/comm', os.O_WRONLY))", all_are("EACCES")),),
}


@contextmanager
def facts_of_this_machine(folder: Path) -> Iterator[Facts]:
    """Put up what programs try to reach: a listener on each kind of socket, a file, shared memory."""
    marker, key = folder / "marker", os.getpid() | 0x5A000000
    marker.write_text("outside")
    name = f"\0probe-{os.getpid()}"
    libc = ctypes.CDLL(None)
    memory = libc.shmget(key, 4096, IPC_CREATE | 0o666)
    assert memory >= 0
    # Its number is larger than any that a program's own process has in a new name space.
    victim = subprocess.Popen(["sleep", "600"])
    try:
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract:
            abstract.bind(name)
            abstract.listen()
            yield Facts(
                pid=victim.pid,
                port=tcp.getsockname()[1],
                abstract_name=name,
                marker=str(marker),
                shm_key=key,
                host_name=socket.gethostname(),
                kernel=Path("/proc/version").read_text(),
                command_line=Path("/proc/cmdline").read_text(),
                namespaces={kind: os.readlink(f"/proc/self/ns/{kind}") for kind in NAMESPACES},  # noqa: PTH115
            )
    finally:
        victim.kill()
        victim.wait()
        libc.shmctl(memory, IPC_REMOVE, None)


def program_of(probe: Probe, facts: Facts) -> str:
    """Return the program with what it must know."""
    return f"{PRELUDE}\nfacts = json.loads({json.dumps(asdict(facts))!r})\n{probe.code}"


def order_of(probe: Probe, facts: Facts, limits: Limits) -> StageOrder:
    """Return the stage that runs a probe's program."""
    return StageOrder(
        name="run",
        argv=("/usr/bin/python3", "-c", program_of(probe, facts)),
        env={"PATH": "/usr/bin:/bin"},
        limits=limits,
        tasks_max=64,
        counts_processes_exactly=probe.counts_exactly,
    )


def limits_of(probe: Probe) -> Limits:
    """Return the bounds that a probe tries to pass."""
    return replace(SMALL, **probe.limits)


async def try_probe(sandbox: Sandbox, probe: Probe, facts: Facts, *, given: Limits, other: Sandbox) -> Seen:
    """Run a probe's program in a sandbox that was ``given`` bounds, and say what came of it."""
    outcome = await sandbox.run(order_of(probe, facts, given))
    try:
        file_uid = os.stat("work/mine", dir_fd=sandbox.files_fd).st_uid
    except FileNotFoundError:
        file_uid = None
    return Seen(
        words=outcome.stdout.data.decode().split(),
        limits=limits_of(probe),
        facts=facts,
        outcome=outcome,
        file_uid=file_uid,
        other_uid=other.owner_uid,
    )
