"""What the demonstration submits, and what the answers must be.

Invariant: no answer can be known before the run: each program transforms a nonce drawn in that run, and the
right answer is computed here, apart from the programs.
"""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath
from typing import Final

from jobs.execute_codec import ChainFile, ChainLimits, ExecuteRequest, ExecuteResult
from sandbox.languages import LANGUAGES
from sandbox.result import ExecutionStatus

__all__ = ["Case", "Verdict", "expected_output", "fault_cases", "judge", "language_cases", "snippet"]

_PROGRAMS: Final = resources.files("blueprint.cli") / "programs"
_MIB: Final = 1024 * 1024
_FNV_OFFSET: Final = 2166136261
_FNV_PRIME: Final = 16777619


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One program and the answer that it must get."""

    name: str
    """The language, or what goes wrong in it."""
    request: ExecuteRequest
    status: ExecutionStatus
    stdout: bytes | None = None
    """What must have been printed; None where it does not matter."""
    stderr_part: bytes = b""
    """What stderr must hold."""
    needs: str = ""
    """The guarantee without which nothing stops the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether an answer is the one that it must be."""

    is_right: bool
    """False for a missing or wrong answer."""
    note: str
    """``right``, ``stopped as it must be``, ``not enforced``, or what is wrong."""
    is_enforced: bool = True
    """False when the limit that had to stop the program is not in force here: nothing was proved."""


def expected_output(nonce: str, language: str) -> bytes:
    """Return what a language's program must print: the nonce reversed, and FNV-1a of nonce and language."""
    value = _FNV_OFFSET
    for byte in (nonce + language).encode():
        value = (value ^ byte) * _FNV_PRIME % 2**32
    return f"{nonce[::-1]} {value:08x}\n".encode()


def language_cases(languages: Sequence[str]) -> list[Case]:
    """Return one case a language, each with a nonce of its own.

    A language without a program of the demonstration shows its sample, which prints the nonce reversed.
    """
    cases = []
    for language in languages:
        nonce, declared = secrets.token_hex(8), LANGUAGES[language]
        source, stdout = declared.sample.encode(), f"{nonce[::-1].upper()}\n".encode()
        name = language + PurePosixPath(declared.default_file).suffix
        if (_PROGRAMS / name).is_file():
            source, stdout = _source(name), expected_output(nonce, language)
        request = ExecuteRequest(
            language=language,
            files=(ChainFile(declared.default_file, source),),
            stdin=nonce.encode() + b"\n",
        )
        cases.append(Case(name=language, request=request, status=ExecutionStatus.SUCCESS, stdout=stdout))
    return cases


def fault_cases() -> list[Case]:
    """Return a program that fails, one that never ends, and one that asks for too much memory."""
    return [
        Case(
            name="fails",
            request=_python("fails.py"),
            status=ExecutionStatus.NONZERO_EXIT,
            stdout=b"about to fail\n",
            stderr_part=b"IndexError",
        ),
        Case(
            name="loops for ever",
            request=_python("loops.py", timeout_ms=2000),
            status=ExecutionStatus.TIMEOUT,
            needs="wall_time",
        ),
        Case(
            name="hoards memory",
            request=_python("hoards.py", timeout_ms=20_000, memory_bytes=128 * _MIB),
            status=ExecutionStatus.MEMORY_LIMIT,
            needs="memory",
        ),
    ]


def snippet(nonce: str) -> str:
    """Return the Python source that the example contract asks to have run; it prints the nonce reversed."""
    return f"print('{nonce}'[::-1], end='')"


def judge(case: Case, answer: ExecuteResult | None, not_enforced: Collection[str]) -> Verdict:
    """Compare an answer with what it must be; a limit that is not in force is never said to have held."""
    if answer is None:
        return Verdict(is_right=False, note="the output is no answer of the execute job")
    if case.needs in not_enforced:
        return Verdict(is_right=True, note="not enforced", is_enforced=False)
    if answer.status != case.status:
        return Verdict(is_right=False, note=f"expected {case.status.name.lower()}: {answer.error_message}")
    if case.stdout is not None and answer.stdout != case.stdout:
        return Verdict(is_right=False, note=f"expected {case.stdout.decode().strip()!r}")
    if case.stderr_part not in answer.stderr:
        return Verdict(is_right=False, note=f"stderr lacks {case.stderr_part.decode()}")
    return Verdict(is_right=True, note="right" if not answer.status else "stopped as it must be")


def _python(name: str, *, timeout_ms: int = 0, memory_bytes: int = 0) -> ExecuteRequest:
    return ExecuteRequest(
        language="python",
        files=(ChainFile(name, _source(name)),),
        limits=ChainLimits(timeout_ms=timeout_ms, memory_bytes=memory_bytes),
    )


def _source(name: str) -> bytes:
    return (_PROGRAMS / name).read_bytes()
