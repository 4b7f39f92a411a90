"""Drives a soak: starts services and kills some of them in the middle.

Invariant: every request is answered by some service, or was under way when one was killed.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.service import PLACES

__all__ = ["Outcome", "soak"]

PROJECT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0


@dataclass
class Outcome:
    """What a soak came to."""

    answered: int = 0
    kills: int = 0
    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Requests that did not end as they must."""


def soak(
    *,
    backend: str,
    count: int,
    kills: int,
    state_dir: Path,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Serve ``count`` requests, killing the service ``kills`` times at even distances."""
    outcome, began_s = Outcome(), time.monotonic()
    start = 0
    with tempfile.TemporaryDirectory(prefix="soak-layers-") as layers:
        for number in range(kills + 1):
            is_last = number == kills
            end = count if is_last else count * (number + 1) // (kills + 1)
            command = [
                *(sys.executable, "-m", "tests.soak.service", "--layers", layers),
                *("--state-dir", str(state_dir), "--backend", backend),
                *("--count", str(count), "--seed", str(seed), "--start", str(start)),
            ]
            served = _serve_until(command, end - start, outcome, is_last=is_last)
            outcome.kills += not is_last
            # What was under way when a service was killed is not asked again: it was answered by a death.
            start += served + (0 if is_last else PLACES)
            outcome.seconds = time.monotonic() - began_s
            say(
                f"{backend}: {outcome.answered} answered, {outcome.kills} services killed, "
                f"{len(outcome.wrong)} wrong, {outcome.seconds:.0f} s"
            )
    return outcome


def _serve_until(command: list[str], enough: int, outcome: Outcome, *, is_last: bool) -> int:
    """Run one service; kill it, with whatever is under way in it, after enough answers."""
    served = 0
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        try:
            for line in service.stdout:
                fact = json.loads(line)
                if "ready" in fact:
                    continue
                served += 1
                outcome.answered += 1
                outcome.statuses[fact["status"]] += 1
                outcome.kinds[fact["kind"]] += 1
                if not fact["ok"]:
                    outcome.wrong.append(f"{fact['kind']}: {fact['status']} {fact['message']}")
                if served >= enough and not is_last:
                    break
        finally:
            if service.poll() is None and not is_last:
                os.kill(service.pid, signal.SIGKILL)
    if is_last and service.returncode != 0:
        outcome.wrong.append(f"a service ended with {service.returncode}")
    return served
