"""Runs a command inside a tree that is being built, apart from the host's processes, mounts and network.

Invariant: nothing of the command is left when `TreeShell.run` returns: neither processes nor mounts. This is
for our own build steps; users' programs are run by the back ends of `sandbox.backends`.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxUnavailableError, SystemFailureError
from sandbox.rootfs.process import is_root

__all__ = ["TreeShell"]

ENTER = """\
set -e
root=$1 work=$2 as=$3 start=$4; shift 4
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --bind "$work" "$root/work"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8 TMPDIR=/tmp \\
    chroot $as "$root" /bin/sh -c "$start" sh "$@"
"""
START = 'cd /work && exec /usr/bin/env "$@"'
UNPRIVILEGED = 65534
"""Debian's user ``nobody``."""


@dataclass(frozen=True, slots=True)
class TreeShell:
    """Runs commands with ``root`` as their root folder and ``work`` as their ``/work``.

    Args:
        root: the tree.
        work: a folder of the host that is writable as ``/work``.
        is_unprivileged: run as a user without rights, as a sandbox does; without root it makes no difference,
            because then only one user is mapped.
    """

    root: Path
    work: Path
    is_unprivileged: bool = False

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout_s: float = 600.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one command to its end and return its exit code and output.

        Args:
            argv: an absolute program path inside the tree, and its arguments.
            env: added to a minimal environment.
            stdin: what the command reads.
            timeout_s: after this many seconds it is killed.

        Raises:
            SystemFailureError: the command did not end in time.
            SandboxUnavailableError: ``unshare`` or ``setpriv`` (util-linux) is missing.
        """
        namespaces = ["--mount", "--pid", "--ipc", "--net", "--uts", "--fork", "--kill-child=KILL"]
        if not is_root():
            namespaces += ["--user", "--map-root-user"]
        account = ""
        if self.is_unprivileged and is_root():
            account = f"--userspec={UNPRIVILEGED}:{UNPRIVILEGED}"
            _give(self.work)
        pairs = [f"{name}={value}" for name, value in (env or {}).items()]
        command = [
            *("setpriv", "--pdeathsig", "KILL", "unshare", *namespaces),
            *("/bin/sh", "-c", ENTER, "enter", str(self.root), str(self.work), account, START),
            *pairs,
            *argv,
        ]
        try:
            return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired as exc:
            raise SystemFailureError(f"language tree: {argv[0]} did not end within {timeout_s:g} s") from exc
        except FileNotFoundError as exc:
            raise SandboxUnavailableError(
                f"language tree: the program {exc.filename!r} is missing; run: apt-get install util-linux"
            ) from exc

    def require(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> str:
        """Run one command that must succeed, and return what it printed on standard output.

        Raises:
            SystemFailureError: it ended with another exit code than 0; the message holds its last words.
        """
        done = self.run(argv, env=env, stdin=stdin)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-600:]
            raise SystemFailureError(
                f"language tree: {' '.join(argv)[:200]} ended with {done.returncode} inside the tree: {said}"
            )
        return done.stdout.decode("utf-8", "replace")


def _give(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, UNPRIVILEGED, UNPRIVILEGED, follow_symlinks=False)
