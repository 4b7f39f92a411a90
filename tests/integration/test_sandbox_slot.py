"""The slot back end runs programs, bounds them, reports them, and leaves nothing."""

import asyncio
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.backends.backend import StageOrder
from sandbox.backends.slot import SlotBackend
from sandbox.errors import RequestError, SystemFailureError
from sandbox.kernel.cgroups import Group
from sandbox.kernel.grouptree import find_group_tree, own_name
from sandbox.kernel.landlock import landlock_abi
from sandbox.live import watched
from sandbox.request import Limits
from sandbox.result import ExecutionStatus, LimitKind
from tests.support.sandboxes import (
    MIB,
    SMALL,
    Leftovers,
    groups_of,
    host_python,
    python_request,
    run_python,
    sandboxes,
)

pytestmark = pytest.mark.root

EVERY_WALL = {
    "memory", "processes", "cpu_time", "wall_time", "disk", "inodes", "output", "unique_uid", "pid_namespace",
    "mount_namespace", "network_namespace", "network_none", "ipc_namespace", "uts_namespace",
    "user_namespace",
    "cgroup_namespace", "read_only_root", "proc_masked", "file_size", "open_files", "core_dumps_none",
    "capabilities_none", "no_new_privileges", "seccomp",
}  # fmt: skip


async def test_program_reads_its_input_arguments_and_variables() -> None:
    """Stdin, arguments and the user's variables arrive; nothing else of the host's environment does."""
    code = "import sys,os,json; print(json.dumps([sys.stdin.read(), sys.argv[1:], dict(os.environ)]))"
    result = await run_python(code, stdin=b"in\xc3\xa9", args=["a b", "-x"], env_vars={"GREETING": "hej"})
    text, arguments, environment = json.loads(result.stdout.data)
    assert (text, arguments) == ("iné", ["a b", "-x"])
    assert environment["GREETING"] == "hej"
    assert {"PATH", "HOME", "TMPDIR", "LANG", "GREETING"} <= set(environment)
    assert not {"USER", "SHELL", "LOGNAME", "PYTEST_CURRENT_TEST", "VIRTUAL_ENV"} & set(environment)


async def test_result_names_every_wall_and_measures() -> None:
    """A short run reports all that held it, and figures that can be true."""
    landlock = {"landlock"} if landlock_abi() else set()
    result = await run_python("x = sum(range(10**6)); print('ok')")
    assert (result.status, result.stdout.data, result.exit_code) == (ExecutionStatus.SUCCESS, b"ok\n", 0)
    assert (result.guarantees.backend, result.guarantees.enforced) == ("slot", EVERY_WALL | landlock)
    stats = result.process_stats
    assert 0 < stats.user_time_s + stats.system_time_s < SMALL.cpu_time_s
    assert 0 < stats.wall_time_s < SMALL.wall_time_s
    assert stats.memory_peak_bytes is not None
    assert MIB < stats.memory_peak_bytes < SMALL.memory_bytes
    assert stats.page_faults_minor is not None
    assert stats.page_faults_minor > 100
    assert [stage.name for stage in stats.stages] == ["run"]


async def test_large_stdin_that_nobody_reads_does_not_hang() -> None:
    """A program that ignores five megabytes of input ends as soon as it wants."""
    result = await run_python("print('done')", stdin=b"x" * 5 * MIB)
    assert (result.status, result.stdout.data) == (ExecutionStatus.SUCCESS, b"done\n")


async def test_large_stdin_arrives_whole() -> None:
    """Input larger than any pipe arrives byte for byte."""
    code = "import sys,hashlib; d=sys.stdin.buffer.read(); print(len(d))"
    result = await run_python(code, stdin=b"x" * 5 * MIB)
    assert result.stdout.data == f"{5 * MIB}\n".encode()


