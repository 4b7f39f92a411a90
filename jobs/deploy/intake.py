"""From a call's preparation to an order: the bounds that hold before anything else looks at it.

Invariant: an order made here has a well-formed name, a compose text, and distinct well-formed variable names;
what the compose text says is for the deployer and the operator's policy to judge.
"""

import hashlib
import re
from collections.abc import Callable

from blueprint.errors import InputsInvalidError
from blueprint.types import CallKey, JobCall
from jobs.deploy.backends.backend import Placement
from jobs.deploy.codec import ChainSize, Preparation
from jobs.deploy.order import MAX_NAME_LENGTH, Order

__all__ = ["SEALED_OVERHEAD_BYTES", "check_sealed", "order_key", "order_of"]

MIN_NAME_LENGTH = 5
MAX_NAMES = 1024
MAX_NAME_BYTES = 255
MAX_VOLUMES = 64
SEALED_OVERHEAD_BYTES = 32 + 12 + 16
"""Ephemeral key, nonce and tag: a ciphertext is longer."""
_NAME = re.compile(r"[a-zA-Z](?!.*--)([a-zA-Z0-9-]*[a-zA-Z0-9])?")
_VARIABLE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_INSTANCE_TYPE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}")
_DOMAIN = b"deploy order v1"


def order_key(call: JobCall) -> str:
    """Name what a call asks for; another call that comes under the same id later has another name."""
    key: CallKey = call.key
    parts = (
        _DOMAIN, key.chain_id.to_bytes(32, "big"), key.contract, key.service_id.to_bytes(8, "big"),
        key.call_id.to_bytes(8, "big"), call.inputs_hash, call.caller,
    )  # fmt: skip
    return hashlib.sha256(b"".join(parts)).hexdigest()


def order_of(key: str, asked: Preparation, find_compose: Callable[[bytes], str | None]) -> Order:
    """Check a preparation and return it as an order.

    Args:
        key: of the order.
        asked: as decoded.
        find_compose: gives the text for a digest, or None.

    Raises:
        InputsInvalidError: a member is outside what is allowed; the message names it.
    """
    if not MIN_NAME_LENGTH <= len(asked.name) <= MAX_NAME_LENGTH or not _NAME.fullmatch(asked.name):
        raise InputsInvalidError(
            f"name: expected {MIN_NAME_LENGTH} to {MAX_NAME_LENGTH} letters, digits and single "
            f"hyphens, a letter first and no hyphen last; received {asked.name[:64]!r}"
        )
    return Order(
        key=key,
        name=asked.name,
        compose=_compose(asked, find_compose),
        names=_distinct("names", asked.names, _VARIABLE, MAX_NAMES),
        volumes=_distinct("volumes", asked.volumes, _VOLUME, MAX_VOLUMES),
        placement=_placement(asked.size),
        public_logs=asked.public_logs,
        public_sysinfo=asked.public_sysinfo,
    )


def check_sealed(sealed: bytes, *, takes_variables: bool) -> None:
    """Check that ciphertext comes exactly where variables were named.

    Raises:
        InputsInvalidError: it is missing, too short to be one, or nothing could read it.
    """
    if not takes_variables:
        if sealed:
            raise InputsInvalidError(
                f"sealedVariables: the preparation names no variables, so none may be sent; received "
                f"{len(sealed)} bytes"
            )
    elif len(sealed) <= SEALED_OVERHEAD_BYTES:
        raise InputsInvalidError(
            "sealedVariables: expected ephemeral key, nonce, ciphertext and tag, which are more than "
            f"{SEALED_OVERHEAD_BYTES} bytes; received {len(sealed)}"
        )


def _compose(asked: Preparation, find_compose: Callable[[bytes], str | None]) -> str:
    is_by_digest = any(asked.compose_digest)
    if is_by_digest == bool(asked.compose):
        given = "both" if is_by_digest else "neither"
        raise InputsInvalidError(
            f"compose: expected a compose text or the digest of one; {given} was received"
        )
    if not is_by_digest:
        return asked.compose
    text = find_compose(asked.compose_digest)
    if text is None:
        raise InputsInvalidError(
            f"composeDigest: this operator offers no compose text with SHA-256 {asked.compose_digest.hex()}; "
            "send the text itself"
        )
    return text


def _distinct(member: str, given: tuple[str, ...], form: re.Pattern[str], most: int) -> tuple[str, ...]:
    if len(given) > most:
        raise InputsInvalidError(f"{member}: at most {most} are accepted, received {len(given)}")
    for name in given:
        if len(name) > MAX_NAME_BYTES or not form.fullmatch(name):
            raise InputsInvalidError(f"{member}: {name[:64]!r} does not match {form.pattern}")
    if len(set(given)) < len(given):
        twice = next(name for number, name in enumerate(given) if name in given[:number])
        raise InputsInvalidError(f"{member}: {twice[:64]!r} comes twice")
    return given


def _placement(size: ChainSize) -> Placement:
    if size.instance_type and not _INSTANCE_TYPE.fullmatch(size.instance_type):
        raise InputsInvalidError(f"size.instanceType: {size.instance_type[:64]!r} is no name of one")
    return Placement(
        instance_type=size.instance_type,
        vcpu=size.vcpu or None,
        memory_mb=size.memory_mb or None,
        disk_gb=size.disk_gb or None,
    )
