"""How an outcome is shown, to people and to machines."""

import base64
import json

import pytest

from blueprint.cli.outcome import as_json, counted, limits_text, size_text, summary, time_text
from blueprint.log import printable
from sandbox.result import ExecutionStatus, LimitKind
from sandbox.testing import fake_result


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "not measured"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (61 << 20, "61 MiB"),
        (5 << 30, "5.0 GiB"),
    ],
)
def test_size_text(size: int | None, text: str) -> None:
    """Sizes have binary units and at most one decimal; what was not measured says so."""
    assert text == size_text(size)


@pytest.mark.parametrize(("seconds", "text"), [(0.0432, "43 ms"), (0.9994, "999 ms"), (2.04, "2.0 s")])
def test_time_text(seconds: float, text: str) -> None:
    """Times below a second are milliseconds."""
    assert text == time_text(seconds)


def test_one_thing_is_not_many() -> None:
    """A count of one has the singular."""
    assert [counted(number, "process") for number in (0, 1, 2)] == ["0 processes", "1 process", "2 processes"]
    assert counted(1, "byte") == "1 byte"


def test_limits_text_names_each_limit() -> None:
    """Every limit that was touched is named."""
    assert limits_text(LimitKind.MEMORY | LimitKind.STDOUT) == "memory, stdout"
    assert limits_text(LimitKind.NONE) == ""


@pytest.mark.parametrize(
    ("status", "extra", "expected"),
    [
        (ExecutionStatus.SUCCESS, {}, "success: python 3.13.5, 12 ms wall, 11 ms CPU, 9.0 MiB memory, fake"),
        (ExecutionStatus.NONZERO_EXIT, {"exit_code": 3}, "nonzero_exit 3: "),
        (ExecutionStatus.SIGNALLED, {"exit_code": None, "signal": 11}, "signalled by SIGSEGV: "),
    ],
)
def test_summary_says_how_it_ended_and_what_it_cost(
    status: ExecutionStatus, extra: dict[str, int | None], expected: str
) -> None:
    """The summary is one line that starts with the status."""
    assert summary(fake_result(status=status, **extra)).startswith(expected)  # type: ignore[arg-type]


def test_json_of_a_result_is_complete_and_valid() -> None:
    """Bytes that are no text come as base64; statuses come by name; digests and sizes are there."""
    body = json.loads(json.dumps(as_json(fake_result(stdout=b"\xff\x00", stderr=b"oops"))))
    assert base64.b64decode(body["stdout"]["base64"]) == b"\xff\x00"
    assert (body["stderr"]["text"], body["stderr"]["size_bytes"], body["status"]) == ("oops", 4, "success")
    assert set(body) >= {"sandbox_id", "limits_hit", "exit_code", "process_stats", "runtime", "guarantees"}
    assert body["process_stats"]["memory_peak_bytes"] == 9 << 20


def test_terminal_escapes_of_a_program_are_made_harmless() -> None:
    """A program cannot move the cursor, change colours or retitle the terminal of whoever looks at it."""
    shown = printable(b"ok\n\x1b[2J\x1b]0;pwned\x07\r\xe2\x80\xae\xff")
    assert shown.startswith("ok\n\\x1b[2J")
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(shown)
