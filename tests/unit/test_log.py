"""Nothing private reaches the log, and what does reach it can be read by a machine."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from blueprint.log import Redactor, configure, scrub_url

KEY = "0x4c0883a69102937d6231471b5dbb6204fe512961708279feb1be6ae5538da033"


@pytest.fixture(autouse=True)
def _undo_configuration() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines_of(stream: io.StringIO) -> list[dict[str, object]]:
    """Return the JSON objects that were logged."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("style", ["console", "json"])
def test_planted_secrets_never_appear(style: str) -> None:
    """A secret is absent whether it comes as a value, nested, inside a message, a URL or a traceback."""
    stream = io.StringIO()
    configure(style=style, secrets=[KEY, "correct horse"], stream=stream)
    log = structlog.get_logger()
    log.info("planted", note=f"key is {KEY}", bare=KEY[2:].upper(), nested={"deep": [KEY, {"more": KEY}]})
    log.info("planted", password="hunter2hunter2", url=f"https://me:pw123456@host/v2/{'k' * 32}?x={'q' * 24}")
    log.info(
        "planted",
        stdin=b"users-private-input",
        code="print('users-private-code')",
        blob=b"users-private-blob",
    )
    try:
        int(f"correct horse {KEY}")
    except ValueError:
        log.exception("planted")
    logging.getLogger("library").warning("library saw %s", KEY)
    text = stream.getvalue()
    secrets = (
        KEY,
        KEY[2:],
        KEY[2:].upper(),
        "correct horse",
        "hunter2hunter2",
        "pw123456",
        "k" * 32,
        "q" * 24,
    )
    private = ("users-private-input", "users-private-code", "users-private-blob")
    assert [s for s in (*secrets, *private) if s in text] == []
    assert text.count("planted") >= 4
    assert "library_logged" in text


def test_secret_can_be_registered_later() -> None:
    """A secret that becomes known after start is redacted from then on."""
    redactor = Redactor()
    redactor.add("late-secret")
    assert redactor(None, "info", {"event": "x", "note": "a late-secret b"}) == {
        "event": "x",
        "note": "a [redacted] b",
    }


def test_public_bytes_are_hexadecimal_and_others_are_sizes() -> None:
    """Hashes and addresses are shown; any other bytes are shown as their size."""
    event = Redactor()(None, "info", {"block_hash": b"\x01\x02", "caller": b"\xff", "blob": b"abc"})
    assert event == {"block_hash": "0x0102", "caller": "0xff", "blob": "[3 bytes]"}


def test_numbers_and_none_stay_what_they_are() -> None:
    """Redaction leaves numbers, truths and None untouched, so that JSON keeps their types."""
    event = {"event": "x", "count": 3, "is_final": True, "gap_s": 0.5, "nothing": None}
    assert Redactor()(None, "info", dict(event)) == event


def test_json_line_has_time_level_and_event() -> None:
    """A JSON line holds an ISO timestamp in UTC, the level and the constant event name."""
    stream = io.StringIO()
    configure(stream=stream)
    structlog.get_logger().warning("reorg_detected", depth=2)
    (line,) = lines_of(stream)
    assert ("reorg_detected", "warning", 2) == (line["event"], line["level"], line["depth"])
    assert str(line["timestamp"]).endswith("Z")


def test_level_filters() -> None:
    """Events below the level are not written."""
    stream = io.StringIO()
    configure(level="warning", stream=stream)
    structlog.get_logger().info("call_received")
    structlog.get_logger().error("journal_failed")
    assert ["journal_failed"] == [line["event"] for line in lines_of(stream)]


def test_long_text_is_cut_with_its_length() -> None:
    """A text over the cap is cut and says how long it was."""
    event = Redactor()(None, "info", {"note": "a" * 5000})
    assert str(event["note"]).endswith("... (5000 characters)")
    assert len(str(event["note"])) < 2100


def test_a_console_line_cannot_move_the_cursor() -> None:
    """What an error or a value quotes is escaped; the lines of a traceback stay lines."""
    stream = io.StringIO()
    configure(style="console", stream=stream)
    error = ValueError("\x1b[2Jgone\rover")
    error.__cause__ = ValueError("why")
    structlog.get_logger().error("call_failed", reason="\x9b2J\nnext", parts=["\x1b"], exc_info=error)
    text = stream.getvalue()
    assert not {"\x1b", "\x9b", "\r"} & set(text)
    assert "\\x1b[2Jgone\\rover" in text
    assert "\\x9b2J\\nnext" in text
    assert "ValueError: why\n" in text


def test_console_has_no_colours_off_a_terminal() -> None:
    """Console style writes no escape sequences unless the stream is a terminal."""
    stream = io.StringIO()
    configure(style="console", stream=stream)
    structlog.get_logger().info("node_started", port=1)
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("wss://host/ws", "wss://host/ws"),
        ("https://a:b@host/x", "https://[redacted]@host/x"),
        ("https://host/v3/0123456789abcdef0123456789abcdef", "https://host/v3/[redacted]"),
        ("https://host/?key=0123456789abcdef0123456789abcdef", "https://host/?key=[redacted]"),
    ],
)
def test_scrub_url(url: str, expected: str) -> None:
    """Accounts and long path or query parts are masked; the rest of the URL stays readable."""
    assert expected == scrub_url(url)
