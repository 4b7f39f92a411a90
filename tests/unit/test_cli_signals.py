"""The first signal asks to stop; what it was decides the exit code."""

import asyncio
import signal

import pytest

from blueprint.cli.signals import StopSignals, sigterm_interrupts


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_first_signal_is_a_request(number: signal.Signals, code: int) -> None:
    """A signal only sets the event; SIGTERM is a normal stop, SIGINT an interruption."""
    async with StopSignals() as stop:
        signal.raise_signal(number)
        async with asyncio.timeout(5):
            await stop.requested.wait()
    assert stop.exit_code == code


def test_sigterm_interrupts_blocking_work_and_is_restored() -> None:
    """While a build blocks SIGTERM raises KeyboardInterrupt, so that it cleans up; afterwards no more."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_interrupts():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
