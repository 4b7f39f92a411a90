"""The parts of the launcher that need no privilege: messages, capture, feeding, the layout, the report."""

import errno
import hashlib
import os
import resource
import signal
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.backends.backend import StageOrder
from sandbox.backends.layout import HOST_TREE_PATHS, layout_of
from sandbox.backends.report import outcome_of, task_of
from sandbox.errors import RequestError, SandboxUnavailableError, SystemFailureError
from sandbox.inside import wire
from sandbox.inside.capture import Capture
from sandbox.inside.orders import StageAnswer, StreamFacts, pack, unpack_answer, unpack_layout, unpack_task
from sandbox.inside.watch import StageStreams
from sandbox.kernel.cgroups import Group, GroupUsage
from sandbox.kernel.rlimits import rlimits_for
from sandbox.request import Limits
from sandbox.result import Guarantees, LimitKind
from sandbox.tree import LanguageTree

USAGE = GroupUsage(
    memory_bytes=90,
    memory_peak_bytes=100,
    memory_anonymous_bytes=1,
    memory_file_bytes=2,
    page_faults=70,
    page_faults_major=20,
    user_time_s=0.5,
    system_time_s=0.25,
    oom_kills=0,
    refused_tasks=0,
    tasks_peak=3,
)
ANSWER = StageAnswer(
    wait_status=0,
    killed_for="",
    hits=[],
    walls=["seccomp"],
    stdout=StreamFacts(kept_bytes=3, size_bytes=3, sha256="aa"),
    stderr=StreamFacts(kept_bytes=2, size_bytes=9, sha256="bb"),
    wall_time_s=1.5,
    processes_peak=2,
    group=USAGE,
    sample=None,
    context_switches=[3, 4],
)
ORDER = StageOrder(name="run", argv=("/bin/x",), env={"A": "b"}, limits=Limits(), tasks_max=9)
GUARANTEES = Guarantees(backend="slot", enforced=frozenset({"memory"}))


def outcome(answer: StageAnswer, order: StageOrder = ORDER):
    """Send an answer through JSON and make an outcome of it."""
    fields = wire.decode_fields(wire.encode(pack(answer) | {"error": ""})[wire.HEADER_BYTES :])
    return outcome_of(order, fields, b"outer", guarantees=GUARANTEES)


def test_message_and_descriptors_go_through_a_socket() -> None:
    """Fields, raw bytes and descriptors arrive together."""
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    message = wire.encode({"a": [1, "é"]}, b"\x00raw")
    socket.send_fds(ours, [message[: wire.HEADER_BYTES]], [writing])
    ours.sendall(message[wire.HEADER_BYTES :])
    fields, raw, (received,) = wire.receive(theirs)
    os.write(received, b"x")
    assert (fields, raw, os.read(reading, 1)) == ({"a": [1, "é"]}, b"\x00raw", b"x")
    ours.close()
    with pytest.raises(EOFError):
        wire.receive(theirs)
    theirs.close()
    for descriptor in (reading, writing, received):
        os.close(descriptor)


def test_broken_message_is_an_end_of_file() -> None:
    """A peer that dies in the middle of a message is not waited for."""
    ours, theirs = socket.socketpair()
    ours.sendall(wire.encode({"a": 1}, b"12345")[:-2])
    ours.close()
    with pytest.raises(EOFError, match="in the middle"):
        wire.receive(theirs)
    theirs.close()


def test_message_that_is_no_object_is_refused() -> None:
    """Only objects are fields."""
    with pytest.raises(TypeError, match="received list"):
        wire.decode_fields(b"[]")


def test_orders_and_answers_survive_json() -> None:
    """What is packed is unpacked equal."""
    group = Group(1, {"memory": 5, "pids": 6})
    task = task_of(ORDER, group)
    again = unpack_task(wire.decode_fields(wire.encode(pack(task))[wire.HEADER_BYTES :]))
    assert (again.argv, again.controllers, again.processes) == (["/bin/x"], ["memory", "pids"], 10)
    assert dict(again.rlimits)[resource.RLIMIT_CORE] == 0
    sampled = ANSWER._replace(sample=USAGE)
    assert unpack_answer(wire.decode_fields(wire.encode(pack(sampled))[wire.HEADER_BYTES :])) == sampled


