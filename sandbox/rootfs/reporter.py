"""Turns what happens during a build into reports: one phase at a time, not too many a second."""

import time
from collections.abc import Callable

from sandbox.rootfs.progress import BuildStep, Progress

__all__ = ["Reporter"]

MIN_INTERVAL_S = 0.2


class Reporter:
    """Keeps the current phase and its clock.

    Args:
        progress: receives the reports.
        clock: seconds that only grow.
    """

    def __init__(self, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress = progress
        self._clock = clock
        self._phase = ""
        self._message = ""
        self._began_s = 0.0
        self._reported_s = 0.0
        self.times_s: dict[str, float] = {}
        """How long each finished phase took, summed over its rounds."""

    def begin(self, phase: str, message: str) -> None:
        """End the current phase and begin another."""
        self.finish()
        self._phase, self._message, self._began_s = phase, message, self._clock()
        self._send(None, None, "", is_finished=False)

    def note(self, message: str) -> None:
        """Say something within the current phase."""
        self._message = message
        self._send(None, None, "", is_finished=False)

    def advance(self, done: int, total: int, unit: str) -> None:
        """Say how far the current phase is; reports that follow too closely are left out."""
        if done >= total or self._clock() - self._reported_s >= MIN_INTERVAL_S:
            self._send(done, total, unit, is_finished=False)

    def finish(self) -> None:
        """End the current phase; without one nothing happens."""
        if self._phase:
            elapsed = self._clock() - self._began_s
            self.times_s[self._phase] = self.times_s.get(self._phase, 0.0) + elapsed
            self._send(None, None, "", is_finished=True)
            self._phase = ""

    def _send(self, done: int | None, total: int | None, unit: str, *, is_finished: bool) -> None:
        self._reported_s = self._clock()
        self._progress(
            BuildStep(
                phase=self._phase,
                message=self._message,
                elapsed_s=self._reported_s - self._began_s,
                done=done,
                total=total,
                unit=unit,
                is_finished=is_finished,
            )
        )