async def test_exit_codes_and_signals_are_told_apart() -> None:
    """A nonzero exit is NONZERO_EXIT with its code, death by a signal SIGNALLED with its number."""
    async with sandboxes() as executor:
        left = await executor.execute(python_request("raise SystemExit(7)"))
        killed = await executor.execute(python_request("import os; os.kill(os.getpid(), 11)"))
    assert (left.status, left.exit_code, left.signal) == (ExecutionStatus.NONZERO_EXIT, 7, None)
    assert (killed.status, killed.exit_code, killed.signal) == (ExecutionStatus.SIGNALLED, None, 11)
    assert "SIGSEGV" in killed.error_message


async def test_timeout_of_the_request_ends_the_run() -> None:
    """A program over its own timeout is killed close to it."""
    result = await run_python("import time; print('x', flush=True); time.sleep(60)", timeout_s=0.5)
    assert (result.status, result.limits_hit) == (ExecutionStatus.TIMEOUT, LimitKind.WALL_TIME)
    assert (result.stdout.data, result.exit_code) == (b"x\n", None)
    assert 0.5 <= result.process_stats.wall_time_s < 2.0


async def test_output_is_cut_counted_and_digested() -> None:
    """Printing too much neither fails nor kills: the beginning is kept, the rest counted."""
    result = await run_python("import sys; sys.stdout.write('a' * 300_000)")
    assert result.status == ExecutionStatus.SUCCESS
    assert (len(result.stdout.data), result.stdout.size_bytes) == (SMALL.output_bytes, 300_000)
    assert result.limits_hit == LimitKind.STDOUT


async def test_requests_limits_only_lower() -> None:
    """A request gets the lower of its own and the operator's bound, one by one."""
    code = "import resource as r; print(*(r.getrlimit(n)[0] for n in (r.RLIMIT_NOFILE, r.RLIMIT_FSIZE)))"
    async with sandboxes() as executor:
        result = await executor.execute(python_request(code, limits=Limits(open_files=32)))
    assert result.stdout.data == f"32 {SMALL.file_size_bytes}\n".encode()


async def test_output_files_come_back() -> None:
    """Files and folders that were asked for are returned with size and digest."""
    code = "import os; os.makedirs('out/deep'); open('out/deep/a','w').write('A'); open('b','w').write('BB')"
    result = await run_python(code, outputs=["out", "b", "missing"])
    assert [(file.path, file.content) for file in result.files] == [("out/deep/a", b"A"), ("b", b"BB")]
    assert result.process_stats.inodes == 5


async def test_nothing_is_shared_between_two_executions() -> None:
    """Files, System V memory and message queues of one run do not exist in the next."""
    write = (
        "import ctypes,os; l=ctypes.CDLL(None); print(l.shmget(4242, 4096, 0o1600) >= 0);"
        "[open(f+'/planted','w') for f in ('/work','/tmp','/dev/shm')]"
    )
    read = (
        "import ctypes,os; l=ctypes.CDLL(None); print(l.shmget(4242, 4096, 0o600) >= 0,"
        "[os.path.exists(f+'/planted') for f in ('/work','/tmp','/dev/shm')])"
    )
    async with sandboxes() as executor:
        first = await executor.execute(python_request(write))
        second = await executor.execute(python_request(read))
    assert first.stdout.data == b"True\n"
    assert second.stdout.data == b"False [False, False, False]\n"


async def test_concurrent_sandboxes_have_users_and_processes_of_their_own() -> None:
    """Eight at once, four places: all end, none sees another's processes."""
    code = (
        "import os,time; time.sleep(0.2); print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()))"
    )
    async with sandboxes() as executor:
        results = await asyncio.gather(*(executor.execute(python_request(code)) for _ in range(8)))
        assert (executor.scheduler.running, executor.scheduler.waiting) == (0, 0)
    assert {result.stdout.data for result in results} == {b"[2]\n"}
    assert len({result.sandbox_id for result in results}) == 8


async def test_cancelled_execution_is_killed_and_removed() -> None:
    """Cancelling the awaiting task ends the program and everything of it; others go on."""
    async with sandboxes() as executor:
        task = asyncio.ensure_future(executor.execute(python_request("import time; time.sleep(60)")))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        after = await executor.execute(python_request("print('still here')"))
    assert after.stdout.data == b"still here\n"


