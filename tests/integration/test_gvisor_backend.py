"""The gVisor back end runs programs on a kernel of their own, bounds that, and says what it cannot bound."""

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.backends.gvisor import GvisorBackend
from sandbox.bounds import StageBounds
from sandbox.errors import SandboxUnavailableError
from sandbox.executor import CodeExecutor
from sandbox.kernel.grouptree import find_group_tree
from sandbox.languages import LANGUAGES
from sandbox.request import ExecutionRequest, Limits, SourceFile
from sandbox.result import ExecutionResult, ExecutionStatus, LimitKind
from sandbox.rootfs import find_tree
from sandbox.tree import LanguageTree
from tests.conftest import PROJECT, state_dir
from tests.support.sandboxes import MIB, SMALL, Leftovers, groups_of, host_python, python_request

pytestmark = [pytest.mark.gvisor, pytest.mark.root]

NOBODY = 65534
UIDS = range(810_000_000, 810_002_000)
# Runs an endless program under the back end; started as a process of its own, to be killed.
SERVICE = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from sandbox.backends.gvisor import GvisorBackend
from sandbox.executor import CodeExecutor
from tests.support.sandboxes import host_python, python_request
async def main():
    executor = CodeExecutor([host_python()], GvisorBackend(uid_base=int(sys.argv[2]), uid_count=100))
    await executor.execute(python_request("import time\\nwhile True: time.sleep(1)"))
asyncio.run(main())
"""


def backend() -> GvisorBackend:
    """Make a back end with user numbers of this test's own."""
    return GvisorBackend(uid_base=UIDS.start, uid_count=len(UIDS))


async def execute(
    request: ExecutionRequest, limits: Limits = SMALL, tree: LanguageTree | None = None
) -> ExecutionResult:
    """Run one request in an executor of its own, and assert that nothing of it is left."""
    before = Leftovers.look(UIDS)
    executor = CodeExecutor([tree or host_python()], backend(), bounds=StageBounds(run=limits))
    try:
        return await executor.execute(request)
    finally:
        await executor.aclose()
        assert Leftovers.look(UIDS) == before


async def until(condition: Callable[[], object], *, timeout_s: float = 20.0) -> None:
    """Wait until a call answers with something true."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.02)


def guests_of(service_pid: int) -> dict[int, dict[str, str]]:
    """Return the guest kernels below a process, each with what proc says of it."""
    status: dict[int, dict[str, str]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            lines = (path / "status").read_text().splitlines()
            # What the back end tries at its start is a guest too, but has its state elsewhere.
            name, *arguments = (path / "cmdline").read_bytes().split(b"\0")
            if name == b"runsc-sandbox" and any(each.startswith(b"--root=/dev/shm/") for each in arguments):
                lines.append("Guest:\tyes")
            status[int(path.name)] = {
                name: value for name, _, value in (line.partition(":\t") for line in lines)
            }

    def is_below(pid: int) -> bool:
        return pid == service_pid or (pid in status and is_below(int(status[pid]["PPid"])))

    return {pid: facts for pid, facts in status.items() if "Guest" in facts and is_below(pid)}


def files_served_for(uids: range) -> list[int]:
    """List the processes that serve the files of a guest: they have the sandbox's own number."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if path.stat().st_uid in uids:
                found.append(int(path.name))
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


async def test_sandboxes_run_side_by_side() -> None:
    """Several at once do not meet, and the socket that controls a guest is in a network of its own."""
    before = Leftovers.look(UIDS)
    executor = CodeExecutor([host_python()], backend(), bounds=StageBounds(run=SMALL), max_concurrent=4)
    code = "import time; print(input(), flush=True); time.sleep(1)"
    requests = [python_request(code, stdin=f"{number}\n".encode()) for number in range(4)]
    tasks = [asyncio.create_task(executor.execute(request)) for request in requests]
    try:
        await until(lambda: len(guests_of(os.getpid())) == 4)
        callers = [facts["PPid"] for facts in guests_of(os.getpid()).values()]
        networks = {os.readlink(f"/proc/{pid}/ns/net") for pid in (*callers, "self")}  # noqa: PTH115
        results = await asyncio.gather(*tasks)
    finally:
        await executor.aclose()
    assert [result.stdout.data for result in results] == [b"0\n", b"1\n", b"2\n", b"3\n"]
    assert len(networks) == 5
    assert Leftovers.look(UIDS) == before


async def test_program_meets_a_kernel_of_its_own() -> None:
    """What the program sees as its kernel is not the machine's, and has none of its processes."""
    code = "import os; print(os.uname().release, sorted(p for p in os.listdir('/proc') if p.isdigit()))"
    result = await execute(python_request(code))
    release, _, processes = result.stdout.data.decode().strip().partition(" ")
    assert release != os.uname().release
    assert processes == "['1']"


