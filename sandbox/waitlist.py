"""Who waits for admission, and whose turn is next: weighted between priorities, round robin between callers.

Invariant: everybody who waits comes to the front after a bounded number of turns, whoever else comes
meanwhile; within one caller and priority the order is that of arrival.
"""

from collections import Counter, deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from sandbox.request import Priority

__all__ = ["Waitlist"]

Entry = TypeVar("Entry", bound=Hashable)


TURNS = {Priority.LOW: 1, Priority.NORMAL: 4, Priority.HIGH: 16}
"""Of 21 turns, how many each priority gets while all three have somebody waiting."""


class _Line(Generic[Entry]):
    """Those who wait at one priority.

    Attributes:
        callers: each caller's entries, oldest first; the first caller's turn is next.
        due: the moment of the next turn, in turns of weight one.
    """

    def __init__(self) -> None:
        self.callers: dict[str, deque[Entry]] = {}
        self.due = 0.0

    def first(self) -> Entry:
        return next(iter(self.callers.values()))[0]


class Waitlist(Generic[Entry]):
    """A queue of entries that are hashable, each there once at most."""

    def __init__(self) -> None:
        self._lines: dict[Priority, _Line[Entry]] = {priority: _Line() for priority in Priority}
        self._places: dict[Entry, tuple[Priority, str]] = {}
        self._waiting = Counter[str]()
        self._now = 0.0

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._places))

    def __contains__(self, entry: object) -> bool:
        return entry in self._places

    def add(self, entry: Entry, priority: Priority, caller: str) -> None:
        """Put an entry at the end of its caller's; a caller who had none waits for every other's turn."""
        line = self._lines[priority]
        if not line.callers:  # turns that nobody took are not saved up
            line.due = max(line.due, self._now)
        line.callers.setdefault(caller, deque()).append(entry)
        self._places[entry] = (priority, caller)
        self._waiting[caller] += 1

    def first(self) -> Entry | None:
        """Return whose turn it is, or None when nobody waits."""
        line = self._next_line()
        return line.first() if line else None

    def take_turn(self) -> None:
        """Remove the first entry, and let its caller's next one wait for the other callers' turns."""
        line = self._next_line()
        if line is None:
            raise IndexError("nobody waits")
        entry = line.first()
        priority, caller = self._places[entry]
        self._now = line.due
        line.due += 1 / TURNS[priority]
        self.discard(entry)
        if caller in line.callers:
            line.callers[caller] = line.callers.pop(caller)

    def discard(self, entry: Entry) -> None:
        """Remove an entry wherever it is; nothing happens when it is not there."""
        if entry not in self._places:
            return
        priority, caller = self._places.pop(entry)
        self._waiting[caller] -= 1
        if not self._waiting[caller]:
            del self._waiting[caller]
        callers = self._lines[priority].callers
        callers[caller].remove(entry)
        if not callers[caller]:
            del callers[caller]

    def yielding_to(self, priority: Priority, caller: str) -> Entry | None:
        """Return the entry that should make room for one more of ``caller``, or None when none should.

        It is the newest and least urgent of the caller with the most entries, who must have more than
        ``caller`` will have; and it is never more urgent than the newcomer.
        """
        if not self._waiting:
            return None
        greediest, count = max(self._waiting.items(), key=lambda item: item[1])
        if count <= self._waiting[caller] + 1:
            return None
        for own in Priority:
            if own <= priority and (entries := self._lines[own].callers.get(greediest)):
                return entries[-1]
        return None

    def _next_line(self) -> _Line[Entry] | None:
        waiting = [line for _, line in sorted(self._lines.items(), reverse=True) if line.callers]
        return min(waiting, key=lambda line: line.due, default=None)
