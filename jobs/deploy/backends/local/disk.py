"""What a local machine is while nothing of it runs: its record, the exact bytes it boots, its folder.

Invariant: a machine exists from the rename of its folder on, and changes with the rename of its record: a
crash leaves the old state or the new one. No variable's value is ever in here, only ciphertext.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from jobs.deploy.backends.backend import Placement
from jobs.deploy.errors import DeployError

__all__ = ["MachineFolder", "Record", "Status", "Wanted"]

_RECORD: Final = "machine.json"
_STATUS: Final = "status.json"
_NEXT: Final = "next-app-compose.json"
_SOCKET_PATH_BYTES = 107


class Wanted(StrEnum):
    """What a machine is meant to be; whether it is so is seen from what runs."""

    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"
    """On its way out: a crash in between is finished by the next command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What must survive."""

    id: str
    name: str
    app_id: str
    """40 hexadecimal digits."""
    instance_id: str
    """40 hexadecimal digits."""
    index: int
    """0 for the first machine of the application, then its replicas."""
    app_compose: str
    """SHA-256 of the bytes, which are the compose hash."""
    sealed: str
    """SHA-256 of the sealed variables; empty for none."""
    placement: Placement
    wanted: Wanted = Wanted.RUNNING
    boot: int = 1
    """Counts the boots that were asked for; a guest serves one."""

    @classmethod
    def parse(cls, text: str) -> "Record":
        """Return what :meth:`text` wrote."""
        content: dict[str, Any] = json.loads(text)
        placement = Placement(**content.pop("placement"))
        return cls(**{**content, "wanted": Wanted(content["wanted"])}, placement=placement)

    def text(self) -> str:
        """Return the record as JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def rebooted(self, **changes: Any) -> "Record":
        """Return the record with changes, and with another boot asked for."""
        return replace(self, boot=self.boot + 1, wanted=Wanted.RUNNING, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the guest last said of itself."""

    boot: int
    phase: str
    """starting, running or failed."""
    said: str = ""
    since_s: float = 0.0
    """Unix time."""


class MachineFolder:
    """The folder of one machine.

    Args:
        path: its place; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def socket(self) -> Path:
        """Where the guest agent listens."""
        return self.path / "agent.sock"

    @property
    def disk(self) -> Path:
        """The guest's file system, as far as mounts show it."""
        return self.path / "disk"

    @property
    def lease(self) -> Path:
        """The file that the guest locks while it lives."""
        return self.path / "guest.lock"

    def create(self, record: Record, app_compose: bytes, sealed: bytes) -> Record:
        """Make the folder at once and whole; what another try has left half made is replaced."""
        if len(os.fsencode(self.socket)) > _SOCKET_PATH_BYTES:
            raise DeployError(
                f"{self.socket} is too long for a Unix socket",
                advice="use a state folder with a shorter path",
            )
        draft = MachineFolder(self.path.with_name(f".new-{self.path.name}"))
        shutil.rmtree(draft.path, ignore_errors=True)
        draft.disk.mkdir(parents=True, mode=0o700)
        created = replace(record, app_compose=draft.keep(app_compose), sealed=draft.keep(sealed))
        draft.write(created)
        draft.path.rename(self.path)
        return created

    def record(self) -> Record:
        """Return the record; FileNotFoundError once the machine is gone."""
        return Record.parse((self.path / _RECORD).read_text())

    def write(self, record: Record) -> None:
        """Replace the record, and drop the bytes that it no longer names."""
        _replace(self.path / _RECORD, record.text().encode())
        for blob in self.path.glob("*.bytes"):
            if blob.stem not in {record.app_compose, record.sealed}:
                blob.unlink()

    def keep(self, content: bytes) -> str:
        """Store bytes and return their SHA-256; nothing is stored for no bytes, whose name is empty."""
        if not content:
            return ""
        digest = hashlib.sha256(content).hexdigest()
        _replace(self.path / f"{digest}.bytes", content)
        return digest

    def read(self, digest: str) -> bytes:
        """Return stored bytes, which are checked."""
        if not digest:
            return b""
        content = (self.path / f"{digest}.bytes").read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise DeployError(f"{self.path}: stored bytes were changed", advice="delete the machine")
        return content

    def prepare(self, app_compose: bytes) -> None:
        """Store what an update would boot; one is kept."""
        _replace(self.path / _NEXT, app_compose)

    def prepared(self) -> bytes:
        """Return what :meth:`prepare` stored last, or nothing."""
        try:
            return (self.path / _NEXT).read_bytes()
        except FileNotFoundError:
            return b""

    def report(self, status: Status) -> None:
        """Say what the guest is at."""
        _replace(self.path / _STATUS, json.dumps(asdict(status)).encode())

    def status(self) -> Status:
        """Return what the guest last said."""
        try:
            return Status(**json.loads((self.path / _STATUS).read_text()))
        except FileNotFoundError:
            return Status(boot=0, phase="starting")


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that it has the old content or the new one, also after a power cut."""
    draft = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
