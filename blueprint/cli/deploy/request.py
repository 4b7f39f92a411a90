"""``blueprint deploy request``: has an operator deploy an application, by job calls on the chain.

Invariant: variables leave this process as ciphertext only, sealed for the text that was asked for, to a key
that a believed KMS key has signed.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import click

from blueprint.chain.deployment import CallResult
from blueprint.cli.caller import CALLER_SETTINGS, submit_and_wait
from blueprint.cli.deploy.trust import SEAL_SETTINGS, kms_trust
from blueprint.cli.exits import ExitCode
from blueprint.cli.link import required_contract
from blueprint.cli.session import Session, node_command
from blueprint.errors import ConfigError, Rejection
from blueprint.log import printable
from blueprint.tee.sealing import SecretVariable, check_variables, seal
from blueprint.types import Address
from jobs.deploy.codec import (
    NOBODY,
    ChainSize,
    DeployRequest,
    DeployResult,
    DeployStatus,
    Preparation,
    decode_result,
    encode_request,
)
from jobs.deploy.env_file import read_env_file
from jobs.deploy.errors import DeployError
from jobs.deploy.handler import DEPLOY_INDEX
from jobs.deploy.intake import order_of
from jobs.deploy.order import Order
from jobs.deploy.ticket import Ticket, ticket_of

__all__ = ["command"]

_SETTINGS = (*CALLER_SETTINGS, *SEAL_SETTINGS)
_PATH = click.Path(path_type=Path, dir_okay=False)
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@click.group("request", help="Have an operator deploy an application, by job calls on the chain.")
def command() -> None:
    """Group the three requests."""


def _hex_of(length: int) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Turn options of so many bytes in hexadecimal into bytes."""

    def parse(_context: click.Context, _parameter: click.Parameter, given: Any) -> Any:
        def one(text: str) -> bytes:
            try:
                value = bytes.fromhex(text.removeprefix("0x"))
            except ValueError:
                value = b""
            if len(value) != length:
                raise click.BadParameter(f"expected {2 * length} hexadecimal digits")
            return value

        return tuple(one(text) for text in given) if isinstance(given, tuple) else given and one(given)

    return parse


