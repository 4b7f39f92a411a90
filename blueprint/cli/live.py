"""Shows what a program uses while it runs: one line that changes on a terminal, a line each second elsewhere.

Invariant: nothing of what the program prints is shown here, and off a terminal only whole lines are.
"""

from dataclasses import asdict
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from blueprint.cli.outcome import counted, memory_text, size_text, time_text
from sandbox.result import StageSample

__all__ = ["LiveLine", "sample_json", "sample_text"]

_LINE_EVERY_S: Final = 1.0


class LiveLine:
    """A context manager; call it with each sample.

    Args:
        console: where to draw, standard error.
    """

    def __init__(self, console: Console) -> None:
        can_draw = console.is_terminal and not console.is_dumb_terminal
        self._console = console
        self._line = Live(console=console, auto_refresh=False, transient=True) if can_draw else None
        self._last: StageSample | None = None
        self._next_line_s = 0.0

    def __enter__(self) -> Self:
        if self._line is not None:
            self._line.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._line is not None:
            self._line.stop()

    def __call__(self, sample: StageSample) -> None:
        """Show one sample."""
        if self._last is None or self._last.stage != sample.stage:
            self._last, self._next_line_s = None, 0.0
        text = Text(f"  {sample_text(sample, self._last)}", no_wrap=True, overflow="ellipsis")
        self._last = sample
        if self._line is not None:
            self._line.update(text, refresh=True)
        elif sample.elapsed_s >= self._next_line_s:
            self._next_line_s = sample.elapsed_s + _LINE_EVERY_S
            self._console.print(text)


def sample_text(sample: StageSample, before: StageSample | None = None) -> str:
    """Return one line for people; the share of CPU is that since the sample ``before``, or the start."""
    used_s, passed_s = _cpu_s(sample), sample.elapsed_s
    if before is not None:
        used_s, passed_s = used_s - _cpu_s(before), passed_s - before.elapsed_s
    share = round(100 * used_s / passed_s) if passed_s > 0 else 0
    parts = [
        _memory(sample),
        f"{share} % CPU",
        _processes(sample.processes),
        f"{size_text(sample.disk_bytes)} disk",
        f"{size_text(sample.stdout_bytes + sample.stderr_bytes)} printed",
    ]
    return f"{sample.stage} {time_text(sample.elapsed_s)}: " + ", ".join(parts)


def sample_json(sample: StageSample) -> dict[str, Any]:
    """Return a sample as JSON, field by field."""
    return {"sample": asdict(sample)}


def _memory(sample: StageSample) -> str:
    text = memory_text(sample.memory_bytes)
    return (
        text
        if sample.memory_file_bytes is None
        else f"{text} ({size_text(sample.memory_file_bytes)} of it files)"
    )


def _processes(count: int | None) -> str:
    if count is None:
        return "processes not seen"
    return counted(count, "process")


def _cpu_s(sample: StageSample) -> float:
    return sample.user_time_s + sample.system_time_s
