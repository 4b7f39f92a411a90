"""``blueprint deploy verify``: what a deployment proves now, or what an evidence document proves to anybody.

Invariant: what a document says of itself is not believed; what was not compared with anything is told.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from blueprint.cli.deploy.asked import FILE
from blueprint.cli.deploy.document import Expected, fetch_document, read_document, verify_document
from blueprint.cli.deploy.known import opened_deployment
from blueprint.cli.deploy.place import VERIFY_SETTINGS
from blueprint.cli.deploy.up import record_json, show_record
from blueprint.cli.session import Session, node_command
from blueprint.errors import ConfigError
from jobs.deploy.attestation import Attestation
from jobs.deploy.evidence import evidence_document
from jobs.deploy.record import DeploymentRecord
from jobs.deploy.whole_file import write_whole

__all__ = ["verify"]


def _hex_of(length: int) -> Callable[[click.Context, click.Parameter, str | None], bytes | None]:
    def parse(_context: click.Context, _parameter: click.Parameter, text: str | None) -> bytes | None:
        if text is None:
            return None
        try:
            value = bytes.fromhex(text.removeprefix("0x"))
        except ValueError:
            value = b""
        if len(value) != length:
            raise click.BadParameter(f"expected {2 * length} hexadecimal digits")
        return value

    return parse


@click.command("verify", help="Verify a deployment again, or somebody's evidence document.")
@click.argument("name", required=False)
@click.option(
    "--evidence", type=FILE, metavar="FILE", help="Write the evidence of NAME for others to verify."
)
@click.option("--document", type=FILE, metavar="FILE", help="Verify this document instead of a deployment.")
@click.option("--url", metavar="URL", help="Fetch that document: http://NODE/outputs/DIGEST.")
@click.option("--app-id", callback=_hex_of(20), metavar="HEX", help="What the document must be about.")
@click.option("--compose-hash", callback=_hex_of(32), metavar="HEX", help="What the document must be about.")
@click.option(
    "--development-root", type=FILE, metavar="FILE",
    help="Believe this root certificate instead of Intel's: it proves nothing about hardware.",
)  # fmt: skip
@node_command(settings=VERIFY_SETTINGS)
def verify(
    session: Session,
    *,
    name: str | None,
    evidence: Path | None,
    document: Path | None,
    url: str | None,
    app_id: bytes | None,
    compose_hash: bytes | None,
    development_root: Path | None,
) -> None:
    """Verify the one or the other."""
    if [name, document, url].count(None) != 2:  # noqa: PLR2004 - two of three
        raise click.UsageError("give either NAME, or --document, or --url")
    expected = Expected(app_id=app_id, compose_hash=compose_hash, root=development_root)
    if name is None:
        if evidence is not None:
            raise click.UsageError("--evidence is for a deployment: give NAME")
        content = read_document(document) if document is not None else fetch_document(str(url))
        verify_document(session, content, str(document or url), expected)
        return
    if expected != Expected(app_id=None, compose_hash=None, root=None):
        raise click.UsageError(
            "--app-id, --compose-hash and --development-root are for a document; a deployment's are recorded"
        )
    _verify_deployment(session, name, evidence)


def _verify_deployment(session: Session, name: str, path: Path | None) -> None:
    async def verified() -> tuple[DeploymentRecord, Attestation]:
        async with opened_deployment(session, name, is_verifying=True) as (service, _):
            return await service.verify(name)

    record, attestation = asyncio.run(verified())
    session.emit({**record_json(record), "os_image": attestation.verified.quote.os_image})
    show_record(session, record)
    if not session.settings.os_image:
        session.say(f"guest system, not compared (--os-image): {attestation.verified.quote.os_image}")
    if path is None:
        return
    _write(path, evidence_document(attestation).decode())
    session.say(f"wrote {path}")
    root = ""
    if attestation.evidence.root:
        beside = path.with_name(f"{path.name}.root.pem")
        _write(beside, _pem(attestation.evidence.root))
        session.say(
            f"wrote {beside}: the root of a simulated platform, to be believed by name only", "yellow"
        )
        root = f" --development-root {beside}"
    about = f"--app-id {record.app_id} --compose-hash {record.compose_hash}"
    session.suggest(f"blueprint deploy verify --document {path}{root} {about}")


def _pem(certificate: bytes) -> str:
    return x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM).decode()


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
