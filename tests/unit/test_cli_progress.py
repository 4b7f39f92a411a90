"""Progress of a build: bars on a terminal after a second, whole lines elsewhere."""

import io
import threading
import time

from rich.console import Console

from blueprint.cli.progress import BuildProgress
from sandbox.rootfs.progress import BuildStep


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def step(
    phase: str, message: str = "fetching", *, done: int = 0, elapsed_s: float = 2.0, finished: bool = False
) -> BuildStep:
    """Return a report about bytes."""
    return BuildStep(
        phase=phase,
        message=message,
        elapsed_s=elapsed_s,
        done=done,
        total=4 * 1024 * 1024,
        unit="bytes",
        is_finished=finished,
    )


def shown(*, terminal: bool, kind: str = "xterm") -> tuple[io.StringIO, BuildProgress, Clock]:
    """Return a progress over a console that writes into memory."""
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, force_terminal=terminal, width=120, _environ={"TERM": kind})
    return stream, BuildProgress(console, clock=clock), clock


def test_off_a_terminal_each_phase_is_a_line_and_repeats_only_after_ten_seconds() -> None:
    """A log of a build has a line per phase and sparse ones in between, with amount and rate, no escapes."""
    stream, progress, clock = shown(terminal=False)
    with progress:
        for second in range(20):
            clock.now = float(second)
            progress(step("download", done=1024 * 1024))
        progress(step("download", "388 packages", finished=True))
    lines = stream.getvalue().splitlines()
    assert lines == ["  download: fetching (1.0 MiB of 4.0 MiB, 512 KiB/s)"] * 2 + [
        "  download: 388 packages (2.0 s)"
    ]


def test_off_a_terminal_a_silent_phase_is_still_heard_of() -> None:
    """A phase that reports nothing more gets a line with its time, so that nobody takes it for hung."""
    stream, clock = io.StringIO(), Clock()
    with BuildProgress(Console(file=stream, width=120), clock=clock, line_every_s=0.01) as progress:
        progress(step("unpack"))
        clock.now = 34.0
        deadline_s = time.monotonic() + 10
        while "going on" not in stream.getvalue() and time.monotonic() < deadline_s:
            threading.Event().wait(0.001)
    assert (
        stream.getvalue().splitlines()[1] == "  unpack: fetching, going on for 34.0 s (0 B of 4.0 MiB, 0 B/s)"
    )


def test_nothing_is_drawn_in_the_first_second() -> None:
    """A build that is over at once flickers no bar."""
    stream, progress, clock = shown(terminal=True)
    with progress:
        progress(step("download"))
        clock.now = 0.9
        progress(step("download"))
    assert stream.getvalue() == ""


def test_on_a_terminal_a_bar_appears_and_is_taken_away() -> None:
    """After a second a bar shows phase and amount; the finished phase stays as a line."""
    stream, progress, clock = shown(terminal=True)
    with progress:
        clock.now = 2.0
        progress(step("unpack", "gcc", done=1024 * 1024))
        progress(step("unpack", "all", finished=True))
    assert "unpack: gcc" in stream.getvalue()
    assert stream.getvalue().rstrip().endswith("unpack: all (2.0 s)")


def test_terminal_that_cannot_move_its_cursor_gets_lines() -> None:
    """Where nothing can be drawn, as in an editor's shell, progress is told in lines."""
    stream, progress, clock = shown(terminal=True, kind="dumb")
    with progress:
        clock.now = 2.0
        progress(step("unpack", "gcc", done=1024 * 1024))
    assert stream.getvalue() == "  unpack: gcc (1.0 MiB of 4.0 MiB, 512 KiB/s)\n"
