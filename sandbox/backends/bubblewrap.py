"""The unprivileged back end: bubblewrap in a user name space, without control groups.

Invariant: it never says that something is in force which is not. Memory, time and processes are watched every
few hundredths of a second and bounded per process; there is no bound on their sum by the kernel, and
`Guarantees.not_enforced` says so. The disk quota is a real one: a tmpfs with a size, in a name space of ours.
"""

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
from collections.abc import Coroutine, Sequence
from dataclasses import replace

from sandbox.backends.backend import BoxUsage, Gateway, Mount, OnSample, StageOrder, StageOutcome
from sandbox.backends.box import BOX_ROOT_INODES, box_usage
from sandbox.backends.bubblewrap_command import (
    BOX_PLACES,
    FIX,
    bubblewrap_argv,
    doorway_argv,
    enter_argv,
    find_bubblewrap,
    keeper_argv,
)
from sandbox.backends.bubblewrap_stage import BubblewrapStage, stage_pipes
from sandbox.backends.gateway import serve_gateway
from sandbox.backends.layout import layout_of
from sandbox.backends.mount_points import new_mount_point, remove_leftovers
from sandbox.backends.stage_group import bounded_tasks, joining_argv
from sandbox.backends.streams import read_line, until_readable
from sandbox.errors import SandboxUnavailableError, SystemFailureError
from sandbox.inside.orders import Layout
from sandbox.kernel.grouptree import GroupTree, find_group_tree
from sandbox.kernel.seccomp import compile_filter
from sandbox.request import Limits
from sandbox.result import Guarantees, LimitKind
from sandbox.tree import LanguageTree

__all__ = ["BubblewrapBackend", "BubblewrapSandbox", "usable_bubblewrap"]

ENFORCED = frozenset(
    {
        "wall_time", "disk", "inodes", "output", "file_size", "open_files", "core_dumps_none", "seccomp",
        "no_new_privileges", "capabilities_none", "network_none", "network_namespace", "pid_namespace",
        "mount_namespace", "ipc_namespace", "uts_namespace", "user_namespace", "read_only_root",
    }
)  # fmt: skip
NOT_ENFORCED = {
    "memory": "no memory group under bubblewrap: RLIMIT_DATA bounds each process, their sum is only watched",
    "cpu_time": "no CPU group under bubblewrap: RLIMIT_CPU bounds each process, their sum is only watched",
    "processes": "no process group under bubblewrap: tasks are bounded, processes are only watched",
    "proc_masked": "proc is shown as the kernel shows it to a user without rights",
    "unique_uid": "programs run under the service's own user id, in a user name space",
}
START_TIMEOUT_S = 30.0
TASKS_BESIDE = 2
"""bubblewrap itself, and the init that it leaves inside."""


def usable_bubblewrap() -> str:
    """Return the path of ``bwrap``, where it can make sandboxes.

    Raises:
        SandboxUnavailableError: it is missing, or this kernel gives no user name spaces.
    """
    bwrap = find_bubblewrap()
    probe = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "/bin/true"], capture_output=True, check=False
    )
    if probe.returncode != 0:
        said = probe.stderr.decode("utf-8", "replace").strip()
        raise SandboxUnavailableError(
            f"bubblewrap: user name spaces are not to be had here ({said}); allow them: "
            "sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 (on Ubuntu also "
            "kernel.apparmor_restrict_unprivileged_userns=0), or run the node as root"
        )
    return bwrap


class BubblewrapBackend:
    """Makes sandboxes without any privilege, for a single user.

    Raises:
        SandboxUnavailableError: ``bwrap`` is missing, or this kernel gives no user name spaces.
    """

    name = "bubblewrap"

    def __init__(self) -> None:
        self.bwrap = usable_bubblewrap()
        remove_leftovers()
        self.groups = _groups_of_root()
        self.filter = compile_filter()
        self.connecting_filter = compile_filter(may_connect=True)
        self._open: set[BubblewrapSandbox] = set()

    def guarantees(self) -> Guarantees:
        """Say what is in force, and what is not and why."""
        return Guarantees(backend=self.name, enforced=ENFORCED, not_enforced=dict(NOT_ENFORCED))

    async def open(
        self, tree: LanguageTree, limits: Limits, sandbox_id: str, mounts: Sequence[Mount] = ()
    ) -> "BubblewrapSandbox":
        """Mount the writable file system and check the tree.

        Raises:
            SandboxUnavailableError: the tree is not there, or the kernel refuses the mount.
        """
        sandbox = BubblewrapSandbox(self, layout_of(tree, mounts), sandbox_id)
        self._open.add(sandbox)
        try:
            await sandbox.start(limits)
        except BaseException:
            await sandbox.destroy()
            raise
        return sandbox

    async def aclose(self) -> None:
        """Destroy every open sandbox."""
        for sandbox in list(self._open):
            await sandbox.destroy()
        if self.groups is not None:
            self.groups.close()

    def forget(self, sandbox: "BubblewrapSandbox") -> None:
        """Take note that a sandbox is destroyed."""
        self._open.discard(sandbox)