def _call_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what each call on the chain takes."""
    options: tuple[Decorator, ...] = (
        click.option(
            "--wait-s", type=click.FloatRange(min=0, min_open=True), default=2700.0, show_default=True,
            help="Longest wait for the answer.",
        ),
        click.option(
            "--value-wei", type=click.IntRange(min=0), default=0, help="What the service charges, in wei."
        ),
        click.option("--watch", is_flag=True, help="Say each step as it happens."),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


_ENV_FILE = click.option("--env-file", type=_PATH, metavar="FILE", help="The variables: NAME=VALUE lines.")


@command.command("prepare", help="Ask for an identity and a key for a compose file; nothing runs yet.")
@click.argument("compose", type=_PATH)
@click.option("--name", required=True, help="Of the application: 5 to 54 letters, digits and hyphens.")
@_ENV_FILE
@click.option("--variable", "names", multiple=True, metavar="NAME", help="A variable's name, without a file.")
@click.option("--instance-type", default="", help="As the operator's cloud names it, e.g. tdx.small.")
@click.option("--vcpu", type=click.IntRange(min=0), default=0, help="Processors.")
@click.option("--memory-mb", type=click.IntRange(min=0), default=0, help="Memory in MiB.")
@click.option("--disk-gb", type=click.IntRange(min=0), default=0, help="Disk in GiB.")
@click.option("--volume", "volumes", multiple=True, metavar="NAME", help="A named volume that must last.")
@click.option("--public-logs", is_flag=True, help="Let anybody read what the containers print.")
@click.option("--public-sysinfo", is_flag=True, help="Let anybody read what the machine uses.")
@click.option("--by-digest", is_flag=True, help="Send the digest of the text only; the operator offers it.")
@click.option("--operator", callback=_hex_of(20), metavar="ADDRESS", help="Who is to do it [who is first].")
@click.option("--ticket", type=_PATH, metavar="FILE", help="What to keep for the commit [NAME.ticket.json].")
@_call_options
@node_command(settings=_SETTINGS)
def prepare(
    session: Session,
    *,
    compose: Path,
    name: str,
    env_file: Path | None,
    names: tuple[str, ...],
    instance_type: str,
    vcpu: int,
    memory_mb: int,
    disk_gb: int,
    volumes: tuple[str, ...],
    public_logs: bool,
    public_sysinfo: bool,
    by_digest: bool,
    operator: bytes | None,
    ticket: Path | None,
    **call: Any,
) -> int:
    """Submit the preparation, check its answer, and write the ticket."""
    if env_file is not None:
        names += tuple(variable.key for variable in read_env_file(env_file))
    asked = Preparation(
        name=name,
        compose=_read_text(compose),
        names=names,
        size=ChainSize(instance_type=instance_type, vcpu=vcpu, memory_mb=memory_mb, disk_gb=disk_gb),
        volumes=volumes,
        public_logs=public_logs,
        public_sysinfo=public_sysinfo,
    )
    order = _order(asked)
    if by_digest:
        digest = sha256(order.compose.encode()).digest()
        asked = replace(asked, compose="", compose_digest=digest)
    request = DeployRequest(body=asked, operator=Address(operator) if operator else NOBODY)
    found, answer = _ask(session, request, **call)
    if answer is None or answer.status != DeployStatus.SUCCESS:
        return _show(session, found, answer)
    made = ticket_of(found.key, order, answer, answered_by=found.operator)
    path = ticket or Path(f"{name}.ticket.json")
    if order.names:
        _verify(session, made, now_s=time.time)
    made.write(path)
    _show(session, found, answer, ticket=str(path))
    session.say(f"wrote {path}; it holds no secret, and can be committed until {_time(made.expires_at)}")
    session.suggest(f"blueprint deploy request commit {path}" + (" --env-file FILE" if order.names else ""))
    return ExitCode.OK


@command.command("commit", help="Seal the variables here and have a prepared application started.")
@click.argument("ticket", type=_PATH)
@_ENV_FILE
@_call_options
@node_command(settings=_SETTINGS)
def commit(session: Session, *, ticket: Path, env_file: Path | None, **call: Any) -> int:
    """Seal, submit, wait until it runs and is verified."""
    kept = Ticket.read(ticket)
    variables = read_env_file(env_file) if env_file is not None else ()
    sealed = _seal(session, kept, variables)
    found, answer = _ask(session, kept.commit(sealed), kept, **call)
    return _show(session, found, answer)


@command.command("remove", help="Have an application, or what was prepared for it, removed with its disk.")
@click.argument("ticket", type=_PATH)
@click.option("--yes", is_flag=True, help="Do not ask; the application's disk is lost.")
@_call_options
@node_command(settings=_SETTINGS)
def remove(session: Session, *, ticket: Path, yes: bool, **call: Any) -> int:
    """Ask, submit, wait."""
    kept = Ticket.read(ticket)
    if not yes:
        click.confirm(f"remove {printable(kept.name)} with everything on its disk?", abort=True, err=True)
    found, answer = _ask(session, kept.removal(), kept, **call)
    return _show(session, found, answer)


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not UTF-8 (at byte {exc.start})") from exc


def _order(asked: Preparation) -> Order:
    """Check here what the operator would refuse, before anything is paid for."""
    try:
        return order_of("", asked, lambda _: None)
    except Rejection as exc:
        raise ConfigError(str(exc)) from exc


def _verify(session: Session, ticket: Ticket, *, now_s: Callable[[], float]) -> bytes:
    """Return the key to seal to, once a believed KMS key has signed it."""
    stated = ticket.stated_key
    if stated is None:
        raise DeployError(
            "the operator's answer has no key to seal to", advice="prepare without variables, or elsewhere"
        )
    return kms_trust(session, now_s=now_s).verify(ticket.app_id, stated).public_key


def _seal(session: Session, ticket: Ticket, variables: tuple[SecretVariable, ...]) -> bytes:
    """Seal exactly the variables that were named; whatever else the guest would drop."""
    given, named = {variable.key for variable in variables}, set(ticket.names)
    if given != named:
        missing, odd = sorted(named - given), sorted(given - named)
        raise ConfigError(
            "the variables are not those that were prepared"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; not prepared: {', '.join(odd)}" if odd else "")
        )
    if not variables:
        return b""
    check_variables(variables)
    # The statement's age was judged when it was answered; since then it has waited here.
    stated_at = ticket.timestamp_s
    now_s: Callable[[], float] = time.time if stated_at is None else lambda: float(stated_at)
    return seal(variables, _verify(session, ticket, now_s=now_s))


def _ask(
    session: Session, request: DeployRequest, ticket: Ticket | None = None, **call: Any
) -> tuple[CallResult, DeployResult | None]:
    """Submit a request and return its answer, decoded if it is one of this job."""
    if ticket is not None:
        contract = required_contract(session)
        chain_id = session.settings.chain_id or ticket.chain_id
        if not ticket.is_on(chain_id=chain_id, contract=contract):
            raise ConfigError(
                f"the ticket is of contract 0x{ticket.contract} on chain {ticket.chain_id}; "
                "check --contract and --chain-id"
            )
        if (session.settings.service_ids or (0,)) != (ticket.service_id,):
            raise ConfigError(f"the ticket is of service {ticket.service_id}: check --service-ids")
    found = asyncio.run(submit_and_wait(session, DEPLOY_INDEX, encode_request(request), **call))
    try:
        return found, decode_result(found.output)
    except Rejection:
        return found, None


def _show(session: Session, found: CallResult, answer: DeployResult | None, *, ticket: str = "") -> int:
    """Print an answer and return the exit code that it means."""
    facts: dict[str, Any] = {
        "service_id": found.key.service_id,
        "call_id": found.key.call_id,
        "operator": "0x" + found.operator.hex(),
        "block_number": found.block_number,
        "transaction": "0x" + found.transaction_hash.hex(),
    }
    if answer is None:
        session.emit({**facts, "answer": None, "output": "0x" + found.output.hex()})
        session.say("the answer is no answer of the deploy job", "red")
        return ExitCode.JOB_FAILED
    told = _answer_json(answer)
    session.emit({**facts, "answer": told, **({"ticket": ticket} if ticket else {})})
    is_success = answer.status == DeployStatus.SUCCESS
    if not session.is_json:
        for name, value in told.items():
            if value not in ("", 0):
                session.stdout.print(f"{name}: {printable(str(value), keep_newlines=False)}")
    if not is_success:
        session.say(f"{told['status']}: {printable(answer.error_message)}", "red")
    return ExitCode.OK if is_success else ExitCode.JOB_FAILED


def _answer_json(answer: DeployResult) -> dict[str, Any]:
    """Return an answer as JSON; what it does not say is empty."""
    known = {status.value: status.name.lower() for status in DeployStatus}

    def shown(value: bytes) -> str:
        return value.hex() if any(value) else ""

    return {
        "status": known.get(answer.status, f"status_{answer.status}"),
        "app_id": shown(answer.app_id),
        "compose_hash": shown(answer.compose_hash),
        "public_key": shown(answer.sealing_key.key),
        "expires_at": answer.expires_at,
        "instance_id": shown(answer.instance_id),
        "endpoint": answer.endpoint,
        "attestation_digest": shown(answer.attestation_digest),
        "evidence_digest": shown(answer.evidence_digest),
        "error_message": answer.error_message,
    }


def _time(seconds: int) -> str:
    """Return a moment as people read it; an operator can answer with any number."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"second {seconds}"
