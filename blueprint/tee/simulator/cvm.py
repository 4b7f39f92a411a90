"""A simulated CVM: what a guest measures and opens while it boots, then the keys and quotes that it gives.

Invariant: it boots only what the real guest boots: a limit that is broken fails the boot, and a variable that
``allowed_envs`` does not name is dropped with a warning.
Source of the rule: dstack, guest (boot measurements, ``encrypted_env``, limits) and guest agent (keys).
"""

import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import coincurve
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from blueprint.errors import BlueprintError, SealingError
from blueprint.foreign_json import JsonValue, parse_json
from blueprint.keccak import keccak256
from blueprint.tee.event_log import BOOT_DONE, SYSTEM_READY, Event, replay
from blueprint.tee.policy import KeyProvider, OsImage
from blueprint.tee.quote import parse_quote
from blueprint.tee.report_data import certificate_report_data
from blueprint.tee.sealing import SecretVariable, unseal
from blueprint.tee.simulator.kms import SimulatedKms, derive_key
from blueprint.tee.simulator.platform import MockPlatform

__all__ = ["BootError", "SimulatedCvm"]

_APP_ID_BYTES = 20
_CERTIFICATE_TIME = timedelta(days=365)


class BootError(BlueprintError):
    """The guest does not boot what it was given; the message says why, and holds no variable's value."""