def test_exact_runtime_is_bounded_by_the_group_alone() -> None:
    """Where tasks are processes, the watch counts none."""
    task = task_of(replace(ORDER, counts_processes_exactly=True), Group(2, {"unified": 1}))
    assert (task.processes, task.controllers) == (None, ["unified"])


def test_capture_keeps_the_beginning_and_digests_all() -> None:
    """Memory is bounded; size and digest speak of everything."""
    reading, writing = os.pipe()
    capture = Capture(reading, keep_bytes=5)
    assert not capture.read_some()
    os.write(writing, b"abc\x00defg")
    capture.drain()
    os.close(writing)
    assert (bytes(capture.data), capture.size_bytes, capture.is_cut) == (b"abc\x00d", 8, True)
    assert capture.sha256 == hashlib.sha256(b"abc\x00defg").hexdigest()
    assert not capture.is_open


def test_capture_does_not_wait_for_a_writer_that_lives_on() -> None:
    """Draining ends when the pipe is empty, though someone holds its other end."""
    reading, writing = os.pipe()
    capture = Capture(reading, keep_bytes=5)
    os.write(writing, b"x")
    capture.drain()
    assert capture.size_bytes == 1
    os.close(writing)


def test_feeding_stops_when_nobody_reads() -> None:
    """A program that closed its input is no error, and what is left is dropped."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    capture = Capture(os.dup(reading), keep_bytes=0)
    streams = StageStreams(
        stdin_fd=writing, stdin=memoryview(b"x" * 10**6), stdout=capture, stderr=capture, report_fd=-1
    )
    assert not streams.feed()
    assert 0 < len(streams.stdin) < 10**6
    capture.close()
    os.close(reading)
    assert streams.feed()
    streams.close_stdin()
    streams.close_stdin()
    assert streams.stdin_fd == -1


def test_outcome_carries_what_the_launcher_saw() -> None:
    """Exit code, streams, counts, and walls beside what the back end enforces itself."""
    told = outcome(ANSWER)
    assert (told.exit_code, told.signal, told.killed_for) == (0, None, LimitKind.NONE)
    assert (told.stdout.data, told.stderr.data, told.limits_hit) == (b"out", b"er", LimitKind.STDERR)
    assert (told.usage.page_faults_minor, told.usage.context_switches_involuntary) == (50, 4)
    assert told.guarantees.enforced == {"memory", "seccomp"}


def test_outcome_of_a_signal() -> None:
    """SIGXFSZ and SIGXCPU tell their limits, the latter where so much time was used."""
    told = outcome(ANSWER._replace(wait_status=int(signal.SIGXFSZ)))
    assert (told.exit_code, told.signal) == (None, 25)
    assert LimitKind.FILE_SIZE in told.limits_hit
    told = ANSWER._replace(wait_status=int(signal.SIGXCPU))
    assert LimitKind.CPU_TIME not in outcome(told).limits_hit
    busy = told.group._replace(user_time_s=Limits().cpu_time_s)
    assert LimitKind.CPU_TIME in outcome(told._replace(group=busy)).limits_hit


def test_outcome_of_a_kill_has_no_exit_and_what_could_be_counted() -> None:
    """Where init could not report, its counts are None, not zero; what the group counted is told."""
    told = outcome(
        ANSWER._replace(wait_status=None, killed_for="cpu", context_switches=None, hits=["disk", "inodes"])
    )
    assert (told.exit_code, told.signal, told.killed_for) == (None, None, LimitKind.CPU_TIME)
    assert told.limits_hit == LimitKind.CPU_TIME | LimitKind.DISK | LimitKind.INODES | LimitKind.STDERR
    assert told.usage.context_switches_voluntary is None
    assert (told.usage.page_faults_minor, told.usage.page_faults_major) == (50, 20)


def test_peak_of_processes_is_the_kernels_only_where_tasks_are_processes() -> None:
    """Threads are not processes: for a threaded runtime the looks count."""
    assert outcome(ANSWER).usage.processes_peak == 2
    assert outcome(ANSWER, replace(ORDER, counts_processes_exactly=True)).usage.processes_peak == 3
    alone = ANSWER._replace(group=USAGE._replace(tasks_peak=1), processes_peak=None)
    assert outcome(alone).usage.processes_peak == 1


def test_errors_of_the_launcher_are_ours_except_arguments_too_long() -> None:
    """An exec that fails is our failure; E2BIG is the request's."""
    failed = {"error": "cannot execute /x: no", "exec_errno": errno.ENOENT}
    with pytest.raises(SystemFailureError, match="stage run: cannot execute"):
        outcome_of(ORDER, dict(failed), b"", guarantees=GUARANTEES)
    with pytest.raises(RequestError, match="args and env_vars together"):
        outcome_of(ORDER, failed | {"exec_errno": errno.E2BIG}, b"", guarantees=GUARANTEES)


