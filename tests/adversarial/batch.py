"""Starts services under attack, and keeps what they answer: one process for each batch of rows.

Invariant: a batch is run once, with the rows that this session selected; what it left on this machine is
looked for by the parent, which took no part.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.adversarial.attack import Attack
from tests.adversarial.service import Order, Report
from tests.conftest import state_dir
from tests.support.everyone import sandbox_for_everyone
from tests.support.sandboxes import Leftovers

__all__ = ["CONTROL", "HOSTS", "Batches", "Host"]

PROJECT = Path(__file__).resolve().parents[2]
CONTROL = "control"
"""Stands for the theme of a control run: rows of all themes that lack the same walls run together."""
UIDS_A_SERVICE = 2000
FIRST_UID = 800_000_000
SERVICE_TIMEOUT_S = 280.0
LEAVE_TIMEOUT_S = 8.0


@dataclass(frozen=True)
class Host:
    """A back end that the table runs on."""

    name: str
    marker: str
    """What the machine must serve."""
    has_rights: bool
    """False where the service is a user without any right."""

    rows: Callable[[Attack], bool] = lambda _: True
    """Which rows it runs."""


# The whole table runs on each of these; a new back end is a line here and one in `service.BACKENDS`.
HOSTS = (
    Host("slot", marker="root", has_rights=True),
    Host("bubblewrap", marker="bubblewrap", has_rights=False),
    # Experimental, and slow to start: a guest kernel makes the difference here, not the language inside;
    # and a guest has no gateway, so that nothing is installed there.
    Host("gvisor", marker="gvisor", has_rights=True, rows=lambda row: not row.needs_tree),
)


@dataclass(frozen=True)
class Batch:
    """What one service did, and what it left."""

    report: Report
    before: Leftovers
    after: Leftovers


class Batches:
    """The batches of one session, each run when it is first asked for.

    Args:
        selected: for each batch (back end, walls left out, theme), the rows to run.
    """

    def __init__(self, selected: dict[tuple[str, tuple[str, ...], str], list[str]]) -> None:
        self._selected = selected
        self._done: dict[tuple[str, tuple[str, ...], str], Batch | Exception] = {}

    def get(self, host: Host, walls: Sequence[str], theme: str) -> Batch:
        """Return a batch, or raise what stopped it."""
        key = (host.name, tuple(walls), theme)
        if key not in self._done:
            try:
                self._done[key] = _run(host, walls, self._selected[key])
            except Exception as exc:  # noqa: BLE001 - every row of the batch reports it
                self._done[key] = exc
        done = self._done[key]
        if isinstance(done, Exception):
            raise done
        return done


def _run(host: Host, walls: Sequence[str], keys: Iterable[str]) -> Batch:
    with _home(host) as (python, folder, must_change_user):
        first = FIRST_UID + time.monotonic_ns() // 1000 % 400_000 * UIDS_A_SERVICE // 10
        uids = range(first, first + UIDS_A_SERVICE)
        before = Leftovers.look(uids)
        order = Order(
            backend=host.name,
            keys=list(keys),
            walls=list(walls),
            state_dir=str(state_dir()),
            uids=(uids.start, uids.stop),
            user=uids.start if must_change_user else None,
        )
        done = subprocess.run(
            [python, "-B", "-c", START, str(folder)],
            input=json.dumps(asdict(order)).encode(),
            capture_output=True,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath)},
            timeout=SERVICE_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"the service under attack failed: {done.stderr.decode(errors='replace')}")
        report = pickle.loads(done.stdout)
        assert isinstance(report, Report)
        deadline_s = time.monotonic() + LEAVE_TIMEOUT_S
        while (after := Leftovers.look(uids, report.pid)) != before and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return Batch(report, before, after)


START = "import sys; sys.path.insert(0, sys.argv[1]); from tests.adversarial import service; service.main()"


@contextmanager
def _home(host: Host) -> Iterator[tuple[str, Path, bool]]:
    """Yield an interpreter, a folder with the code, and whether another user is to run it there."""
    if host.has_rights or os.geteuid() != 0:
        yield sys.executable, PROJECT, False
        return
    with sandbox_for_everyone() as home:
        for name in ("adversarial", "support"):
            shutil.copytree(PROJECT / "tests" / name, home / "tests" / name)
        for path in home.rglob("*"):
            path.chmod(0o755 if path.is_dir() or path.name == "bwrap" else 0o644)
        yield "/usr/bin/python3", home, True
