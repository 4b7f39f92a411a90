"""One stage under bubblewrap: started, fed, captured, watched and ended.

Invariant: when `BubblewrapStage.run` returns or raises, the sandbox's init is dead, and the kernel has taken
every process of its name space with it. What is read afterwards is what the pipes still hold.
"""

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sandbox.backends.backend import BoxUsage, OnSample, StageOrder, StageOutcome, StageUsage
from sandbox.backends.bubblewrap_command import Descriptors, bound_init
from sandbox.backends.bubblewrap_watch import Look, look_at
from sandbox.backends.report import hits_of_signal
from sandbox.backends.streams import Feeder, captured, following, uninterrupted
from sandbox.errors import RequestError, SystemFailureError
from sandbox.inside.capture import Capture
from sandbox.result import Guarantees, LimitKind, StageSample

__all__ = ["BubblewrapStage", "StagePipes", "stage_pipes"]

TICK_S = 0.03
SAMPLE_EVERY_S = 0.1
START_TIMEOUT_S = 30.0
SIGNAL_BASE = 128
"""A shell's convention, which bubblewrap follows: it exits with 128 and the signal's number."""
LAST_SIGNAL = 64


@dataclass(frozen=True, slots=True)
class StagePipes:
    """Our ends of the pipes to bubblewrap, and the descriptors that it is given."""

    descriptors: Descriptors
    info_fd: int
    """bubblewrap writes about itself; read here."""
    block_fd: int
    """It waits for a byte; written here."""


@contextlib.contextmanager
def stage_pipes(texts: Sequence[tuple[str, str]], seccomp: bytes) -> Iterator[StagePipes]:
    """Make what one call of bubblewrap reads and writes by number, and close it all at the end.

    Args:
        texts: path inside and content of small files.
        seccomp: the system call filter, as the kernel takes it.
    """
    with contextlib.ExitStack() as stack:

        def kept(descriptor: int) -> int:
            stack.callback(os.close, descriptor)
            return descriptor

        info_out, info_in = map(kept, os.pipe())
        block_out, block_in = map(kept, os.pipe())
        files = [(path, kept(_memory_file(text.encode()))) for path, text in texts]
        descriptors = Descriptors(
            info=info_in, block=block_out, seccomp=kept(_memory_file(seccomp)), texts=files
        )
        yield StagePipes(descriptors, info_out, block_in)


