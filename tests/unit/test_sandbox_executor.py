"""The executor chooses, clamps, admits, judges and collects; nothing of the kernel is needed for that."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.backends.backend import Backend, StageOrder, StageOutcome, StageUsage
from sandbox.bounds import StageBounds
from sandbox.capacity import Capacity
from sandbox.errors import RequestError, SystemFailureError
from sandbox.executor import CodeExecutor, Executor
from sandbox.kernel.files import CollectBounds
from sandbox.languages import Plan, Stage
from sandbox.languages.language import Provision
from sandbox.request import MIB, Dependency, ExecutionRequest, Limits, SourceFile
from sandbox.result import ExecutionStatus, LimitKind
from sandbox.testing import FakeBackend, FakeSandbox, fake_outcome
from sandbox.tree import LanguageTree, Runtime

BOUNDS = StageBounds(
    run=Limits(wall_time_s=10, processes=5),
    compile=Limits(wall_time_s=20, file_size_bytes=99, open_files=999),
)
Answer = Callable[[FakeSandbox, StageOrder], StageOutcome]


class Compiled:
    """A language with two stages."""

    name = "compiled"
    aliases: tuple[str, ...] = ("cc",)
    title = "Compiled"
    default_file = "main.c"

    def plan(self, request: ExecutionRequest, given: Provision) -> Plan:
        return Plan(
            files=[SourceFile(path="made/by.plan", content=b"plan")],
            stages=(
                Stage(name="compile", argv=("/cc", given.runtime.version), tasks_max=20),
                Stage(name="run", argv=("/work/a.out", *request.args), env={"MODE": "run", "A": "stage"}),
            ),
        )


def an_executor(backend: Backend, operator: StageBounds = BOUNDS, **options: object) -> CodeExecutor:
    """Return an executor with one language in three versions."""
    runtimes = tuple(Runtime(language="compiled", version=v, programs={}) for v in ("1.2.3", "1.13.0", "2.0"))
    tree = LanguageTree(path=Path("/nowhere"), digest="ab" * 32, kind="debian", runtimes=runtimes)
    languages = {"compiled": Compiled(), "absent": _Absent()}
    return CodeExecutor([tree], backend, languages, bounds=operator, **options)  # type: ignore[arg-type]


class _Absent(Compiled):
    name = "absent"
    aliases: tuple[str, ...] = ()


def a_request(**parts: object) -> ExecutionRequest:
    """Build a request with one file."""
    given: dict[str, object] = {
        "language": "compiled",
        "files": [SourceFile(path="main.c", content=b"code")],
        **parts,
    }
    return ExecutionRequest(**given)  # type: ignore[arg-type]


def by_stage(**outcomes: StageOutcome) -> Answer:
    """Answer each stage by its name."""
    return lambda _sandbox, order: outcomes[order.name]


async def test_stages_run_in_order_with_their_own_surroundings() -> None:
    """Variables, input and timeout reach the run stage only; each stage has its own limits."""
    backend = FakeBackend()
    executor: Executor = an_executor(backend)
    request = a_request(
        stdin=b"in", env_vars={"A": "user"}, timeout_s=3.0, args=["x"], limits=Limits(processes=2)
    )
    result = await executor.execute(request)
    compile_, run = backend.sandboxes[0].orders
    assert (compile_.name, compile_.stdin, compile_.limits.wall_time_s) == ("compile", b"", 20)
    assert (compile_.limits.file_size_bytes, compile_.limits.open_files, compile_.tasks_max) == (99, 999, 20)
    assert "A" not in compile_.env
    assert (run.argv, run.stdin, run.limits.wall_time_s) == (("/work/a.out", "x"), b"in", 3.0)
    assert (run.env["A"], run.env["MODE"], run.env["HOME"]) == ("user", "run", "/tmp")
    assert run.limits.processes == 2
    assert (result.status, result.runtime.version) == (ExecutionStatus.SUCCESS, "1.2.3")
    assert [stage.name for stage in result.process_stats.stages] == ["compile", "run"]


async def test_files_are_laid_down_and_outputs_collected() -> None:
    """All files lie under work before the first stage; outputs come back after the last."""
    seen: dict[str, bytes] = {}

    def answer(sandbox: FakeSandbox, order: StageOrder) -> StageOutcome:
        work = sandbox.folder / "work"
        if order.name == "compile":
            seen.update({str(p.relative_to(work)): p.read_bytes() for p in work.rglob("*") if p.is_file()})
        else:
            (work / "out.txt").write_bytes(b"result")
        return fake_outcome()

    backend = FakeBackend(answer)
    files = [SourceFile(path="main.c", content=b"code"), SourceFile(path="a/b/c.h", content=b"head")]
    result = await an_executor(backend).execute(a_request(files=files, outputs=["out.txt"]))
    assert seen == {"main.c": b"code", "a/b/c.h": b"head", "made/by.plan": b"plan"}
    assert [(file.path, file.content) for file in result.files] == [("out.txt", b"result")]
    assert backend.sandboxes[0].is_destroyed
    assert not backend.sandboxes[0].folder.exists()


async def test_failed_compilation_ends_the_execution() -> None:
    """A compiler that fails is COMPILATION_ERROR; what it printed on stdout is found on stderr."""
    backend = FakeBackend(by_stage(compile=fake_outcome(exit_code=1, stdout=b"error: no")))
    result = await an_executor(backend).execute(a_request(outputs=["main.c"]))
    assert (result.status, result.stderr.data, result.stdout.data) == (
        ExecutionStatus.COMPILATION_ERROR,
        b"error: no",
        b"",
    )
    assert result.error_message == "compile: the compiler ended with exit code 1; stderr holds its output"
    assert (len(backend.sandboxes[0].orders), result.files) == (1, ())


KILLED = {
    LimitKind.WALL_TIME: ExecutionStatus.TIMEOUT,
    LimitKind.CPU_TIME: ExecutionStatus.CPU_LIMIT,
    LimitKind.PROCESSES: ExecutionStatus.PROCESS_LIMIT,
    LimitKind.MEMORY: ExecutionStatus.MEMORY_LIMIT,
    LimitKind.DISK: ExecutionStatus.DISK_LIMIT,
}


@pytest.mark.parametrize("stage", ["compile", "run"])
@pytest.mark.parametrize("kind", KILLED)
async def test_limit_that_ended_a_stage_is_the_status(stage: str, kind: LimitKind) -> None:
    """A stage killed for a limit gives that limit's status, and the message names the stage."""
    outcomes = {"compile": fake_outcome(), "run": fake_outcome()}
    outcomes[stage] = fake_outcome(exit_code=None, killed_for=kind)
    result = await an_executor(FakeBackend(by_stage(**outcomes))).execute(a_request())
    assert (result.status, result.limits_hit) == (KILLED[kind], kind)
    assert result.error_message.startswith(f"{stage}: ")


