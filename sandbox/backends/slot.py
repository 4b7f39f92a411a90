"""The strong back end: name spaces, control groups and a sized tmpfs, made by root, one launcher per sandbox.

Invariant: the service never forks; it executes a launcher with an empty environment and talks to it over one
socket. The writable file system is a detached mount that exists only as a descriptor: it is in no mount table
of the host, and closing it destroys it. Each sandbox has two user numbers of its own on the machine: one for
its program, the next for its init.
"""

import asyncio
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sandbox.backends.backend import BoxUsage, Mount, OnSample, StageOrder, StageOutcome
from sandbox.backends.box import box_usage, make_box
from sandbox.backends.channel import Channel, Message
from sandbox.backends.gateway import serve_gateway
from sandbox.backends.layout import layout_of
from sandbox.backends.refusal import refusal
from sandbox.backends.report import outcome_of, sample_of, task_of
from sandbox.backends.stage_group import bound_memory_and_tasks, new_group, remove_group
from sandbox.backends.usernumbers import UID_BASE, UID_COUNT, UserNumbers
from sandbox.errors import SandboxError, SandboxUnavailableError, SystemFailureError
from sandbox.inside.init import walls_here
from sandbox.inside.launcher import Launcher
from sandbox.inside.orders import pack, unpack_figures
from sandbox.inside.wire import Fields
from sandbox.kernel.grouptree import GroupTree, find_group_tree
from sandbox.request import Limits
from sandbox.result import Guarantees
from sandbox.tree import LanguageTree

__all__ = ["SlotBackend", "SlotSandbox"]

PACKAGE_PARENT = Path(__file__).resolve().parents[2]
# Imported here too, so that its bytecode is kept: a launcher writes none and would compile at every start.
START = (
    f"import sys; sys.path.append({str(PACKAGE_PARENT)!r}); from {Launcher.__module__} import main; main()"
)
END_TIMEOUT_S = 10.0
ENFORCED = frozenset(
    {
        "memory", "processes", "cpu_time", "wall_time", "disk", "inodes", "output", "unique_uid",
    }
)  # fmt: skip
"""What this back end enforces from outside; the walls inside are named by the init that built them."""


class SlotBackend:
    """Makes sandboxes as root.

    Args:
        uid_base: first user number of the range that sandboxes run under; nothing else may use it.
        uid_count: size of that range.
        groups: where control groups are made; found by itself when None.
    """

    name = "slot"
    launcher_code = START
    """What a launcher's interpreter runs; control runs of the attack tests have one with a wall left out."""

    def __init__(
        self, *, uid_base: int = UID_BASE, uid_count: int = UID_COUNT, groups: GroupTree | None = None
    ) -> None:
        if os.geteuid() != 0:
            raise SandboxUnavailableError("the slot back end needs root; run as root or use bubblewrap")
        self.groups = groups or find_group_tree()
        self.groups.prepare()
        self._numbers = UserNumbers(base=uid_base, count=uid_count)
        self._open: set[SlotSandbox] = set()
        self._removals: set[str] = set()

    def guarantees(self) -> Guarantees:
        """Say what a sandbox has; each result says again what its own init and limits really had."""
        return Guarantees(backend=self.name, enforced=ENFORCED | walls_here())

    async def open(
        self, tree: LanguageTree, limits: Limits, sandbox_id: str, mounts: Sequence[Mount] = ()
    ) -> "SlotSandbox":
        """Make the writable file system and start a launcher that builds the root.

        Raises:
            SandboxUnavailableError: the kernel refuses a mount.
            SystemFailureError: the launcher does not start.
        """
        uid = self._numbers.take()
        try:
            files_fd = make_box(limits, uid)
        except SandboxError:
            self._numbers.give_back(uid)
            raise
        sandbox = SlotSandbox(self, tree, files_fd, uid, sandbox_id, mounts=mounts)
        self._open.add(sandbox)
        try:
            await sandbox.start()
        except BaseException:
            await sandbox.destroy()
            raise
        return sandbox

    async def aclose(self) -> None:
        """Destroy every open sandbox and remove our folder of control groups."""
        for sandbox in list(self._open):
            await sandbox.destroy()
        self.groups.close()

    def forget(self, sandbox: "SlotSandbox") -> None:
        """Take back what a destroyed sandbox held."""
        self._open.discard(sandbox)
        self._numbers.give_back(sandbox.owner_uid)


