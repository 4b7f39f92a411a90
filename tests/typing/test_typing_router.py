"""What a type checker tells the author of a job."""

from pathlib import Path

import pytest
from mypy import api

PROJECT = Path(__file__).resolve().parents[2]
GOOD = """
from blueprint.extract import U8, U64, Bytes32
from blueprint.job import Handler, Layer
from blueprint.layers import concurrency_limit, retry
from blueprint.router import Router
from typing import assert_type

router = Router()

@router.job(0, layers=[retry(), concurrency_limit(2)])
async def add(left: U8, right: U64) -> Bytes32:
    return bytes(32)

async def use() -> None:
    assert_type(await add(1, right=2), bytes)

handler: Handler = router.bind({})
"""
BAD = """
from blueprint.extract import U8
from blueprint.router import Router

router = Router()

@router.job(0)
def synchronous(number: U8) -> U8:
    return number

@router.job("1")
async def named(number: U8) -> U8:
    return "text"
"""


@pytest.mark.slow
def test_typing_of_a_router_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decorated handlers keep their types under mypy strict; a sync handler and a bad index do not pass."""
    monkeypatch.setenv("MYPYPATH", str(PROJECT))
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text(BAD)
    options = [
        "--strict",
        "--config-file",
        "",
        "--cache-dir",
        str(tmp_path / "cache"),
        "--follow-imports",
        "silent",
    ]
    out, err, status = api.run([*options, str(tmp_path / "good.py"), str(PROJECT / "examples/hello_job.py")])
    assert (status, err) == (0, ""), out
    out, _, status = api.run([*options, str(tmp_path / "bad.py")])
    assert status == 1
    assert [line.split(":")[1] for line in out.splitlines() if ": error:" in line] == ["7", "11", "13"]
