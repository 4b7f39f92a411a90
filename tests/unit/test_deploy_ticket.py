"""What a caller keeps and reads on his side: env files and tickets."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from blueprint.cli.deploy.request import _time
from blueprint.errors import PolicyViolationError
from blueprint.types import Address, CallKey
from jobs.deploy.codec import ChainSealingKey, DeployResult
from jobs.deploy.env_file import EnvFileError, parse_env, read_env_file
from jobs.deploy.order import Order
from jobs.deploy.ticket import Ticket, TicketError, ticket_of

KEY = CallKey(chain_id=1, contract=Address(b"\1" * 20), service_id=2, call_id=3)
OPERATOR = Address(b"\2" * 20)
ORDER = Order(key="", name="my-app", compose="services: {}", names=("B", "A"))
ANSWER = DeployResult(
    status=0,
    operator=OPERATOR,
    app_id=b"\3" * 20,
    compose_hash=ORDER.workload().compose_hash,
    sealing_key=ChainSealingKey(key=b"\4" * 32, signature=b"\5" * 65),
    expires_at=99,
)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("A=1", [("A", "1")]),
        ("\n# comment\n  A = a b # c \r\nexport B=\n", [("A", "a b # c"), ("B", "")]),
        ("A='it \\n is \"x\" $HOME'", [("A", 'it \\n is "x" $HOME')]),
        ('A="l1\\nl2\\t\\"q\\" \\\\ \\$X é"', [("A", 'l1\nl2\t"q" \\ $X é')]),
        ("A=b'c\nB=x=y", [("A", "b'c"), ("B", "x=y")]),
        ("A=\u00a0x\u3000 \t\r\nB= x\x0c", [("A", "\u00a0x\u3000"), ("B", "x\x0c")]),
        ("", []),
    ],
)
def test_env_files_mean_what_is_written(text: str, pairs: list[tuple[str, str]]) -> None:
    """Order, quotes and escapes; nothing is substituted."""
    assert [(one.key, one.value) for one in parse_env(text, name="x")] == pairs


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A=1\nhunter2", "x, line 2: expected NAME=VALUE"),
        ("\u00a0A=hunter2", "line 1: expected NAME=VALUE"),
        ("1A=hunter2", "line 1: expected NAME=VALUE"),
        ("A-B=hunter2", "line 1: expected NAME=VALUE"),
        ("A='hunter2", "line 1: A: the single quote"),
        ("A='hunter2' x", "line 1: A: the single quote"),
        ('A="hunter2', "line 1: A: the double quote"),
        ('A="hunter2\nmore"', "line 1: A: the double quote"),
        ('A="hunter2\\q"', "line 1: A: after a backslash"),
        ("A=hunter2\nB=1\nA=hunter2", "line 3: A is set in line 1 already"),
    ],
)
def test_an_error_in_an_env_file_shows_no_value(text: str, problem: str) -> None:
    """Each line that does not parse is an error with its number, and without what may be a secret."""
    with pytest.raises(EnvFileError, match=problem) as caught:
        parse_env(text, name="x")
    assert "hunter2" not in str(caught.value)


def test_an_env_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Absent, no UTF-8, or as large as no guest takes."""
    for content, problem in (
        (None, "No such file"),
        (b"A=1\nB=\xff", "line 2: not UTF-8"),
        (b"#" * 4194305, "over"),
    ):
        path = tmp_path / "vars"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(EnvFileError, match=problem):
            read_env_file(path)


def test_a_ticket_comes_back_from_its_file(tmp_path: Path) -> None:
    """What was written is what is read, with the key to seal to."""
    ticket = ticket_of(KEY, ORDER, ANSWER, answered_by=OPERATOR)
    ticket.write(tmp_path / "t.json")
    assert Ticket.read(tmp_path / "t.json") == ticket
    assert ticket.stated_key is not None
    assert (ticket.stated_key.key, ticket.names) == (b"\4" * 32, ("B", "A"))
    assert ticket.removal().operator == OPERATOR


def test_an_answer_for_another_text_is_not_sealed_for() -> None:
    """An operator who prepares another text than ours gets nothing."""
    for lie in (replace(ANSWER, compose_hash=b"\0" * 32), replace(ANSWER, operator=Address(b"\7" * 20))):
        with pytest.raises(PolicyViolationError):
            ticket_of(KEY, ORDER, lie, answered_by=OPERATOR)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"names": None}, {"names": [1]}, {"more": 1}, {"contract": "xy"}, {"app_id": 5},
        {"signature": "zz"}, {"call_id": "1"}, {"call_id": 1 << 64}, {"timestamp_s": -1}, None,
    ],
)  # fmt: skip
def test_what_is_no_ticket_is_refused(tmp_path: Path, change: dict[str, object] | None) -> None:
    """Another version, missing or unknown members, bytes or numbers that are none, no JSON."""
    path = tmp_path / "t.json"
    ticket_of(KEY, ORDER, ANSWER, answered_by=OPERATOR).write(path)
    path.write_text("no" if change is None else json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(TicketError):
        Ticket.read(path)
    with pytest.raises(TicketError):
        Ticket.read(tmp_path / "absent.json")


@pytest.mark.parametrize("seconds", [0, 1 << 40, (1 << 64) - 1])
def test_an_expiry_beyond_all_time_is_shown(seconds: int) -> None:
    """An operator may answer with any number; the ticket is written before it is shown."""
    assert _time(seconds)
