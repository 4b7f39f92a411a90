"""An evidence document is judged again by anybody, and nothing that it says of itself is believed."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from blueprint.errors import AttestorUnavailableError, PolicyViolationError, QuoteInvalidError
from blueprint.tee.policy import AttestationPolicy
from blueprint.tee.simulator.cvm import SimulatedCvm
from blueprint.tee.simulator.kms import SimulatedKms
from blueprint.tee.simulator.platform import MockPlatform
from jobs.deploy.app_compose import AppCompose
from jobs.deploy.errors import DeployError
from jobs.deploy.evidence import EvidenceDocument, read_root

NOW_S = 1_800_000_000
APP_ID = bytes(range(20))
NONCE = os.urandom(64)
WORKLOAD = AppCompose(name="web-app", docker_compose_file="services:\n  web:\n    image: a:1\n").workload()
PLATFORM = MockPlatform(made_at_s=NOW_S - 86_400)
GUEST = SimulatedCvm(
    app_compose=WORKLOAD.app_compose, sealed=None, app_id=APP_ID, kms=SimulatedKms(), platform=PLATFORM
)
POLICY = AttestationPolicy(development_root=PLATFORM.root_ca)


def document(**changed: str) -> EvidenceDocument:
    """What a guest proved with a nonce."""
    made = EvidenceDocument(
        quote=GUEST.quote(NONCE).hex(),
        event_log=GUEST.event_log,
        app_compose=WORKLOAD.app_compose.decode(),
        certificate="",
        nonce=NONCE.hex(),
        collateral=PLATFORM.collateral(NOW_S),
        root="development",
        attestation_digest="00" * 32,
    )
    return replace(made, **changed)  # type: ignore[arg-type]


async def unreachable(quote: bytes) -> str:
    """No service answers."""
    raise AttestorUnavailableError(f"no answer about {len(quote)} bytes")


async def test_a_document_is_judged_by_the_root_that_was_named() -> None:
    """With its own statements under a development root; the application is what was measured."""
    verified = await document().verify(POLICY, collateral=unreachable, now_s=NOW_S)
    assert (verified.root, verified.app_id, verified.compose_hash) == (
        "development", APP_ID, WORKLOAD.compose_hash,
    )  # fmt: skip
    assert not document().is_judged_alike(verified)


async def test_the_roots_own_word_is_not_believed() -> None:
    """A document that calls itself Intel's is refused under Intel's root."""
    said: list[str] = []
    with pytest.raises(QuoteInvalidError):
        await document(root="intel").verify(
            AttestationPolicy(), collateral=unreachable, now_s=NOW_S, say=said.append
        )
    assert len(said) == 1
    assert "the document's own statements" in said[0]
    with pytest.raises(AttestorUnavailableError):
        await document(collateral="").verify(AttestationPolicy(), collateral=unreachable, now_s=NOW_S)


async def test_todays_statements_are_asked_for_first() -> None:
    """Where Intel vouches, the document's own statements are not looked at while a service answers."""
    asked: list[int] = []

    async def fetched(quote: bytes) -> str:
        asked.append(len(quote))
        return PLATFORM.collateral(NOW_S)

    with pytest.raises(QuoteInvalidError):
        await document(collateral="").verify(AttestationPolicy(), collateral=fetched, now_s=NOW_S)
    assert asked == [len(GUEST.quote(NONCE))]


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"nonce": "ab" * 64}, PolicyViolationError, "report data"),
        ({"nonce": ""}, QuoteInvalidError, "neither what the quote binds nor whose it is"),
        ({"nonce": "", "certificate": "00"}, QuoteInvalidError, "certificate"),
        ({"event_log": "[]"}, PolicyViolationError, "event log"),
        ({"app_compose": "{}"}, PolicyViolationError, "compose text"),
        ({"quote": "00" * 700}, QuoteInvalidError, "quote"),
        ({"collateral": "{}"}, QuoteInvalidError, "signature chain"),
    ],
)
async def test_a_document_that_was_changed_proves_nothing(
    changed: dict[str, str], error: type[Exception], said: str
) -> None:
    """Every member that a judgement rests on is compared with what was signed or measured."""
    with pytest.raises(error, match=said):
        await document(**changed).verify(POLICY, collateral=unreachable, now_s=NOW_S)


async def test_a_document_must_be_about_what_was_expected() -> None:
    """Another application or text than the one that was named is refused."""
    for policy, said in (
        (replace(POLICY, app_id=bytes(20)), "app id"),
        (replace(POLICY, compose_hash=bytes(32)), "compose hash"),
    ):
        with pytest.raises(PolicyViolationError, match=said):
            await document().verify(policy, collateral=unreachable, now_s=NOW_S)


def content(**changed: object) -> bytes:
    """A document's bytes."""
    made = document()
    members = {name: getattr(made, name) for name in made.__dataclass_fields__}
    return json.dumps(members | changed).encode()


def test_a_document_is_read_as_it_was_written() -> None:
    """Members that a later version adds are left out."""
    read = EvidenceDocument.read(content(later=1), name="x")
    assert (read.nonce, read.format) == (NONCE.hex(), "tee-job-node evidence v1")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "x: no evidence document: it: Invalid JSON"),
        (b"[]", "no evidence document"),
        (content(format="tee-job-node evidence v2"), "format"),
        (content(quote="xy"), "quote"),
        (content(nonce="ABCD"), "nonce"),
        (content(event_log=[]), "event_log"),
        (b"\xff", "no evidence document"),
    ],
)
def test_what_is_no_document_is_refused(given: bytes, said: str) -> None:
    """The message names the member, and shows nothing of it."""
    with pytest.raises(DeployError, match=said):
        EvidenceDocument.read(given, name="x")


@pytest.mark.parametrize("form", [Encoding.DER, Encoding.PEM])
def test_a_root_is_read_in_either_form(tmp_path: Path, form: Encoding) -> None:
    """As text or binary; anything else is no certificate."""
    path = tmp_path / "root"
    path.write_bytes(x509.load_der_x509_certificate(PLATFORM.root_ca).public_bytes(form))
    assert read_root(path) == PLATFORM.root_ca
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DeployError, match="root: no certificate"):
        read_root(path)
    with pytest.raises(DeployError, match="No such file"):
        read_root(tmp_path / "none")