def test_host_layout_shows_nothing_but_the_listed_paths() -> None:
    """Of the host, /usr and a few files of /etc show; the users file is our own."""
    layout = layout_of(LanguageTree(path=Path("/"), digest="", kind="host", runtimes=()))
    sources = {source for source, _ in layout.binds}
    assert "/usr" in sources
    allowed = ("/usr", "/etc/", "/bin", "/sbin", "/lib")
    assert all(source.startswith(allowed) for source in sources)
    assert not any(source in {"/etc", "/etc/passwd", "/etc/shadow", "/etc/ssl"} for source in sources)
    assert "/etc" not in HOST_TREE_PATHS
    assert {path for path, _ in layout.texts} == {"etc/passwd", "etc/group", "etc/hosts"}
    assert unpack_layout(wire.decode_fields(wire.encode(pack(layout))[wire.HEADER_BYTES :])).owner_uid == 0


def test_built_tree_shows_whole_but_for_what_is_made_inside(tmp_path: Path) -> None:
    """Folders that a sandbox makes itself are never taken from the tree; links stay links."""
    for name in ("usr", "etc", "proc", "dev", "tmp", "root", "home", "opt"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin").symlink_to("usr/bin")
    layout = layout_of(LanguageTree(path=tmp_path, digest="", kind="debian", runtimes=()))
    assert [target for _, target in layout.binds] == ["etc", "opt", "usr"]
    assert layout.links == [("usr/bin", "bin")]


def test_missing_tree_is_unavailable(tmp_path: Path) -> None:
    """A tree that was removed is named, with what to do."""
    with pytest.raises(SandboxUnavailableError, match="build it again"):
        layout_of(LanguageTree(path=tmp_path / "gone", digest="", kind="debian", runtimes=()))


def test_rlimits_leave_address_space_and_threads_alone() -> None:
    """No RLIMIT_AS and no RLIMIT_NPROC; CPU is rounded up behind the group's clock."""
    limits = rlimits_for(file_size_bytes=5, open_files=6, cpu_time_s=1.2)
    assert resource.RLIMIT_AS not in limits
    assert resource.RLIMIT_NPROC not in limits
    assert (limits[resource.RLIMIT_CPU], limits[resource.RLIMIT_FSIZE], limits[resource.RLIMIT_NOFILE]) == (
        4,
        5,
        6,
    )


def test_file_that_tools_lock_is_each_sandboxs_own(tmp_path: Path) -> None:
    """Where the tree has a file that a tool locks, another is laid over it."""
    folder = tmp_path / "usr/lib/go-cache"
    folder.mkdir(parents=True)
    tree = LanguageTree(path=tmp_path, digest="", kind="debian", runtimes=())
    assert layout_of(tree).texts == []
    (folder / "trim.txt").write_text("1")
    ((path, text),) = layout_of(tree).texts
    assert path == "usr/lib/go-cache/trim.txt"
    assert int(text) > 1
