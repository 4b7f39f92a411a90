"""What a verifier demands of an attestation beyond its signatures.

Invariant: a part that the policy leaves open is reported as not checked, never as passed; what needs no
knowledge of the application (TCB status, advisories, debug bit) is strict unless it is relaxed by name.
Source of the rule: Intel DCAP (TCB status, advisories); dstack (compose hash, app id, key provider, image).
"""

import json
from dataclasses import dataclass, field
from typing import Self

from blueprint.errors import QuoteInvalidError
from blueprint.foreign_json import parse_json

__all__ = ["AttestationPolicy", "KeyProvider", "OsImage"]


_MEASUREMENT_BYTES = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class OsImage:
    """The measurements of a known OS image on a known virtual machine, 48 bytes each.

    They cannot be computed offline from an image; they come from a machine that was looked at.
    """

    name: str
    mr_td: bytes
    rt_mr0: bytes
    rt_mr1: bytes
    rt_mr2: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the image whose measurements are written as `ParsedQuote.os_image` writes them.

        Raises:
            ValueError: these are not four times 96 hexadecimal digits with colons between them.
        """
        values = [bytes.fromhex(part) for part in text.split(":")]
        if [len(value) for value in values] != [_MEASUREMENT_BYTES] * 4:
            raise ValueError("expected MRTD:RTMR0:RTMR1:RTMR2, 96 hexadecimal digits each")
        mr_td, *rest = values
        return cls(
            name=f"MRTD {mr_td.hex()[:16]}...", mr_td=mr_td, rt_mr0=rest[0], rt_mr1=rest[1], rt_mr2=rest[2]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyProvider:
    """Who gives a CVM its keys."""

    name: str
    """``kms``, ``local`` or another word of the guest's."""
    id: str
    """How the provider is known: for a KMS its CA's public key, in hexadecimal digits."""

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Return the provider that the event ``key-provider`` names.

        Raises:
            QuoteInvalidError: the payload is not ``{"name": ..., "id": ...}``.
        """
        try:
            content = parse_json(payload)
        except ValueError as error:
            raise QuoteInvalidError("event log: the key provider is not JSON") from error
        match content:
            case {"name": str(name), "id": str(identity)}:
                return cls(name=name, id=identity)
        raise QuoteInvalidError("event log: the key provider has no name or id")

    def to_payload(self) -> bytes:
        """Return the event's payload."""
        return json.dumps({"name": self.name, "id": self.id}, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationPolicy:
    """What an attestation must say; debug guests and modules of another signer are refused always."""

    tcb_statuses: frozenset[str] = frozenset({"UpToDate"})
    """The accepted TCB statuses, in Intel's words."""
    allowed_advisories: frozenset[str] = frozenset()
    """Intel's advisories that are accepted although they apply, such as ``INTEL-SA-00289``."""
    compose_hash: bytes | None = None
    """SHA-256 of the app-compose bytes, 32 bytes; None leaves open what runs."""
    app_id: bytes | None = None
    """20 bytes; None leaves it open."""
    os_images: frozenset[OsImage] | None = None
    """The known OS images; None leaves open which system runs the application."""
    key_providers: frozenset[KeyProvider] | None = None
    """Who may have given the keys; None leaves it open."""
    max_collateral_age_s: int | None = None
    """How long ago Intel may have issued the TCB information; None relies on its own expiry alone."""
    development_root: bytes | None = field(default=None, repr=False)
    """The DER certificate of a root to trust instead of Intel's: for development, never implied."""
