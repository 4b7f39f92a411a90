"""Control groups: memory, tasks and CPU of one stage, over version 1 and version 2 alike.

Invariant: a `Group` is a set of folder descriptors; it reads, joins and counts through them alone, so that it
serves a process that no longer sees the host's file system. `sandbox.kernel.grouptree` makes and removes.
Sources: cgroups(7), the kernel's ``cgroup-v1/memory.rst`` and ``cgroup-v2.rst``.
"""

import contextlib
import os
import signal
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Group", "GroupUsage"]

NANOSECONDS = 1e9
MICROSECONDS = 1e6


class GroupUsage(NamedTuple):
    """What a group has used so far. None where this kernel does not count it."""

    memory_bytes: int | None
    """Now; everything that is charged."""
    memory_peak_bytes: int | None
    memory_anonymous_bytes: int | None
    """Now, not at the peak."""
    memory_file_bytes: int | None
    """Now, not at the peak; pages of the writable tmpfs are counted here."""
    page_faults: int | None
    """Minor and major ones, of every process that ever was in the group."""
    page_faults_major: int | None
    user_time_s: float
    system_time_s: float
    oom_kills: int
    refused_tasks: int
    """How often a fork or a thread was refused because of ``pids.max``."""
    tasks_peak: int | None


class Group(NamedTuple):
    """One control group.

    Attributes:
        version: 1 (one folder for each controller) or 2 (one folder, named ``unified``).
        folders: controller to the descriptor of the group's folder in that hierarchy.
    """

    version: int
    folders: Mapping[str, int]

    def write(self, controller: str, name: str, text: str) -> None:
        """Write a control file of the group.

        Raises:
            OSError: the file is missing, or the kernel refuses the value.
        """
        descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._folder(controller))
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def read(self, controller: str, name: str) -> str | None:
        """Return the text of a control file, or None where this kernel has none of that name."""
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder(controller))
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor) as file:
            return file.read()

    def limit(self, *, memory_bytes: int, tasks_max: int) -> None:
        """Set the bounds: memory without swap, and kernel tasks.

        Raises:
            OSError: the kernel does not enforce one of them here.
        """
        self.write("pids", "pids.max", str(tasks_max))
        if self.version == 1:
            self.write("memory", "memory.limit_in_bytes", str(memory_bytes))
            with contextlib.suppress(FileNotFoundError):  # kernels without swap accounting
                self.write("memory", "memory.memsw.limit_in_bytes", str(memory_bytes))
            return
        self.write("memory", "memory.max", str(memory_bytes))
        self.write("memory", "memory.oom.group", "1")
        with contextlib.suppress(FileNotFoundError):
            self.write("memory", "memory.swap.max", "0")

    def bounds_swap(self) -> bool:
        """Say whether the bound on memory holds for swap too: this kernel accounts for it."""
        name = "memory.memsw.limit_in_bytes" if self.version == 1 else "memory.swap.max"
        return self.read("memory", name) is not None

    def join(self) -> None:
        """Move the calling process, which has one thread, into a version 1 group.

        Writing 0 to ``tasks`` by the process itself avoids the grace period (5 to 16 ms) that writing its
        number to ``cgroup.procs`` costs. Version 2 is entered by `clone3` instead.
        """
        for controller in self.folders:
            self.write(controller, "tasks", "0")

    def processes(self) -> list[int]:
        """List the processes (not threads) in the group, numbered as the caller sees them."""
        return [int(line) for line in (self.read("pids", "cgroup.procs") or "").split()]

    def cpu_time_s(self) -> float:
        """Return the CPU time that the group has used, by every process that ever was in it."""
        if self.version == 1:
            return int(self.read("cpuacct", "cpuacct.usage") or 0) / NANOSECONDS
        return _keyed(self.read("cpu", "cpu.stat")).get("usage_usec", 0) / MICROSECONDS

    def usage(self) -> GroupUsage:
        """Read every counter."""
        one = self.version == 1
        memory = _keyed(self.read("memory", "memory.stat"))
        events = _keyed(self.read("memory", "memory.oom_control" if one else "memory.events"))
        user_time_s, system_time_s = self._times()
        return GroupUsage(
            memory_bytes=_number(self.read("memory", "memory.usage_in_bytes" if one else "memory.current")),
            memory_peak_bytes=_number(
                self.read("memory", "memory.max_usage_in_bytes" if one else "memory.peak")
            ),
            memory_anonymous_bytes=memory.get("total_rss" if one else "anon"),
            memory_file_bytes=memory.get("total_cache" if one else "file"),
            page_faults=memory.get("total_pgfault" if one else "pgfault"),
            page_faults_major=memory.get("total_pgmajfault" if one else "pgmajfault"),
            user_time_s=user_time_s,
            system_time_s=system_time_s,
            oom_kills=events.get("oom_kill", 0),
            refused_tasks=_keyed(self.read("pids", "pids.events")).get("max", 0),
            tasks_peak=_number(self.read("pids", "pids.peak")),
        )

    def kill(self) -> None:
        """Send SIGKILL to every process of the group; on version 1, one that is forked meanwhile escapes."""
        if self.version == 2:  # noqa: PLR2004 - the version's own name
            with contextlib.suppress(FileNotFoundError):  # before Linux 5.14
                self.write("unified", "cgroup.kill", "1")
                return
        # 0 stands for a process of a foreign process name space.
        handles = {pid: handle for pid in self.processes() if pid and (handle := _pidfd(pid)) is not None}
        # SECURITY: a number may have come to mean a stranger since it was read; a handle whose number is
        # still listed is of the group (test_kill_spares_a_stranger_...).
        members = set(self.processes())
        for pid, handle in handles.items():
            with contextlib.suppress(ProcessLookupError):
                if pid in members:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)

    def close(self) -> None:
        """Close the descriptors; the group itself stays."""
        for descriptor in set(self.folders.values()):
            os.close(descriptor)

    def _times(self) -> tuple[float, float]:
        if self.version == 1:
            # The parts are what the kernel saw at its ticks, too much on a busy machine; the total is exact.
            user = _number(self.read("cpuacct", "cpuacct.usage_user")) or 0
            system = _number(self.read("cpuacct", "cpuacct.usage_sys")) or 0
            total_s = self.cpu_time_s()
            system_s = total_s * system / (user + system) if user + system else 0.0
            return total_s - system_s, system_s
        counters = _keyed(self.read("cpu", "cpu.stat"))
        return counters.get("user_usec", 0) / MICROSECONDS, counters.get("system_usec", 0) / MICROSECONDS

    def _folder(self, controller: str) -> int:
        return self.folders["unified" if self.version == 2 else controller]  # noqa: PLR2004


def _pidfd(pid: int) -> int | None:
    """Return a handle of a process, or None when it has ended."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _keyed(text: str | None) -> dict[str, int]:
    """Parse lines of ``key number``."""
    pairs = (line.split() for line in (text or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}  # noqa: PLR2004


def _number(text: str | None) -> int | None:
    stripped = (text or "").strip()
    return int(stripped) if stripped.isdigit() else None
