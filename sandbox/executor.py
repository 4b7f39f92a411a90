"""The Code Executor: takes an `ExecutionRequest`, returns an `ExecutionResult`.

Invariant: a request is refused before anything is made for it, or it is run and everything made for it is
gone when the result is returned, whatever happens in between.
"""

import asyncio
import difflib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from sandbox.backends.backend import Backend, Gateway, OnSample
from sandbox.bounds import StageBounds
from sandbox.capacity import Capacity, measure_capacity
from sandbox.dependencies.layer import LayerGoneError
from sandbox.errors import RequestError, SystemFailureError
from sandbox.kernel.files import CollectBounds
from sandbox.languages import LANGUAGES, Language, Plan
from sandbox.languages.language import Installs, Provision
from sandbox.request import ExecutionRequest
from sandbox.result import (
    CapturedStream,
    ExecutionResult,
    ExecutionStatus,
    Guarantees,
    LimitKind,
    NetworkContact,
    ProcessStats,
    RuntimeUsed,
)
from sandbox.sandbox import Installed, Surroundings, run_plan
from sandbox.scheduler import Claim, Scheduler
from sandbox.tree import LanguageTree, Runtime
from sandbox.versions import best_match

if TYPE_CHECKING:  # an executor without an installer needs no HTTP library
    from sandbox.dependencies.installer import Installation, Installer

__all__ = ["CodeExecutor", "Executor", "RunNetwork", "most_claimed_bytes"]

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
DEFAULT_MAX_WAITING = 1000
OWN_MEMORY_BYTES = 32 * 1024 * 1024
"""For the launcher and the init of a sandbox, and the output that they and the service hold."""


class Executor(Protocol):
    """Whatever executes requests: the real `CodeExecutor`, the fake in `sandbox.testing`, or a remote one."""

    async def execute(self, request: ExecutionRequest, on_sample: OnSample | None = None) -> ExecutionResult:
        """Run one program; cancelling the awaiting task kills it and removes everything of it.

        Args:
            request: the program.
            on_sample: receives live figures while a stage runs.

        Raises:
            RequestError: the request cannot be served as it is; nothing was run.
            SandboxUnavailableError: this machine lacks a mechanism; nothing was run.
            BusyError: too many wait already; nothing was run, and the error says when to come back.
            SystemFailureError: our own part failed; the same request may succeed when repeated.
        """

    def runtimes(self) -> Sequence[Runtime]:
        """List every language and version that can be asked for."""

    async def aclose(self) -> None:
        """Kill what runs, free what is held; the executor is of no use afterwards."""


class RunNetwork(Gateway, Protocol):
    """What one run can reach by an egress policy; it serves that run only."""

    def environment(self) -> Mapping[str, str]:
        """Return the variables by which programs find the way out."""

    @property
    def contacts(self) -> Sequence[NetworkContact]:
        """What was contacted, and what was refused."""


