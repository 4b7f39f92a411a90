"""The log of what a guest measured into RTMR3 while it booted an application.

Invariant: an event's digest is always recomputed from its name and payload; the digest written in the log is
never read, because a log can claim any payload beside a digest that replays.
Source of the rule: dstack, cc-eventlog (runtime events, versions 1 and 2); RFC 8785 (canonical JSON); TDX,
RTMR extension (``register = sha384(register || digest)``).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from blueprint.errors import QuoteInvalidError
from blueprint.foreign_json import JsonValue, parse_json

__all__ = [
    "BOOT_DONE",
    "RUNTIME_EVENT_TYPE",
    "SYSTEM_READY",
    "Event",
    "boot_events",
    "parse_event_log",
    "replay",
]

RUNTIME_EVENT_TYPE = 0x08000001
BOOT_DONE = "boot-mr-done"
"""The event after which the identity (app id, compose hash, instance id) cannot change."""
SYSTEM_READY = "system-ready"
"""The event after which the application runs, and may have measured events of its own."""

_REGISTER = 3
_REGISTER_BYTES = 48
_MAX_EVENTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event that the guest measured into RTMR3."""

    name: str
    payload: bytes
    version: int = 1
    """Which form of digest: 1 (binary) or 2 (canonical JSON)."""

    @property
    def digest(self) -> bytes:
        """SHA-384 of the event in its version's form, 48 bytes."""
        if self.version == 1:
            preimage = b":".join((RUNTIME_EVENT_TYPE.to_bytes(4, "little"), self.name.encode(), self.payload))
        else:
            # In the order of RFC 8785, whose escapes in strings are those of json.
            members = {"name": self.name, "payload": self.payload.hex(), "type": RUNTIME_EVENT_TYPE}
            preimage = json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()
        return hashlib.sha384(preimage).digest()

    def to_json(self) -> dict[str, str | int]:
        """Return the event as the guest agent's log shows it."""
        entry: dict[str, str | int] = {
            "imr": _REGISTER,
            "event_type": RUNTIME_EVENT_TYPE,
            "digest": self.digest.hex(),
            "event": self.name,
            "event_payload": self.payload.hex(),
        }
        return entry if self.version == 1 else {**entry, "version": self.version}


def parse_event_log(text: str | bytes) -> tuple[Event, ...]:
    """Return the events of RTMR3, in order; those of the other registers are left out.

    Args:
        text: a JSON list of ``{imr, event_type, digest, event, event_payload, version?}``.

    Raises:
        QuoteInvalidError: it is no such list, or holds something in RTMR3 whose digest cannot be recomputed.
    """
    try:
        entries = parse_json(text)
    except ValueError as error:
        raise QuoteInvalidError(f"event log: not JSON: {error}") from error
    if not isinstance(entries, list) or len(entries) > _MAX_EVENTS:
        raise QuoteInvalidError(f"event log: expected a list of at most {_MAX_EVENTS} events")
    return tuple(
        _event(number, entry)
        for number, entry in enumerate(entries)
        if _register_of(number, entry) == _REGISTER
    )


def replay(events: Iterable[Event]) -> bytes:
    """Return the register that these events lead to, 48 bytes."""
    register = bytes(_REGISTER_BYTES)
    for event in events:
        # SECURITY: the digest is ours, not the log's (test_a_forged_payload_changes_the_register).
        register = hashlib.sha384(register + event.digest).digest()
    return register


def boot_events(events: Iterable[Event]) -> Mapping[str, bytes]:
    """Return name and payload of what was measured before the application could measure anything itself.

    Raises:
        QuoteInvalidError: a name occurs twice or has a colon, or the application's identity comes after
            ``boot-mr-done``.
    """
    found: dict[str, bytes] = {}
    for event in events:
        # SECURITY: a log could move the colon that parts name and payload in a digest's first form, and so
        # hide what was measured under a name (test_a_name_with_a_colon_is_refused).
        if ":" in event.name:
            raise QuoteInvalidError(f"event log: {event.name[:80]!r} is no name of what a guest boots with")
        # SECURITY: the second of two equal names would choose what is believed
        # (test_a_name_that_occurs_twice_is_refused).
        if event.name in found:
            raise QuoteInvalidError(f"event log: {event.name!r} occurs twice while the guest boots")
        if BOOT_DONE in found and event.name in {"app-id", "compose-hash", "instance-id"}:
            raise QuoteInvalidError(f"event log: {event.name!r} comes after {BOOT_DONE!r}")
        found[event.name] = event.payload
        if event.name == SYSTEM_READY:
            break
    return found


def _register_of(number: int, entry: JsonValue) -> int:
    match entry:
        case {"imr": int(register)}:
            return register
    raise QuoteInvalidError(f"event log: entry {number} has no register")


def _event(number: int, entry: JsonValue) -> Event:
    match entry:
        case {"event_type": int(kind), "event": str(name), "event_payload": str(payload)} if isinstance(
            entry, dict
        ):
            version = entry.get("version", 1)
        case _:
            raise QuoteInvalidError(f"event log: entry {number} has no type, name or payload")
    if kind != RUNTIME_EVENT_TYPE:
        raise QuoteInvalidError(
            f"event log: entry {number} is in RTMR3 with type {kind:#x}, which nobody measures"
        )
    if version not in (1, 2) or not isinstance(version, int):
        raise QuoteInvalidError(f"event log: entry {number} has version {version!r}, expected 1 or 2")
    try:
        return Event(name=name, payload=bytes.fromhex(payload), version=version)
    except ValueError as error:
        raise QuoteInvalidError(f"event log: the payload of entry {number} is not hexadecimal") from error
