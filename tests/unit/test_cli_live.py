"""The live line: what it says, and that it is drawn on a terminal only."""

import io
from dataclasses import replace

from rich.console import Console

from blueprint.cli.live import LiveLine, sample_text
from blueprint.cli.outcome import time_text
from sandbox.testing import fake_sample

MIB = 1024 * 1024


def shown(*, is_terminal: bool) -> str:
    """Return what the samples of three seconds write, eight a second."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=is_terminal, width=200, _environ={"TERM": "xterm"})
    with LiveLine(console) as line:
        for number in range(30):
            line(fake_sample(elapsed_s=number / 8))
    return stream.getvalue()


def test_line_says_what_is_used_now() -> None:
    """Memory, the share of CPU since the last sample, processes, disk and output."""
    before = fake_sample(elapsed_s=1.0)
    sample = replace(
        fake_sample(elapsed_s=1.5, memory_bytes=40 * MIB), user_time_s=0.5, system_time_s=0.4, stdout_bytes=7
    )
    assert sample_text(sample, before) == (
        "run 1.5 s: 40 MiB memory (0 B of it files), 80 % CPU, 1 process, 4.0 KiB disk, 7 B printed"
    )
    assert "60 % CPU" in sample_text(sample)


def test_line_says_what_cannot_be_seen() -> None:
    """Without a memory group there is no figure, and none is made up."""
    sample = replace(fake_sample(elapsed_s=0.0), memory_bytes=None, memory_file_bytes=None, processes=None)
    assert "memory not measured, 0 % CPU, processes not seen" in sample_text(sample)


def test_plain_lines_come_once_a_second() -> None:
    """Off a terminal there is a line at the start and after each second, without control characters."""
    text = shown(is_terminal=False)
    assert [line.split(":")[0] for line in text.splitlines()] == [
        "  run 0 ms",
        "  run 1.0 s",
        "  run 2.0 s",
        "  run 3.0 s",
    ]
    assert "\x1b" not in text


def test_new_stage_is_a_new_line() -> None:
    """The run after a compilation starts its own clock, and its share of CPU is its own."""
    stream = io.StringIO()
    with LiveLine(Console(file=stream, width=200)) as line:
        line(fake_sample(elapsed_s=5.0, stage="compile"))
        line(fake_sample(elapsed_s=0.2))
    lines = stream.getvalue().splitlines()
    assert [each.split(":")[0] for each in lines] == ["  compile 5.0 s", "  run 200 ms"]
    assert "50 % CPU" in lines[1]


def test_terminal_shows_every_sample_in_place_and_clears_it() -> None:
    """On a terminal the line is redrawn, and gone at the end."""
    text = shown(is_terminal=True)
    assert all(f"run {time_text(number / 8)}:" in text for number in range(30))
    assert text.endswith("\r\x1b[1A\x1b[2K")
