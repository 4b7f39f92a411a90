"""One stage under gVisor: started, fed, captured, watched and ended.

Invariant: when `GvisorStage.run` returns or raises, every process of the stage has been killed, the guest
kernel and with it the program; who removes the group sees them dead. All of them are in that group, so memory
and CPU time are those of the program and its kernel together.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.backends.backend import BoxUsage, OnSample, StageOrder, StageOutcome, StageUsage
from sandbox.backends.box import box_usage
from sandbox.backends.report import hits_of_signal
from sandbox.backends.streams import Feeder, captured, following, uninterrupted
from sandbox.errors import RequestError, SystemFailureError
from sandbox.inside.capture import Capture
from sandbox.kernel.cgroups import Group, GroupUsage
from sandbox.result import Guarantees, LimitKind, StageSample

__all__ = ["GvisorStage"]

TICK_S = 0.05
SAMPLE_EVERY_S = 0.1
SHORTEST_TICK_S = 0.002
START_TIMEOUT_S = 60.0
FAILED = 128
"""What ``runsc`` exits with when itself fails, and the base to which it adds the number of a signal."""
LAST_SIGNAL = 64
LOG_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Streams:
    """The service's ends of a stage's pipes."""

    feeder: Feeder
    stdout: Capture
    stderr: Capture


class GvisorStage:
    """The life of one stage.

    Args:
        order: what to run, and its bounds.
        group: what the stage runs in.
        on_sample: receives live figures.
        folder_fd: the stage's own folder, in which ``runsc`` leaves its log and the guest kernel's number.
        files_fd: the writable file system.
    """

    def __init__(
        self,
        order: StageOrder,
        group: Group,
        on_sample: OnSample | None = None,
        *,
        folder_fd: int,
        files_fd: int,
    ) -> None:
        self._order = order
        self._group = group
        self._on_sample = on_sample
        self._next_sample_s = 0.0
        self._folder_fd = folder_fd
        self._files_fd = files_fd
        self._killed_for = LimitKind.NONE
        self._hits = LimitKind.NONE
        self._since_s = 0.0
        self._deadline_s = 0.0
        self._has_started = False

    async def run(self, argv: Sequence[str], guarantees: Guarantees) -> StageOutcome:
        """Run the command to its end.

        Raises:
            SystemFailureError: gVisor itself failed.
            RequestError: arguments and environment are larger than the guest kernel takes.
        """
        child, streams = self._start(argv)
        loop = asyncio.get_running_loop()
        self._since_s = loop.time()
        self._deadline_s = self._since_s + START_TIMEOUT_S
        try:
            with following(streams.feeder, (streams.stdout, streams.stderr)):
                await self._wait(child, streams)
        finally:
            streams.stdout.drain()
            streams.stderr.drain()
        return self._outcome(child.returncode, loop.time() - self._since_s, streams, guarantees)

    def _start(self, argv: Sequence[str]) -> tuple[subprocess.Popen[bytes], Streams]:
        stdin_out, stdin_in = os.pipe()
        stdout_out, stdout_in = os.pipe()
        stderr_out, stderr_in = os.pipe()
        keep = self._order.limits.output_bytes
        os.set_blocking(stdin_in, False)
        try:
            child = subprocess.Popen(
                argv,
                stdin=stdin_out,
                stdout=stdout_in,
                stderr=stderr_in,
                env={"PATH": os.defpath},
                cwd="/",
                start_new_session=True,
            )
        except OSError as exc:
            for descriptor in (stdin_in, stdout_out, stderr_out):
                os.close(descriptor)
            raise SystemFailureError(f"gvisor: {argv[0]} cannot be started: {exc}") from exc
        finally:
            for descriptor in (stdin_out, stdout_in, stderr_in):
                os.close(descriptor)
        return child, Streams(
            feeder=Feeder(stdin_in, self._order.stdin),
            stdout=Capture(stdout_out, keep_bytes=keep),
            stderr=Capture(stderr_out, keep_bytes=keep),
        )

    async def _wait(self, child: subprocess.Popen[bytes], streams: Streams) -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        child_fd = os.pidfd_open(child.pid)
        loop.add_reader(child_fd, ended.set)
        try:
            while not ended.is_set() and not self._killed_for:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), self._tick_s())
                self._look(streams)
        finally:
            # The guest's processes die with this one's child; the group's end is awaited by who removes it.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(child_fd, signal.SIGKILL)
            try:
                await uninterrupted(ended)
            finally:
                loop.remove_reader(child_fd)
                os.close(child_fd)
                child.wait()

    def _tick_s(self) -> float:
        """Choose the time until the next look, so that no clock overruns by more than it must."""
        left_s = self._deadline_s - asyncio.get_running_loop().time()
        cpu_s = (self._order.limits.cpu_time_s - self._group.cpu_time_s()) / (os.cpu_count() or 1)
        return max(SHORTEST_TICK_S, min(TICK_S, left_s, cpu_s))

    def _look(self, streams: Streams) -> None:
        """Compare clocks and counts with their bounds, and stop when one is passed."""
        limits, usage, now_s = self._order.limits, self._group.usage(), asyncio.get_running_loop().time()
        box = self._note_disk()
        if not self._has_started and self._is_up():
            self._has_started = True
            self._since_s, self._deadline_s = now_s, now_s + limits.wall_time_s
        if self._on_sample is not None and self._has_started and now_s >= self._next_sample_s:
            self._next_sample_s = now_s + SAMPLE_EVERY_S
            self._on_sample(self._sample(now_s - self._since_s, usage, box, streams))
        # SECURITY: what is printed with sendfile(2) costs the program nothing, and this process its reading.
        reading_s = streams.stdout.cost_s + streams.stderr.cost_s
        if usage.oom_kills:
            self._killed_for = LimitKind.MEMORY
        elif usage.refused_tasks:
            self._killed_for = LimitKind.PROCESSES
        elif self._group.cpu_time_s() + reading_s > limits.cpu_time_s:
            self._killed_for = LimitKind.CPU_TIME
        elif now_s >= self._deadline_s:
            if not self._has_started:
                raise SystemFailureError(f"gvisor: the guest was not up after {START_TIMEOUT_S:g} s")
            self._killed_for = LimitKind.WALL_TIME

    def _sample(self, elapsed_s: float, usage: GroupUsage, box: BoxUsage, streams: Streams) -> StageSample:
        return StageSample(
            stage=self._order.name,
            elapsed_s=elapsed_s,
            memory_bytes=usage.memory_bytes,
            # All memory of a guest is one file to the machine: the two cannot be told apart.
            memory_anonymous_bytes=None,
            memory_file_bytes=None,
            user_time_s=usage.user_time_s,
            system_time_s=usage.system_time_s,
            processes=None,
            disk_bytes=box.disk_bytes,
            stdout_bytes=streams.stdout.size_bytes,
            stderr_bytes=streams.stderr.size_bytes,
        )

    def _note_disk(self) -> BoxUsage:
        box = box_usage(self._files_fd)
        if box.is_full:
            self._hits |= LimitKind.DISK
        if box.is_out_of_inodes:
            self._hits |= LimitKind.INODES
        return box

    def _is_up(self) -> bool:
        """Say whether the guest kernel runs: it starts the program some hundredths of a second later."""
        try:
            return os.stat("pid", dir_fd=self._folder_fd).st_size > 0
        except FileNotFoundError:
            return False

    def _outcome(
        self, status: int, wall_time_s: float, streams: Streams, guarantees: Guarantees
    ) -> StageOutcome:
        usage = self._group.usage()
        self._note_disk()
        if status != 0 and not self._killed_for:
            self._explain(usage)
        if not self._killed_for:
            self._raise_own_failure(status, streams)
        exit_code, signal_number = (None, None) if self._killed_for else _ending(status)
        self._hits |= hits_of_signal(self._order, signal_number, usage.user_time_s + usage.system_time_s)
        if streams.stdout.is_cut:
            self._hits |= LimitKind.STDOUT
        if streams.stderr.is_cut:
            self._hits |= LimitKind.STDERR
        return StageOutcome(
            exit_code=exit_code,
            signal=signal_number,
            killed_for=self._killed_for,
            limits_hit=self._killed_for | self._hits,
            stdout=captured(streams.stdout),
            stderr=captured(streams.stderr),
            usage=StageUsage(
                wall_time_s=wall_time_s,
                user_time_s=usage.user_time_s,
                system_time_s=usage.system_time_s,
                memory_peak_bytes=usage.memory_peak_bytes,
                oom_kills=usage.oom_kills,
            ),
            guarantees=guarantees,
        )

    def _explain(self, usage: GroupUsage) -> None:
        """Name the bound that the guest kernel ran into: it falls as a whole, and the program with it."""
        if usage.oom_kills:
            self._killed_for = LimitKind.MEMORY
        elif usage.refused_tasks:
            self._killed_for = LimitKind.PROCESSES

    def _raise_own_failure(self, status: int, streams: Streams) -> None:
        """Raise where the stage did not end by its program's doing."""
        complaint = self._complaint()
        if status == FAILED and complaint:
            if "argument list too long" in complaint:
                raise RequestError("args and env_vars together are larger than a kernel passes to a program")
            raise SystemFailureError(f"gvisor: stage {self._order.name}: {complaint}")
        if status < 0 or not (self._has_started or self._is_up()):
            said = bytes(streams.stderr.data).decode("utf-8", "replace").strip()[-600:]
            raise SystemFailureError(
                f"gvisor: stage {self._order.name} was not started: {said or f'it ended with {status}'}"
            )

    def _complaint(self) -> str:
        """Return the last error in the log of ``runsc``, which no guest can write to."""
        try:
            descriptor = os.open("log", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder_fd)
        except FileNotFoundError:
            return ""
        with os.fdopen(descriptor, "rb") as file:
            lines = file.read(LOG_BYTES).decode(errors="replace").splitlines()
        for line in reversed(lines):
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and entry.get("level") == "error":
                    return str(entry.get("msg", ""))[-600:]
        return ""


def _ending(status: int) -> tuple[int | None, int | None]:
    """Read an exit code; a program that exits with 129 to 192 itself looks like a killed one."""
    if FAILED < status <= FAILED + LAST_SIGNAL:
        return None, status - FAILED
    return status, None
