"""What this machine knows of each deployment: one small file each, with the exact bytes that were deployed.

Invariant: a file is replaced as a whole or not at all, and only by who holds the deployment's lock; no value
of a variable is in it, only names and a slow digest by which a change is noticed.
"""

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from blueprint.foreign_json import parse_json
from blueprint.tee.sealing import SecretVariable
from jobs.deploy.backends.backend import Placement
from jobs.deploy.errors import DeployError
from jobs.deploy.whole_file import write_whole

__all__ = ["FORMAT", "DeploymentRecord", "Entry", "RecordError", "RecordStore", "Stage", "VariablesDigest"]

FORMAT = 1
_SCRYPT = {"n": 1 << 14, "r": 8, "p": 1}


class RecordError(DeployError):
    """A deployment's file cannot be read or written, or another command is at work on it."""


class Stage(StrEnum):
    """How far a deployment has come; each includes what stands before it."""

    PREPARED = "prepared"
    """The place gave an identity and a key; nothing runs."""
    COMMITTED = "committed"
    """The machine was ordered."""
    READY = "ready"
    """All containers ran, and those with a health check were healthy."""
    VERIFIED = "verified"
    """Its attestation held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariablesDigest:
    """By what a change of variables is noticed, without keeping them: scrypt under a salt of its own."""

    salt: str
    """16 bytes, in hexadecimal digits."""
    digest: str
    """32 bytes, in hexadecimal digits."""

    @classmethod
    def of(cls, variables: Sequence[SecretVariable], salt: bytes | None = None) -> "VariablesDigest":
        """Digest variables, whatever their order."""
        salt = salt or secrets.token_bytes(16)
        text = json.dumps(sorted((variable.key, variable.value) for variable in variables)).encode()
        return cls(salt=salt.hex(), digest=hashlib.scrypt(text, salt=salt, dklen=32, **_SCRYPT).hex())

    def matches(self, variables: Sequence[SecretVariable]) -> bool:
        """Say whether these are the variables that were digested."""
        again = VariablesDigest.of(variables, bytes.fromhex(self.salt))
        return hmac.compare_digest(again.digest, self.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRecord:
    """One deployment. Binary members are hexadecimal digits, times seconds since 1970."""

    name: str
    place: str
    """The back end's name."""
    stage: Stage
    app_id: str
    app_compose: str
    """app-compose.json exactly as it was measured; as UTF-8 these are the bytes that were hashed."""
    compose_hash: str
    names: tuple[str, ...] = ()
    """The sealed variables."""
    variables: VariablesDigest | None = None
    """None when they were sealed by somebody else, or when there are none."""
    sealed: str = ""
    """SHA-256 of the ciphertext that somebody else sealed; empty when it was sealed here."""
    one_shots: tuple[str, ...] = ()
    """Services that are meant to end."""
    public_key: str = ""
    public_key_signature: str = ""
    public_key_timestamp_s: int | None = None
    kms: str = ""
    kms_signer: str = ""
    """The KMS key that vouched for ``public_key``."""
    machine_id: str = ""
    instance_id: str = ""
    endpoints: tuple[str, ...] = ()
    placement: Placement = field(default_factory=Placement)
    os_image_hash: str = ""
    price: str = ""
    order: str = ""
    """The key of the order on chain that it is for; empty for a person's."""
    prepared_at_s: float = 0.0
    updated_at_s: float = 0.0
    attestation: str = ""
    """The digest of the verified attestation."""
    checks: tuple[str, ...] = ()
    """What was checked, and what was left open, in words."""
    is_verification_waived: bool = False
    """Somebody asked by name not to verify."""

    def to_json(self) -> str:
        """Return the file's text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "DeploymentRecord":
        """Read a file's text; members that a later version added are left out.

        Raises:
            ValueError: not such a file, or one of a format that this version does not know.
        """
        content = parse_json(text)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"expected a deployment's record of format {FORMAT}")
        try:
            return _RECORD.validate_json(text, strict=True)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"the member {where}: {first['msg']}") from None


_RECORD: Final = TypeAdapter(DeploymentRecord)


@dataclass(slots=True)
class Entry:
    """One deployment's file while its lock is held."""

    path: Path
    record: DeploymentRecord | None

    def write(self, record: DeploymentRecord) -> DeploymentRecord:
        """Replace the file.

        Raises:
            RecordError: the disk is full, or the folder cannot be written.
        """
        try:
            write_whole(self.path, record.to_json())
        except OSError as exc:
            raise RecordError(f"{self.path}: {exc.strerror}", advice="nothing was recorded") from exc
        self.record = record
        return record

    def remove(self) -> None:
        """Forget the deployment."""
        self.path.unlink(missing_ok=True)
        self.record = None


class RecordStore:
    """The folder with one file a deployment, readable by its account alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self, name: str) -> Iterator[Entry]:
        """Hold one deployment's lock, and yield what is known of it.

        Raises:
            RecordError: another command holds it, or the file cannot be read.
        """
        path = self._path(name)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.folder / f".{name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise RecordError(f"{exc.filename or self.folder}: {exc.strerror}") from exc
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RecordError(
                    f"another command is at work on {name}", advice="wait for it, or end it"
                ) from None
            yield Entry(path, self._read(path))
        finally:
            os.close(lock)

    def get(self, name: str) -> DeploymentRecord | None:
        """Return what is known of a deployment, as of its last write."""
        return self._read(self._path(name))

    def all(self) -> list[DeploymentRecord]:
        """Return every deployment, by name."""
        paths = sorted(self.folder.glob("[!.]*.json"))
        return [record for path in paths if (record := self._read(path)) is not None]

    def _path(self, name: str) -> Path:
        if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9-]{0,62}", name):
            raise RecordError(f"{name[:64]!r} cannot be the name of a deployment")
        return self.folder / f"{name}.json"

    @staticmethod
    def _read(path: Path) -> DeploymentRecord | None:
        try:
            return DeploymentRecord.from_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise RecordError(f"{path}: {exc.strerror}") from exc
        except ValueError as exc:
            raise RecordError(f"{path}: {exc}", advice="move the file away to go on without it") from exc
