"""What a caller keeps between a preparation and its commit: a file without any secret.

Invariant: a ticket is made only of an answer whose compose hash is that of what was asked for, so that
whatever is sealed for it is sealed for that text and no other.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from blueprint.errors import PolicyViolationError
from blueprint.foreign_json import parse_json
from blueprint.types import Address, CallKey
from jobs.deploy.backends.backend import PublicKey
from jobs.deploy.codec import Commitment, DeployRequest, DeployResult, Removal
from jobs.deploy.errors import DeployError
from jobs.deploy.order import Order
from jobs.deploy.whole_file import write_whole

__all__ = ["Ticket", "TicketError", "ticket_of"]

_VERSION = 1


_Address = Annotated[str, StringConstraints(pattern="^[0-9a-f]{40}$")]
_Word = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
_Uint64 = Annotated[int, Field(ge=0, lt=1 << 64)]


class TicketError(DeployError):
    """A file is no ticket, or cannot be read or written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A preparation that was answered; bytes are hexadecimal, so that it is JSON as it stands."""

    chain_id: int
    contract: _Address
    service_id: _Uint64
    call_id: _Uint64
    operator: _Address
    name: str
    compose: str
    """The text that was measured."""
    names: tuple[str, ...]
    app_id: _Address
    compose_hash: _Word
    public_key: Annotated[str, StringConstraints(pattern="^([0-9a-f]{64})?$")]
    """Empty where the application takes no variables."""
    signature: Annotated[str, StringConstraints(pattern="^([0-9a-f]{2})*$")]
    timestamp_s: _Uint64 | None
    expires_at: _Uint64
    version: int = _VERSION

    @property
    def stated_key(self) -> PublicKey | None:
        """What to seal to; not verified by having been kept."""
        if not self.public_key:
            return None
        return PublicKey(
            key=bytes.fromhex(self.public_key),
            signature=bytes.fromhex(self.signature),
            timestamp_s=self.timestamp_s,
            kms=f"operator 0x{self.operator}",
        )

    def commit(self, sealed: bytes) -> DeployRequest:
        """Return the request that starts it."""
        body = Commitment(
            call_id=self.call_id, compose_hash=bytes.fromhex(self.compose_hash), sealed_variables=sealed
        )
        return DeployRequest(body=body, operator=Address(bytes.fromhex(self.operator)))

    def removal(self) -> DeployRequest:
        """Return the request that ends it."""
        operator = Address(bytes.fromhex(self.operator))
        return DeployRequest(body=Removal(call_id=self.call_id), operator=operator)

    def is_on(self, *, chain_id: int, contract: bytes) -> bool:
        """Say whether it belongs to a chain and a contract."""
        return (self.chain_id, bytes.fromhex(self.contract)) == (chain_id, contract)

    def write(self, path: Path) -> None:
        """Write it, as a whole or not at all.

        Raises:
            TicketError: it cannot be written.
        """
        try:
            write_whole(path, json.dumps(asdict(self), indent=1) + "\n")
        except OSError as exc:
            raise TicketError(f"{path}: {exc.strerror}", advice="give another file with --ticket") from exc

    @classmethod
    def read(cls, path: Path) -> "Ticket":
        """Read one.

        Raises:
            TicketError: it cannot be read, or is none of this version.
        """
        try:
            content = path.read_bytes()
            members: Any = parse_json(content)
            ticket = cls(**{**members, "names": tuple(members["names"])})
            _TICKET.validate_json(content, strict=True)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise TicketError(f"{path}: no ticket of `request prepare`: {where}: {first['msg']}") from None
        except OSError as exc:
            raise TicketError(f"{path}: {exc.strerror}", advice="`request prepare` writes it") from exc
        except (ValueError, TypeError, KeyError) as exc:
            raise TicketError(f"{path}: no ticket of `request prepare`: {exc}") from exc
        if ticket.version != _VERSION:
            raise TicketError(f"{path}: version {ticket.version}; this program reads version {_VERSION}")
        return ticket


_TICKET: Final = TypeAdapter(Ticket)


def ticket_of(key: CallKey, order: Order, answered: DeployResult, *, answered_by: Address) -> Ticket:
    """Make the ticket of a preparation that succeeded.

    Args:
        key: of its call.
        order: what was asked for.
        answered: the answer.
        answered_by: the account whose answer it is, as the chain tells.

    Raises:
        PolicyViolationError: the answer is for another text, or speaks for another operator.
    """
    # SECURITY: an operator could prepare a text of its own and have our variables sealed for that;
    # test_an_answer_for_another_text_is_not_sealed_for
    expected = order.workload().compose_hash
    if answered.compose_hash != expected:
        raise PolicyViolationError(
            f"the operator prepared compose hash {answered.compose_hash.hex()}, but what was asked for has "
            f"{expected.hex()}: nothing is sealed for it"
        )
    if answered.operator != answered_by:
        raise PolicyViolationError(
            f"operator 0x{answered_by.hex()} answers for 0x{answered.operator.hex()}: it cannot be committed"
        )
    stated = answered.sealing_key
    has_key = any(stated.key)
    return Ticket(
        chain_id=key.chain_id,
        contract=key.contract.hex(),
        service_id=key.service_id,
        call_id=key.call_id,
        operator=answered_by.hex(),
        name=order.name,
        compose=order.compose,
        names=order.names,
        app_id=answered.app_id.hex(),
        compose_hash=expected.hex(),
        public_key=stated.key.hex() if has_key else "",
        signature=stated.signature.hex(),
        timestamp_s=stated.timestamp or None,
        expires_at=answered.expires_at,
    )