class CodeExecutor:
    """Executes requests on this machine.

    Args:
        trees: the runtimes; of several trees with the same version the first is taken.
        backend: makes the sandboxes; the executor closes it.
        languages: name to Language Executor.
        bounds: the operator's, by kind of stage; a request may only lower those of its run.
        capacity: what executions may reserve together; None for what this machine has now.
        max_concurrent: executions at once, within the capacity; None for no other bound.
        max_waiting: executions that may wait for a place.
        networks: the operator's egress policies by name: each makes one run's way out.
        collecting: what the collection of outputs may take.
        new_id: makes sandbox names, unique on this machine.
        installer: installs dependencies, and is closed by the executor; None where none can be installed.
    """

    def __init__(
        self,
        trees: Sequence[LanguageTree],
        backend: Backend,
        languages: Mapping[str, Language] = LANGUAGES,
        *,
        bounds: StageBounds | None = None,
        capacity: Capacity | None = None,
        max_concurrent: int | None = None,
        max_waiting: int = DEFAULT_MAX_WAITING,
        networks: Mapping[str, Callable[[], RunNetwork]] | None = None,
        collecting: CollectBounds | None = None,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        installer: "Installer | None" = None,
    ) -> None:
        self._trees = tuple(trees)
        self._backend = backend
        self._languages = languages
        self._bounds = bounds or StageBounds()
        self._networks = networks or {}
        self._collecting = collecting or CollectBounds()
        self._new_id = new_id
        self._installer = installer
        self._tasks: set[asyncio.Task[ExecutionResult]] = set()
        self._is_closed = False
        self.scheduler = Scheduler(
            capacity or measure_capacity(), max_concurrent=max_concurrent, max_waiting=max_waiting
        )

    async def execute(self, request: ExecutionRequest, on_sample: OnSample | None = None) -> ExecutionResult:
        """Run one program, as `Executor` says.

        A closed executor answers what still runs with the status CANCELLED.
        """
        if self._is_closed:
            raise SystemFailureError("the executor is closed")
        language, tree, runtime = self._choose(request)
        network = self._open_network(request.network)
        bounds = self._bounds.lowered(request)
        given = Provision(runtime=runtime, bounds=bounds)
        plan = language.plan(request, given)
        installation = await self._installation(language, request, given, tree)
        sandbox_id = self._new_id()
        used = RuntimeUsed(language=runtime.language, version=runtime.version, tree_digest=tree.digest)
        around = Surroundings(
            backend=self._backend,
            tree=tree,
            runtime=used,
            bounds=bounds,
            collecting=self._collecting,
            sandbox_id=sandbox_id,
            gateway=network,
            environment=network.environment() if network else {},
            on_sample=on_sample,
        )

        async def work() -> ExecutionResult:
            try:
                result = await self._admitted(request, plan, installation, around)
            except LayerGoneError:
                assert installation is not None, "only what was to be there can be gone"
                must_be_made = replace(installation, is_there=False)
                result = await self._admitted(request, plan, must_be_made, around)
            return replace(result, contacts=tuple(network.contacts) if network else ())

        return await self._supervise(work(), used, sandbox_id)

    async def _admitted(
        self, request: ExecutionRequest, plan: Plan, installation: "Installation | None", around: Surroundings
    ) -> ExecutionResult:
        """Wait for a place, and run what needs no more than was reserved for it.

        Raises:
            LayerGoneError: it would need more, for what was installed a moment ago is gone; nothing was run.
        """
        installs = installation is not None and not installation.is_there
        async with self.scheduler.admit(_claim(request, plan, around.bounds, installs=installs)):
            started = replace(around, deadline_s=time.monotonic() + around.bounds.deadline_s)
            async with self._installed(installation, request, started) as installed:
                with_layer = replace(started, mounts=installed.mounts)
                result = await run_plan(with_layer, request, plan, installed=installed.record)
        return replace(result, lock=installed.lock or plan.lock)

    def _open_network(self, name: str) -> RunNetwork | None:
        """Return a run's own way out, by the policy of this name; None where none is asked for."""
        if not name:
            return None
        if not self._networks:
            raise RequestError(f"network: this node allows no egress policy, received {name[:64]!r}")
        if name not in self._networks:
            raise RequestError(_unknown("network", name, [*self._networks], [*self._networks]))
        return self._networks[name]()

    def runtimes(self) -> Sequence[Runtime]:
        """List the trees' runtimes of the languages that this executor has."""
        return tuple(runtime for _, runtime in self._offered())

    def _offered(self) -> list[tuple[LanguageTree, Runtime]]:
        return [
            (tree, runtime)
            for tree in self._trees
            for runtime in tree.runtimes
            if runtime.language in self._languages
        ]

    async def aclose(self) -> None:
        """Kill what runs, wait for its end, close the back end."""
        self._is_closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._backend.aclose()
        if self._installer is not None:
            await self._installer.aclose()

    async def _installation(
        self, language: Language, request: ExecutionRequest, given: Provision, tree: LanguageTree
    ) -> "Installation | None":
        """Say what must be installed for a request; None when nothing must.

        Raises:
            RequestError: a dependency is malformed, or nothing can be installed in this language or here.
        """
        if not request.dependencies or given.runtime.libraries:
            return None
        if self._installer is None or not isinstance(language, Installs):
            who = language.title if self._installer else "this node"
            raise RequestError(
                f"dependencies: {who} does not install any; "
                f"received {len(request.dependencies)}, leave the list empty"
            )
        return await self._installer.plan(language, request, given, tree.digest)

    @asynccontextmanager
    async def _installed(
        self, what: "Installation | None", request: ExecutionRequest, around: Surroundings
    ) -> AsyncIterator[Installed]:
        """Have the dependencies of a request there; an `Installed` without a stage where it has none."""
        if what is None or self._installer is None:
            yield Installed()
            return
        async with self._installer.installed(what, request, around) as installed:
            yield installed

    async def _supervise(
        self, work: Coroutine[object, object, ExecutionResult], used: RuntimeUsed, sandbox_id: str
    ) -> ExecutionResult:
        """Wait for ``work`` in a task that `aclose` can cancel; a cancelled caller waits for the removal."""
        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(work)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        return self._cancelled(used, sandbox_id) if task.cancelled() else task.result()

    def _cancelled(self, used: RuntimeUsed, sandbox_id: str) -> ExecutionResult:
        nothing = CapturedStream(data=b"", size_bytes=0, sha256=EMPTY_SHA256)
        return ExecutionResult(
            sandbox_id=sandbox_id,
            status=ExecutionStatus.CANCELLED,
            limits_hit=LimitKind.NONE,
            exit_code=None,
            signal=None,
            stdout=nothing,
            stderr=nothing,
            process_stats=ProcessStats(wall_time_s=0.0, user_time_s=0.0, system_time_s=0.0),
            runtime=used,
            guarantees=Guarantees(backend=self._backend.name, enforced=frozenset()),
            error_message="the executor was closed while the program ran",
        )

    def _choose(self, request: ExecutionRequest) -> tuple[Language, LanguageTree, Runtime]:
        """Find the language and one of its runtimes in the trees."""
        known = {alias: each for each in self._languages.values() for alias in (each.name, *each.aliases)}
        key = request.language.strip().lower()
        if key not in known:
            raise RequestError(_unknown("language", request.language, list(self._languages), list(known)))
        language = known[key]
        installed = [(tree, each) for tree, each in self._offered() if each.language == language.name]
        if not installed:
            names = ", ".join(dict.fromkeys(each.language for each in self.runtimes())) or "none"
            raise RequestError(
                f"language: {language.name} is in no language tree of this node; they have {names}; build it"
            )
        versions = list(dict.fromkeys(each.version for _, each in installed))
        version = best_match(versions, request.runtime, what=f"runtime of {language.name}")
        tree, runtime = next(pair for pair in installed if pair[1].version == version)
        return language, tree, runtime


def _claim(request: ExecutionRequest, plan: Plan, bounds: StageBounds, *, installs: bool) -> Claim:
    """Return what a request reserves: the memory of its hungriest stage, and what we need beside it."""
    stages = [*(stage.name for stage in plan.stages), *(["install"] if installs else [])]
    most = max(bounds.of(stage).memory_bytes for stage in stages)
    return Claim(memory_bytes=most + OWN_MEMORY_BYTES, caller=request.caller, priority=request.priority)


def most_claimed_bytes(bounds: StageBounds) -> int:
    """Return the most memory that one execution within these bounds reserves."""
    return max(bounds.run.memory_bytes, bounds.compile.memory_bytes) + OWN_MEMORY_BYTES


def _unknown(what: str, received: str, choices: Sequence[str], candidates: Sequence[str]) -> str:
    close = difflib.get_close_matches(received.strip().lower(), candidates, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{what}: expected one of {', '.join(choices)}, received {received[:64]!r}{hint}"
