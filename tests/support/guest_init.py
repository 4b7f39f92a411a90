"""Process 1 of a guest: mounts what a machine has, runs the tests in a group of version 2, powers off.

Invariant: the machine ends whatever happens; what went wrong is on the console.
"""

import ctypes
import os
import sys
import time
import traceback
from pathlib import Path

MOUNTS = (
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("tmpfs", "/dev/shm", ""),
    ("tmpfs", "/tmp", ""),
    ("tmpfs", "/run", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
)
MS_BIND, MS_MOVE, MS_REC = 0x1000, 0x2000, 0x4000
REPORT_PORT = Path("/dev/ttyS1")
# As systemd places a service: below the root, where a group with processes hands no controllers down.
GROUP = Path("/sys/fs/cgroup/system.slice/node.service")
ENVIRONMENT = {
    "PATH": "/usr/bin:/usr/sbin",
    "PYTHONPATH": "/packages:/project",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Boot, test, end."""
    try:
        set_up()
        run_tests(Path("/arguments").read_text().split("\n"))
    except BaseException:  # noqa: BLE001 - the machine must end
        traceback.print_exc()
    sys.stdout.flush()
    libc.reboot(0x4321FEDC)  # RB_POWER_OFF


def set_up() -> None:
    """Mount; and put a mount over the kernel's first root, which pivot_root(2) cannot leave."""
    mount("/", "/newroot", None, MS_BIND)
    os.chdir("/newroot")
    mount(".", "/", None, MS_MOVE)
    os.chroot(".")
    os.chdir("/")
    for kind, point, options in MOUNTS:
        Path(point).mkdir(parents=True, exist_ok=True)
        mount(kind, point, kind, 0, options)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        Path("/dev", name).symlink_to(target)
    Path("/tmp").chmod(0o1777)
    for folder in (GROUP.parent.parent, GROUP.parent):
        GROUP.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.subtree_control").write_text("+memory +pids +cpu")


def mount(source: str, point: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount, or raise what the kernel answered."""
    arguments = (source.encode(), point.encode(), kind.encode() if kind else None)
    if libc.mount(*arguments, ctypes.c_ulong(flags), options.encode() or None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {point}: {os.strerror(number)}")


def run_tests(arguments: list[str]) -> None:
    """Run pytest in the service's group, its reports on the second serial port, and reap until it ends."""
    boot_time_s = time.monotonic()
    with REPORT_PORT.open("w") as port:
        port.write(f'{{"kernel": "{os.uname().release}", "boot_time_s": {boot_time_s:.2f}}}\n')
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.guest_report", "-p", "no:cacheprovider"]
    pid = os.fork()
    if pid == 0:
        (GROUP / "cgroup.procs").write_text("0")
        os.setsid()
        os.chdir("/project")
        os.execve(command[0], [*command, "-q", "--tb=short", *arguments], ENVIRONMENT)
    while os.waitpid(-1, 0)[0] != pid:
        pass


if __name__ == "__main__":
    main()
