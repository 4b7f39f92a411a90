"""The machine that a benchmark runs on: what is said of it, what it holds, and mounts for one run."""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

__all__ = ["MIB", "available_bytes", "describe", "held_bytes", "run_apart", "scratch_folder", "table"]

MIB = 1024 * 1024


def describe() -> str:
    """Return one sentence about the machine and its load at this moment."""
    memory_gib = psutil.virtual_memory().total / 1024**3
    return (
        f"{os.cpu_count()} shared {platform.machine()} CPUs (load average {os.getloadavg()[0]:.1f}), "
        f"{memory_gib:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"
    )


def available_bytes() -> int:
    """Return how much memory the machine can still give."""
    return int(psutil.virtual_memory().available)


def held_bytes() -> int:
    """Return the memory of all processes below this one; a page that several share counts once in all."""
    held = 0
    for child in psutil.Process().children(recursive=True):
        try:
            held += child.memory_full_info().pss
        except psutil.Error:
            continue
    return held


def run_apart(module: str) -> None:
    """Run a module again in a mount name space of its own, with the same arguments, and exit as it does.

    Returns when this process already is that run.
    """
    if "BENCH_APART" in os.environ:
        return
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", module, *sys.argv[1:]]
    sys.exit(subprocess.run(command, env=os.environ | {"BENCH_APART": "1"}, check=False).returncode)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a folder on a tmpfs, and take away what was mounted there meanwhile."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        # With all below it, at once. What is still mounted is never looked into: it may be a language tree.
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Return a table in Markdown; its first ``left`` columns hold words, the others figures."""
    lines = [head, ["---"] * left + ["---:"] * (len(head) - left), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
