"""The launcher: one small process for each sandbox, between the service and the program.

It builds the root, starts each stage's init, watches it, and answers with facts. It is executed afresh with
an empty environment, so that the service itself never forks and nothing of it can leak inside.

Invariant: it ends with the service (the parent death signal shuts the channel, so that there is one way to
end), and everything inside ends with it; groups that a dead service cannot remove any more, it removes.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import time

from sandbox.inside import wire
from sandbox.inside.capture import Capture
from sandbox.inside.init import STAGE_NAMESPACES, Pipes, be_init
from sandbox.inside.orders import (
    LiveFigures,
    StageAnswer,
    StageTask,
    StreamFacts,
    pack,
    unpack_layout,
    unpack_task,
)
from sandbox.inside.root import build_root
from sandbox.inside.watch import ServiceGoneError, StageFailedError, StageStreams, Watch
from sandbox.kernel.cgroups import Group
from sandbox.kernel.network import listen_on_loopback
from sandbox.kernel.privileges import INIT_ID, INSIDE_ID, die_with_parent
from sandbox.kernel.seccomp import compile_filter
from sandbox.kernel.syscalls import CLONE_NEWNET, clone3, unshare

__all__ = ["main"]

REMOVE_TIMEOUT_S = 5.0
REMOVE_TICK_S = 0.01


def main() -> None:
    """Serve one sandbox. Arguments: descriptors of the channel and of the tmpfs, the service's number."""
    channel_fd, box_fd, service_pid = (int(argument) for argument in sys.argv[1:4])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the service to handle
    channel = socket.socket(fileno=channel_fd)

    def end(_number: int, _frame: object) -> None:
        # SECURITY: raising here instead would break off the removal that the closed channel has begun
        # (test_signal_amid_the_removal_changes_nothing).
        with contextlib.suppress(OSError):
            channel.shutdown(socket.SHUT_RD)

    signal.signal(signal.SIGTERM, end)
    die_with_parent(signal.SIGTERM)
    if os.getppid() != service_pid:
        sys.exit("the service is gone")
    launcher = Launcher(channel, box_fd)
    try:
        with contextlib.suppress(EOFError, ServiceGoneError, BrokenPipeError, ConnectionResetError):
            launcher.serve()
    finally:
        launcher.remove_groups()