class SlotSandbox:
    """One sandbox of the slot back end, as the port describes it."""

    def __init__(
        self,
        backend: SlotBackend,
        tree: LanguageTree,
        files_fd: int,
        uid: int,
        sandbox_id: str,
        *,
        mounts: Sequence[Mount],
    ) -> None:
        self.files_fd = files_fd
        self.owner_uid = uid
        self._backend = backend
        self._tree = tree
        self._id = sandbox_id
        self._mounts = mounts
        self._stage_numbers = itertools.count()
        self._launcher: subprocess.Popen[bytes] | None = None
        self._complaints_fd = -1
        self._channel: Channel | None = None
        self._is_destroyed = False

    async def start(self) -> None:
        """Start the launcher and wait until it has built the root.

        Raises:
            SystemFailureError: it does not.
        """
        layout = layout_of(self._tree, self._mounts)._replace(
            owner_uid=self.owner_uid,
            init_uid=self.owner_uid + 1,
            group_prefix=self._backend.groups.folder_name(f"{self._id}-"),
        )
        try:
            self._execute_launcher()
            folders = self._backend.groups.open_folders()
        except OSError as exc:
            raise SystemFailureError(f"the launcher cannot be started: {exc}") from exc
        try:
            answer = (await self._converse(self._open_channel(), pack(layout), b"", folders)).fields
        finally:
            for descriptor in folders:
                os.close(descriptor)
        if answer["error"]:
            fix = "the service needs CAP_SYS_ADMIN and unconfined mounts"
            raise refusal(answer["errno"], f"{answer['error']}", fix)

    def _execute_launcher(self) -> None:
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        arguments = [str(theirs.fileno()), str(self.files_fd), str(os.getpid())]
        try:
            self._complaints_fd = os.memfd_create("launcher-stderr", os.MFD_CLOEXEC)
            self._launcher = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", self._backend.launcher_code, *arguments],
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._complaints_fd,
                pass_fds=(theirs.fileno(), self.files_fd),
            )
        finally:
            theirs.close()

    async def run(self, order: StageOrder, on_sample: OnSample | None = None) -> StageOutcome:
        """Run one stage in a control group of its own."""
        name = f"{self._id}-{next(self._stage_numbers)}-{order.name}"
        groups = self._backend.groups
        group = new_group(groups, name)
        try:
            task = task_of(order, group, wants_samples=on_sample is not None)
            bound_memory_and_tasks(
                group,
                memory_bytes=order.limits.memory_bytes,
                held_bytes=self.usage().disk_bytes,
                # init is not in the group, so the bound is the program's alone
                tasks_max=order.limits.processes if task.processes is None else order.tasks_max,
            )
            answer = await self._run(order, pack(task), list(group.folders.values()), on_sample)
        except BaseException:
            await self._end_launcher()
            raise
        finally:
            group.close()
            await remove_group(groups, name)
        return outcome_of(
            order,
            answer.fields,
            answer.raw,
            guarantees=Guarantees(backend=self._backend.name, enforced=ENFORCED),
        )

    def usage(self) -> BoxUsage:
        """Read how full the tmpfs is."""
        return box_usage(self.files_fd)

    async def destroy(self) -> None:
        """End the launcher, and with it its mount name space; close the tmpfs, which destroys it."""
        if self._is_destroyed:
            return
        self._is_destroyed = True
        try:
            await self._end_launcher()
        finally:
            os.close(self.files_fd)
            if self._complaints_fd >= 0:
                os.close(self._complaints_fd)
            self._backend.forget(self)

    async def _run(
        self, order: StageOrder, task: Fields, descriptors: Sequence[int], on_sample: OnSample | None
    ) -> Message:
        """Have the launcher run a stage; pass live figures on, and let the gateway serve, until it ends."""
        channel = self._open_channel()
        try:
            async with asyncio.TaskGroup() as group:
                serving: list[asyncio.Task[None]] = []

                def take(event: Message) -> None:
                    if event.descriptors and order.gateway is not None:
                        listener = socket.socket(fileno=event.descriptors[0])
                        serving.append(group.create_task(serve_gateway(order.gateway, listener)))
                    elif on_sample is not None:
                        on_sample(sample_of(order, unpack_figures(event.fields["figures"])))

                answer = await self._converse(channel, task, order.stdin, descriptors, take)
                for each in serving:
                    each.cancel()
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        return answer

    async def _converse(
        self,
        channel: Channel,
        fields: Fields,
        raw: bytes,
        descriptors: Sequence[int],
        take: Callable[[Message], None] | None = None,
    ) -> Message:
        """Send one message, hand what happens meanwhile to ``take``, return the answer."""
        try:
            await channel.send(fields, raw, descriptors)
            while "event" in (message := await channel.receive()).fields:
                if take is not None:
                    take(message)
        except (ConnectionError, EOFError) as exc:
            raise SystemFailureError(f"the launcher died: {self._complaints() or exc}") from exc
        return message

    def _open_channel(self) -> Channel:
        if self._channel is None:
            raise SystemFailureError("the launcher of this sandbox has ended")
        return self._channel

    async def _end_launcher(self) -> None:
        """Close the channel, which makes the launcher kill everything and end; wait for that."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        launcher, self._launcher = self._launcher, None
        if launcher is None:
            return
        await _wait_exit(launcher)

    def _complaints(self) -> str:
        if self._complaints_fd < 0:
            return ""
        return os.pread(self._complaints_fd, 4000, 0).decode(errors="replace").strip()


async def _wait_exit(launcher: subprocess.Popen[bytes]) -> None:
    """Wait for a process through its pidfd, without a thread; kill it when it does not end by itself."""
    loop = asyncio.get_running_loop()
    try:
        pidfd = os.pidfd_open(launcher.pid)
    except OSError:  # out of descriptors: its channel is closed, so it is ending, and has little to do
        launcher.kill()
        launcher.wait()
        return
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(END_TIMEOUT_S):
            await ended.wait()
    except (TimeoutError, asyncio.CancelledError) as exc:
        launcher.kill()  # its init dies with it, and everything inside with that
        if isinstance(exc, asyncio.CancelledError):
            raise
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        launcher.wait()
