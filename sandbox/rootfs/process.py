"""Runs the programs of a build so that none outlives the build.

Invariant: a child started here dies with this process, even by ``kill -9``: the parent-death signal ends it,
and as root its own pid namespace takes every descendant along, its own mount namespace every mount.
"""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from sandbox.errors import SystemFailureError

__all__ = ["Finished", "is_root", "leashed", "require", "run_streaming", "started"]

KEPT_LINES = 200
REQUIRE_TIMEOUT_S = 600.0


class Finished:
    """How a child ended: its exit code and its last lines of output."""

    def __init__(self, exit_code: int, lines: Sequence[str]) -> None:
        self.exit_code = exit_code
        self.lines = tuple(lines)

    def says(self, words: str) -> bool:
        """Tell whether one of the kept lines holds the words."""
        return any(words in line for line in self.lines)


def is_root() -> bool:
    """Tell whether this process may mount and make device nodes."""
    return os.geteuid() == 0


def leashed(argv: Sequence[str]) -> list[str]:
    """Prefix a command so that it dies with this process, and as root all that it started too."""
    leash = ["setpriv", "--pdeathsig", "KILL"]
    if is_root():
        leash += ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    return [*leash, *argv]


def require(argv: Sequence[str], cwd: Path | None = None) -> str:
    """Run one command that must succeed, and return what it printed on standard output.

    Raises:
        SystemFailureError: it failed, or did not end within ten minutes.
    """
    with started(argv, cwd) as finish:
        return finish()


@contextlib.contextmanager
def started(argv: Sequence[str], cwd: Path | None = None) -> Iterator[Callable[[], str]]:
    """Start one command that must succeed; when the context is left it has ended, or is killed.

    Yields:
        A function that waits for the command and returns what it printed on standard output. It raises
        `SystemFailureError` when the command failed, or did not end within ten minutes.
    """
    # Files and no pipes: nobody reads until the command has ended.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(
            leashed(argv),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=cwd,
            env=os.environ | {"NODE_DISABLE_COMPILE_CACHE": "1"},  # npm would leave its cache in /tmp
            start_new_session=True,  # an interrupt of the terminal reaches us alone; we end the child
        )

        def finish() -> str:
            try:
                child.wait(REQUIRE_TIMEOUT_S)
            except subprocess.TimeoutExpired as exc:
                raise SystemFailureError(
                    f"language tree: {argv[0]} did not end within {REQUIRE_TIMEOUT_S:g} s"
                ) from exc
            printed, said = _text_of(out), _text_of(err)
            if child.returncode != 0:
                raise SystemFailureError(
                    f"language tree: {' '.join(argv)[:200]} ended with {child.returncode}: "
                    f"{(said or printed).strip()[-600:]}"
                )
            return printed

        try:
            yield finish
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def run_streaming(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: IO[bytes] | None = None,
) -> Finished:
    """Run a command and hand over its output line by line.

    Args:
        argv: the command.
        on_line: called with each line of standard output and standard error, without its end.
        env: the whole environment; None for this process's.
        cwd: the working directory.
        stdout: where standard output goes instead, as it is; then only standard error is read as lines.
    """
    lines: list[str] = []
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=stdout or subprocess.PIPE,
        stderr=subprocess.PIPE if stdout else subprocess.STDOUT,
        env=env,
        cwd=cwd,
        start_new_session=True,  # an interrupt of the terminal reaches us alone; we end the child
    )
    try:
        pipe = child.stderr if stdout else child.stdout
        assert pipe is not None
        with pipe:
            for raw in pipe:
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                lines.append(line)
                del lines[:-KEPT_LINES]
                on_line(line)
        return Finished(child.wait(), lines)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
