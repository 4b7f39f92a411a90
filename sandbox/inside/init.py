"""Process 1 of a stage: makes the last walls, starts the program as process 2, reaps, and reports.

Invariant: the program is executed only when every wall stood; a step that fails ends the stage with a report
and nothing has run. Init is outside the stage's control group (the program alone joins it, right before its
exec), so the interpreter that runs this file distorts neither memory nor task counts, and the group's OOM
killer does not see it. Init has a user number of its own: the program can neither see, signal, trace, starve
nor limit it, and so cannot make its own end look like a failure of ours.

Reports are lines on a pipe: ``ready`` (map the user name space, please), ``started <names of walls>``,
``exec <errno>``, ``failed <text>``, ``ended <wait status> <voluntary switches> <involuntary>``: when the
program has ended, and once more when what it left behind has, should init live to see it.
"""

import contextlib
import os
import resource
import select
import signal
from typing import NamedTuple, NoReturn

from sandbox.inside.orders import StageTask
from sandbox.inside.root import BOX_FOLDERS, mount_proc, write_text
from sandbox.kernel.cgroups import Group
from sandbox.kernel.landlock import confine_files, landlock_abi
from sandbox.kernel.privileges import INIT_ID, INSIDE_ID, die_with_parent, drop_privileges, hide_memory
from sandbox.kernel.rlimits import apply_rlimits
from sandbox.kernel.seccomp import install_filter
from sandbox.kernel.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    clone3,
    close_except,
    sethostname,
    unshare,
)

__all__ = ["STAGE_NAMESPACES", "WALLS", "Pipes", "be_init", "walls_here"]

STAGE_NAMESPACES = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS
"""Made with init by root of the initial user name space. The launcher has made the network name space right
before, because a gateway's socket must be in it; the user and cgroup name spaces follow inside."""

WALLS = (
    "pid_namespace", "mount_namespace", "network_namespace", "network_none", "ipc_namespace", "uts_namespace",
    "user_namespace", "cgroup_namespace", "read_only_root", "proc_masked", "file_size", "open_files",
    "core_dumps_none", "capabilities_none", "no_new_privileges", "seccomp", "landlock",
)  # fmt: skip
"""What stands when the program is executed: every step below raises when it cannot be done.

``network_none`` not with a gateway, ``landlock`` where the kernel has it.
"""

HOST_NAME = "sandbox"
OOM_SCORE = "500"
EXIT_OF_INIT = 0
EXIT_FAILED = 70


class Pipes(NamedTuple):
    """The ends that init holds, all of them closed on exec."""

    stdin: int
    stdout: int
    stderr: int
    report: int
    """Written: the lines above."""
    release: int
    """Read: one byte when the user name space is mapped; end of file when the launcher is dead."""


def walls_here() -> frozenset[str]:
    """Return what will stand on this machine in a stage without a gateway."""
    return frozenset(WALLS) - (set() if landlock_abi() else {"landlock"})


def be_init(task: StageTask, group: Group, program_filter: bytes, pipes: Pipes) -> NoReturn:
    """Run as process 1 until the stage is over."""
    try:
        status = _live(task, group, program_filter, pipes)
        _report_end(pipes, status)
        if _reap_the_rest():
            _report_end(pipes, status)
    except BaseException as exc:  # noqa: BLE001 - the only way out of process 1 is a report and an exit
        _report(pipes, f"failed {type(exc).__name__}: {exc}")
        os._exit(EXIT_FAILED)
    os._exit(EXIT_OF_INIT)


