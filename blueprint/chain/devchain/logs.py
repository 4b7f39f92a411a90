"""Which logs a client asks for.

Invariant: a filter holds raw bytes; hexadecimal was parsed at the edge.
"""

from dataclasses import dataclass

from blueprint.chain.devchain.evm import MinedLog

__all__ = ["LogFilter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """The address and topic conditions of ``eth_getLogs``, ``eth_newFilter`` and ``eth_subscribe``."""

    addresses: frozenset[bytes] = frozenset()
    """Empty means any contract."""
    topics: tuple[frozenset[bytes], ...] = ()
    """By position; an empty set is a wildcard, several topics are alternatives."""

    def matches(self, log: MinedLog) -> bool:
        """Whether the log satisfies every condition."""
        if self.addresses and log.address not in self.addresses:
            return False
        if len(self.topics) > len(log.topics):
            return False
        return all(
            not wanted or topic in wanted for wanted, topic in zip(self.topics, log.topics, strict=False)
        )
