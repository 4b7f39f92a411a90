"""The table at the end of a demonstration."""

import io

import pytest
from rich.console import Console

from blueprint.chain.deployment import CallResult
from blueprint.cli.demo_cases import Verdict, fault_cases, judge
from blueprint.cli.demo_view import ResultTable, Row
from blueprint.types import Address, CallKey, Hash
from jobs.execute_codec import ExecuteResult
from sandbox.result import ExecutionStatus

FAILS, LOOPS, HOARDS = fault_cases()


def row(verdict: Verdict) -> Row:
    """Return the answer to the program that loops for ever, judged as given."""
    found = CallResult(
        key=CallKey(chain_id=31337, contract=Address(bytes(20)), service_id=0, call_id=3),
        operator=Address(bytes(20)),
        output=b"",
        block_number=18,
        transaction_hash=Hash(bytes(32)),
    )
    answer = ExecuteResult(
        status=ExecutionStatus.TIMEOUT,
        runtime="python 3.13.5",
        error_message="run: killed after 2 s of wall time",
    )
    return Row(case=LOOPS, found=found, answer=answer, verdict=verdict)


def shown(verdict: Verdict, width: int) -> list[str]:
    """Return the lines of a table with one answer."""
    stream = io.StringIO()
    Console(file=stream, width=width).print(ResultTable([row(verdict)]))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


ENFORCED = judge(LOOPS, ExecuteResult(status=ExecutionStatus.TIMEOUT), ())


def test_wide_terminal_shows_everything() -> None:
    """With room for it, version, transaction and block are there."""
    header, line = shown(ENFORCED, 150)
    assert [name for name in ("version", "CPU", "transaction", "block") if name in header] == [
        *("version", "CPU", "transaction", "block")
    ]
    assert "3.13.5" in line
    assert line.endswith("stopped as it must be")


@pytest.mark.parametrize("width", [80, 100])
def test_narrow_terminal_shows_one_readable_line_an_answer(width: int) -> None:
    """On eighty columns each answer still is one line, with program, status and verdict whole."""
    _, line = shown(ENFORCED, width)
    assert line.startswith("loops for ever  timeout")
    assert line.endswith("right")
    assert len(line) <= width


def test_narrow_terminal_never_calls_right_what_was_not_enforced() -> None:
    """A limit that is not in force is said so, however little room there is."""
    _, line = shown(judge(LOOPS, ExecuteResult(status=ExecutionStatus.SUCCESS), ("wall_time",)), 80)
    assert line.endswith("not enforced")
