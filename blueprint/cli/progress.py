"""Shows how a build of the language tree goes on: a bar with a rate on a terminal, plain lines elsewhere.

Invariant: nothing is drawn within the first second, and nothing but whole lines off a terminal; a phase that
reports nothing for long is still heard of.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from blueprint.cli.outcome import size_text, time_text
from sandbox.rootfs.progress import BuildStep

__all__ = ["BuildProgress"]

_QUIET_S: Final = 1.0
_LINE_EVERY_S: Final = 10.0


class BuildProgress:
    """A context manager; call it with each `BuildStep`.

    Args:
        console: where to draw, standard error.
        clock: seconds that never go back.
        line_every_s: off a terminal, how long a phase may go on without a line.
    """

    def __init__(
        self,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
        line_every_s: float = _LINE_EVERY_S,
    ) -> None:
        self._console = console
        self._can_draw = console.is_terminal and not console.is_dumb_terminal
        self._clock = clock
        self._line_every_s = line_every_s
        self._lock = threading.Lock()
        self._left = threading.Event()
        self._heart: threading.Thread | None = None
        self._began = clock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._unit = ""
        self._last_line = 0.0
        self._phase = ""
        self._phase_began = 0.0
        self._message = self._how_far = ""

    def __enter__(self) -> Self:
        if not self._can_draw:  # there, a bar with a clock moves by itself
            self._heart = threading.Thread(target=self._beat, daemon=True)
            self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        if self._heart is not None:
            self._heart.join()
        self._stop()

    def __call__(self, step: BuildStep) -> None:
        """Show one report."""
        with self._lock:
            self._show(step)

    def _show(self, step: BuildStep) -> None:
        if step.is_finished:
            self._stop()
            self._console.print(Text(f"  {step.phase}: {step.message} ({time_text(step.elapsed_s)})"))
            self._phase = ""
        elif self._can_draw:
            self._draw(step)
        else:
            self._line(step)

    def _line(self, step: BuildStep) -> None:
        """Say at the start of a phase what is done, then now and then how far it is."""
        now, self._message, self._how_far = self._clock(), step.message, _how_far(step)
        if step.phase != self._phase:
            self._phase_began = now
        elif now - self._last_line < self._line_every_s:
            return
        self._phase, self._last_line = step.phase, now
        self._console.print(Text(f"  {step.phase}: {step.message}{self._how_far}"))

    def _beat(self) -> None:
        """Runs in a thread: say that a phase goes on when it has not said so itself."""
        while not self._left.wait(self._line_every_s / 2):
            with self._lock:
                now = self._clock()
                if self._phase and now - self._last_line >= self._line_every_s:
                    self._last_line = now
                    elapsed = time_text(now - self._phase_began)
                    text = f"  {self._phase}: {self._message}, going on for {elapsed}{self._how_far}"
                    self._console.print(Text(text))

    def _draw(self, step: BuildStep) -> None:
        if self._clock() - self._began < _QUIET_S:
            return
        if self._bar is None or step.phase != self._phase or step.unit != self._unit:
            self._stop()
            self._phase, self._unit = step.phase, step.unit
            self._bar, self._task = self._start(step)
        assert self._task is not None
        self._bar.update(self._task, completed=step.done or 0, total=step.total, what=step.message[:60])

    def _start(self, step: BuildStep) -> tuple[Progress, TaskID]:
        counted: tuple[ProgressColumn, ...] = ()
        if step.total is not None:
            amount = (
                (DownloadColumn(), TransferSpeedColumn()) if step.unit == "bytes" else (MofNCompleteColumn(),)
            )
            counted = (BarColumn(bar_width=30), *amount)
        bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}: {task.fields[what]}", markup=False),
            *counted,
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        bar.start()
        return bar, bar.add_task(step.phase, total=step.total, what=step.message[:60])

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._task = None, None


def _how_far(step: BuildStep) -> str:
    if step.done is None or not step.total:
        return ""
    if step.unit == "bytes":
        rate = f", {size_text(int(step.done / step.elapsed_s))}/s" if step.elapsed_s >= 1 else ""
        return f" ({size_text(step.done)} of {size_text(step.total)}{rate})"
    return f" ({step.done} of {step.total} {step.unit})"
