"""Which KMS keys are believed: those that were pinned, or the first that was seen, recorded and announced.

Invariant: a public key is used only after a believed KMS key has signed it for exactly this application.
After the first key no other is believed that nobody has pinned, whatever its KMS is called: the name is the
other side's own word.
"""

import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import StringConstraints, TypeAdapter, ValidationError

from blueprint.errors import AttestationError, PolicyViolationError
from blueprint.tee.kms_key import VerifiedPublicKey, signer_of_public_key, verify_public_key
from jobs.deploy.backends.backend import PublicKey
from jobs.deploy.errors import DeployError
from jobs.deploy.whole_file import write_whole

__all__ = ["KmsTrust"]

_MEMORY: Final = TypeAdapter(dict[str, Annotated[str, StringConstraints(pattern="^[0-9a-f]{66}$")]])
"""Compressed secp256k1 keys in hexadecimal digits, each with what its KMS was called."""


@dataclass(frozen=True, slots=True)
class KmsTrust:
    """Decides about the keys that variables are sealed to.

    Args:
        pinned: compressed secp256k1 keys, 33 bytes each; when there are any, nothing else is believed.
        remembered: the file of keys that were believed on first use; None to believe only pinned ones.
        announce: called with a sentence when a key is believed for the first time.
        now_s: seconds since 1970.
    """

    pinned: Collection[bytes] = ()
    remembered: Path | None = None
    announce: Callable[[str], None] = lambda _: None
    now_s: Callable[[], float] = time.time

    def verify(self, app_id: str, stated: PublicKey) -> VerifiedPublicKey:
        """Return the key, vouched for by a KMS key that is believed.

        Raises:
            AttestationError: the signature is missing or wrong, or of a key that is not believed.
            DeployError: the file of remembered keys cannot be read or written.
        """
        if not stated.signature:
            raise PolicyViolationError(
                f"the public key of {app_id} comes without the KMS's signature: it could be anybody's, "
                "so nothing is sealed to it"
            )
        # SECURITY: a KMS under another name has no first key of its own
        # (test_another_key_than_the_first_is_refused_for_ever).
        believed = frozenset(self.pinned) or self._remembered()
        first = None if believed else self._first_seen(app_id, stated)
        key = verify_public_key(
            app_id=bytes.fromhex(app_id),
            public_key=stated.key,
            signature=stated.signature,
            timestamp_s=stated.timestamp_s,
            pinned_keys=believed if first is None else {first},
            now_s=int(self.now_s()),
        )
        if first is not None:
            self._remember(stated.kms, first)
        return key

    def _first_seen(self, app_id: str, stated: PublicKey) -> bytes:
        if self.remembered is None:
            raise AttestationError("no KMS key is pinned: give the one that you trust with --kms-key")
        return signer_of_public_key(
            app_id=bytes.fromhex(app_id),
            public_key=stated.key,
            signature=stated.signature,
            timestamp_s=stated.timestamp_s,
        )

    def _remember(self, kms: str, signer: bytes) -> None:
        self._write({**self._read(), kms: signer.hex()})
        self.announce(
            f"KMS key {signer.hex()} of {kms or 'the place'} is trusted from now on, as the first "
            f"that was seen; compare it, and pin it with --kms-key. Recorded in {self.remembered}"
        )

    def _remembered(self) -> frozenset[bytes]:
        known = self._read() if self.remembered is not None else {}
        return frozenset(map(bytes.fromhex, known.values()))

    def _read(self) -> dict[str, str]:
        assert self.remembered is not None
        try:
            return _MEMORY.validate_json(self.remembered.read_bytes(), strict=True)
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as exc:
            # SECURITY: what cannot be read is not passed over, or the next key would be the first one
            # (test_a_damaged_memory_is_named_not_passed_over).
            raise DeployError(
                f"{self.remembered} is no file of KMS keys that were trusted",
                advice="repair it, or move it away",
            ) from exc

    def _write(self, known: dict[str, str]) -> None:
        assert self.remembered is not None
        try:
            self.remembered.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(self.remembered, json.dumps(known, indent=1) + "\n")
        except OSError as exc:
            raise DeployError(f"{self.remembered}: {exc.strerror}") from exc
