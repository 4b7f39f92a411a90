"""A Docker engine of one's own, where none answers: with its own processes, mounts and network.

Invariant: the host's firewall, mounts and other engines are not touched, and when the engine ends nothing of
it goes on: its first process ends all others.
Source of the rule: unshare(1) with ``--kill-child``; dockerd's options.
"""

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from jobs.deploy.backends.local.engine import Engine
from jobs.deploy.backends.local.lease import Lease, claim
from jobs.deploy.errors import DeployError

__all__ = ["PrivateEngine", "find_engine"]

_PROGRAMS: Final = ("dockerd", "containerd", "runc", "iptables", "ip", "unshare")
_GROUPS: Final = Path("/sys/fs/cgroup")
_READY_S = 30.0
_POLL_S = 0.05
_FLOOR: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class PrivateEngine:
    """An engine that lives in a folder, and outlives whoever started it.

    It reaches no other network: images are imported, not pulled, and what containers publish is seen by
    processes in its network alone.

    Args:
        folder: keeps its images and volumes; made when it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.socket = self.folder / "docker.sock"
        self._lease = Lease(self.folder / "engine.lock")

    @staticmethod
    def missing() -> str:
        """Return why none can be started here; empty if it can."""
        if os.geteuid() != 0:
            return "an engine of our own needs root"
        absent = [program for program in _PROGRAMS if shutil.which(program, path=_FLOOR) is None]
        return f"missing here: {', '.join(absent)}" if absent else ""

    def is_running(self) -> bool:
        """Say whether it was started and has not ended."""
        return self._lease.is_held()

    async def start(self) -> None:
        """Start it, unless it runs; returns when it answers.

        Raises:
            DeployError: it cannot be started; the message says why.
        """
        if self.folder.resolve().is_relative_to("/run"):
            raise DeployError(
                f"{self.folder}: an engine of our own has a /run of its own", advice="use another folder"
            )
        if reason := self.missing():
            raise DeployError(reason, advice="on Debian: sudo apt-get install docker.io iptables iproute2")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        log = self.folder / "engine.log"
        await self._lease.start([sys.executable, "-m", __name__, str(self.folder)], log)
        deadline = time.monotonic() + _READY_S
        async with Engine(self.socket) as engine:
            while not await _answers(engine):
                if time.monotonic() > deadline or not self._lease.is_held():
                    await self.stop()
                    raise DeployError("the Docker engine did not start", advice=f"see {log}")
                await asyncio.sleep(_POLL_S)

    async def stop(self) -> None:
        """End it with all its containers, at once; its images and volumes stay."""
        if self._lease.is_held():
            await self._lease.end()
        self.socket.unlink(missing_ok=True)
        _remove_groups(self.group)

    async def remove(self) -> None:
        """End it and remove its folder."""
        await self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def group(self) -> str:
        """The control group of its containers."""
        return f"engine-{self.folder.stat().st_ino}" if self.folder.exists() else "engine-none"

    def become(self) -> None:
        """Replace this process by the engine."""
        daemon = ["dockerd", "--host", f"unix://{self.socket}", "--group", "root"]
        daemon += ["--data-root", str(self.folder / "data"), "--cgroup-parent", f"/{self.group}"]
        # What an engine keeps below /run speaks of its processes, and goes with them. The shell stays the
        # first process: it takes in orphans, which dockerd would not.
        script = 'mount -t tmpfs tmpfs /run && ip link set lo up && { "$@" & wait $!; }'
        apart = ["--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        command = ["unshare", *apart, "sh", "-c", script, "sh", *daemon]
        os.execve(  # noqa: S606 - this process becomes the engine
            shutil.which("unshare", path=_FLOOR) or "unshare", command, {"PATH": _FLOOR, "HOME": "/run"}
        )


async def find_engine(named: Path, folder: Path, say: Callable[[str], None]) -> Path:
    """Return the socket of the engine that answers, or of an own one in ``folder``, which is started.

    Args:
        named: the socket of the engine that is wanted.
        folder: of the own one.
        say: told that an own one is started, and what it cannot do.

    Raises:
        DeployError: none answers, and none can be started.
    """
    async with Engine(named) as engine:
        try:
            await engine.check()
        except DeployError:
            if PrivateEngine.missing():
                raise
        else:
            return named
    own = PrivateEngine(folder)
    if not own.is_running():
        say(
            f"no Docker engine answers at {named}: starting one in {own.folder}; it reaches no network, so "
            "images are imported into it (docker load), not pulled"
        )
    await own.start()
    return own.socket


async def _answers(engine: Engine) -> bool:
    try:
        await engine.check()
    except DeployError:
        return False
    return True


def _remove_groups(name: str) -> None:
    """Remove the control groups of containers that have ended, in each hierarchy."""
    for group in (*_GROUPS.glob(name), *_GROUPS.glob(f"*/{name}")):
        for path in sorted((one for one in group.rglob("*") if one.is_dir()), reverse=True):
            path.rmdir()
        group.rmdir()


def main() -> int:
    """Become the engine of a folder; the second argument is the lock's descriptor."""
    claim(int(sys.argv[2]))
    PrivateEngine(Path(sys.argv[1])).become()
    return 1


if __name__ == "__main__":
    sys.exit(main())
