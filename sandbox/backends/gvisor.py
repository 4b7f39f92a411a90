"""The experimental back end: each stage on a kernel of its own, gVisor's, in user space.

Invariant: a program never makes a system call to the machine's kernel; what its guest kernel asks of the
machine is bounded by a control group, name spaces and user numbers, as in the slot back end. What the guest
does not tell, or what cannot be told apart from the guest's own needs, is named as not enforced.
"""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sandbox.backends.backend import BoxUsage, Mount, OnSample, StageOrder, StageOutcome
from sandbox.backends.box import box_usage, make_box
from sandbox.backends.gvisor_bundle import Runsc, find_runsc, specification, stage_argv
from sandbox.backends.gvisor_stage import GvisorStage
from sandbox.backends.layout import layout_of
from sandbox.backends.stage_group import bound_memory_and_tasks, join_files, new_group, remove_group
from sandbox.backends.streams import read_line
from sandbox.backends.usernumbers import UID_BASE, UID_COUNT, UserNumbers
from sandbox.errors import SandboxError, SandboxUnavailableError, SystemFailureError
from sandbox.inside import guest
from sandbox.inside.orders import Layout, pack
from sandbox.kernel.grouptree import GroupTree, find_group_tree
from sandbox.request import Limits
from sandbox.result import Guarantees
from sandbox.tree import LanguageTree

__all__ = ["GvisorBackend", "GvisorSandbox"]

PACKAGE_PARENT = Path(__file__).resolve().parents[2]
START = f"import sys; sys.path.append({str(PACKAGE_PARENT)!r}); from {guest.__name__} import main; main()"
START_TIMEOUT_S = 30.0
GUEST_TASKS = 256
"""Threads that the guest kernel may need for itself, beside those that stand for the program's."""
TASKS_PER_TASK = 4
ENFORCED = frozenset(
    {
        "memory", "cpu_time", "wall_time", "disk", "inodes", "output", "file_size", "open_files",
        "core_dumps_none", "no_new_privileges", "capabilities_none", "network_none",
        "network_namespace", "pid_namespace", "mount_namespace", "ipc_namespace", "uts_namespace",
        "user_namespace", "read_only_root", "proc_masked", "guest_kernel",
    }
)  # fmt: skip
NOT_ENFORCED = {
    "unique_uid": "files have numbers of the sandbox's own; guest kernels all run as nobody",
    "processes": "the guest bounds processes and threads together, and does not tell when it refused one",
    "seccomp": "programs call a guest kernel; the filter between that and the machine is gVisor's own",
    "cgroup_namespace": "the group holds the guest kernel, and the guest shows no groups",
    "exact_statistics": "memory and CPU time hold the guest kernel's own: tens of MiB, tenths of a second",
}


class GvisorBackend:
    """Makes sandboxes as root with gVisor's ``runsc``.

    Args:
        uid_base: first user number of the range that sandboxes run under; nothing else may use it.
        uid_count: size of that range.
        groups: where control groups are made; found by itself when None.
        runsc: which one to use; found and tried when None.

    Raises:
        SandboxUnavailableError: not root, no control groups, no ``runsc``, or it does not work here.
    """

    name = "gvisor"

    def __init__(
        self,
        *,
        uid_base: int = UID_BASE,
        uid_count: int = UID_COUNT,
        groups: GroupTree | None = None,
        runsc: Runsc | None = None,
    ) -> None:
        if os.geteuid() != 0:
            raise SandboxUnavailableError("the gvisor back end needs root; run as root or use bubblewrap")
        self.runsc = runsc or find_runsc()
        self.groups = groups or find_group_tree()
        self.groups.prepare()
        self.numbers = UserNumbers(base=uid_base, count=uid_count)
        self._open: set[GvisorSandbox] = set()

    def guarantees(self) -> Guarantees:
        """Say what is in force, and what is not and why."""
        return Guarantees(backend=self.name, enforced=ENFORCED, not_enforced=dict(NOT_ENFORCED))

    async def open(
        self, tree: LanguageTree, limits: Limits, sandbox_id: str, mounts: Sequence[Mount] = ()
    ) -> "GvisorSandbox":
        """Make the writable file system and lay out what shows beside it.

        Raises:
            SandboxUnavailableError: the tree is not there, or the kernel refuses a mount.
            SystemFailureError: this machine is short of something.
        """
        layout = layout_of(tree, mounts)
        uid = self.numbers.take()
        try:
            files_fd = make_box(limits, uid)
        except SandboxError:
            self.numbers.give_back(uid)
            raise
        sandbox = GvisorSandbox(self, layout, files_fd, uid, sandbox_id)
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

    def forget(self, sandbox: "GvisorSandbox") -> None:
        """Take back what a destroyed sandbox held."""
        self._open.discard(sandbox)
        self.numbers.give_back(sandbox.owner_uid)