@pytest.mark.parametrize(("memory_bytes", "amount"), [(64 << 20, "64 MiB"), (1000, "1000 bytes")])
async def test_message_names_the_memory_limit_as_it_was_set(memory_bytes: int, amount: str) -> None:
    """A limit that is no whole number of MiB is named in bytes, never rounded."""
    killed = fake_outcome(exit_code=None, killed_for=LimitKind.MEMORY)
    backend = FakeBackend(by_stage(compile=fake_outcome(), run=killed))
    result = await an_executor(backend).execute(a_request(limits=Limits(memory_bytes=memory_bytes)))
    assert result.error_message == f"run: used more than {amount} of memory"


@pytest.mark.parametrize(
    ("hits", "status"),
    [
        (LimitKind.MEMORY | LimitKind.DISK, ExecutionStatus.MEMORY_LIMIT),
        (LimitKind.DISK | LimitKind.PROCESSES, ExecutionStatus.DISK_LIMIT),
        (LimitKind.INODES, ExecutionStatus.DISK_LIMIT),
        (LimitKind.FILE_SIZE | LimitKind.DISK, ExecutionStatus.FILE_SIZE_LIMIT),
        (LimitKind.PROCESSES, ExecutionStatus.PROCESS_LIMIT),
        (LimitKind.STDOUT, ExecutionStatus.NONZERO_EXIT),
    ],
)
async def test_touched_limit_explains_a_failure_only(hits: LimitKind, status: ExecutionStatus) -> None:
    """After a failure the surest touched limit is the status; after a success none is."""
    failed = FakeBackend(by_stage(compile=fake_outcome(), run=fake_outcome(exit_code=1, limits_hit=hits)))
    passed = FakeBackend(by_stage(compile=fake_outcome(), run=fake_outcome(limits_hit=hits)))
    result = await an_executor(failed).execute(a_request())
    assert (result.status, result.limits_hit) == (status, hits)
    result = await an_executor(passed).execute(a_request())
    assert (result.status, result.limits_hit, result.error_message) == (ExecutionStatus.SUCCESS, hits, "")


