"""Turns: weighted between priorities, round robin between callers, first come first served within one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.request import Priority
from sandbox.waitlist import Waitlist


def served(waitlist: Waitlist[str], turns: int) -> list[str]:
    """Take so many turns and say whose they were."""
    order = []
    for _ in range(turns):
        entry = waitlist.first()
        assert entry is not None
        order.append(entry)
        waitlist.take_turn()
    return order


def filled(*entries: tuple[str, Priority, str]) -> Waitlist[str]:
    waitlist: Waitlist[str] = Waitlist()
    for entry, priority, caller in entries:
        waitlist.add(entry, priority, caller)
    return waitlist


def flood(caller: str, count: int, priority: Priority = Priority.NORMAL) -> list[tuple[str, Priority, str]]:
    return [(f"{caller}{number}", priority, caller) for number in range(count)]


def test_callers_take_turns() -> None:
    """A caller with a thousand entries delays another's first by one turn."""
    waitlist = filled(*flood("a", 1000), *flood("b", 2), *flood("c", 1))
    assert served(waitlist, 6) == ["a0", "b0", "c0", "a1", "b1", "a2"]


def test_every_priority_gets_its_share() -> None:
    """While all three have somebody waiting, 16, 4 and 1 of 21 turns are theirs: none starves."""
    waitlist = filled(*(each for priority in Priority for each in flood(priority.name, 100, priority)))
    shares = Counter(name.rstrip("0123456789") for name in served(waitlist, 42))
    assert shares == {"HIGH": 32, "NORMAL": 8, "LOW": 2}


def test_urgent_entry_goes_before_those_that_came_earlier() -> None:
    """The first turn of a priority that nobody waited at comes at once."""
    waitlist = filled(*flood("low", 5, Priority.LOW), *flood("normal", 5))
    served(waitlist, 5)
    waitlist.add("urgent", Priority.HIGH, "x")
    assert waitlist.first() == "urgent"


def test_turns_that_nobody_took_are_not_saved_up() -> None:
    """A priority that was empty for long gets its share from now on, and does not catch up."""
    waitlist = filled(*flood("normal", 200))
    served(waitlist, 100)
    for entry in flood("low", 50, Priority.LOW):
        waitlist.add(*entry)
    assert sum(name.startswith("low") for name in served(waitlist, 50)) == 10


def test_newest_of_the_greediest_makes_room() -> None:
    """In a full queue the one with the most yields to one with fewer, but not to its equal."""
    waitlist = filled(*flood("a", 3), *flood("b", 2))
    assert waitlist.yielding_to(Priority.NORMAL, "new") == "a2"
    assert waitlist.yielding_to(Priority.NORMAL, "b") is None
    assert waitlist.yielding_to(Priority.NORMAL, "a") is None


def test_urgent_entry_never_makes_room_for_a_less_urgent_one() -> None:
    """The greediest keeps what is more urgent than the newcomer."""
    waitlist = filled(*flood("a", 3, Priority.HIGH))
    assert waitlist.yielding_to(Priority.NORMAL, "new") is None
    waitlist.add("late", Priority.LOW, "a")
    assert waitlist.yielding_to(Priority.NORMAL, "new") == "late"


def test_nobody_has_the_turn_of_an_empty_list() -> None:
    """There is no first, nothing to yield, and taking a turn is a mistake."""
    waitlist: Waitlist[str] = Waitlist()
    assert (waitlist.first(), waitlist.yielding_to(Priority.HIGH, "a"), len(waitlist)) == (None, None, 0)
    with pytest.raises(IndexError):
        waitlist.take_turn()


ENTRIES = st.lists(st.tuples(st.sampled_from(Priority), st.sampled_from("abcde")), min_size=1, max_size=80)


@given(ENTRIES, st.data())
def test_bounded_number_of_turns_whoever_comes_meanwhile(
    entries: list[tuple[Priority, str]], data: st.DataObject
) -> None:
    """However many urgent ones of new callers keep coming, everybody who waits is served in bounded turns."""
    waitlist: Waitlist[int] = Waitlist()
    for number, (priority, caller) in enumerate(entries):
        waitlist.add(number, priority, caller)
    watched = data.draw(st.integers(0, len(entries) - 1))
    turns = 0
    while watched in waitlist:
        waitlist.take_turn()
        turns += 1
        waitlist.add(1000 + turns, Priority.HIGH, f"new {turns}")
        assert turns <= 21 * (len(entries) + 1)


@given(ENTRIES, st.data())
def test_discarding_leaves_the_order_of_the_rest(
    entries: list[tuple[Priority, str]], data: st.DataObject
) -> None:
    """Those who leave are gone; within a caller and a priority the others keep the order of arrival."""
    waitlist: Waitlist[int] = Waitlist()
    for number, (priority, caller) in enumerate(entries):
        waitlist.add(number, priority, caller)
    gone = data.draw(st.sets(st.integers(0, len(entries) - 1)))
    for number in gone:
        waitlist.discard(number)
        waitlist.discard(number)
    order = []
    while (entry := waitlist.first()) is not None:
        order.append(entry)
        waitlist.take_turn()
    assert set(order) == set(range(len(entries))) - gone
    for kind in set(entries):
        own = [number for number in order if entries[number] == kind]
        assert own == sorted(own)