class SimulatedCvm:
    """A guest that has booted.

    Args:
        app_compose: the raw app-compose.json bytes; their hash is measured.
        sealed: the sealed variables, or None for none.
        app_id: 20 bytes.
        kms: gives the keys.
        platform: makes the quotes.
        instance_id: 20 bytes; random when None, and empty when the app-compose asks for none.
        event_version: the version of the event log, 1 or 2.

    Attributes:
        variables: what the containers may see, in the order of the sealed file.
        warnings: what a user must know, such as a variable that was dropped.
        events: what was measured into RTMR3.

    Raises:
        BootError: the guest would not boot.
    """

    def __init__(
        self,
        *,
        app_compose: bytes,
        sealed: bytes | None,
        app_id: bytes,
        kms: SimulatedKms,
        platform: MockPlatform,
        instance_id: bytes | None = None,
        event_version: int = 1,
    ) -> None:
        if len(app_id) != _APP_ID_BYTES:
            raise BootError(f"app id: expected {_APP_ID_BYTES} bytes, received {len(app_id)}")
        content = _app_compose(app_compose)
        self.app_compose = app_compose
        self.app_id = app_id
        self.compose_hash = hashlib.sha256(app_compose).digest()
        self.app_name = str(content.get("name", ""))
        given = os.urandom(_APP_ID_BYTES) if instance_id is None else instance_id
        self.instance_id = b"" if content.get("no_instance_id") is True else given
        self._kms = kms
        self._platform = platform
        has_keys = content.get("kms_enabled") is True
        self.key_provider = kms.key_provider if has_keys else KeyProvider(name="none", id="")
        if sealed is not None and not has_keys:
            raise BootError("sealed variables, but kms_enabled is not true: nobody gives this guest the key")
        self.variables, self.warnings = _open(
            sealed, kms.env_private_key(app_id), content.get("allowed_envs")
        )
        self.events = self._measure(event_version)
        self._tls_key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._make_certificate()

    @property
    def event_log(self) -> str:
        """The log as the guest agent shows it: a JSON list."""
        return json.dumps([event.to_json() for event in self.events])

    @property
    def os_image(self) -> OsImage:
        """The measurements of the mock system that runs here."""
        quote = parse_quote(self.quote(b""))
        return OsImage(
            name="mock", mr_td=quote.mr_td, rt_mr0=quote.rt_mr0, rt_mr1=quote.rt_mr1, rt_mr2=quote.rt_mr2
        )

    def quote(self, report_data: bytes) -> bytes:
        """Return a quote over at most 64 bytes."""
        return self._platform.quote(report_data=report_data, rt_mr3=replay(self.events))

    def certificate_quote(self) -> bytes:
        """Return the quote that vouches for the key of :attr:`certificate`."""
        return self.quote(certificate_report_data(self.certificate.encode()))

    def tcb_info(self) -> dict[str, JsonValue]:
        """Return the measurements as the guest agent and the cloud show them."""
        quote = parse_quote(self.quote(b""))
        registers = (quote.mr_td, quote.rt_mr0, quote.rt_mr1, quote.rt_mr2, quote.rt_mr3)
        return {
            "mrtd": quote.mr_td.hex(),
            "rtmr0": quote.rt_mr0.hex(),
            "rtmr1": quote.rt_mr1.hex(),
            "rtmr2": quote.rt_mr2.hex(),
            "rtmr3": quote.rt_mr3.hex(),
            "mr_aggregated": hashlib.sha256(b"".join(registers)).hexdigest(),
            "os_image_hash": hashlib.sha256(quote.mr_td).hexdigest(),
            "compose_hash": self.compose_hash.hex(),
            "device_id": hashlib.sha256(b"mock device").hexdigest(),
            "event_log": [{**event.to_json()} for event in self.events],
            "app_compose": self.app_compose.decode(),
        }

    def derive_key(self, path: str, purpose: str, algorithm: str) -> tuple[bytes, tuple[bytes, bytes]]:
        """Return a key of the application and the signatures that vouch for it.

        Args:
            path: what the key depends on.
            purpose: what the signature names; it does not change the key.
            algorithm: ``secp256k1`` or ``ed25519``: whose public half is signed; it does not change the key
            either.

        Returns:
            32 bytes, and two signatures of 65 bytes: the application's and the KMS's.

        Raises:
            ValueError: another algorithm.
        """
        app_key = self._kms.app_key(self.app_id)
        key = derive_key(app_key, b"RATLS", path.encode())
        statement = f"{purpose}:{_public_half(key, algorithm).hex()}".encode()
        signature = coincurve.PrivateKey(app_key).sign_recoverable(bytes(keccak256(statement)), hasher=None)
        return key, (signature, self._kms.app_key_signature(self.app_id))

    def _measure(self, version: int) -> tuple[Event, ...]:
        measured = (
            ("system-preparing", b""),
            ("app-id", self.app_id),
            ("compose-hash", self.compose_hash),
            ("instance-id", self.instance_id),
            (BOOT_DONE, b""),
            ("key-provider", self.key_provider.to_payload()),
            (SYSTEM_READY, b""),
        )
        return tuple(Event(name=name, payload=payload, version=version) for name, payload in measured)

    def _make_certificate(self) -> str:
        now = datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.app_id.hex())])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._tls_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + _CERTIFICATE_TIME)
            .sign(self._tls_key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM).decode()


def _app_compose(text: bytes) -> dict[str, JsonValue]:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise BootError(f"app-compose.json: {error}") from error
    if not isinstance(content, dict):
        raise BootError("app-compose.json: expected an object")
    return content


def _open(
    sealed: bytes | None, private_key: bytes, allowed: JsonValue
) -> tuple[tuple[SecretVariable, ...], tuple[str, ...]]:
    """Return the variables that pass, and a warning for each that does not."""
    if sealed is None:
        return (), ()
    try:
        variables = unseal(sealed, private_key)
    except SealingError as error:
        raise BootError(str(error)) from None
    names: Sequence[JsonValue] = allowed if isinstance(allowed, list) else []
    passed = tuple(variable for variable in variables if variable.key in names)
    dropped = (variable.key for variable in variables if variable.key not in names)
    return passed, tuple(f"variable {key!r} is not in allowed_envs and was dropped" for key in dropped)


def _public_half(key: bytes, algorithm: str) -> bytes:
    match algorithm:
        case "secp256k1":
            return coincurve.PrivateKey(key).public_key.format()
        case "ed25519":
            return Ed25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()
    raise ValueError(f"unsupported algorithm {algorithm!r}: expected secp256k1 or ed25519")