async def test_file_as_large_as_it_may_be_explains_a_failure() -> None:
    """A runtime that ignores SIGXFSZ leaves a file of exactly the bound: that is seen afterwards."""

    def answer(sandbox: FakeSandbox, order: StageOrder) -> StageOutcome:
        if order.name == "compile":
            return fake_outcome()
        (sandbox.folder / "tmp/big").write_bytes(b"x" * 1000)
        return fake_outcome(exit_code=1)

    request = a_request(limits=Limits(file_size_bytes=1000))
    result = await an_executor(FakeBackend(answer)).execute(request)
    assert (result.status, result.limits_hit) == (ExecutionStatus.FILE_SIZE_LIMIT, LimitKind.FILE_SIZE)


async def test_unknown_figure_of_a_stage_makes_the_sum_unknown() -> None:
    """A peak that one stage could not tell is None for the whole, not the other stage's."""
    usage = StageUsage(
        wall_time_s=1, user_time_s=2, system_time_s=3, memory_peak_bytes=10, page_faults_minor=4
    )
    known, unknown = fake_outcome(usage=usage), fake_outcome()
    both = await an_executor(FakeBackend(by_stage(compile=known, run=known))).execute(a_request())
    one = await an_executor(FakeBackend(by_stage(compile=known, run=unknown))).execute(a_request())
    assert (both.process_stats.memory_peak_bytes, both.process_stats.page_faults_minor) == (10, 8)
    assert (one.process_stats.memory_peak_bytes, one.process_stats.page_faults_minor) == (None, None)


async def test_outputs_are_reserved_for() -> None:
    """What may be collected is reserved, where it is more than any stage may take."""
    capacity = Capacity(memory_bytes=BOUNDS.compile.memory_bytes + 64 * MIB, cpus=1.0)
    bounds = CollectBounds(total_bytes=capacity.memory_bytes)
    executor = an_executor(FakeBackend(), capacity=capacity, collecting=bounds)
    assert (await executor.execute(a_request())).status == ExecutionStatus.SUCCESS
    with pytest.raises(RequestError, match="reserves"):
        await executor.execute(a_request(outputs=["out"]))


async def test_too_many_outputs_are_told_not_cut() -> None:
    """Outputs over a bound come back not at all, with the reason; the program's success stands."""

    def answer(sandbox: FakeSandbox, _order: StageOrder) -> StageOutcome:
        for name in "abc":
            (sandbox.folder / "work" / name).write_bytes(b"x")
        return fake_outcome()

    executor = an_executor(FakeBackend(answer), collecting=CollectBounds(files=2))
    result = await executor.execute(a_request(outputs=["a", "b", "c"]))
    assert (result.status, result.files) == (ExecutionStatus.SUCCESS, ())
    assert "more than 2 output files" in result.error_message


@pytest.mark.parametrize(
    ("wanted", "version"), [("", "1.2.3"), ("1", "1.13.0"), ("1.2", "1.2.3"), ("2.0", "2.0")]
)
async def test_version_is_exact_prefix_or_default(wanted: str, version: str) -> None:
    """Empty takes the first, a prefix the highest that it fits."""
    result = await an_executor(FakeBackend()).execute(a_request(runtime=wanted, language="CC"))
    assert result.runtime.version == version


