"""What passes between who deploys and who has the secrets: what to seal to, and what came of it.

Invariant: neither file holds a secret; an envelope is for one application and one text of it, and says which.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import StringConstraints, TypeAdapter, ValidationError

from blueprint.tee.sealing import SecretVariable, check_variables, seal
from jobs.deploy.app_compose import AppCompose, read_app_compose
from jobs.deploy.backends.backend import PublicKey
from jobs.deploy.errors import DeployError
from jobs.deploy.record import DeploymentRecord
from jobs.deploy.trust import KmsTrust
from jobs.deploy.wanted import Sealed, Wanted
from jobs.deploy.whole_file import write_whole

__all__ = ["Envelope", "EnvelopeError", "SealingRequest"]


_Hex = Annotated[str, StringConstraints(pattern="^([0-9a-f]{2})*$")]
Kind = TypeVar("Kind")


class EnvelopeError(DeployError):
    """A file is none of the two, or is for something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingRequest:
    """What an operator hands to who has the secrets. Binary members are hexadecimal digits."""

    app_id: _Hex
    app_compose: str
    """What is measured, so that it can be read before anything is sealed for it."""
    names: tuple[str, ...]
    public_key: _Hex
    signature: _Hex
    timestamp_s: int | None
    kms: str
    format: Literal["tee-job-node sealing request v1"] = "tee-job-node sealing request v1"

    @classmethod
    def of(cls, record: DeploymentRecord) -> Self:
        """Make the request of a deployment that has a key.

        Raises:
            EnvelopeError: it has none.
        """
        if not record.public_key:
            raise EnvelopeError(f"{record.name} takes no variables: it has no key to seal to")
        return cls(
            app_id=record.app_id,
            app_compose=record.app_compose,
            names=record.names,
            public_key=record.public_key,
            signature=record.public_key_signature,
            timestamp_s=record.public_key_timestamp_s,
            kms=record.kms,
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read one.

        Raises:
            EnvelopeError: it cannot be read, or is none.
        """
        return _read(path, cls, "sealing request", "`blueprint deploy prepare` and `key` write it")

    @property
    def compose_hash(self) -> bytes:
        """Of what is measured, 32 bytes."""
        return hashlib.sha256(self.app_compose.encode()).digest()

    @property
    def application(self) -> AppCompose:
        """What would get the variables.

        Raises:
            AppComposeError: more than that would, or its description has another form.
        """
        return read_app_compose(self.app_compose.encode())

    def seal(self, variables: tuple[SecretVariable, ...], trust: KmsTrust) -> "Envelope":
        """Seal exactly the variables that are named, once a believed KMS key has vouched for the key.

        Raises:
            AppComposeError: the guest would run more than an `AppCompose` says.
            EnvelopeError: others are given than are named.
            SealingError: a variable breaks a limit of the guest.
            AttestationError: the key is not vouched for.
        """
        # SECURITY: a member that nobody looks at could run a program beside the compose text
        # (test_nothing_is_sealed_for_what_a_request_hides).
        if set(self.application.allowed_envs) != set(self.names):
            raise EnvelopeError("the request names other variables than the application may receive")
        odd = {variable.key for variable in variables} ^ set(self.names)
        if odd:
            raise EnvelopeError(
                f"the variables given and those that are asked for differ: {', '.join(sorted(odd))}",
                advice=f"give exactly {', '.join(self.names) or 'none'}",
            )
        check_variables(variables)
        stated = PublicKey(
            key=bytes.fromhex(self.public_key),
            signature=bytes.fromhex(self.signature),
            timestamp_s=self.timestamp_s,
            kms=self.kms,
        )
        stated_at = self.timestamp_s
        if stated_at is not None:
            # Its age was judged when it was stated; since then it was on its way to who has the secrets.
            trust = replace(trust, now_s=lambda: float(stated_at))
        key = trust.verify(self.app_id, stated)
        return Envelope(
            app_id=self.app_id,
            compose_hash=self.compose_hash.hex(),
            names=self.names,
            ciphertext=seal(variables, key.public_key).hex(),
        )

    def write(self, path: Path) -> None:
        """Write it, as a whole or not at all."""
        _write(path, asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Sealed variables. Binary members are hexadecimal digits."""

    app_id: _Hex
    compose_hash: _Hex
    """Of the application that its author looked at."""
    names: tuple[str, ...]
    ciphertext: _Hex
    format: Literal["tee-job-node sealed variables v1"] = "tee-job-node sealed variables v1"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read one.

        Raises:
            EnvelopeError: it cannot be read, or is none.
        """
        return _read(path, cls, "file of sealed variables", "`blueprint deploy seal` writes it")

    @property
    def sealed(self) -> Sealed:
        """What is deployed."""
        return Sealed(ciphertext=bytes.fromhex(self.ciphertext), names=self.names)

    def check(self, wanted: Wanted, record: DeploymentRecord | None) -> None:
        """Find an envelope for something else, which the guest could not open or would not be meant to have.

        Raises:
            EnvelopeError: it is for another application, or for another text of this one.
        """
        expected = record.app_id if record is not None else "none yet"
        if self.app_id != expected:
            raise EnvelopeError(
                f"the variables are sealed for the application {self.app_id}, and {wanted.workload.name} is "
                f"{expected}",
                advice="have them sealed for what `blueprint deploy prepare` or `key` writes",
            )
        if self.compose_hash != wanted.workload.compose_hash.hex():
            raise EnvelopeError(
                f"the variables are sealed for compose hash {self.compose_hash}, and what is to be deployed "
                f"has {wanted.workload.compose_hash.hex()}",
                advice="whoever sealed them has not seen this text: have them sealed anew",
            )

    def write(self, path: Path) -> None:
        """Write it, as a whole or not at all."""
        _write(path, asdict(self))


def _write(path: Path, members: dict[str, Any]) -> None:
    try:
        write_whole(path, json.dumps(members, indent=1) + "\n")
    except OSError as exc:
        raise EnvelopeError(f"{path}: {exc.strerror}") from exc


def _read(path: Path, kind: type[Kind], what: str, advice: str) -> Kind:
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes(), strict=True)
    except OSError as exc:
        raise EnvelopeError(f"{path}: {exc.strerror}", advice=advice) from exc
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise EnvelopeError(f"{path}: no {what}: {where or 'it'}: {first['msg']}", advice=advice) from None