async def test_nothing_is_claimed_that_is_not_in_force() -> None:
    """What the guest does not tell is listed as not enforced, each with its reason."""
    result = await execute(python_request("print(1)"))
    guarantees, stats = result.guarantees, result.process_stats
    assert guarantees.backend == "gvisor"
    assert {"memory", "cpu_time", "disk", "guest_kernel"} <= guarantees.enforced
    assert {"processes", "seccomp", "unique_uid", "exact_statistics"} <= set(guarantees.not_enforced)
    assert not guarantees.enforced & set(guarantees.not_enforced)
    assert all(guarantees.not_enforced.values())
    assert stats.processes_peak is None
    assert stats.memory_peak_bytes is not None
    assert 5 * MIB < stats.memory_peak_bytes < SMALL.memory_bytes


async def test_environment_and_files_of_the_host_are_out_of_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the service's variables nor the host's own files reach a program."""
    monkeypatch.setenv("SECRET_OF_THE_NODE", "x")
    code = (
        "import os; print('SECRET_OF_THE_NODE' in os.environ, "
        "[p for p in ('/root', '/home', '/var', '/etc/shadow', '/run') if os.path.exists(p)], "
        "os.listdir('/sys'))"
    )
    result = await execute(python_request(code))
    assert result.stdout.data == b"False [] []\n"


async def test_root_is_read_only_and_three_folders_are_not() -> None:
    """Only /work, /tmp and /dev/shm can be written to, and outputs come back from there."""
    code = (
        "import os\nfor d in '/ /usr /etc /dev /sys /work /tmp /dev/shm /proc/sys/kernel'.split():\n"
        "    try:\n        open(d + '/probe', 'w').write('x'); print(d)\n    except OSError: pass\n"
    )
    result = await execute(python_request(code, outputs=["probe"]))
    assert result.stdout.data.split() == [b"/work", b"/tmp", b"/dev/shm"]
    assert [file.content for file in result.files] == [b"x"]


async def test_no_network_beyond_the_guest_itself() -> None:
    """No address answers, the machine's loopback neither, and a packet socket cannot be had."""
    code = (
        "import socket\n"
        "for f in (lambda: socket.create_connection(('127.0.0.1', int(input())), 1),\n"
        "          lambda: socket.create_connection(('192.0.2.1', 9), 1),\n"
        "          lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),\n"
        "          lambda: socket.socket(40, socket.SOCK_STREAM)):\n"
        "    try:\n        f(); print('open')\n    except OSError as e: print('closed')\n"
    )
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        result = await execute(python_request(code, stdin=f"{port}\n".encode()))
    assert result.stdout.data.split() == [b"closed"] * 4


async def test_program_has_no_rights_and_its_kernel_none_either() -> None:
    """Inside there is no capability; outside the guest kernel is not root, is filtered, and sees nobody."""
    code = "print(open('/proc/self/status').read(), flush=True); import time\nwhile True: time.sleep(1)"
    task = asyncio.create_task(execute(python_request(code, timeout_s=3.0)))
    await until(lambda: guests_of(os.getpid()))
    await asyncio.sleep(1)
    (pid,) = guests_of(os.getpid())
    facts = guests_of(os.getpid())[pid]
    assert (facts["Uid"].split()[1], facts["Seccomp"]) == (str(NOBODY), "2")
    assert all(
        os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")  # noqa: PTH115
        for name in ("pid", "mnt", "net", "ipc", "uts", "user")
    )
    result = await task
    lines = dict(line.split(":", 1) for line in result.stdout.data.decode().splitlines() if ":" in line)
    assert {lines[key].strip() for key in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}


async def test_endless_program_is_stopped_with_everything_it_started() -> None:
    """At the deadline the program and a daemon of another session are dead, and so is their kernel."""
    code = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n"
        "else: print('started', flush=True)\nwhile True: time.sleep(1)\n"
    )
    result = await execute(python_request(code, timeout_s=1.0))
    assert (result.status, result.stdout.data) == (ExecutionStatus.TIMEOUT, b"started\n")
    assert not guests_of(os.getpid())


async def test_daemon_does_not_outlive_its_program() -> None:
    """A program that ends and leaves a daemon behind that holds stdout open: the daemon dies with it."""
    began_s = time.monotonic()
    code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\n"
    result = await execute(python_request(code))
    assert result.status is ExecutionStatus.SUCCESS
    assert time.monotonic() - began_s < 10


async def test_memory_is_bounded() -> None:
    """A program that takes more memory than it may is killed, and the status says why."""
    result = await execute(python_request("print('begun', flush=True)\nkeep = bytearray(b'x') * 200_000_000"))
    assert (result.status, result.stdout.data) == (ExecutionStatus.MEMORY_LIMIT, b"begun\n")
    assert result.process_stats.oom_kills > 0
    assert result.process_stats.memory_peak_bytes is not None
    assert result.process_stats.memory_peak_bytes <= SMALL.memory_bytes


async def test_cpu_time_of_children_counts() -> None:
    """CPU time hidden in children counts too."""
    code = (
        "import os\nfor _ in range(3):\n    if os.fork() == 0:\n        while True: pass\nwhile True: pass\n"
    )
    result = await execute(python_request(code), replace(SMALL, cpu_time_s=1.0, wall_time_s=60.0))
    assert result.status is ExecutionStatus.CPU_LIMIT