class Launcher:
    """The state of one launcher.

    Args:
        channel: to the service, blocking.
        box_fd: the detached writable tmpfs.
    """

    def __init__(self, channel: socket.socket, box_fd: int) -> None:
        self._channel = channel
        self._box_fd = box_fd
        self._proc_fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._owner_uid = 0
        self._init_uid = 0
        self._group_folders: list[int] = []
        self._group_prefix = ""

    def serve(self) -> None:
        """Build the root, then run stages until the service closes the channel.

        Raises:
            EOFError: the service closed the channel between two stages: the usual end.
            ServiceGoneError: it closed it during a stage, which is dead.
        """
        fields, _, self._group_folders = wire.receive(self._channel)
        layout = unpack_layout(fields)
        self._owner_uid, self._init_uid = layout.owner_uid, layout.init_uid
        self._group_prefix = layout.group_prefix
        try:
            build_root(layout, self._box_fd)
        except OSError as exc:
            wire.send(self._channel, {"error": f"the root could not be built: {exc}", "errno": exc.errno})
            return
        wire.send(self._channel, {"error": ""})
        while True:
            fields, stdin, descriptors = wire.receive(self._channel)
            task = unpack_task(fields)
            group = Group(task.group_version, dict(zip(task.controllers, descriptors, strict=True)))
            try:
                answer, raw = self._run(task, group, stdin)
            except StageFailedError as exc:
                answer, raw = {"error": str(exc), "exec_errno": exc.exec_errno}, b""
            finally:
                group.close()
            wire.send(self._channel, answer, raw)

    def _run(self, task: StageTask, group: Group, stdin: bytes) -> tuple[wire.Fields, bytes]:
        stdin_out, stdin_in = os.pipe()
        stdout_out, stdout_in = os.pipe()
        stderr_out, stderr_in = os.pipe()
        report_out, report_in = os.pipe()
        release_out, release_in = os.pipe()
        for descriptor in (stdin_out, stdout_in, stderr_in):
            os.fchown(
                descriptor, self._owner_uid, self._owner_uid
            )  # so that /dev/stdout can be opened inside
        for descriptor in (stdin_in, report_out):
            os.set_blocking(descriptor, False)
        pipes = Pipes(
            stdin=stdin_out, stdout=stdout_in, stderr=stderr_in, report=report_in, release=release_out
        )
        program_filter = compile_filter(may_connect=task.gateway_port is not None)
        self._make_network(task.gateway_port)
        init = clone3(STAGE_NAMESPACES)
        if init is None:
            be_init(task, group, program_filter, pipes)
        for descriptor in (stdin_out, stdout_in, stderr_in, report_in, release_out):
            os.close(descriptor)
        streams = StageStreams(
            stdin_fd=stdin_in,
            stdin=memoryview(stdin),
            stdout=Capture(stdout_out, keep_bytes=task.output_bytes),
            stderr=Capture(stderr_out, keep_bytes=task.output_bytes),
            report_fd=report_out,
        )

        def map_ids() -> None:
            self._write_maps(init.pid)
            os.write(release_in, b"1")

        watch = Watch(
            task=task,
            group=group,
            init=init,
            box_fd=self._box_fd,
            streams=streams,
            channel_fd=self._channel.fileno(),
            on_ready=map_ids,
            on_figures=self._send_figures if task.wants_samples else None,
        )
        try:
            watch.run()
        finally:
            streams.close()
            os.close(release_in)
            os.close(init.pidfd)
        return pack(_answer(watch)) | {"error": ""}, bytes(streams.stdout.data + streams.stderr.data)

    def _make_network(self, gateway_port: int | None) -> None:
        """Move into a new network name space, which init inherits; hand a gateway's socket to the service.

        Raises:
            StageFailedError: loopback cannot be set up.
        """
        unshare(CLONE_NEWNET)
        if gateway_port is None:
            return
        try:
            listener = listen_on_loopback(gateway_port)
        except OSError as exc:
            raise StageFailedError(
                f"the gateway cannot listen inside (CAP_NET_ADMIN is needed): {exc}"
            ) from exc
        with listener:
            message = wire.encode({"event": "gateway"})
            socket.send_fds(self._channel, [message[: wire.HEADER_BYTES]], [listener.fileno()])
            self._channel.sendall(message[wire.HEADER_BYTES :])

    def _send_figures(self, figures: LiveFigures) -> None:
        """Send live figures, unless the service is behind with reading: the clocks must not wait for it."""
        # Not select(): the number of the channel is the service's, and that has no bound of 1,024.
        ready = select.poll()
        ready.register(self._channel, select.POLLOUT)
        if not ready.poll(0):
            return
        wire.send(self._channel, {"event": "figures", "figures": pack(figures)})

    def _write_maps(self, pid: int) -> None:
        """Map program and init to the sandbox's own two numbers on this machine, and nothing else."""
        lines = f"{INSIDE_ID} {self._owner_uid} 1\n{INIT_ID} {self._init_uid} 1\n"
        for name, text in (("setgroups", "deny"), ("uid_map", lines), ("gid_map", lines)):
            descriptor = os.open(f"{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._proc_fd)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)

    def remove_groups(self) -> None:
        """Remove the sandbox's groups; the service, if it still lives, finds them gone, which is as well."""
        deadline = time.monotonic() + REMOVE_TIMEOUT_S
        for folder in self._group_folders:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.name.startswith(self._group_prefix)]
            while names and time.monotonic() < deadline:
                names = [name for name in names if not _remove(folder, name)]
                if names:
                    time.sleep(REMOVE_TICK_S)


def _remove(folder: int, name: str) -> bool:
    """Remove one group; False while the kernel still holds something of it."""
    try:
        os.rmdir(name, dir_fd=folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _answer(watch: Watch) -> StageAnswer:
    streams = watch.streams
    return StageAnswer(
        wait_status=watch.end[0] if watch.end and not watch.killed_for else None,
        killed_for=watch.killed_for,
        hits=sorted(watch.hits),
        walls=watch.walls,
        stdout=_facts(streams.stdout),
        stderr=_facts(streams.stderr),
        wall_time_s=watch.wall_time_s,
        processes_peak=watch.processes_peak or None,
        group=watch.group.usage(),
        sample=watch.memory_sample,
        context_switches=watch.end[1:] if watch.end else None,
    )


def _facts(capture: Capture) -> StreamFacts:
    return StreamFacts(kept_bytes=len(capture.data), size_bytes=capture.size_bytes, sha256=capture.sha256)
