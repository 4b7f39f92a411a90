"""How gVisor is called: its ``runsc`` found and tried on this machine, and told what a stage may see and use.

Invariant: the bundle names everything that shows inside; flags are only those that every ``runsc`` since 2022
understands, and those of later ones that its own list of flags names.
"""

import resource
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from sandbox.backends.backend import StageOrder
from sandbox.errors import SandboxUnavailableError
from sandbox.inside.guest import BOX, PLACE, ROOT
from sandbox.inside.root import BOX_FOLDERS
from sandbox.kernel.privileges import INSIDE_ID
from sandbox.kernel.rlimits import rlimits_for

__all__ = ["Runsc", "find_runsc", "specification", "stage_argv"]

FIX = (
    "install gVisor's runsc where PATH finds it (on Debian: apt-get install runsc), "
    "or choose another back end: --backend slot"
)
PLATFORMS = ("systrap", "ptrace")
"""How the guest kernel takes over system calls, the faster first; a TEE has no KVM inside."""
TRIAL_TIMEOUT_S = 20.0
FLAGS = ("--network=none", "--ignore-cgroups", "--file-access-mounts=shared")
LATER_FLAGS = {"overlay2": "none", "directfs": "false", "host-uds": "none"}
"""Flags that some versions lack: nothing is written beside the box; files go through the gofer process."""
# Each program that a stage is started by is run by the one before: the first dies with the service, the third
# has a process name space of its own and takes every process in it along.
LEASH = ("setpriv", "--pdeathsig", "KILL")
# SECURITY: the guest kernel is controlled through a socket with an abstract name, which everybody in the same
# network name space can call (test_sandboxes_run_side_by_side).
APART = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
# The shell's own number is 0 to the kernel; what it then executes is in the groups.
JOIN = (
    'count=$1; shift; while [ "$count" -gt 0 ]; do echo 0 >"$1" || exit 125; shift; '
    'count=$((count - 1)); done; exec "$@"'
)
RLIMIT_NAMES: Mapping[int, str] = {
    number: name
    for name in (
        "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CPU", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_MEMLOCK",
        "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO",
    )
    for number in (getattr(resource, name),)
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Runsc:
    """A ``runsc`` that works on this machine."""

    path: str
    version: str
    """As it names itself."""
    platform: str
    flags: tuple[str, ...]


def find_runsc() -> Runsc:
    """Find ``runsc`` and run a program with it, on the first platform that works.

    Raises:
        SandboxUnavailableError: there is none, or it cannot run a program on this machine.
    """
    path = shutil.which("runsc")
    missing = [name for name in ("setpriv", "unshare", "nsenter") if shutil.which(name) is None]
    if missing:
        raise SandboxUnavailableError(
            f"gvisor: {' and '.join(missing)} missing; run: apt-get install util-linux"
        )
    if path is None:
        raise SandboxUnavailableError(f"gvisor: the program runsc is missing; {FIX}")
    said = _call([path, "flags"])
    known = said.stdout + said.stderr
    later = tuple(f"--{name}={value}" for name, value in LATER_FLAGS.items() if f"  -{name}" in known)
    complaint = ""
    for platform in PLATFORMS:
        flags = (f"--platform={platform}", *FLAGS, *later)
        trial = _call([*LEASH, *APART, path, *flags, "do", "/bin/echo", "ready"])
        if trial.returncode == 0 and trial.stdout.strip() == "ready":
            version = _call([path, "--version"]).stdout.split("\n", 1)[0].rpartition(" ")[2]
            return Runsc(path=path, version=version, platform=platform, flags=flags)
        complaint = f"{complaint}{platform}: {(trial.stderr.strip() or 'no message')[-300:]}; "
    raise SandboxUnavailableError(f"gvisor: {path} cannot run a program here ({complaint[:-2]}); {FIX}")


def _call(argv: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TRIAL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise SandboxUnavailableError(f"gvisor: {argv[0]} cannot be run: {exc}; {FIX}") from exc


def stage_argv(runsc: Runsc, name: str, *, namespace: str, join: list[str]) -> list[str]:
    """Return the command that runs one stage.

    Args:
        runsc: what runs it.
        name: the folder of the stage below `PLACE`, which holds its bundle.
        namespace: path to the mount name space that was laid out.
        join: control files of the stage's groups; the command writes itself into each.
    """
    home = f"{PLACE}/{name}"
    run = [runsc.path, f"--root={home}/state", f"--log={home}/log", "--log-format=json", *runsc.flags]
    run += ["run", f"--bundle={home}", f"--pid-file={home}/pid", name]
    enter = ["nsenter", f"--mount={namespace}"]
    return [*LEASH, *enter, *APART, "/bin/sh", "-c", JOIN, "join", str(len(join)), *join, *run]


def specification(order: StageOrder, owner_uid: int) -> dict[str, object]:
    """Return the bundle's configuration (Open Container Initiative, runtime specification 1.0).

    The program and what serves its files have a user number of this machine each: ``owner_uid`` and the next.
    """
    limits = order.limits
    rlimits = {
        RLIMIT_NAMES[number]: bound
        for number, bound in rlimits_for(
            file_size_bytes=limits.file_size_bytes,
            open_files=limits.open_files,
            cpu_time_s=limits.cpu_time_s,
        ).items()
    }
    rlimits["RLIMIT_NPROC"] = limits.processes if order.counts_processes_exactly else order.tasks_max
    numbers = [
        {"containerID": 0, "hostID": owner_uid + 1, "size": 1},
        {"containerID": INSIDE_ID, "hostID": owner_uid, "size": 1},
    ]
    return {
        "ociVersion": "1.0.0",
        "hostname": "sandbox",
        # It is read-only already, by a mount that nothing here can change; to say so again would be refused.
        "root": {"path": f"{PLACE}/{ROOT}", "readonly": False},
        "process": {
            "user": {"uid": INSIDE_ID, "gid": INSIDE_ID},
            "args": list(order.argv),
            "env": [f"{name}={value}" for name, value in order.env.items()],
            "cwd": "/work",
            "noNewPrivileges": True,
            "capabilities": {
                kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
            },
            "rlimits": [{"type": name, "soft": bound, "hard": bound} for name, bound in rlimits.items()],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            _mount("/sys", "tmpfs", "none", "ro", "mode=0555", "size=4096"),
            *(
                _mount(f"/{path}", "bind", f"{PLACE}/{BOX}/{name}", "rw", "rbind")
                for name, path in BOX_FOLDERS.items()
            ),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network", "user")],
            "uidMappings": numbers,
            "gidMappings": numbers,
        },
    }


def _mount(place: str, kind: str, source: str, *options: str) -> dict[str, object]:
    return {"destination": place, "type": kind, "source": source, "options": [*options, "nosuid", "nodev"]}
