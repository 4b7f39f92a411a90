"""The trial before a service starts: nothing is offered where no program can run."""

from pathlib import Path

import pytest

from sandbox.backends.backend import StageOrder, StageOutcome
from sandbox.check import Finding, Level, backends_that_serve, prove
from sandbox.errors import SandboxUnavailableError, SystemFailureError
from sandbox.testing import FakeBackend, FakeSandbox, fake_outcome
from sandbox.tree import LanguageTree

TREE = LanguageTree(path=Path("/"), digest="0" * 64, kind="host", runtimes=())


async def test_program_that_answers_is_proof_and_its_sandbox_is_destroyed() -> None:
    """One program that prints what it was asked to is enough, and nothing of it stays."""
    backend = FakeBackend(lambda _sandbox, _order: fake_outcome(stdout=b"ready\n"))
    await prove(backend, TREE)
    assert [sandbox.is_destroyed for sandbox in backend.sandboxes] == [True]


async def test_program_that_cannot_start_is_refused_with_the_reason() -> None:
    """What the back end failed at is what the operator reads, and the sandbox is destroyed."""

    def fail(_sandbox: FakeSandbox, _order: StageOrder) -> StageOutcome:
        raise SystemFailureError("unshare: Operation not permitted")

    backend = FakeBackend(fail)
    with pytest.raises(SandboxUnavailableError, match="under fake: unshare: Operation not permitted"):
        await prove(backend, TREE)
    assert [sandbox.is_destroyed for sandbox in backend.sandboxes] == [True]


async def test_program_that_fails_is_refused_with_what_it_said() -> None:
    """An exit code other than that of success is no proof."""
    backend = FakeBackend(lambda _sandbox, _order: fake_outcome(exit_code=127, stderr=b"sh: not found"))
    with pytest.raises(SandboxUnavailableError, match="exit code 127, signal None, printed 'sh: not found'"):
        await prove(backend, TREE)


@pytest.mark.parametrize(
    ("levels", "serving"),
    [
        ([("", "ok"), ("slot", "ok"), ("slot", "weak")], ["slot"]),
        ([("", "ok"), ("slot", "ok"), ("slot", "missing"), ("bubblewrap", "weak")], ["bubblewrap"]),
        ([("", "missing"), ("slot", "ok"), ("bubblewrap", "ok")], []),
        ([("", "ok")], []),
    ],
)
def test_back_end_serves_when_nothing_of_it_is_missing(
    levels: list[tuple[str, str]], serving: list[str]
) -> None:
    """What one lacks does not keep another from serving; what all rest on does."""
    findings = [
        Finding(name="mechanism", level=Level(level), detail="tried", backend=backend)
        for backend, level in levels
    ]
    assert backends_that_serve(findings) == serving
