"""Watches one stage: feeds and captures its streams, keeps its clocks and counts, kills it when it must.

Invariant: whatever the program does, the watch ends soon after its deadline: it waits for the death of init
(which the kernel makes the death of everything inside), never for an end of file that an orphan may withhold.
"""

import contextlib
import math
import os
import select
import signal
import time
from collections.abc import Callable

from sandbox.inside.capture import Capture
from sandbox.inside.orders import LiveFigures, StageTask
from sandbox.kernel.cgroups import Group, GroupUsage
from sandbox.kernel.syscalls import Child

__all__ = ["ServiceGoneError", "StageFailedError", "StageStreams", "Watch"]

TICK_S = 0.05
SHORTEST_TICK_S = 0.002
START_TIMEOUT_S = 30.0
FIGURES_EVERY_S = 0.1
LAST_REPORT_S = 0.25
"""How long init may take to count what was killed under it, before it is killed itself."""
READ_BYTES = 65536


class StageFailedError(Exception):
    """A part of ours failed; ``exec_errno`` is set when the program could not be executed."""

    def __init__(self, message: str, *, exec_errno: int | None = None) -> None:
        super().__init__(message)
        self.exec_errno = exec_errno


class ServiceGoneError(Exception):
    """The service closed the channel: the execution was cancelled, or the service is dead."""


class StageStreams:
    """The launcher's ends of the pipes to one stage.

    Attributes:
        stdin: what is still to be written.
    """

    def __init__(
        self, *, stdin_fd: int, stdin: memoryview, stdout: Capture, stderr: Capture, report_fd: int
    ) -> None:
        self.stdin_fd = stdin_fd
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.report_fd = report_fd

    def feed(self) -> bool:
        """Write what the pipe takes of stdin; True when it is all written or nobody reads it any more."""
        try:
            if self.stdin:
                self.stdin = self.stdin[os.write(self.stdin_fd, self.stdin) :]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            self.stdin = memoryview(b"")
        return not self.stdin

    def close_stdin(self) -> None:
        """Close the pipe to the program, which then reads end of file. Safe to call twice."""
        if self.stdin_fd >= 0:
            os.close(self.stdin_fd)
            self.stdin_fd = -1

    def close(self) -> None:
        """Close every end."""
        self.close_stdin()
        self.stdout.close()
        self.stderr.close()
        os.close(self.report_fd)