async def test_closing_answers_what_runs_with_cancelled() -> None:
    """Closing the executor kills what runs, which is answered with the status CANCELLED."""
    async with sandboxes() as executor:
        task = asyncio.ensure_future(executor.execute(python_request("import time; time.sleep(60)")))
        await asyncio.sleep(0.5)
        await executor.aclose()
        result = await task
        with pytest.raises(SystemFailureError, match="closed"):
            await executor.execute(python_request("print(1)"))
    assert (result.status, result.exit_code) == (ExecutionStatus.CANCELLED, None)


async def test_files_over_the_disk_quota_are_refused() -> None:
    """A request whose own files do not fit is refused, and leaves nothing."""
    with pytest.raises(RequestError, match="cannot be laid down"):
        await run_python("#" * 2 * MIB, limits=Limits(disk_bytes=MIB))


async def test_program_that_does_not_exist_is_our_failure() -> None:
    """A stage whose program is missing from the tree is never blamed on the user."""
    backend = SlotBackend()
    sandbox = await backend.open(host_python(), SMALL, "missing-program")
    order = StageOrder(name="run", argv=("/usr/bin/no-such-program",), env={}, limits=SMALL, tasks_max=8)
    try:
        with pytest.raises(SystemFailureError, match="cannot execute /usr/bin/no-such-program"):
            await sandbox.run(order)
    finally:
        await sandbox.destroy()
        await backend.aclose()


async def test_launcher_that_dies_is_our_failure_and_kills_the_program() -> None:
    """When the launcher is killed the caller gets an error, and nothing of the sandbox lives on."""
    async with sandboxes() as executor:
        task = asyncio.ensure_future(executor.execute(python_request("import time; time.sleep(60)")))
        await asyncio.sleep(0.5)
        (sandbox,) = executor._backend._open  # type: ignore[attr-defined]
        sandbox._launcher.kill()
        with pytest.raises(SystemFailureError, match="launcher died"):
            await task


COUNTED = [
    # Five threads in one process pass a limit of three processes; five processes do not.
    ("import threading,time; [threading.Thread(target=time.sleep,args=(0.4,)).start() for _ in range(5)]", 0),
    ("import os,time; [os.fork() for _ in range(3)]; time.sleep(30)", None),
]


@pytest.mark.parametrize(("code", "exit_code"), COUNTED, ids=["threads", "processes"])
async def test_threaded_runtime_is_bounded_by_processes_not_threads(code: str, exit_code: int | None) -> None:
    """Where tasks are not processes, the watch counts processes and kills for too many."""
    backend = SlotBackend()
    limits = replace(SMALL, processes=3)
    sandbox = await backend.open(host_python(), limits, "counted")
    order = StageOrder(name="run", argv=("/usr/bin/python3", "-c", code), env={}, limits=limits, tasks_max=30)
    try:
        outcome = await sandbox.run(order)
    finally:
        await sandbox.destroy()
        await backend.aclose()
    assert outcome.exit_code == exit_code
    assert outcome.killed_for == (LimitKind.NONE if exit_code == 0 else LimitKind.PROCESSES)
    assert outcome.usage.wall_time_s < 10


async def test_backend_says_beforehand_what_a_result_says_afterwards() -> None:
    """What `guarantees` promises is what init and limits then report."""
    async with sandboxes() as executor:
        promised = executor._backend.guarantees()
        result = await executor.execute(python_request("pass"))
    assert result.guarantees == promised


