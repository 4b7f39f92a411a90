"""A request lowers the bounds of its run, and nothing else."""

import pytest

from sandbox.bounds import StageBounds
from sandbox.errors import RequestError
from sandbox.request import MIB, ExecutionRequest, Limits, SourceFile

OURS = StageBounds(run=Limits(wall_time_s=10, memory_bytes=64 * MIB, disk_bytes=8 * MIB, inodes=50))


def a_request(**parts: object) -> ExecutionRequest:
    return ExecutionRequest(language="c", files=[SourceFile(path="a", content=b"")], **parts)  # type: ignore[arg-type]


def test_request_lowers_each_bound_of_its_run_and_raises_none() -> None:
    """Of two bounds the lower one holds, whichever side it is on."""
    theirs = Limits(wall_time_s=99, memory_bytes=32 * MIB, disk_bytes=999 * MIB, inodes=7)
    run = OURS.lowered(a_request(limits=theirs)).run
    assert (run.wall_time_s, run.memory_bytes, run.disk_bytes, run.inodes) == (10, 32 * MIB, 8 * MIB, 7)


def test_compiling_keeps_its_own_memory_and_shares_the_quota_of_files() -> None:
    """A program that asks for little memory is still compiled; what the compiler writes is its quota too."""
    lowered = OURS.lowered(a_request(limits=Limits(memory_bytes=16 * MIB, disk_bytes=MIB, inodes=9)))
    assert lowered.compile.memory_bytes == OURS.compile.memory_bytes
    assert (lowered.compile.disk_bytes, lowered.compile.inodes) == (MIB, 9)


def test_timeout_bounds_the_run_alone() -> None:
    """A short timeout does not shorten the compiler's clock."""
    lowered = OURS.lowered(a_request(timeout_s=0.5))
    assert (lowered.run.wall_time_s, lowered.compile.wall_time_s) == (0.5, OURS.compile.wall_time_s)


def test_timeout_over_the_operator_s_is_refused() -> None:
    """A request is told, rather than cut short in silence."""
    with pytest.raises(RequestError, match="at most 10, received 11"):
        OURS.lowered(a_request(timeout_s=11.0))


def test_compiler_may_write_larger_files_than_the_program() -> None:
    """Object files and programs exceed what a program may write itself."""
    usual = StageBounds()
    assert usual.compile.file_size_bytes > usual.run.file_size_bytes


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf")])
def test_deadline_is_a_positive_number(deadline: float) -> None:
    """A deadline that would never or always pass is refused."""
    with pytest.raises(RequestError, match="deadline_s"):
        StageBounds(deadline_s=deadline)
