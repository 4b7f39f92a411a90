"""Evidence documents on the command line: read or fetched, judged, shown.

Invariant: what a document says of itself is not believed; what was not compared with anything is told.
"""

import asyncio
import hashlib
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from blueprint.cli.deploy.place import verifier_of
from blueprint.cli.session import Session
from blueprint.errors import BlueprintError, ConfigError, PolicyViolationError
from blueprint.log import printable
from blueprint.tee.verify import Check, VerifiedQuote, attestation_digest
from jobs.deploy.evidence import MAX_BYTES, EvidenceDocument, read_root

__all__ = ["Expected", "fetch_document", "read_document", "verify_document"]

_FETCH_TIMEOUT_S = 30.0
_DIGEST = re.compile(r".*/([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a document must be about; None leaves that open."""

    app_id: bytes | None
    compose_hash: bytes | None
    root: Path | None


def verify_document(session: Session, content: bytes, name: str, expected: Expected) -> None:
    """Judge a document, and show what it proves.

    Args:
        session: its settings say what is believed.
        content: the document.
        name: what errors call it.
        expected: what it must be about.

    Raises:
        DeployError: it is no evidence document.
        AttestationError: it does not hold, or is about something else.
    """
    document = EvidenceDocument.read(content, name=name)
    root = read_root(expected.root) if expected.root is not None else None
    if document.root != "intel" and root is None:
        raise PolicyViolationError(
            f"{name} says itself that Intel does not vouch for its platform, but a root named "
            f"{document.root[:40]!r}; to believe one all the same: --development-root FILE"
        )
    verifier = verifier_of(session, root)
    policy = replace(verifier.policy, app_id=expected.app_id, compose_hash=expected.compose_hash)
    verified = asyncio.run(
        document.verify(
            policy,
            collateral=verifier.collateral,
            now_s=int(time.time()),
            say=lambda text: session.say(text, "yellow"),
        )
    )
    fresh = Check(name="freshness", is_checked=False, detail="nothing tells when the quote was made")
    _show_document(session, verified, content, (*verified.checks, fresh))
    if not document.is_judged_alike(verified):
        session.say(
            "judged otherwise than the document tells: it was made when the platform's state was another one",
            "yellow",
        )


def _show_document(
    session: Session, verified: VerifiedQuote, content: bytes, checks: tuple[Check, ...]
) -> None:
    facts: dict[str, Any] = {
        "evidence_digest": hashlib.sha256(content).hexdigest(),
        "attestation_digest": attestation_digest(verified).hex(),
        "root": verified.root,
        "tcb_status": verified.tcb_status,
        "os_image": verified.quote.os_image,
        "app_id": (verified.app_id or b"").hex(),
        "compose_hash": (verified.compose_hash or b"").hex(),
        "instance_id": (verified.instance_id or b"").hex(),
    }
    session.emit({**facts, "checks": [asdict(check) for check in checks]})
    if session.is_json:
        return
    for key, value in facts.items():
        session.stdout.print(f"{key.replace('_', ' '):18}  {printable(value, keep_newlines=False)}")
    for check in checks:
        state = "" if check.is_checked else "not checked, "
        session.stdout.print(printable(f"  {check.name}: {state}{check.detail}", keep_newlines=False))


def read_document(path: Path) -> bytes:
    """Return the bytes of a file, which are no more than a document has."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: over {MAX_BYTES} bytes: no evidence document")
    return content


def fetch_document(url: str) -> bytes:
    """Return what a node serves, if it has the digest that its address ends with.

    Raises:
        ConfigError: the address ends with no digest.
        BlueprintError: it cannot be had, or is something else.
    """
    found = _DIGEST.fullmatch(url)
    if found is None:
        raise ConfigError(f"{url}: expected an address that ends with /outputs/ and 64 digits, the digest")
    received = bytearray()
    try:
        with httpx.stream("GET", url, timeout=_FETCH_TIMEOUT_S) as response:
            response.raise_for_status()
            for piece in response.iter_bytes():
                received += piece
                if len(received) > MAX_BYTES:
                    raise BlueprintError(f"{url} sends more than {MAX_BYTES} bytes: no evidence document")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BlueprintError(f"cannot fetch the document: {error}") from error
    content = bytes(received)
    # SECURITY: the chain names the document by its digest (test_a_document_with_another_digest_is_refused).
    if (digest := hashlib.sha256(content).hexdigest()) != found[1]:
        raise BlueprintError(f"{url} sent bytes with digest {digest}: they were discarded")
    return content
