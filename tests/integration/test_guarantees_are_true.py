"""No back end claims what it does not hold: each guarantee that it names is attacked where it names it."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.backends.backend import Backend, Sandbox
from sandbox.backends.bubblewrap import BubblewrapBackend
from sandbox.backends.gvisor import GvisorBackend
from sandbox.backends.slot import SlotBackend
from tests.support.probes import (
    PROBES,
    Facts,
    Probe,
    Seen,
    facts_of_this_machine,
    limits_of,
    program_of,
    try_probe,
)
from tests.support.sandboxes import MIB, SMALL, host_python

BACKENDS = [
    pytest.param(SlotBackend, id="slot", marks=pytest.mark.root),
    pytest.param(BubblewrapBackend, id="bubblewrap", marks=pytest.mark.bubblewrap),
    pytest.param(GvisorBackend, id="gvisor", marks=[pytest.mark.root, pytest.mark.gvisor]),
]
"""One line for each back end; those that this machine does not serve are skipped."""

LOOSE = {
    "memory": {"memory_bytes": 512 * MIB, "disk_bytes": 64 * MIB},
    "processes": {"processes": 40},
    "cpu_time": {"cpu_time_s": 60.0},
    "wall_time": {"wall_time_s": 30.0},
    "disk": {"disk_bytes": 64 * MIB},
    "inodes": {"inodes": 2000},
    "file_size": {"file_size_bytes": 32 * MIB, "disk_bytes": 64 * MIB},
    "open_files": {"open_files": 1024},
    "output": {"output_bytes": MIB},
}
"""Bounds under which the programs reach what they are after."""
BARE = [name for name in PROBES if name not in LOOSE and name not in {"unique_uid", "read_only_root"}]


@pytest.mark.parametrize("make", BACKENDS)
async def test_every_claimed_guarantee_withstands_its_attack(
    make: Callable[[], Backend], tmp_path: Path
) -> None:
    """What `guarantees` and each result name holds against a program that tries to break exactly that."""
    backend = make()
    try:
        with facts_of_this_machine(tmp_path) as facts:
            claimed = backend.guarantees().enforced
            other = await backend.open(host_python(), SMALL, "other")
            broken = {
                name: seen.words
                for name in sorted(claimed)
                for probe in PROBES[name]
                if not probe.holds(seen := await _tried(backend, probe, facts, other))
                or seen.outcome is None
                or name not in seen.outcome.guarantees.enforced
            }
    finally:
        await backend.aclose()
    assert broken == {}


@pytest.mark.root
@pytest.mark.parametrize("name", LOOSE)
async def test_attack_on_a_limit_is_noticed_when_it_succeeds(name: str, tmp_path: Path) -> None:
    """Under looser bounds than those that are judged by, the same programs break every limit."""
    backend = SlotBackend()
    try:
        with facts_of_this_machine(tmp_path) as facts:
            other = await backend.open(host_python(), SMALL, "other")
            for probe in PROBES[name]:
                seen = await _tried(backend, probe, facts, other, **LOOSE[name])
                assert not probe.holds(seen), seen.words
    finally:
        await backend.aclose()


@pytest.mark.root
@pytest.mark.parametrize("name", BARE)
def test_attack_on_a_wall_is_noticed_when_it_succeeds(name: str, tmp_path: Path) -> None:
    """Outside of any sandbox the same programs reach what the walls are to keep them from."""
    with facts_of_this_machine(tmp_path) as facts:
        verdicts = [probe.holds(_bare(probe, facts, tmp_path)) for probe in PROBES[name] if probe.is_harmless]
    assert False in verdicts


async def _tried(backend: Backend, probe: Probe, facts: Facts, other: Sandbox, **looser: float) -> Seen:
    given = replace(limits_of(probe), **looser)
    sandbox = await backend.open(host_python(), given, "probed")
    try:
        return await try_probe(sandbox, probe, facts, given=given, other=other)
    finally:
        await sandbox.destroy()


def _bare(probe: Probe, facts: Facts, folder: Path) -> Seen:
    command = [sys.executable, "-c", program_of(probe, facts)]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return Seen(words=ran.stdout.split(), limits=limits_of(probe), facts=facts)
