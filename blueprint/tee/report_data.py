"""The 64 bytes by which a quote binds something else.

Invariant: each use has a prefix of its own, so that what one use signs never passes for another.
Source of the rule: dstack, ra-tls (content type ``ratls-cert``: SHA-512 of the tag, a colon and the key).
"""

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from blueprint.errors import QuoteInvalidError

__all__ = ["certificate_report_data"]

_PEM_BEGIN = b"-----BEGIN"


def certificate_report_data(certificate: bytes) -> bytes:
    """Return the report data of a quote that vouches for a certificate's key, 64 bytes.

    It proves that the key was in the guest that the quote describes. It proves no time: such a quote is made
    once, when the certificate is, so an old one is as good as a new one.

    Args:
        certificate: one X.509 certificate, PEM (the first of a chain) or DER.

    Raises:
        QuoteInvalidError: these bytes are no certificate.
    """
    try:
        if certificate.lstrip().startswith(_PEM_BEGIN):
            parsed = x509.load_pem_x509_certificate(certificate)
        else:
            parsed = x509.load_der_x509_certificate(certificate)
        key = parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except ValueError as error:
        raise QuoteInvalidError(f"application's certificate: {error}") from error
    return hashlib.sha512(b"ratls-cert:" + key).digest()
