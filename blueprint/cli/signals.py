"""What SIGTERM and SIGINT do: the first asks to stop, the second ends the process at once.

Invariant: a handler only sets an event, raises or leaves; no work is done inside it.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Final, Self

import structlog

from blueprint.cli.exits import ExitCode

__all__ = ["StopSignals", "sigterm_interrupts"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_log = structlog.get_logger()


class StopSignals:
    """An async context manager in which signals are turned into a request to stop.

    Attributes:
        requested: set by the first signal.
        exit_code: 0 after SIGTERM, which is how a service is stopped; 130 after SIGINT, which is a person.
    """

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.exit_code = ExitCode.OK

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._receive, number)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    def _receive(self, number: signal.Signals) -> None:
        if self.requested.is_set():
            _log.warning("stopped_at_once", signal=number.name)
            os._exit(ExitCode.INTERRUPTED)
        _log.info("stop_requested", signal=number.name)
        self.exit_code = ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.OK
        self.requested.set()


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Make SIGTERM act like Ctrl-C while blocking work runs in the main thread, so that it can clean up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
