"""The user numbers that sandboxes run under: a range that nothing else on the machine may use.

Invariant: a number is in use by one sandbox at a time; each sandbox has two, for its program and for what
stands beside it.
"""

import itertools
import os

from sandbox.errors import SystemFailureError

__all__ = ["UID_BASE", "UID_COUNT", "UserNumbers"]

UID_BASE = 700_000_000
UID_COUNT = 1_000_000


class UserNumbers:
    """Hands out pairs of user numbers.

    Args:
        base: the first number of the range.
        count: its size.
    """

    def __init__(self, *, base: int = UID_BASE, count: int = UID_COUNT) -> None:
        self._base = base
        self._count = count
        # Two services on one machine start at different places of the range.
        self._next = itertools.count(os.getpid() * 64)
        self._used: set[int] = set()

    def take(self) -> int:
        """Take the first of two numbers.

        Raises:
            SystemFailureError: all are in use.
        """
        pairs = self._count // 2
        for number in itertools.islice(self._next, pairs):
            uid = self._base + 2 * (number % pairs)
            if uid not in self._used:
                self._used.add(uid)
                return uid
        raise SystemFailureError(f"all {self._count} user numbers for sandboxes are in use")

    def give_back(self, uid: int) -> None:
        """Take back what a destroyed sandbox held."""
        self._used.discard(uid)
