"""What one run has contacted, or tried to: the books of a policy's proxy.

Invariant: bytes are counted before they are passed on, and the list cannot grow beyond a bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.egress.policy import Destination, EgressBounds
from sandbox.result import NetworkContact

__all__ = ["Contact", "Contacts", "SpentError"]

MOST_LISTED = 200
OTHERS = ("(others)", 0)


class SpentError(Exception):
    """The run has had its share of connections or bytes. It never leaves this package."""


@dataclass(slots=True)
class Contact:
    """The counters of one destination."""

    connections: int = 0
    refused: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


class Contacts:
    """Counts what a run takes of the network."""

    def __init__(self, bounds: EgressBounds) -> None:
        self._bounds = bounds
        self._by_place: dict[tuple[str, int], Contact] = {}
        self._connections = 0
        self._bytes = 0

    def listed(self) -> Sequence[NetworkContact]:
        """Return the contacts in the order of the first attempt; the last may stand for many."""
        return tuple(
            NetworkContact(
                host=host,
                port=port,
                connections=each.connections,
                refused=each.refused,
                sent_bytes=each.sent_bytes,
                received_bytes=each.received_bytes,
            )
            for (host, port), each in self._by_place.items()
        )

    def refuse(self, destination: Destination) -> None:
        """Take note of an attempt that was not allowed."""
        self._of(destination).refused += 1

    def open(self, destination: Destination) -> Contact:
        """Take note of a connection.

        Raises:
            SpentError: it is one too many.
        """
        if self._connections >= self._bounds.total_connections:
            raise SpentError(f"at most {self._bounds.total_connections} connections may be made")
        self._connections += 1
        contact = self._of(destination)
        contact.connections += 1
        return contact

    def count(self, contact: Contact, size_bytes: int, *, is_sent: bool) -> None:
        """Count bytes that are about to be passed on.

        Raises:
            SpentError: they are too many.
        """
        self._bytes += size_bytes
        if self._bytes > self._bounds.total_bytes:
            raise SpentError(f"at most {self._bounds.total_bytes} bytes may be exchanged")
        if is_sent:
            contact.sent_bytes += size_bytes
        else:
            contact.received_bytes += size_bytes

    def _of(self, destination: Destination) -> Contact:
        place = (destination.host, destination.port)
        if place not in self._by_place and len(self._by_place) >= MOST_LISTED:
            place = OTHERS
        return self._by_place.setdefault(place, Contact())