class BubblewrapSandbox:
    """One sandbox: a keeper process holds its writable file system, each stage is one ``bwrap``."""

    owner_uid: int | None = None

    def __init__(self, backend: BubblewrapBackend, layout: Layout, sandbox_id: str) -> None:
        self.files_fd = -1
        self._backend = backend
        self._layout = layout
        self._keeper: subprocess.Popen[bytes] | None = None
        self._id = sandbox_id
        self._stage_numbers = itertools.count()
        self._mount_point = new_mount_point()

    async def start(self, limits: Limits) -> None:
        """Start the keeper and open the file system that it has mounted.

        Raises:
            SandboxUnavailableError: the keeper cannot mount.
        """
        argv = keeper_argv(
            self._mount_point, disk_bytes=limits.disk_bytes, inodes=limits.inodes + BOX_ROOT_INODES
        )
        self._keeper = subprocess.Popen(  # noqa: ASYNC220 - a millisecond; asyncio's own needs a thread
            argv,
            env={"PATH": os.environ.get("PATH", os.defpath)},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._keeper.stdout is not None
        said = await read_line(self._keeper.stdout.fileno(), timeout_s=START_TIMEOUT_S)
        if said.strip() != b"ready":
            raise SandboxUnavailableError(
                "bubblewrap: a tmpfs cannot be mounted in a user name space: "
                f"{said.decode(errors='replace')}; {FIX}"
            )
        try:
            # The keeper's own view of its root: the mount is in no other name space.
            place = f"/proc/{self._keeper.pid}/root{self._mount_point}"
            self.files_fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for name in BOX_PLACES:
                os.mkdir(name, 0o700, dir_fd=self.files_fd)
        except OSError as exc:
            raise SystemFailureError(f"bubblewrap: the writable file system cannot be opened: {exc}") from exc

    async def run(self, order: StageOrder, on_sample: OnSample | None = None) -> StageOutcome:
        """Run one stage with name spaces of its own, and wait for the death of everything in it."""
        if self._keeper is None or self._keeper.poll() is not None:
            raise SystemFailureError("bubblewrap: the keeper of the writable file system has ended")
        name = f"{self._id}-{next(self._stage_numbers)}-{order.name}"
        tasks_max = TASKS_BESIDE + (
            order.limits.processes if order.counts_processes_exactly else order.tasks_max
        )
        # SECURITY: the kernel spares its root from RLIMIT_NPROC, in every name space
        # (test_fork_bomb_of_a_service_that_is_root_stays_small).
        async with bounded_tasks(self._backend.groups, name, tasks_max) as group:
            outcome = await self._run(order, on_sample, joining_argv(group) if group else [])
            is_refused = group is not None and group.usage().refused_tasks > 0
        hits = outcome.limits_hit | (LimitKind.PROCESSES if is_refused else LimitKind.NONE)
        return replace(outcome, limits_hit=hits)

    async def _run(
        self, order: StageOrder, on_sample: OnSample | None, joining: Sequence[str]
    ) -> StageOutcome:
        assert self._keeper is not None
        entered = [*joining, *enter_argv(self._keeper.pid)]
        seccomp = self._backend.filter if order.gateway is None else self._backend.connecting_filter
        with stage_pipes(self._layout.texts, seccomp) as pipes:
            argv = bubblewrap_argv(
                self._backend.bwrap, order, self._layout, self._mount_point, pipes.descriptors
            )
            stage = BubblewrapStage(order, pipes, self.usage, on_sample)
            if order.gateway is None:
                return await stage.run([*entered, *argv], self._backend.guarantees())
            ours, theirs = socket.socketpair()
            with ours, theirs:
                door = [*entered, *doorway_argv(order.gateway.port, theirs.fileno())]
                running = stage.run(
                    [*door, *argv], _opened_by(order.gateway, self._backend), (theirs.fileno(),)
                )
                return await _with_gateway(order.gateway, ours, running)

    def usage(self) -> BoxUsage | None:
        """Read how full the tmpfs is."""
        return box_usage(self.files_fd)

    async def destroy(self) -> None:
        """End the keeper, and with it the mount."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.kill()
            keeper.wait()
            for pipe in (keeper.stdin, keeper.stdout):
                if pipe is not None:
                    pipe.close()
        if self.files_fd >= 0:
            os.close(self.files_fd)
            self.files_fd = -1
        with contextlib.suppress(OSError):
            self._mount_point.rmdir()
        self._backend.forget(self)


def _groups_of_root() -> GroupTree | None:
    """Return where root makes control groups; None for another user, or where there are none to write to."""
    if os.geteuid() != 0:
        return None
    try:
        groups = find_group_tree()
        groups.prepare()
    except SandboxUnavailableError:
        return None
    return groups


def _opened_by(gateway: Gateway, backend: BubblewrapBackend) -> Guarantees:
    """Return the guarantees of a stage that has a gateway."""
    usual = backend.guarantees()
    return replace(usual, enforced=usual.enforced - {"network_none"} | {f"network_policy:{gateway.name}"})


async def _with_gateway(
    gateway: Gateway, channel: socket.socket, running: Coroutine[object, object, StageOutcome]
) -> StageOutcome:
    """Let a gateway serve on the socket that comes through ``channel`` while a stage runs."""

    async def serve() -> None:
        await until_readable(channel.fileno())
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        if descriptors:  # none where the stage could not be started, which it says itself
            await serve_gateway(gateway, socket.socket(fileno=descriptors[0]))

    try:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(serve())
            outcome = await running
            serving.cancel()
    except BaseExceptionGroup as group_error:
        raise group_error.exceptions[0] from None
    return outcome
