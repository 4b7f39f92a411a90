"""Reads server-sent events from bytes (HTML Standard, section 9.2), as far as the cloud uses them.

Invariant: what is kept of a stream is bounded, whatever the other side sends.
"""

import codecs
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

__all__ = ["Event", "EventStreamError", "read_events"]

_MAX_EVENT_CHARACTERS = 256 * 1024


class EventStreamError(ValueError):
    """A stream that is no stream of events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event."""

    kind: str
    data: str


async def read_events(pieces: AsyncIterator[bytes]) -> AsyncGenerator[Event, None]:
    """Yield the events of a stream; one that the stream's end cuts off is dropped.

    Raises:
        EventStreamError: an event has more than 256 Ki characters.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pending, kind, kept = "", "", 0
    data: list[str] = []
    async for piece in pieces:
        pending += decoder.decode(piece)
        *lines, pending = pending.split("\n")
        for raw in lines:
            line = raw.removesuffix("\r")
            if not line:
                if data:
                    yield Event(kind=kind or "message", data="\n".join(data))
                kind, data, kept = "", [], 0
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data.append(value)
                kept += len(value) + 1
        # SECURITY: bounds the memory of a stream (test_an_endless_event_is_refused).
        if kept + len(pending) > _MAX_EVENT_CHARACTERS:
            raise EventStreamError(f"an event of more than {_MAX_EVENT_CHARACTERS} characters")
