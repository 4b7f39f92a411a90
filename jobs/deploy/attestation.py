"""Has a machine prove what it runs, and compares that with what was deployed.

Invariant: evidence that binds neither the application's certificate nor our nonce proves nothing and is
refused; what was not checked is told, never passed over.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import dcap_qvl

from blueprint.errors import AttestorUnavailableError, PolicyViolationError
from blueprint.tee.policy import AttestationPolicy
from blueprint.tee.report_data import certificate_report_data
from blueprint.tee.verify import Check, VerifiedQuote, attestation_digest, verify_quote
from jobs.deploy.backends.backend import Evidence, Machine, Witness

__all__ = ["Attestation", "Verifier", "fetch_collateral"]

_LETTING_GO_S = 0.05
_NONCE_DOMAIN = b"tee-job-node deployment nonce v1:"


async def fetch_collateral(quote: bytes, url: str) -> str:
    """Return what Intel states about the platform of a quote, as JSON, from a caching service.

    Raises:
        AttestorUnavailableError: the service cannot be reached, or does not know the platform.
    """
    try:
        async with asyncio.timeout(30):
            collateral = await dcap_qvl.get_collateral(url, quote)
    except (RuntimeError, ValueError, TimeoutError) as exc:
        raise AttestorUnavailableError(f"collateral from {url}: {str(exc) or 'no answer in 30 s'}") from exc
    finally:
        # The library's own thread lets go of our objects a moment later; a program that has ended by then
        # crashes (one in twelve on a busy machine).
        await asyncio.sleep(_LETTING_GO_S)
    text: str = collateral.to_json()
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """What a machine proved."""

    verified: VerifiedQuote
    evidence: Evidence
    """With the collateral that it was judged by, wherever that came from."""
    digest: bytes
    """Names this attestation, 32 bytes."""
    is_fresh: bool
    """Whether the quote was made for us now; False where it vouches for a certificate made earlier."""

    def checks(self) -> tuple[Check, ...]:
        """Return all that was looked at, freshness last."""
        fresh = Check(
            name="freshness",
            is_checked=self.is_fresh,
            detail="the quote carries our nonce"
            if self.is_fresh
            else "the quote is as old as the certificate",
        )
        return (*self.verified.checks, fresh)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """Asks for evidence and judges it.

    Args:
        policy: what must hold for any application; what is deployed is added to it.
        collateral: fetches the statements about a quote's platform; not asked where a development root is
            trusted and the place offers them.
        now_s: seconds since 1970, trusted.
    """

    policy: AttestationPolicy
    collateral: Callable[[bytes], Awaitable[str]]
    now_s: Callable[[], float] = time.time

    async def attest(
        self, witness: Witness, machine: Machine, *, app_id: str, app_compose: bytes
    ) -> Attestation:
        """Return a machine's attestation of exactly this application.

        Args:
            witness: gives the evidence.
            machine: whose.
            app_id: under which it was prepared; what the place says of the machine now is not believed.
            app_compose: what it must run.

        Raises:
            AttestationError: there is no evidence, or it does not hold.
        """
        nonce = hashlib.sha512(_NONCE_DOMAIN + secrets.token_bytes(32)).digest()
        evidence = await witness.evidence(machine, nonce)
        if evidence.nonce:
            # SECURITY: an old quote is not passed off as one for us (test_evidence_for_another_nonce_...).
            if evidence.nonce != nonce:
                raise PolicyViolationError("the quote is for another nonce than ours: it may be an old one")
            report_data = nonce
        elif evidence.certificate:
            report_data = certificate_report_data(evidence.certificate)
        else:
            raise PolicyViolationError(
                "the quote comes without the application's certificate: nothing tells whose quote it is"
            )
        policy = replace(
            self.policy,
            compose_hash=hashlib.sha256(app_compose).digest(),
            app_id=bytes.fromhex(app_id),
        )
        offered = evidence.collateral if policy.development_root is not None else ""
        evidence = replace(evidence, collateral=offered or await self.collateral(evidence.quote))
        verified = verify_quote(
            evidence.quote,
            collateral=evidence.collateral,
            event_log=evidence.event_log,
            report_data=report_data,
            policy=policy,
            now_s=int(self.now_s()),
            app_compose=evidence.app_compose,
        )
        digest = attestation_digest(verified)
        return Attestation(verified=verified, evidence=evidence, digest=digest, is_fresh=bool(evidence.nonce))
