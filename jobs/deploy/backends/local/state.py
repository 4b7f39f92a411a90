"""The state folder of the local place: its keys, its machines, and the lock of those who change them.

Invariant: one command at a time changes machines; the folder is its owner's alone, because who has its seed
can open what was sealed to this place.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from blueprint.tee.simulator.kms import SimulatedKms
from blueprint.tee.simulator.platform import MockPlatform
from jobs.deploy.backends.local.disk import MachineFolder, Record
from jobs.deploy.backends.local.lease import try_lock
from jobs.deploy.errors import DeployError

__all__ = ["StateFolder"]

_SEED_BYTES: Final = 32
_POLL_S = 0.05
_PATIENCE_S = 120.0


class StateFolder:
    """Everything that the local place keeps.

    Args:
        path: is made with its keys when it is first used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._machines = self.path / "machines"
        self._machines.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SECURITY: others on this host must not reach sockets and keys (test_the_state_folder_is_private).
        self.path.chmod(0o700)
        self._seed = self._read_seed()

    @property
    def identity(self) -> str:
        """What tells this place's things on an engine from others': 8 hexadecimal digits."""
        return hashlib.sha256(b"identity" + self._seed).hexdigest()[:8]

    def kms(self) -> SimulatedKms:
        """Return the place's KMS, always with the same keys."""
        return SimulatedKms(hashlib.sha256(b"kms" + self._seed).digest())

    def platform(self) -> MockPlatform:
        """Return the place's TDX platform, always with the same keys."""
        return MockPlatform(seed=hashlib.sha256(b"platform" + self._seed).digest())

    def project(self, machine: str) -> str:
        """Return the Compose project of a machine."""
        return f"cvm-{self.identity}-{machine}"

    def machine_of(self, project: str) -> str:
        """Return the machine of a Compose project of this place."""
        return project.removeprefix(f"cvm-{self.identity}-")

    def folder(self, machine: str) -> MachineFolder:
        """Return the folder of a machine, which need not exist."""
        return MachineFolder(self._machines / machine)

    def records(self) -> tuple[Record, ...]:
        """Return all machines, by name and number; those on their way out too."""
        found = []
        for path in self._machines.glob("[!.]*"):
            try:
                found.append(MachineFolder(path).record())
            except FileNotFoundError:  # it was deleted meanwhile
                continue
        return tuple(sorted(found, key=lambda record: (record.name, record.app_id, record.index)))

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Keep others from changing machines.

        Raises:
            DeployError: another command does not finish.
        """
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await self._wait_for(descriptor)
            yield
        finally:
            os.close(descriptor)

    async def _wait_for(self, descriptor: int) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not try_lock(descriptor):  # noqa: ASYNC110 - nothing tells when
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise DeployError(
                f"another command has been changing machines in {self.path} for {_PATIENCE_S:.0f} s",
                advice="wait for it, or end it",
            ) from error

    def _read_seed(self) -> bytes:
        path = self.path / "seed"
        try:
            return path.read_bytes()
        except FileNotFoundError:
            draft = self.path / f".seed.{os.getpid()}"
            with open(draft, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(os.urandom(_SEED_BYTES))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, path)  # the first of two wins
            except FileExistsError:
                pass
            finally:
                draft.unlink()
            return path.read_bytes()
