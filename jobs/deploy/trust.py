"""Which KMS keys are believed: those that were pinned, or the first that was seen, recorded and announced.

Invariant: a public key is used only after a believed KMS key has signed it for exactly this application.
"""

import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from blueprint.errors import AttestationError, PolicyViolationError
from blueprint.foreign_json import parse_json
from blueprint.tee.kms_key import VerifiedPublicKey, signer_of_public_key, verify_public_key
from jobs.deploy.backends.backend import PublicKey
from jobs.deploy.errors import DeployError
from jobs.deploy.whole_file import write_whole

__all__ = ["KmsTrust"]


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
        believed = frozenset(self.pinned) or self._remembered(stated.kms)
        if not believed:
            believed = frozenset({self._believe(app_id, stated)})
        return verify_public_key(
            app_id=bytes.fromhex(app_id),
            public_key=stated.key,
            signature=stated.signature,
            timestamp_s=stated.timestamp_s,
            pinned_keys=believed,
            now_s=int(self.now_s()),
        )

    def _believe(self, app_id: str, stated: PublicKey) -> bytes:
        if self.remembered is None:
            raise AttestationError("no KMS key is pinned: give the one that you trust with --kms-key")
        signer = signer_of_public_key(
            app_id=bytes.fromhex(app_id),
            public_key=stated.key,
            signature=stated.signature,
            timestamp_s=stated.timestamp_s,
        )
        known = self._read()
        known[stated.kms] = signer.hex()
        self._write(known)
        self.announce(
            f"KMS key {signer.hex()} of {stated.kms or 'the place'} is trusted from now on, as the first "
            f"that was seen; compare it, and pin it with --kms-key. Recorded in {self.remembered}"
        )
        return signer

    def _remembered(self, kms: str) -> frozenset[bytes]:
        key = self._read().get(kms) if self.remembered is not None else None
        return frozenset({bytes.fromhex(key)}) if key else frozenset()

    def _read(self) -> dict[str, str]:
        assert self.remembered is not None
        try:
            content = parse_json(self.remembered.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as exc:
            raise DeployError(f"{self.remembered}: {exc}", advice="repair it, or move it away") from exc
        if not isinstance(content, dict):
            raise DeployError(f"{self.remembered}: expected an object", advice="repair it, or move it away")
        return {kms: str(key) for kms, key in content.items()}

    def _write(self, known: dict[str, str]) -> None:
        assert self.remembered is not None
        try:
            self.remembered.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(self.remembered, json.dumps(known, indent=1) + "\n")
        except OSError as exc:
            raise DeployError(f"{self.remembered}: {exc.strerror}") from exc