async def test_processes_are_refused_by_the_guest() -> None:
    """The program and nine more: the tenth is refused, and the machine has not met any of them."""
    code = (
        "import os, time\nn = 0\ntry:\n    while n < 100:\n"
        "        if os.fork() == 0:\n            time.sleep(5); os._exit(0)\n"
        "        n += 1\nexcept OSError: pass\nprint(n, flush=True)\nos._exit(0)\n"
    )
    result = await execute(python_request(code))
    assert (result.status, result.stdout.data) == (ExecutionStatus.SUCCESS, b"9\n")


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


async def test_inodes_are_bounded() -> None:
    """No more files can be made than allowed."""
    code = "for n in range(1000): open(f'/tmp/{n}', 'w').close()"
    result = await execute(python_request(code))
    assert result.status is ExecutionStatus.DISK_LIMIT
    assert LimitKind.INODES in result.limits_hit


async def test_file_size_and_output_are_bounded() -> None:
    """A file over the limit ends the program; printing over the limit is cut, counted and not fatal."""
    result = await execute(python_request("open('/work/f', 'wb').write(bytes(5_000_000))"))
    assert result.status is ExecutionStatus.FILE_SIZE_LIMIT
    result = await execute(python_request("print('x' * 200_000)"))
    assert (result.status, len(result.stdout.data)) == (ExecutionStatus.SUCCESS, SMALL.output_bytes)
    assert result.stdout.size_bytes == 200_001


async def test_large_input_and_output_pass_at_the_same_time() -> None:
    """A program that echoes megabytes neither hangs nor loses a byte."""
    data = secrets.token_bytes(300_000).hex().encode()
    result = await execute(
        python_request("import sys; sys.stdout.write(sys.stdin.read())", stdin=data), Limits(output_bytes=MIB)
    )
    assert result.stdout.data == data


async def test_signal_is_told_from_an_exit_code() -> None:
    """A signal that ends the program is reported as one, and exit code 128 as the program's own."""
    result = await execute(python_request("import os; os.kill(os.getpid(), 6)"))
    assert (result.status, result.signal) == (ExecutionStatus.SIGNALLED, 6)
    result = await execute(python_request("import sys; sys.exit(128)"))
    assert (result.status, result.exit_code) == (ExecutionStatus.NONZERO_EXIT, 128)


async def test_cancelled_execution_leaves_no_process() -> None:
    """Cancelling the waiting task kills the guest at once."""
    task = asyncio.create_task(execute(python_request("import time\nwhile True: time.sleep(1)")))
    await until(lambda: guests_of(os.getpid()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not guests_of(os.getpid())


def test_service_killed_in_the_middle_leaves_nothing() -> None:
    """After kill -9 every process is dead and no mount is left; the next start removes the control groups."""
    mounts = Path("/proc/self/mountinfo").read_text()
    uids = range(UIDS.start + 1000, UIDS.start + 1100)
    command = [sys.executable, "-c", SERVICE, str(PROJECT), str(uids.start)]
    with subprocess.Popen(command, cwd=PROJECT) as service:
        try:
            asyncio.run(until(lambda: guests_of(service.pid)))
            (guest,) = guests_of(service.pid)
            assert groups_of(service.pid)
        finally:
            service.kill()
    asyncio.run(until(lambda: not files_served_for(uids) and not Path(f"/proc/{guest}").exists()))
    assert Path("/proc/self/mountinfo").read_text() == mounts
    groups = find_group_tree()
    groups.prepare()
    try:
        assert groups_of(service.pid) == []
    finally:
        groups.close()


@pytest.mark.tree
@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
async def test_every_language_of_the_tree_runs(language: str) -> None:
    """All eight languages of the built tree run on a guest kernel."""
    word = secrets.token_hex(8)
    file = SourceFile(path=LANGUAGES[language].default_file, content=LANGUAGES[language].sample.encode())
    request = ExecutionRequest(language=language, files=[file], stdin=f"{word}\n".encode())
    result = await execute(request, Limits(wall_time_s=120.0), find_tree(state_dir()))
    assert (result.status, result.stdout.data.decode().strip(), result.stderr.data) == (
        ExecutionStatus.SUCCESS,
        word[::-1].upper(),
        b"",
    )


def test_runsc_that_does_not_work_is_refused_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A missing runsc, and one that cannot run a program, are refused, and the message names the way out."""
    for name in ("setpriv", "unshare", "nsenter"):
        (tmp_path / name).symlink_to(shutil.which(name) or "/usr/bin/env")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailableError, match="runsc is missing.*apt-get install runsc"):
        GvisorBackend()
    (tmp_path / "runsc").symlink_to("/bin/false")
    with pytest.raises(SandboxUnavailableError, match="cannot run a program here.*--backend slot"):
        GvisorBackend()