class GvisorSandbox:
    """One sandbox: descriptors of a mount name space and of two file systems; each stage is one ``runsc``."""

    def __init__(
        self, backend: GvisorBackend, layout: Layout, files_fd: int, uid: int, sandbox_id: str
    ) -> None:
        self.files_fd = files_fd
        self.owner_uid = uid
        self._backend = backend
        self._layout = layout
        self._id = sandbox_id
        self._stage_numbers = itertools.count()
        self._namespace_fd = -1
        self._place_fd = -1

    async def start(self) -> None:
        """Let a process lay out the root in a mount name space, and keep that by descriptors.

        Raises:
            SandboxUnavailableError: the kernel refuses.
        """
        layout = json.dumps(pack(self._layout)).encode()
        layout_fd = os.memfd_create("layout", os.MFD_CLOEXEC)
        try:
            os.pwrite(layout_fd, layout, 0)
            maker = subprocess.Popen(  # noqa: ASYNC220 - a millisecond; asyncio's own needs a thread
                [sys.executable, "-I", "-S", "-B", "-c", START, str(layout_fd), str(self.files_fd)],
                env={},
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(layout_fd, self.files_fd),
            )
        except OSError as exc:
            raise SystemFailureError(f"gvisor: the root cannot be laid out: {exc}") from exc
        finally:
            os.close(layout_fd)
        try:
            await self._keep(maker)
        finally:
            maker.kill()
            maker.wait()
            for pipe in (maker.stdin, maker.stdout):
                if pipe is not None:
                    pipe.close()

    async def _keep(self, maker: subprocess.Popen[bytes]) -> None:
        """Open what the process has made, when it says that it has."""
        assert maker.stdout is not None
        said = await read_line(maker.stdout.fileno(), timeout_s=START_TIMEOUT_S)
        if said != b"ready\n":
            raise SandboxUnavailableError(
                f"gvisor: {said.decode(errors='replace').strip() or 'the root was not laid out'}; "
                "the service needs CAP_SYS_ADMIN and unconfined mounts"
            )
        flags = os.O_RDONLY | os.O_CLOEXEC
        try:
            self._namespace_fd = os.open(f"/proc/{maker.pid}/ns/mnt", flags)
            self._place_fd = os.open(f"/proc/{maker.pid}/root{guest.PLACE}", flags | os.O_DIRECTORY)
        except OSError as exc:
            raise SystemFailureError(f"gvisor: the sandbox cannot be opened: {exc}") from exc

    async def run(self, order: StageOrder, on_sample: OnSample | None = None) -> StageOutcome:
        """Run one stage in a guest and a control group of its own."""
        if order.gateway is not None:
            raise SandboxUnavailableError("gvisor: a stage with a gateway needs the slot back end")
        # runsc binds a socket of that name that every guest of this machine shares: it must be nobody else's.
        groups, name = self._backend.groups, f"{self._id}-{next(self._stage_numbers)}-{order.name}"
        group = new_group(groups, name)
        folder_fd = -1
        try:
            bound_memory_and_tasks(
                group,
                memory_bytes=order.limits.memory_bytes,
                held_bytes=self.usage().disk_bytes,
                # a backstop: programs meet the guest's own bound before
                tasks_max=GUEST_TASKS + TASKS_PER_TASK * order.tasks_max,
            )
            folder_fd = self._write_bundle(name, order)
            argv = stage_argv(
                self._backend.runsc,
                name,
                namespace=f"/proc/{os.getpid()}/fd/{self._namespace_fd}",
                join=join_files(group),
            )
            stage = GvisorStage(order, group, on_sample, folder_fd=folder_fd, files_fd=self.files_fd)
            return await stage.run(argv, self._backend.guarantees())
        finally:
            if folder_fd >= 0:
                os.close(folder_fd)
            try:
                await remove_group(groups, name, killing=group)
            finally:
                group.close()

    def _write_bundle(self, name: str, order: StageOrder) -> int:
        """Write the stage's configuration into a folder of its own, and return the folder's descriptor."""
        os.mkdir(name, 0o700, dir_fd=self._place_fd)
        folder_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._place_fd)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open("config.json", flags, 0o600, dir_fd=folder_fd), "w") as file:
            json.dump(specification(order, self.owner_uid), file)
        return folder_fd

    def usage(self) -> BoxUsage:
        """Read how full the tmpfs is."""
        return box_usage(self.files_fd)

    async def destroy(self) -> None:
        """Close the last descriptors of the name space and of the tmpfs, which destroys them."""
        if self.files_fd < 0:
            return
        for descriptor in (self.files_fd, self._place_fd, self._namespace_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self.files_fd = self._place_fd = self._namespace_fd = -1
        self._backend.forget(self)