@pytest.mark.parametrize(
    ("wanted", "version", "tree"),
    [("", "1.2", "a"), ("1", "1.2", "a"), (">=1,<3", "2.9", "b"), ("^2", "2.9", "b"), ("<2", "1.2", "a")],
)
async def test_version_is_chosen_over_all_trees(wanted: str, version: str, tree: str) -> None:
    """The best version of any tree runs in that tree; of the same version in two trees the first serves."""
    trees = [
        LanguageTree(
            path=Path("/nowhere"),
            digest=digest * 64,
            kind="debian",
            runtimes=tuple(Runtime(language="compiled", version=each, programs={}) for each in versions),
        )
        for digest, versions in (("a", ("1.2",)), ("b", ("1.2", "2.9")))
    ]
    executor = CodeExecutor(trees, FakeBackend(), {"compiled": Compiled()}, bounds=BOUNDS)
    result = await executor.execute(a_request(runtime=wanted))
    assert (result.runtime.version, result.runtime.tree_digest) == (version, tree * 64)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"language": "compilde"},
            "expected one of compiled, absent, received 'compilde'; did you mean 'compiled'",
        ),
        ({"language": "absent"}, "absent is in no language tree of this node; they have compiled"),
        ({"runtime": "1.1"}, r"expected one of 1.2.3, 1.13.0, 2.0, received '1.1'"),
        ({"timeout_s": 10.5}, "more than 0 and at most 10, received 10.5"),
        ({"dependencies": [Dependency(name="x")]}, "this node does not install any; received 1"),
    ],
)
async def test_request_that_cannot_be_served_is_refused_before_anything_is_made(
    parts: dict[str, object], message: str
) -> None:
    """The error names the field, what is expected and what came; no sandbox was opened."""
    backend = FakeBackend()
    with pytest.raises(RequestError, match=message.replace(".", r"\.")):
        await an_executor(backend).execute(a_request(**parts))
    assert backend.sandboxes == []


async def test_failure_of_ours_is_raised_and_the_sandbox_destroyed() -> None:
    """An error of the back end reaches the caller as it is, not wrapped, and nothing stays."""

    def fail(_sandbox: FakeSandbox, _order: StageOrder) -> StageOutcome:
        raise SystemFailureError("the launcher died")

    backend = FakeBackend(fail)
    executor = an_executor(backend)
    with pytest.raises(SystemFailureError, match="the launcher died"):
        await executor.execute(a_request())
    assert backend.sandboxes[0].is_destroyed
    assert executor.scheduler.running == 0


async def test_cancelled_caller_waits_until_the_sandbox_is_destroyed() -> None:
    """Cancellation reaches the caller only after the sandbox is gone, and its place is free."""
    backend = FakeBackend(delay_s=60)
    executor = an_executor(backend)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(executor.execute(a_request()))
        while not (backend.sandboxes and backend.sandboxes[0].orders):  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0)
        task.cancel()
    assert (backend.sandboxes[0].is_destroyed, executor.scheduler.running) == (True, 0)


async def test_closing_answers_cancelled_and_refuses_what_comes_later() -> None:
    """What runs is answered with CANCELLED, also what still waits for a place."""
    backend = FakeBackend(delay_s=60)
    executor = an_executor(backend, max_concurrent=1)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(executor.execute(a_request())) for _ in range(2)]
        while not (backend.sandboxes and backend.sandboxes[0].orders and executor.scheduler.waiting):  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0)
        await executor.aclose()
    assert [task.result().status for task in tasks] == [ExecutionStatus.CANCELLED] * 2
    assert (len(backend.sandboxes), backend.is_closed) == (1, True)
    with pytest.raises(SystemFailureError, match="closed"):
        await executor.execute(a_request())


async def test_runtimes_are_those_of_known_languages() -> None:
    """Only what can be asked for is listed."""
    assert [each.version for each in an_executor(FakeBackend()).runtimes()] == ["1.2.3", "1.13.0", "2.0"]


async def test_deadline_of_the_request_cuts_the_last_stage_and_is_named() -> None:
    """What earlier stages took is taken from the run's clock, and the message says which clock ran out."""
    killed = fake_outcome(exit_code=None, killed_for=LimitKind.WALL_TIME)
    backend = FakeBackend(by_stage(compile=fake_outcome(), run=killed), delay_s=0.02)
    executor = an_executor(backend, operator=replace(BOUNDS, deadline_s=5.0))
    result = await executor.execute(a_request())
    compiled, run = backend.sandboxes[0].orders
    assert (compiled.limits.wall_time_s, run.limits.wall_time_s) < (5.0, 5.0 - 0.02)
    assert result.status == ExecutionStatus.TIMEOUT
    assert result.error_message == "run: killed at the request's deadline of 5 s"
