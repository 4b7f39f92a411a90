"""A mock TDX platform: makes quotes and collateral whose signatures hold, up to a root of its own.

Invariant: the root is made here and is not Intel's, so a verifier accepts these quotes only when it was told
to trust exactly this root. Everything else (formats, signatures, certificates, revocation lists) is as a real
platform has it.
Source of the rule: Intel SGX and TDX DCAP: quote format version 4, PCK certificate profile, PCS API version
4.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

__all__ = ["MockPlatform"]

_MEASUREMENT_BYTES = 48
_REPORT_DATA_BYTES = 64
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256
_SVN = 2
_PCE_SVN = 11
_FMSPC = bytes.fromhex("00ff00ff00ff")
_PCE_ID = bytes(2)
_QE_SIGNER = hashlib.sha256(b"mock quoting enclave").digest()
_QE_AUTH_DATA = bytes(range(32))
_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_SGX_EXTENSION = "1.2.840.113741.1.13.1"
_YEARS = timedelta(days=3650)
_COLLATERAL_DAYS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class _Authority:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class MockPlatform:
    """A machine with TDX, its quoting enclave, and the vendor who vouches for both.

    Args:
        tcb_status: what the vendor says about the platform, such as ``OutOfDate``.
        advisory_ids: the vendor's advisories for it.
        made_at_s: Unix time at which the certificates begin to be valid.
        seed: makes the same keys each time, so that a root stays trusted; without it they are random.
    """

    def __init__(
        self,
        *,
        tcb_status: str = "UpToDate",
        advisory_ids: Sequence[str] = (),
        made_at_s: int = 1_700_000_000,
        seed: bytes | None = None,
    ) -> None:
        self._seed = os.urandom(32) if seed is None else seed
        self._tcb_status = tcb_status
        self._advisory_ids = list(advisory_ids)
        self._made_at = datetime.fromtimestamp(made_at_s, UTC)
        self._root = self._issue("Mock SGX Root CA", None, is_authority=True)
        self._platform_ca = self._issue("Mock SGX PCK Platform CA", self._root, is_authority=True)
        self._tcb_signer = self._issue("Mock SGX TCB Signing", self._root)
        self._pck = self._issue("Mock SGX PCK Certificate", self._platform_ca, has_platform=True)
        self._attestation_key = self._key("attestation")

    @property
    def root_ca(self) -> bytes:
        """The root's certificate, DER: what a verifier must be given to accept this platform."""
        return self._root.certificate.public_bytes(Encoding.DER)

    def measurement(self, name: str) -> bytes:
        """Return a stable 48-byte measurement with a name, for a mock OS image."""
        return hashlib.sha384(b"mock measurement " + name.encode()).digest()

    def quote(
        self,
        *,
        report_data: bytes,
        rt_mr3: bytes = bytes(_MEASUREMENT_BYTES),
        mr_config_id: bytes = bytes(_MEASUREMENT_BYTES),
        is_debug: bool = False,
        mr_signer_seam: bytes = bytes(_MEASUREMENT_BYTES),
    ) -> bytes:
        """Return a signed quote, format version 4, TDREPORT 1.0.

        Args:
            report_data: at most 64 bytes, padded with zeros on the right.
            rt_mr3: 48 bytes, as are the other measurements.
            mr_config_id: what the host has set.
            is_debug: whether the guest can be debugged.
            mr_signer_seam: who signed the TDX module; zero stands for the vendor.
        """
        header = b"".join((_u16(4), _u16(2), (0x81).to_bytes(4, "little"), bytes(4), _QE_VENDOR, bytes(20)))
        report = b"".join(
            (
                bytes([_SVN]) * 2 + bytes(14),  # TEE TCB SVN: module 0, version 2
                self.measurement("seam"),
                mr_signer_seam,
                bytes(8),
                bytes([int(is_debug), 0, 0, 0x10, 0, 0, 0, 0]),
                bytes.fromhex("e702060000000000"),
                self.measurement("mrtd"),
                mr_config_id,
                bytes(2 * _MEASUREMENT_BYTES),
                *(self.measurement(name) for name in ("rtmr0", "rtmr1", "rtmr2")),
                rt_mr3,
                report_data.ljust(_REPORT_DATA_BYTES, b"\0"),
            )
        )
        signed = header + report
        public = _point(self._attestation_key)
        signature = (
            _raw_signature(self._attestation_key, signed) + public + _certification(6, self._qe(public))
        )
        return signed + _u32(len(signature)) + signature

    def collateral(self, now_s: int) -> str:
        """Return the vendor's statements as JSON of ``QuoteCollateralV3``, for 30 days from ``now_s``."""
        tcb_info, qe_identity = self._tcb_info(now_s), self._qe_identity(now_s)
        signer_chain = _pem(self._tcb_signer.certificate, self._root.certificate)
        return json.dumps(
            {
                "pck_crl_issuer_chain": _pem(self._platform_ca.certificate, self._root.certificate),
                "root_ca_crl": self._revocations(self._root, now_s),
                "pck_crl": self._revocations(self._platform_ca, now_s),
                "tcb_info_issuer_chain": signer_chain,
                "tcb_info": tcb_info,
                "tcb_info_signature": _raw_signature(self._tcb_signer.key, tcb_info.encode()).hex(),
                "qe_identity_issuer_chain": signer_chain,
                "qe_identity": qe_identity,
                "qe_identity_signature": _raw_signature(self._tcb_signer.key, qe_identity.encode()).hex(),
            }
        )

    def _qe(self, attestation_key: bytes) -> bytes:
        """Return the quoting enclave's report over the attestation key, signed by the platform's key."""
        report = b"".join(
            (
                bytes([_SVN]) * 16,
                bytes(4 + 28),
                bytes.fromhex("1100000000000000e700000000000000"),
                bytes(32),
                bytes(32),
                _QE_SIGNER,
                bytes(96),
                _u16(2),
                _u16(_SVN),
                bytes(60),
                hashlib.sha256(attestation_key + _QE_AUTH_DATA).digest(),
                bytes(32),
            )
        )
        chain = _pem(self._pck.certificate, self._platform_ca.certificate, self._root.certificate).encode()
        return b"".join(
            (
                report,
                _raw_signature(self._pck.key, report),
                _u16(len(_QE_AUTH_DATA)),
                _QE_AUTH_DATA,
                _certification(5, chain),
            )
        )

    def _tcb_info(self, now_s: int) -> str:
        components = [{"svn": _SVN}] * 16
        tcb = {
            "sgxtcbcomponents": components,
            "pcesvn": _PCE_SVN,
            "tdxtcbcomponents": [{"svn": _SVN}, {"svn": _SVN}, *[{"svn": 0}] * 14],
        }
        module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        level = {
            "tcb": tcb,
            "tcbDate": _iso(now_s),
            "tcbStatus": self._tcb_status,
            "advisoryIDs": self._advisory_ids,
        }
        identity = {"tcb": {"isvsvn": _SVN}, "tcbDate": _iso(now_s), "tcbStatus": "UpToDate"}
        return _compact(
            {
                "id": "TDX",
                "version": 3,
                **_validity(now_s),
                "fmspc": _FMSPC.hex().upper(),
                "pceId": _PCE_ID.hex(),
                "tcbType": 0,
                "tcbEvaluationDataNumber": 17,
                "tdxModule": module,
                "tdxModuleIdentities": [{"id": "TDX_02", **module, "tcbLevels": [identity]}],
                "tcbLevels": [level],
            }
        )

    def _qe_identity(self, now_s: int) -> str:
        level = {"tcb": {"isvsvn": _SVN}, "tcbDate": _iso(now_s), "tcbStatus": "UpToDate"}
        return _compact(
            {
                "id": "TD_QE",
                "version": 2,
                **_validity(now_s),
                "tcbEvaluationDataNumber": 17,
                "miscselect": "00" * 4,
                "miscselectMask": "FF" * 4,
                "attributes": "11" + "00" * 15,
                "attributesMask": "FBFFFFFFFFFFFFFF" + "00" * 8,
                "mrsigner": _QE_SIGNER.hex().upper(),
                "isvprodid": 2,
                "tcbLevels": [level],
            }
        )

    def _key(self, name: str) -> ec.EllipticCurvePrivateKey:
        secret = hashlib.sha512(b"mock platform key " + self._seed + name.encode()).digest()
        return ec.derive_private_key(int.from_bytes(secret) % (_ORDER - 1) + 1, ec.SECP256R1())

    def _issue(
        self, name: str, issuer: _Authority | None, *, is_authority: bool = False, has_platform: bool = False
    ) -> _Authority:
        key = self._key(name)
        signer = key if issuer is None else issuer.key
        usage = x509.KeyUsage(
            digital_signature=not is_authority,
            content_commitment=not is_authority,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=is_authority,
            crl_sign=is_authority,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(name) if issuer is None else issuer.certificate.subject)
            .public_key(key.public_key())
            .serial_number(int.from_bytes(hashlib.sha256(self._seed + name.encode()).digest()[:16]))
            .not_valid_before(self._made_at)
            .not_valid_after(self._made_at + _YEARS)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(usage, critical=True)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if has_platform:
            extension = x509.UnrecognizedExtension(
                x509.ObjectIdentifier(_SGX_EXTENSION), _platform_extension()
            )
            builder = builder.add_extension(extension, critical=False)
        # The same seed makes the same bytes, so that whoever trusts this root by name knows it again.
        certificate = builder.sign(signer, hashes.SHA256(), ecdsa_deterministic=True)
        return _Authority(certificate=certificate, key=key)

    def _revocations(self, authority: _Authority, now_s: int) -> str:
        now = datetime.fromtimestamp(now_s, UTC)
        key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(authority.certificate.subject)
            .last_update(now)
            .next_update(now + timedelta(days=_COLLATERAL_DAYS))
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(key_id, critical=False)
        )
        return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.DER).hex()


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(*certificates: x509.Certificate) -> str:
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def _raw_signature(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def _certification(kind: int, content: bytes) -> bytes:
    return _u16(kind) + _u32(len(content)) + content


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _iso(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _validity(now_s: int) -> dict[str, str]:
    return {"issueDate": _iso(now_s), "nextUpdate": _iso(now_s + _COLLATERAL_DAYS * 86_400)}


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _der(tag: int, content: bytes) -> bytes:
    if len(content) < 0x80:  # noqa: PLR2004 - DER's short form
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content


def _member(suffix: Sequence[int], value: bytes) -> bytes:
    identifier = bytes.fromhex("2a864886f84d010d01") + bytes(suffix)
    return _der(0x30, _der(0x06, identifier) + value)


def _platform_extension() -> bytes:
    """Return the PCK certificate's extension: platform id, TCB, PCE id, FMSPC and type."""
    tcb = [_member((2, component), _der(0x02, bytes([_SVN]))) for component in range(1, 17)]
    tcb.append(_member((2, 17), _der(0x02, bytes([_PCE_SVN]))))
    tcb.append(_member((2, 18), _der(0x04, bytes([_SVN]) * 16)))
    members = (
        _member((1,), _der(0x04, bytes(16))),
        _member((2,), _der(0x30, b"".join(tcb))),
        _member((3,), _der(0x04, _PCE_ID)),
        _member((4,), _der(0x04, _FMSPC)),
        _member((5,), _der(0x0A, b"\0")),
    )
    return _der(0x30, b"".join(members))