class Watch:
    """The life of one stage, seen from outside.

    Attributes:
        killed_for: ``wall``, ``cpu`` or ``processes`` when the watch killed the stage.
        hits: names of limits that were seen touched: ``disk``, ``inodes``.
        walls: what init says stood when the program started.
        processes_peak: the most processes seen at once, looked at every 50 ms; 0 when never looked.
        memory_sample: the reading with the most anonymous memory; None for a stage shorter than a tick.
        end: wait status and context switches as init reported them; None when it could not.
        wall_time_s: from the program's exec to the death of everything.
    """

    def __init__(
        self,
        *,
        task: StageTask,
        group: Group,
        init: Child,
        box_fd: int,
        streams: StageStreams,
        channel_fd: int,
        on_ready: Callable[[], None],
        on_figures: Callable[[LiveFigures], None] | None = None,
    ) -> None:
        self.task = task
        self.group = group
        self.init = init
        self.box_fd = box_fd
        self.streams = streams
        self.channel_fd = channel_fd
        self.on_ready = on_ready
        self.on_figures = on_figures
        self.killed_for = ""
        self.hits: set[str] = set()
        self.walls: list[str] = []
        self.processes_peak = 0
        self.memory_sample: GroupUsage | None = None
        self.end: list[int] | None = None
        self.wall_time_s = 0.0
        self._poll = select.poll()
        self._failure: StageFailedError | None = None
        self._lines = b""
        self._since_s = 0.0
        self._deadline_s = 0.0
        self._next_look_s = 0.0
        self._has_started = False
        self._next_figures_s = 0.0
        self._init_dies_s = math.inf

    def run(self) -> None:
        """Watch until everything of the stage is dead and its pipes are drained.

        Raises:
            StageFailedError: our own part failed, or the program could not be executed.
            ServiceGoneError: the channel closed; the stage is killed and dead.
        """
        streams = self.streams
        readable = (streams.stdout.descriptor, streams.stderr.descriptor, streams.report_fd)
        for descriptor in (*readable, self.channel_fd, self.init.pidfd):
            self._poll.register(descriptor, select.POLLIN)
        self._poll.register(streams.stdin_fd, select.POLLOUT)
        self._since_s = time.monotonic()
        self._deadline_s = self._since_s + START_TIMEOUT_S
        try:
            while not self._step():
                pass
        finally:
            self._kill_init()
            os.waitpid(self.init.pid, 0)
            self.wall_time_s = time.monotonic() - self._since_s
        self._read_report()
        streams.stdout.drain()
        streams.stderr.drain()
        self._look(is_last=True)
        self._judge()

    def _step(self) -> bool:
        """Wait for the next event or tick; True when init is dead."""
        wait_s = max(0.0, self._next_look_s - time.monotonic())
        events = dict(self._poll.poll(wait_s * 1000))
        if self.channel_fd in events:
            raise ServiceGoneError("the service closed the channel")
        streams = self.streams
        if streams.report_fd in events:
            self._read_report()
        if streams.stdin_fd in events and streams.feed():
            self._poll.unregister(streams.stdin_fd)
            streams.close_stdin()
        for capture in (streams.stdout, streams.stderr):
            if capture.descriptor in events:
                capture.read_some()
                if not capture.is_open:
                    self._poll.unregister(capture.descriptor)
        if self.init.pidfd in events:
            return True
        if time.monotonic() >= self._next_look_s:
            self._look(is_last=False)
            self._plan_look()
        return False

    def _plan_look(self) -> None:
        """Choose the time of the next look, so that no clock overruns by more than it must."""
        now_s = time.monotonic()
        if self.killed_for:
            self._next_look_s = now_s + SHORTEST_TICK_S
            return
        cpu_s = (self.task.cpu_time_s - self._cpu_time_s()) / (os.cpu_count() or 1)
        self._next_look_s = now_s + max(SHORTEST_TICK_S, min(TICK_S, self._deadline_s - now_s, cpu_s))

    def _look(self, *, is_last: bool) -> None:
        """See what was touched, and how the stage goes on."""
        space = os.fstatvfs(self.box_fd)
        if space.f_bfree == 0:
            self.hits.add("disk")
        if space.f_ffree == 0:
            self.hits.add("inodes")
        if is_last or not self._has_started:
            if not is_last and time.monotonic() >= self._deadline_s:
                raise StageFailedError(f"the sandbox was not ready after {START_TIMEOUT_S} s")
            return
        if self.killed_for:
            self._finish_kill()
        else:
            self._measure(space)

    def _measure(self, space: os.statvfs_result) -> None:
        """Read what the program uses now, show it, and kill when a bound is passed."""
        count = len(self.group.processes())
        self.processes_peak = max(self.processes_peak, count)
        usage = self.group.usage()
        if self.memory_sample is None or _anonymous(usage) >= _anonymous(self.memory_sample):
            self.memory_sample = usage
        if self.on_figures is not None and time.monotonic() >= self._next_figures_s:
            self._next_figures_s = time.monotonic() + FIGURES_EVERY_S
            self.on_figures(self._figures(count, usage, space))
        if self.task.processes is not None and count > self.task.processes:
            self._kill("processes")
        elif time.monotonic() >= self._deadline_s:
            self._kill("wall")
        elif self._cpu_time_s() >= self.task.cpu_time_s:
            self._kill("cpu")

    def _figures(self, processes: int, usage: GroupUsage, space: os.statvfs_result) -> LiveFigures:
        return LiveFigures(
            elapsed_s=time.monotonic() - self._since_s,
            processes=processes,
            disk_bytes=(space.f_blocks - space.f_bfree) * space.f_frsize,
            stdout_bytes=self.streams.stdout.size_bytes,
            stderr_bytes=self.streams.stderr.size_bytes,
            group=usage,
        )

    def _cpu_time_s(self) -> float:
        """Return what the program has used, and what reading its output has cost.

        SECURITY: sendfile(2) prints gigabytes for next to nothing, and this process would read them for
        nothing (test_attack..."output flood that costs the reader alone").
        """
        return self.group.cpu_time_s() + self.streams.stdout.cost_s + self.streams.stderr.cost_s

    def _kill(self, reason: str) -> None:
        """Kill the program and everything of it, but let init count and report first."""
        self.killed_for = reason
        self._init_dies_s = time.monotonic() + LAST_REPORT_S
        self.group.kill()

    def _finish_kill(self) -> None:
        """Kill what was forked meanwhile, or init, when it does not come to its end."""
        if time.monotonic() >= self._init_dies_s:
            self._kill_init()
        else:
            self.group.kill()

    def _kill_init(self) -> None:
        """Kill init, and by it everything in its process name space."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.init.pidfd, signal.SIGKILL)

    def _read_report(self) -> None:
        try:
            chunk = os.read(self.streams.report_fd, READ_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            with contextlib.suppress(KeyError):
                self._poll.unregister(self.streams.report_fd)
        *lines, self._lines = (self._lines + chunk).split(b"\n")
        for line in lines:
            self._take(line.decode())

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "ready":
            self.on_ready()
        elif word == "started":
            self.walls = rest.split()
            self._has_started = True
            self._since_s = time.monotonic()
            self._deadline_s = self._since_s + self.task.wall_time_s
            self._plan_look()
        elif word == "ended":
            self.end = [int(part) for part in rest.split()]
            if not self.killed_for:  # what the program left behind ends with it
                self._kill_init()
        elif word == "exec":
            reason = os.strerror(int(rest))
            self._failure = StageFailedError(
                f"cannot execute {self.task.argv[0]}: {reason}", exec_errno=int(rest)
            )
        else:
            self._failure = StageFailedError(f"the sandbox could not be set up: {rest}")

    def _judge(self) -> None:
        """Raise when the stage did not come to an end of its own or of our choice."""
        if self._failure is not None:
            raise self._failure
        if self.end is None and not self.killed_for:
            raise StageFailedError("the init of the sandbox died without a report")


def _anonymous(usage: GroupUsage) -> int:
    return usage.memory_anonymous_bytes or 0