def _live(task: StageTask, group: Group, program_filter: bytes, pipes: Pipes) -> int:
    # Default actions do not reach process 1, and the program must start with default ones.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    die_with_parent()
    ends = (pipes.stdin, pipes.stdout, pipes.stderr, pipes.report, pipes.release)
    close_except({0, 1, 2, *ends, *group.folders.values()})
    os.setsid()
    sethostname(HOST_NAME)
    mount_proc()
    # SECURITY: set while this is the machine's root, it is a floor that nobody inside can go below
    # (test_attack..."OOM score").
    write_text("/proc/self/oom_score_adj", OOM_SCORE)
    os.setgroups([])
    unshare(CLONE_NEWUSER)
    _report(pipes, "ready")
    if os.read(pipes.release, 1) != b"1":
        raise ConnectionError("the launcher is gone")

    abi = landlock_abi()
    failure_out, failure_in = os.pipe()
    program = clone3(0, cgroup_fd=group.folders["unified"] if group.version == 2 else None)  # noqa: PLR2004
    if program is None:
        _be_program(task, group, program_filter, pipes, failure_in, abi=abi)
    os.close(failure_in)
    os.close(program.pidfd)
    _settle(group, program_filter, pipes)

    with os.fdopen(failure_out, "rb") as file:
        failure = file.read().decode()
    if failure:
        _report(pipes, failure)
        os._exit(EXIT_FAILED)
    absent = {"network_none" if task.gateway_port is not None else "", "" if abi else "landlock"}
    walls = [name for name in WALLS if name not in absent]
    _report(pipes, f"started {' '.join(walls)}")
    return _reap(program.pid)


def _settle(group: Group, program_filter: bytes, pipes: Pipes) -> None:
    """Give up what init no longer needs: streams, the group, privileges."""
    for descriptor in (pipes.stdin, pipes.stdout, pipes.stderr):
        os.close(descriptor)
    group.close()
    # SECURITY: with the program's own number, prlimit(2) and sched_setscheduler(2) would reach init
    # (test_attack..."bounds for init").
    drop_privileges(INIT_ID)
    hide_memory()
    die_with_parent()
    # The launcher may have died before the line above: then its end of the release pipe is closed.
    ready = select.poll()  # not select(), which knows numbers below 1,024 alone
    ready.register(pipes.release, select.POLLIN)
    if ready.poll(0):
        raise ConnectionError("the launcher is gone")
    install_filter(program_filter)


def _reap(program_pid: int) -> int:
    """Reap until the program ends, and return its wait status; what it left dies with init."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == program_pid:
            return status


def _reap_the_rest() -> int:
    """Wait for what the program left behind, while the launcher lets us live; returns how many there were."""
    count = 0
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
            count += 1
    return count


def _report_end(pipes: Pipes, status: int) -> None:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    _report(pipes, f"ended {status} {usage.ru_nvcsw} {usage.ru_nivcsw}")


def _be_program(
    task: StageTask, group: Group, program_filter: bytes, pipes: Pipes, failure: int, *, abi: int
) -> NoReturn:
    """Run as process 2 up to its exec; what goes wrong is written to ``failure``, which exec closes."""
    try:
        os.setsid()
        if group.version == 1:
            group.join()
        unshare(CLONE_NEWCGROUP)
        for number, descriptor in enumerate((pipes.stdin, pipes.stdout, pipes.stderr)):
            os.dup2(descriptor, number)
        # SECURITY: nothing but the three streams survives (test_no_descriptor_of_ours_is_open_inside).
        close_except({0, 1, 2, failure})
        os.chdir("/work")
        os.umask(0o022)
        apply_rlimits(dict(task.rlimits))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        drop_privileges(INSIDE_ID)
        if abi:
            folders = [f"/{place}" for place in BOX_FOLDERS.values()]
            confine_files(abi, folders=folders, files_below=["/dev"])
        install_filter(program_filter)
    except BaseException as exc:  # noqa: BLE001 - reported to init, which ends the stage
        os.write(failure, f"failed {type(exc).__name__}: {exc}".encode())
        os._exit(EXIT_FAILED)
    try:
        os.execve(task.argv[0], task.argv, dict(task.env))  # noqa: S606 - no shell is what we want
    except OSError as exc:
        os.write(failure, f"exec {exc.errno}".encode())
    os._exit(EXIT_FAILED)


def _report(pipes: Pipes, line: str) -> None:
    os.write(pipes.report, line.replace("\n", " ").encode() + b"\n")
