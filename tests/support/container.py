"""A container of a real runtime: this machine's programs read-only, with just the rights that a test names.

Invariant: the container sees nothing of this machine but `SHOWN`, the project and its Python; when
`run_in_container` returns, the container and its control group are gone.
"""

import json
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "DOCKER_CAPABILITIES",
    "DOCKER_SECCOMP",
    "Container",
    "groups_left",
    "own_capabilities",
    "run_in_container",
]

PROJECT = Path(__file__).resolve().parents[2]
SHOWN = ("/usr", "/etc")
MERGED_USR = ("bin", "sbin", "lib", "lib64")
DOCKER_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)  # fmt: skip
"""What an engine leaves to a container's root unless it is told otherwise."""
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
)  # fmt: skip
"""By number."""
DOCKER_SECCOMP = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [
        {
            "names": [
                "unshare", "setns", "mount", "umount2", "pivot_root", "open_tree", "move_mount", "fsopen",
                "fsconfig", "fsmount", "mount_setattr", "bpf", "perf_event_open", "keyctl", "add_key",
            ],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 1,
        },
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
    ],
}  # fmt: skip
"""The part of an engine's usual filter that concerns a sandbox in a container without CAP_SYS_ADMIN."""
# The runtime refuses to work where both versions are mounted with controllers: it is not shown the second.
WITHOUT_VERSION_2 = (
    "unshare", "--mount", "--propagation=slave", "sh", "-c",
    '[ ! -d /sys/fs/cgroup/unified ] || umount /sys/fs/cgroup/unified; exec "$@"', "sh",
)  # fmt: skip
MASKED = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/scsi")
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, kw_only=True)
class Container:
    """The rights of a container."""

    capabilities: Sequence[str]
    seccomp: dict[str, object] | None = None
    """None is unconfined."""
    cgroup: str = "rw"
    """How control groups are mounted: ``rw``, ``ro``, or not at all when empty."""
    has_own_cgroup_namespace: bool = False
    is_masked: bool = True
    """Whether parts of proc are masked and read-only, as engines do unless privileged."""
    hidden: Sequence[str] = ()
    """Files and folders of this machine that it has not."""
    user: int = 0


def run_in_container(container: Container, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in the project's folder of a new container, to its end."""
    name = f"tee-job-node-test-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory(prefix="container-") as folder:
        root = Path(folder, "rootfs")
        mounts = [*_file_systems(container), *_binds()]
        for mount in mounts:
            (root / str(mount["destination"]).lstrip("/")).mkdir(parents=True, exist_ok=True)
        for link in MERGED_USR:
            (root / link).symlink_to(f"usr/{link}")
        for path in (Path(folder), root):
            path.chmod(0o755)
        Path(folder, "config.json").write_text(json.dumps(_config(container, command, mounts, name)))
        crun = [*WITHOUT_VERSION_2, "crun", f"--root={folder}/state", "--cgroup-manager=cgroupfs"]
        try:
            return subprocess.run(
                [*crun, "run", f"--bundle={folder}", name],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=200,
                check=False,
            )
        finally:
            subprocess.run([*crun, "delete", "--force", name], capture_output=True, check=False)


def _config(
    container: Container, command: Sequence[str], mounts: Sequence[dict[str, object]], name: str
) -> dict[str, object]:
    capabilities = [f"CAP_{each}" for each in container.capabilities]
    sets = ("bounding", "effective", "permitted") if container.user == 0 else ("bounding",)
    namespaces = ["pid", "mount", "ipc", "uts", "network"]
    namespaces += ["cgroup"] if container.has_own_cgroup_namespace else []
    linux: dict[str, object] = {
        "namespaces": [{"type": kind} for kind in namespaces],
        "cgroupsPath": f"/{name}",
        "resources": {"devices": [{"allow": True, "access": "rwm"}]},
    }
    linux["maskedPaths"] = [*(MASKED if container.is_masked else ()), *container.hidden]
    linux["readonlyPaths"] = list(READ_ONLY) if container.is_masked else []
    if container.seccomp is not None:
        linux["seccomp"] = container.seccomp
    path = f"{Path(sys.executable).parent}:/usr/bin:/usr/sbin"
    return {
        "ociVersion": "1.0.0",
        "process": {
            "terminal": False,
            "user": {"uid": container.user, "gid": container.user},
            "args": list(command),
            "env": [f"PATH={path}", "HOME=/tmp", "LANG=C.UTF-8", "NO_COLOR=1", "PYTHONDONTWRITEBYTECODE=1"],
            "cwd": str(PROJECT),
            "capabilities": dict.fromkeys(sets, capabilities),
            "noNewPrivileges": False,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "container",
        "mounts": list(mounts),
        "linux": linux,
    }


def _file_systems(container: Container) -> Iterator[dict[str, object]]:
    yield {"destination": "/proc", "type": "proc", "source": "proc"}
    for folder in ("/dev", "/dev/shm", "/tmp", "/run", "/var/tmp"):
        options = ["nosuid", "mode=755" if folder in ("/dev", "/run") else "mode=1777"]
        yield {"destination": folder, "type": "tmpfs", "source": "tmpfs", "options": options}
    yield {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "nodev", "ro"]}
    if container.cgroup:
        options = ["nosuid", "noexec", "nodev", "relatime", container.cgroup]
        yield {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}


def _binds() -> Iterator[dict[str, object]]:
    shown = dict.fromkeys([*SHOWN, str(PROJECT), sys.prefix, sys.base_prefix])
    for path in shown:
        inside = next((top for top in shown if top != path and Path(path).is_relative_to(top)), None)
        if inside is None:
            yield {"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]}


def own_capabilities() -> list[str]:
    """Return the capabilities of this process: what a privileged container gets here."""
    status = Path("/proc/self/status").read_text()
    bits = int(status.partition("CapEff:")[2].split()[0], 16)
    return [name for number, name in enumerate(CAPABILITIES) if bits >> number & 1]


def groups_left() -> list[str]:
    """List the control groups of containers that were not removed."""
    return [str(path) for path in Path("/sys/fs/cgroup").glob("**/tee-job-node-test-*") if path.is_dir()]
