"""The evidence document: all of an attestation that somebody else needs to verify it again.

Invariant: a document proves only what its quote does; nothing that it says of itself is believed, its root of
trust least of all.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import StringConstraints, TypeAdapter, ValidationError

from blueprint.errors import AttestorUnavailableError, QuoteInvalidError
from blueprint.tee.policy import AttestationPolicy
from blueprint.tee.report_data import certificate_report_data
from blueprint.tee.verify import VerifiedQuote, attestation_digest, verify_quote
from jobs.deploy.attestation import Attestation
from jobs.deploy.errors import DeployError

__all__ = ["MAX_BYTES", "EvidenceDocument", "evidence_document", "read_root"]

MAX_BYTES = 4 * 1024 * 1024
"""More than any document has: a quote is 5 KiB, an application at most 200."""
_Hex = Annotated[str, StringConstraints(pattern="^([0-9a-f]{2})*$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceDocument:
    """What was verified. Binary members are hexadecimal digits."""

    quote: _Hex
    event_log: str
    """The guest's, as JSON."""
    app_compose: str
    """app-compose.json as the guest received it."""
    certificate: _Hex
    """The application's, DER; empty where the quote binds ``nonce``."""
    nonce: _Hex
    """What the quote binds, 64 bytes; empty where it binds the certificate's key."""
    collateral: str
    """Statements about the platform by which it was judged, as the JSON of ``QuoteCollateralV3``."""
    root: str
    """Who vouched for the hardware when it was judged: ``intel`` or ``development``."""
    attestation_digest: _Hex
    format: Literal["tee-job-node evidence v1"] = "tee-job-node evidence v1"

    @classmethod
    def read(cls, content: bytes, *, name: str) -> Self:
        """Read a document; ``name`` is what errors call it.

        Raises:
            DeployError: it is none.
        """
        try:
            return TypeAdapter(cls).validate_json(content, strict=True)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "it"
            raise DeployError(
                f"{name}: no evidence document: {where}: {first['msg']}",
                advice="`blueprint deploy verify NAME --evidence FILE` writes one, and a node serves its own",
            ) from None

    async def verify(
        self,
        policy: AttestationPolicy,
        *,
        collateral: Callable[[bytes], Awaitable[str]],
        now_s: int,
        say: Callable[[str], None] = lambda _: None,
    ) -> VerifiedQuote:
        """Judge the quote again. It may be old: nothing tells when it was made.

        Args:
            policy: what must hold; with a development root the document's own statements are judged by it.
            collateral: fetches today's statements about the platform.
            now_s: a trusted Unix time.
            say: told where the document's own statements had to do.

        Raises:
            AttestationError: it does not hold.
        """
        quote = bytes.fromhex(self.quote)
        if self.nonce:
            report_data = bytes.fromhex(self.nonce)
        elif self.certificate:
            report_data = certificate_report_data(bytes.fromhex(self.certificate))
        else:
            raise QuoteInvalidError("the document says neither what the quote binds nor whose it is")
        statements = self.collateral
        if policy.development_root is None:
            try:
                statements = await collateral(quote)
            except AttestorUnavailableError as exc:
                if not statements:
                    raise
                say(f"judged by the document's own statements about the platform: {exc}")
        return verify_quote(
            quote,
            collateral=statements,
            event_log=self.event_log,
            report_data=report_data,
            policy=policy,
            now_s=now_s,
            app_compose=self.app_compose.encode(),
        )

    def is_judged_alike(self, verified: VerifiedQuote) -> bool:
        """Say whether a judgement is the one that the document tells of."""
        return attestation_digest(verified).hex() == self.attestation_digest


def evidence_document(attestation: Attestation) -> bytes:
    """Return the document of an attestation, always the same bytes for the same one."""
    evidence = attestation.evidence
    document = EvidenceDocument(
        quote=evidence.quote.hex(),
        event_log=evidence.event_log,
        app_compose=evidence.app_compose.decode("utf-8", "replace"),
        certificate=evidence.certificate.hex(),
        nonce=evidence.nonce.hex(),
        collateral=evidence.collateral,
        root=attestation.verified.root,
        attestation_digest=attestation.digest.hex(),
    )
    return json.dumps(asdict(document), sort_keys=True, separators=(",", ":")).encode()


def read_root(path: Path) -> bytes:
    """Return a root certificate as DER, from a file of either form.

    Raises:
        DeployError: it cannot be read, or is none.
    """
    try:
        content = path.read_bytes()
        is_text = content.lstrip().startswith(b"-----BEGIN")
        parse = x509.load_pem_x509_certificate if is_text else x509.load_der_x509_certificate
        return parse(content).public_bytes(Encoding.DER)
    except OSError as exc:
        raise DeployError(f"{path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise DeployError(f"{path}: no certificate") from exc