async def test_stages_share_files_and_nothing_else() -> None:
    """A second stage sees the first one's files in /work, /tmp and /dev/shm, but not its processes."""
    backend = SlotBackend()
    sandbox = await backend.open(host_python(), SMALL, "two-stages")
    write = "for d in /work /tmp /dev/shm; do echo $d > $d/f; done; sleep 60 & sleep 0.1"
    read = "cat /work/f /tmp/f /dev/shm/f; echo /proc/[0-9]*"
    try:
        first, second = [
            await sandbox.run(
                StageOrder(
                    name=name,
                    argv=("/bin/sh", "-c", script),
                    env={"PATH": "/usr/bin"},
                    limits=SMALL,
                    tasks_max=30,
                )
            )
            for name, script in (("compile", write), ("run", read))
        ]
    finally:
        await sandbox.destroy()
        await backend.aclose()
    assert first.exit_code == 0
    assert second.stdout.data == b"/work\n/tmp\n/dev/shm\n/proc/2\n"


SERVICE = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from tests.support.sandboxes import host_python, python_request, SMALL
from sandbox.backends.slot import SlotBackend
from sandbox.bounds import StageBounds
from sandbox.executor import CodeExecutor
async def main():
    backend = SlotBackend(uid_base=int(sys.argv[2]), uid_count=1000)
    executor = CodeExecutor([host_python()], backend, bounds=StageBounds(run=SMALL))
    async def soon():
        await asyncio.sleep(1)
        print("running", flush=True)
    code = "import os,time; [os.fork() for _ in range(2)]; os.getpid() != 2 and os.setsid(); time.sleep(60)"
    await asyncio.gather(soon(), executor.execute(python_request(code)))
asyncio.run(main())
"""


async def test_killed_service_leaves_no_process_and_no_group() -> None:
    """After SIGKILL of the service while a program runs, every process and group of it is gone."""
    uid_base = 850_000_000 + os.getpid() * 1000
    uids = range(uid_base, uid_base + 1000)
    service = subprocess.Popen(  # noqa: ASYNC220 - it is killed by its process number
        [sys.executable, "-c", SERVICE, str(Path(__file__).parents[2]), str(uid_base)], stdout=subprocess.PIPE
    )
    assert service.stdout is not None
    assert await asyncio.to_thread(service.stdout.readline) == b"running\n"
    seen = Leftovers.look(uids)
    assert sum("main.py" in line for line in seen.processes) == 4
    assert groups_of(service.pid)
    service.kill()
    service.wait()
    service.stdout.close()
    deadline = time.monotonic() + 5
    while (Leftovers.look(uids).processes or groups_of(service.pid)) and time.monotonic() < deadline:  # noqa: ASYNC110 - nothing tells when
        await asyncio.sleep(0.05)
    assert (Leftovers.look(uids).processes, groups_of(service.pid)) == ((), [])


async def test_signal_amid_the_removal_changes_nothing() -> None:
    """A launcher whose channel is closed removes its groups, though a signal comes while it is at it."""
    order = StageOrder(name="run", argv=("/bin/sleep", "60"), env={}, limits=SMALL, tasks_max=30)
    backend = SlotBackend()
    sandbox = await backend.open(host_python(), SMALL, "signalled")
    children = Path("/proc/self/task", str(os.getpid()), "children")
    launcher_fd = os.pidfd_open(int((await asyncio.to_thread(children.read_text)).split()[-1]))
    run = asyncio.ensure_future(sandbox.run(order))
    await asyncio.sleep(0.5)
    blocks = [Path(group, "nested") for group in groups_of(os.getpid())]
    for block in blocks:
        block.mkdir()
    run.cancel()
    await asyncio.sleep(0.3)
    signal.pidfd_send_signal(launcher_fd, signal.SIGTERM)
    await asyncio.sleep(0.3)
    has_ended = bool(select.select([launcher_fd], [], [], 0)[0])
    for block in blocks:
        block.rmdir()
    with pytest.raises(asyncio.CancelledError):
        await run
    os.close(launcher_fd)
    await sandbox.destroy()
    await backend.aclose()
    assert (bool(blocks), has_ended, groups_of(os.getpid())) == (True, False, [])


async def test_service_with_many_open_files_runs_programs() -> None:
    """Beyond the 1,024th descriptor a program runs, is watched and reported like any other."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    request = python_request("import time; time.sleep(0.5); print('up')")
    try:
        async with sandboxes(SMALL) as executor, watched(executor, request) as live:
            samples = [sample async for sample in live]
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (live.result.status, live.result.stdout.data, bool(samples)) == (
        ExecutionStatus.SUCCESS,
        b"up\n",
        True,
    )