class BubblewrapStage:
    """The life of one stage.

    Args:
        order: what to run, and its bounds.
        pipes: the pipes to bubblewrap.
        usage: says how full the writable file system is.
        on_sample: receives live figures.
    """

    def __init__(
        self,
        order: StageOrder,
        pipes: StagePipes,
        usage: Callable[[], BoxUsage | None],
        on_sample: OnSample | None = None,
    ) -> None:
        self._order = order
        self._pipes = pipes
        self._usage = usage
        self._on_sample = on_sample
        self._began_s = 0.0
        self._next_sample_s = 0.0
        self._killed_for = LimitKind.NONE
        self._hits = LimitKind.NONE
        self._peak = Look(processes=0, anonymous_bytes=0, user_time_s=0.0, system_time_s=0.0)
        self._init_pid = 0
        self._init_fd = -1
        self._captures: Sequence[Capture] = ()

    async def run(
        self, argv: Sequence[str], guarantees: Guarantees, pass_fds: Sequence[int] = ()
    ) -> StageOutcome:
        """Run the command to its end; ``pass_fds`` are descriptors that it needs besides bubblewrap's.

        Raises:
            SystemFailureError: bubblewrap itself failed.
            RequestError: arguments and environment are larger than the kernel takes.
        """
        stdin_out, stdin_in = os.pipe()
        stdout_out, stdout_in = os.pipe()
        stderr_out, stderr_in = os.pipe()
        keep = self._order.limits.output_bytes
        stdout, stderr = Capture(stdout_out, keep_bytes=keep), Capture(stderr_out, keep_bytes=keep)
        self._captures = (stdout, stderr)
        os.set_blocking(stdin_in, False)
        try:
            child = subprocess.Popen(  # noqa: ASYNC220 - a millisecond; asyncio's own needs a thread
                argv,
                stdin=stdin_out,
                stdout=stdout_in,
                stderr=stderr_in,
                env={"PATH": os.defpath},
                pass_fds=(*self._pipes.descriptors.numbers(), *pass_fds),
            )
        except OSError as exc:
            for descriptor in (stdin_in, stdout_out, stderr_out):
                os.close(descriptor)
            raise RequestError(f"args and env_vars cannot be passed to a program: {exc}") from exc
        finally:
            for descriptor in (stdin_out, stdout_in, stderr_in):
                os.close(descriptor)
        began_s = time.monotonic()
        try:
            with following(Feeder(stdin_in, self._order.stdin), (stdout, stderr)):
                status, used = await self._wait(child)
        finally:
            stdout.drain()
            stderr.drain()
        wall_time_s = time.monotonic() - began_s
        return self._outcome(status, used, wall_time_s, streams=(stdout, stderr), guarantees=guarantees)

    async def _wait(self, child: subprocess.Popen[bytes]) -> tuple[int, resource.struct_rusage]:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        child_fd = os.pidfd_open(child.pid)
        loop.add_reader(child_fd, ended.set)
        try:
            await self._begin(ended)
            await self._watch(ended)
        finally:
            self._kill(child_fd)
            await uninterrupted(ended)
            loop.remove_reader(child_fd)
            os.close(child_fd)
            _, status, used = os.wait4(child.pid, 0)  # noqa: ASYNC222 - it has ended
            child.returncode = os.waitstatus_to_exitcode(status)
            await self._await_init()
        return child.returncode, used

    async def _begin(self, ended: asyncio.Event) -> None:
        """Learn the init's number from bubblewrap, then let the program start."""
        loop, info_fd, said = asyncio.get_running_loop(), self._pipes.info_fd, bytearray()
        os.set_blocking(info_fd, False)
        readable = asyncio.Event()
        loop.add_reader(info_fd, readable.set)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while b"}" not in said and not ended.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(readable.wait(), TICK_S)
                    readable.clear()
                    with contextlib.suppress(BlockingIOError):
                        said += os.read(info_fd, 4096)
        except TimeoutError as exc:
            raise SystemFailureError("bubblewrap: it did not start the sandbox in time") from exc
        finally:
            loop.remove_reader(info_fd)
        if b"}" in said:
            self._init_pid = int(json.loads(said)["child-pid"])
            with contextlib.suppress(ProcessLookupError):
                self._init_fd = os.pidfd_open(self._init_pid)
                bound_init(self._init_pid, self._order)
        os.write(self._pipes.block_fd, b"1")

    async def _watch(self, ended: asyncio.Event) -> None:
        """Look at the stage until it ends or a bound is passed."""
        limits, loop = self._order.limits, asyncio.get_running_loop()
        self._began_s = time.monotonic()
        deadline_s = loop.time() + limits.wall_time_s
        while not ended.is_set():
            wait_s = min(TICK_S, max(0.0, deadline_s - loop.time()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), wait_s)
                return
            self._look()
            if loop.time() >= deadline_s:
                self._killed_for = LimitKind.WALL_TIME
            if self._killed_for:
                return

    def _look(self) -> None:
        look, limits, box = look_at(self._init_pid), self._order.limits, self._usage()
        self._peak = Look(
            processes=max(self._peak.processes, look.processes),
            anonymous_bytes=max(self._peak.anonymous_bytes, look.anonymous_bytes),
            user_time_s=max(self._peak.user_time_s, look.user_time_s),
            system_time_s=max(self._peak.system_time_s, look.system_time_s),
        )
        disk_bytes = box.disk_bytes if box else 0
        self._tell(look, disk_bytes)
        # SECURITY: what is printed with sendfile(2) costs the program nothing, and this process its reading.
        reading_s = sum(capture.cost_s for capture in self._captures)
        # Processes first: pages that forked processes share are counted once for each.
        if look.processes > limits.processes:
            self._killed_for = LimitKind.PROCESSES
        elif look.anonymous_bytes + disk_bytes > limits.memory_bytes:
            self._killed_for = LimitKind.MEMORY
        elif look.user_time_s + look.system_time_s + reading_s > limits.cpu_time_s:
            self._killed_for = LimitKind.CPU_TIME

    def _tell(self, look: Look, disk_bytes: int) -> None:
        """Hand live figures out, at most ten times a second."""
        now_s = time.monotonic()
        if self._on_sample is None or now_s < self._next_sample_s:
            return
        self._next_sample_s = now_s + SAMPLE_EVERY_S
        stdout, stderr = self._captures
        self._on_sample(
            StageSample(
                stage=self._order.name,
                elapsed_s=now_s - self._began_s,
                memory_bytes=None,
                memory_anonymous_bytes=look.anonymous_bytes,
                memory_file_bytes=None,
                user_time_s=look.user_time_s,
                system_time_s=look.system_time_s,
                processes=look.processes,
                disk_bytes=disk_bytes,
                stdout_bytes=stdout.size_bytes,
                stderr_bytes=stderr.size_bytes,
            )
        )

    def _kill(self, child_fd: int) -> None:
        for descriptor in (self._init_fd, child_fd):
            if descriptor >= 0:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)

    async def _await_init(self) -> None:
        """Wait until the sandbox's init is dead; bubblewrap ends with the program, orphans may live on."""
        if self._init_fd < 0:
            return
        loop, dead = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._init_fd, dead.set)
        await uninterrupted(dead)
        loop.remove_reader(self._init_fd)
        os.close(self._init_fd)
        self._init_fd = -1

    def _outcome(
        self,
        status: int,
        used: resource.struct_rusage,
        wall_time_s: float,
        *,
        streams: tuple[Capture, Capture],
        guarantees: Guarantees,
    ) -> StageOutcome:
        stdout, stderr = streams
        if self._init_pid == 0 and not self._killed_for:
            said = bytes(stderr.data).decode("utf-8", "replace").strip()[-600:]
            raise SystemFailureError(
                f"bubblewrap: the sandbox was not made: {said or f'it ended with {status}'}"
            )
        exit_code, signal_number = _ending(status, is_killed=bool(self._killed_for))
        user_time_s = max(used.ru_utime, self._peak.user_time_s)
        system_time_s = max(used.ru_stime, self._peak.system_time_s)
        self._hits |= hits_of_signal(self._order, signal_number, user_time_s + system_time_s)
        return StageOutcome(
            exit_code=exit_code,
            signal=signal_number,
            killed_for=self._killed_for,
            limits_hit=self._killed_for | self._hits_of(stdout, stderr),
            stdout=captured(stdout),
            stderr=captured(stderr),
            usage=StageUsage(
                wall_time_s=wall_time_s,
                user_time_s=user_time_s,
                system_time_s=system_time_s,
                memory_anonymous_bytes=self._peak.anonymous_bytes or None,
                processes_peak=self._peak.processes or None,
            ),
            guarantees=guarantees,
        )

    def _hits_of(self, stdout: Capture, stderr: Capture) -> LimitKind:
        hits, box = self._hits, self._usage()
        if box and box.is_full:
            hits |= LimitKind.DISK
        if box and box.is_out_of_inodes:
            hits |= LimitKind.INODES
        if stdout.is_cut:
            hits |= LimitKind.STDOUT
        if stderr.is_cut:
            hits |= LimitKind.STDERR
        return hits


def _ending(status: int, *, is_killed: bool) -> tuple[int | None, int | None]:
    """Read bubblewrap's exit code; a program that exits with 129 to 192 itself looks like a killed one."""
    if is_killed:
        return None, None
    if status < 0:
        return None, -status
    if SIGNAL_BASE < status <= SIGNAL_BASE + LAST_SIGNAL:
        return None, status - SIGNAL_BASE
    return status, None


def _memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("sandbox", os.MFD_CLOEXEC)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
