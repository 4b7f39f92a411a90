"""Each language's hello through the sandbox, against the same program run bare in the same tree.

    python -m bench.sandbox [--runs N] [--languages a,b] [--json] [--backend slot|bubblewrap]

"Bare" is the same commands in the same tree, in a chroot without name spaces, groups, filters or quota.
Both sides run strictly in turns, so that a noisy machine disturbs both alike. Needs root and a built tree.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from sandbox.backends.backend import Backend
from sandbox.backends.bubblewrap import BubblewrapBackend
from sandbox.backends.slot import SlotBackend
from sandbox.executor import CodeExecutor
from sandbox.languages import LANGUAGES, Plan
from sandbox.request import ExecutionRequest, Limits, SourceFile
from sandbox.result import ExecutionStatus
from sandbox.rootfs import find_tree
from sandbox.tree import LanguageTree, Runtime

CHROOT = shutil.which("chroot") or "/usr/sbin/chroot"
WORD = b"0123456789abcdef\n"
EXPECTED = b"FEDCBA9876543210\n"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class Row:
    """The medians of one language, in milliseconds."""

    language: str
    version: str
    compile_bare_ms: float
    run_bare_ms: float
    compile_sandbox_ms: float
    run_sandbox_ms: float
    total_bare_ms: float
    total_sandbox_ms: float

    @property
    def overhead_ms(self) -> float:
        """What the sandbox adds to the whole."""
        return self.total_sandbox_ms - self.total_bare_ms


class Bare:
    """Runs plans in a chroot of the tree. Mounts stand in a name space of this process's own."""

    def __init__(self, tree: LanguageTree) -> None:
        self.root = tree.path
        self.work = Path(tempfile.mkdtemp(prefix="bench-"))
        for folder in ("work", "tmp"):
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.root / folder], check=True)
        subprocess.run(["mount", "-t", "proc", "proc", self.root / "proc"], check=True)
        subprocess.run(["mount", "--rbind", "/dev", self.root / "dev"], check=True)

    def run(self, request: ExecutionRequest, plan: Plan) -> dict[str, float]:
        """Run every stage and return the milliseconds of each and of the whole."""
        subprocess.run(["find", self.root / "work", "-mindepth", "1", "-delete"], check=True)
        began, times, printed = time.perf_counter(), {"compile": 0.0}, b""
        for file in (*request.files, *plan.files):
            place = self.root / "work" / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.content)
        for stage in plan.stages:
            started = time.perf_counter()
            done = subprocess.run(
                [CHROOT, self.root, "/usr/bin/env", "--chdir=/work", *stage.argv],
                env=ENVIRONMENT | dict(stage.env),
                input=request.stdin,
                capture_output=True,
                check=True,
            )
            times[stage.name] = (time.perf_counter() - started) * 1000
            printed = done.stdout
        assert printed == EXPECTED, printed
        return times | {"total": (time.perf_counter() - began) * 1000}


async def boxed(executor: CodeExecutor, request: ExecutionRequest) -> dict[str, float]:
    """Run one request in the sandbox and return the milliseconds of each stage and of the whole."""
    began = time.perf_counter()
    result = await executor.execute(request)
    total = (time.perf_counter() - began) * 1000
    assert result.status is ExecutionStatus.SUCCESS, result
    assert result.stdout.data == EXPECTED, result.stdout
    times = {stage.name: stage.wall_time_s * 1000 for stage in result.process_stats.stages}
    return {"compile": 0.0} | times | {"total": total}


async def measure(runtime: Runtime, executor: CodeExecutor, bare: Bare, runs: int) -> Row:
    """Measure one language; one run of each side warms the page cache and is not counted."""
    language = LANGUAGES[runtime.language]
    source = SourceFile(path=language.default_file, content=language.sample.encode())
    request = ExecutionRequest(language=language.name, files=[source], stdin=WORD, limits=Limits())
    plan = language.plan(request, runtime)
    sides: dict[str, list[dict[str, float]]] = {"bare": [], "boxed": []}
    for _ in range(runs + 1):
        sides["bare"].append(bare.run(request, plan))
        sides["boxed"].append(await boxed(executor, request))

    def median(side: str, part: str) -> float:
        return round(statistics.median(times[part] for times in sides[side][1:]), 1)

    return Row(
        language=language.title,
        version=runtime.version,
        compile_bare_ms=median("bare", "compile"),
        run_bare_ms=median("bare", "run"),
        compile_sandbox_ms=median("boxed", "compile"),
        run_sandbox_ms=median("boxed", "run"),
        total_bare_ms=median("bare", "total"),
        total_sandbox_ms=median("boxed", "total"),
    )


async def bench(options: argparse.Namespace) -> list[Row]:
    """Measure every language that was asked for."""
    tree = find_tree(options.state_dir)
    if tree is None:
        sys.exit("no language tree: build it with: blueprint runtimes build")
    backend: Backend = SlotBackend() if options.backend == "slot" else BubblewrapBackend()
    executor = CodeExecutor([tree], backend, max_concurrent=1)
    wanted = options.languages.split(",") if options.languages else list(LANGUAGES)
    bare = Bare(tree)
    try:
        return [
            await measure(runtime, executor, bare, options.runs)
            for runtime in tree.runtimes
            if runtime.language in wanted
        ]
    finally:
        await executor.aclose()


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=9, help="counted runs of each side (default 9)")
    parser.add_argument("--languages", default="", help="comma-separated; all by default")
    parser.add_argument("--backend", choices=("slot", "bubblewrap"), default="slot")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--state-dir", type=Path, default=Path("/var/lib/tee-job-node"))
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("the bare side needs root for its chroot")
    if "BENCH_APART" not in os.environ:
        # The mounts of the bare side stand in a name space of their own and end with it.
        command = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            sys.executable,
            "-m",
            "bench.sandbox",
            *sys.argv[1:],
        ]
        sys.exit(subprocess.run(command, env=os.environ | {"BENCH_APART": "1"}, check=False).returncode)
    rows = asyncio.run(bench(options))
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    columns = ("compile bare", "run bare", "compile boxed", "run boxed", "all bare", "all boxed", "added")
    print(f"| language | version | {' | '.join(columns)} |")
    print(f"|---|---|{'---:|' * len(columns)}")
    for row in rows:
        figures = (row.compile_bare_ms, row.run_bare_ms, row.compile_sandbox_ms, row.run_sandbox_ms)
        figures += (row.total_bare_ms, row.total_sandbox_ms, row.overhead_ms)
        print(f"| {row.language} | {row.version} | {' | '.join(f'{figure:.1f}' for figure in figures)} |")


if __name__ == "__main__":
    main()