LISTED: list[list[int]] = []


class _Reused(Group):
    """A group that lists a number once; afterwards the number is a stranger's."""

    def processes(self) -> list[int]:
        return LISTED.pop(0)


def test_kill_spares_a_stranger_who_got_a_number_of_the_group() -> None:
    """Between the reading of a number and the signal it may come to mean another process of the machine."""
    with subprocess.Popen(["sleep", "60"]) as stranger, subprocess.Popen(["sleep", "60"]) as member:
        LISTED[:] = [[stranger.pid, member.pid], [member.pid]]
        _Reused(1, {}).kill()
        assert member.wait(timeout=10) == -signal.SIGKILL
        assert stranger.poll() is None
        stranger.kill()


async def test_groups_of_a_dead_service_are_removed_at_the_next_start() -> None:
    """What a service could not remove itself is swept by the next one."""
    groups = find_group_tree(owner=f"999999999-1-{own_name().split('-')[2]}")
    groups.prepare()
    groups.create("left").close()
    assert len(groups_of(999999999)) == len(groups._distinct())
    async with sandboxes():
        assert groups_of(999999999) == []


async def test_cancellation_at_any_moment_leaves_nothing() -> None:
    """Forty executions are cancelled while they wait, are made, filled, run or removed: no trace is left."""
    code = "import os,time; os.fork(); open('/work/x','w').write('x'*100000); time.sleep(0.1)"
    async with sandboxes() as executor:
        tasks = [asyncio.ensure_future(executor.execute(python_request(code))) for _ in range(40)]
        for task in tasks:
            await asyncio.sleep(0.02)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (executor.scheduler.running, executor.scheduler.waiting) == (0, 0)
        after = await executor.execute(python_request("print('well')"))
    assert after.stdout.data == b"well\n"


JOIN_V2 = """
import os, sys
sys.path.insert(0, sys.argv[1])
from sandbox.kernel.syscalls import CLONE_NEWCGROUP, CLONE_NEWUSER, clone3, unshare
group = os.open(sys.argv[2], os.O_RDONLY | os.O_DIRECTORY)
unshare(CLONE_NEWUSER)
child = clone3(0, cgroup_fd=group)
if child is None:
    before = open("/proc/self/cgroup").read().split("0::")[1].strip()
    unshare(CLONE_NEWCGROUP)
    after = open("/proc/self/cgroup").read().split("0::")[1].strip()
    print(before, after, flush=True)
    os._exit(0)
sys.exit(os.waitpid(child.pid, 0)[1])
"""


def test_program_is_born_into_its_version_2_group() -> None:
    """From within a user name space, clone3 puts the program into the group, which it then sees as `/`."""
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    mounts = [line[1] for line in lines if line[2] == "cgroup2"]
    if not mounts:
        pytest.skip("needs a cgroup version 2 hierarchy")
    name = f"tee-job-node-test-{os.getpid()}"
    folder = Path(mounts[0], name)
    folder.mkdir()
    try:
        command = [sys.executable, "-c", JOIN_V2, str(Path(__file__).parents[2]), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        folder.rmdir()
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [f"/{name}", "/"], "")


async def test_service_without_descriptors_fails_in_a_way_that_can_be_repeated() -> None:
    """However few descriptors are left, a result or a retryable failure comes back, and nothing stays."""
    async with sandboxes() as executor:
        assert (await executor.execute(python_request("print('well')"))).stdout.data == b"well\n"
        used = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - read at once, without a thread
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        ends = []
        for spare in range(20):
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
            try:
                ends.append((await executor.execute(python_request("open('o', 'w')"))).status)
            except SystemFailureError as exc:
                ends.append(exc.retryable)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ends[0] is True
    assert ends[-1] is ExecutionStatus.SUCCESS
