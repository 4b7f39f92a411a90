"""Installs what a program depends on: in a sandbox of its own, once for everybody who asks for the same.

Invariant: what is installed runs under the limits of an installation, reaches the registries of its language
and nothing else, and sees nothing of the request but the names of its dependencies. What comes out of it is
read when every process in there is dead.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from sandbox.backends.backend import Mount, Sandbox, StageOutcome, StageUsage
from sandbox.dependencies.flights import Flights
from sandbox.dependencies.freeze import FreezeBounds, FreezeError, freeze
from sandbox.dependencies.layer import Layer, LayerGoneError, LayerManifest
from sandbox.dependencies.store import LayerStore
from sandbox.egress.mirror import Mirror, MirrorSession
from sandbox.egress.registry import Registry, RegistryConfigError, RegistryKind
from sandbox.errors import RequestError
from sandbox.kernel.files import FOLDER_FLAGS, WALK, CollectBounds, CollectionError, collect
from sandbox.kernel.syscalls import openat2
from sandbox.languages.entry import WORK
from sandbox.languages.language import LAYER, LOCK, InstallPlan, Installs, Provision, RegistryView
from sandbox.request import ExecutionRequest, Limits
from sandbox.result import CapturedStream, ExecutionStatus, Guarantees, LimitKind
from sandbox.sandbox import Installed, StageRecord, Surroundings, fill, order_of, run_stage
from sandbox.tree import Runtime
from sandbox.verdict import judge, message_of

__all__ = ["Installation", "Installer"]

KEY_FORMAT = 1
LOCK_BOUNDS = CollectBounds(files=1, total_bytes=1024 * 1024, depth=1)
SAYS_FULL = (b"no space left on device", b"enospc", b"disk full")
SAYS_NOT_UNPACKED = b"fail extracting tarball"
EMPTY = CapturedStream(data=b"", size_bytes=0, sha256=hashlib.sha256().hexdigest())
NOTHING_USED = StageUsage(
    wall_time_s=0.0,
    user_time_s=0.0,
    system_time_s=0.0,
    memory_peak_bytes=0,
    memory_anonymous_bytes=0,
    memory_file_bytes=0,
    processes_peak=0,
    page_faults_minor=0,
    page_faults_major=0,
    context_switches_voluntary=0,
    context_switches_involuntary=0,
)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What is to be installed for one request."""

    plan: InstallPlan
    runtime: Runtime
    session: MirrorSession
    key: str
    asked_at_s: float
    """When it was asked for, on the monotonic clock."""
    is_there: bool
    """True when a layer of this key was in the store a moment ago: nothing will have to be installed."""


class Installer:
    """Installs dependencies on this machine.

    Args:
        store: keeps the layers; it is opened when something is installed for the first time.
        mirror: the registries; the installer closes it.
    """

    def __init__(self, store: LayerStore, mirror: Mirror) -> None:
        self._store = store
        self._mirror = mirror
        self._flights: Flights[StageRecord] = Flights(lambda record: record.status != ExecutionStatus.SUCCESS)
        self._is_open = False

    async def plan(
        self, language: Installs, request: ExecutionRequest, given: Provision, tree: str
    ) -> Installation:
        """Say what is to be installed; nothing is made yet.

        Args:
            language: knows how.
            request: has dependencies.
            given: the runtime whose packages they are.
            tree: the digest of the language tree.

        Raises:
            RequestError: a dependency is malformed, or this node has no registry for the language.
        """
        asked_at_s = time.monotonic()
        if "install" not in given.runtime.programs:
            raise RequestError(
                f"dependencies: the language tree has no installer for {given.runtime.language} "
                f"{given.runtime.version}; build it anew: blueprint runtimes build"
            )
        try:
            session = await self._session(RegistryKind(language.registry))
        except RegistryConfigError as exc:
            raise RequestError(f"dependencies: {exc}") from exc
        views = [
            RegistryView(
                name=each.name,
                url=session.url_of(each),
                scope=each.scope,
                environment=each.environment,
            )
            for each in session.registries
        ]
        plan = language.install(request, given, views)
        key = _key(plan, session.registries, request, given, tree)
        return Installation(
            plan=plan,
            runtime=given.runtime,
            session=session,
            key=key,
            asked_at_s=asked_at_s,
            is_there=self._store.holds(key),
        )

    async def _session(self, kind: RegistryKind) -> MirrorSession:
        if not self._is_open:
            await asyncio.to_thread(self._store.open)
            self._is_open = True
        return await self._mirror.session(kind)

    @asynccontextmanager
    async def installed(
        self, what: Installation, request: ExecutionRequest, around: Surroundings
    ) -> AsyncIterator[Installed]:
        """Find the layer or make it, and keep it in the store until the end of the block.

        Raises:
            LayerGoneError: the layer that was there is not, and nothing was reserved for an installation.
            SandboxUnavailableError, SystemFailureError: our own part failed.
        """
        began_s = time.monotonic()
        found = _Found(record=_reused(what, request, around))
        try:
            try:
                async with asyncio.timeout(around.deadline_s - began_s):
                    while found.layer is None and found.record.status == ExecutionStatus.SUCCESS:
                        await self._find_or_make(what, request, around, found)
                if found.is_shared:
                    found.record = _unpaid(found.record, began_s)
            except TimeoutError:
                found.record = _too_late(found.record, began_s)
            mounts = [Mount(source=found.layer.root, target=what.plan.target)] if found.layer else []
            lock = found.layer.manifest.lock if found.layer else ""
            yield Installed(record=found.record, mounts=mounts, lock=lock)
        finally:
            found.close()

    async def _find_or_make(
        self, what: Installation, request: ExecutionRequest, around: Surroundings, found: "_Found"
    ) -> None:
        """Put the layer into ``found``, or a record that says why there is none; or neither: once more."""
        found.layer = await self._store.find(what.key)
        if found.layer is None:
            # SECURITY: an installation takes more memory than was reserved for a run
            # (test_installation_that_was_not_foreseen_is_reserved_for).
            if what.is_there:
                raise LayerGoneError
            found.is_shared = True

            async def make() -> StageRecord:
                found.is_shared = False
                async with self._store.building(what.key):
                    found.layer = await self._store.find(what.key)  # another service may have made it
                    if found.layer is None:
                        return await self._make(what, request, around, found)
                    return found.record

            found.record = await self._flights.join(what.key, what.asked_at_s, make)

    async def _make(
        self, what: Installation, request: ExecutionRequest, around: Surroundings, found: "_Found"
    ) -> StageRecord:
        """Install, freeze and publish; returns how the stage went."""
        order = order_of(what.plan.stage, request, around, what.session)
        limits = around.bounds.install
        sandbox = await around.backend.open(around.tree, limits, f"deps-{around.sandbox_id}", ())
        try:
            await fill(sandbox, what.plan.files)
            record = _with_quota(await run_stage(sandbox, order, around))
            record = _with_failures(record, what.session)
            if record.status != ExecutionStatus.SUCCESS:
                return record
            try:
                found.layer = await self._take_in(sandbox, what, request, limits)
            except (FreezeError, CollectionError) as exc:
                message = f"install: what was installed cannot be used: {exc}"
                return replace(record, status=ExecutionStatus.DEPENDENCY_ERROR, message=message)
        finally:
            await sandbox.destroy()
        return record

    async def _take_in(
        self, sandbox: Sandbox, what: Installation, request: ExecutionRequest, limits: Limits
    ) -> Layer:
        """Copy what was installed into the store, in a thread.

        Raises:
            FreezeError, CollectionError: it is none that can be a layer.
            SystemFailureError: the store refuses it.
        """
        manifest = LayerManifest(
            key=what.key,
            language=what.runtime.language,
            version=what.runtime.version,
            requested=tuple(f"{each.name} {each.requirement}".strip() for each in request.dependencies),
        )
        bounds = FreezeBounds(entries=limits.inodes, total_bytes=limits.disk_bytes)

        def work(stop: threading.Event) -> Layer:
            with self._store.build_folder() as folder:
                lock = _read_out(work_fd, folder / "root", bounds, stop)
                return self._store.publish(folder, replace(manifest, lock=lock))

        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        work_fd = os.open("work", flags, dir_fd=sandbox.files_fd)
        try:
            return await _to_the_end(work, discard=Layer.close)
        except OSError as exc:
            raise self._store.failure(exc) from exc
        finally:
            os.close(work_fd)

    async def aclose(self) -> None:
        """Close the connections to the registries."""
        await self._mirror.aclose()


@dataclass(slots=True)
class _Found:
    """How far one request has come."""

    record: StageRecord
    layer: Layer | None = None
    is_shared: bool = False
    """True when another request did the work."""

    def close(self) -> None:
        if self.layer is not None:
            self.layer.close()


def _read_out(work_fd: int, root: Path, bounds: FreezeBounds, stop: threading.Event) -> str:
    """Copy the layer's content out of the sandbox, and return the lock."""
    try:
        layer_fd = openat2(work_fd, LAYER.removeprefix(f"{WORK}/"), FOLDER_FLAGS, WALK)
    except OSError as exc:
        raise FreezeError("the installer has left nothing") from exc
    try:
        freeze(layer_fd, root, bounds, stop.is_set)
    finally:
        os.close(layer_fd)
    found = collect(work_fd, [LOCK.removeprefix(f"{WORK}/")], LOCK_BOUNDS)
    return found[0].content.decode("utf-8", "replace") if found else ""


async def _to_the_end(
    work: Callable[[threading.Event], Result], discard: Callable[[Result], None] = lambda _result: None
) -> Result:
    """Call ``work`` in a thread; who is cancelled tells it to stop, and waits until it has.

    What it works on is removed right afterwards, so it must not go on by itself.

    Args:
        work: is given the event that tells it to stop.
        discard: is given a result that nobody will get.
    """
    stop = threading.Event()
    future = asyncio.get_running_loop().run_in_executor(None, work, stop)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop.set()
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({future})
        if future.exception() is None:
            discard(future.result())
        raise


def _key(
    plan: InstallPlan, registries: Sequence[Registry], request: ExecutionRequest, given: Provision, tree: str
) -> str:
    """Return the digest of everything that what is installed depends on."""
    told = {
        "format": KEY_FORMAT,
        "language": given.runtime.language,
        "version": given.runtime.version,
        "tree": tree,
        "files": [(file.path, hashlib.sha256(file.content).hexdigest()) for file in plan.files],
        "stage": asdict(plan.stage),
        "target": plan.target,
        "registries": [(each.name, each.kind, each.base_url, each.scope) for each in registries],
        # SECURITY: what one tenant may install from a private registry, another must not find here
        # (test_layers_of_a_private_registry_are_not_shared_between_callers).
        "tenant": request.caller if any(each.is_private for each in registries) else "",
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _reused(what: Installation, request: ExecutionRequest, around: Surroundings) -> StageRecord:
    """Return the record of a stage for which nothing had to be run."""
    order = order_of(what.plan.stage, request, around, what.session)
    guarantees = Guarantees(backend=around.backend.name, enforced=frozenset())
    outcome = StageOutcome(
        exit_code=0,
        signal=None,
        killed_for=LimitKind.NONE,
        limits_hit=LimitKind.NONE,
        stdout=EMPTY,
        stderr=EMPTY,
        usage=NOTHING_USED,
        guarantees=guarantees,
    )
    return StageRecord(order=order, outcome=outcome, status=ExecutionStatus.SUCCESS, message="")


def _unpaid(record: StageRecord, began_s: float) -> StageRecord:
    """Return a record of the same outcome that has cost nothing but the wait."""
    usage = replace(NOTHING_USED, wall_time_s=time.monotonic() - began_s)
    return replace(record, outcome=replace(record.outcome, usage=usage))


def _too_late(record: StageRecord, began_s: float) -> StageRecord:
    late = LimitKind.WALL_TIME
    waited = _unpaid(record, began_s)
    outcome = replace(waited.outcome, exit_code=None, killed_for=late, limits_hit=late)
    message = "install: the deadline of the request passed before its dependencies were there"
    return replace(waited, outcome=outcome, status=ExecutionStatus.TIMEOUT, message=message)


def _with_quota(record: StageRecord) -> StageRecord:
    """Name the disk quota where it was used up: installers remove what did not fit before anybody looks.

    Most say why they failed. bun says only that it could not unpack an archive, whose digest was right; that
    it was for want of room is believed where the kernel counted as much memory as the quota has, of which the
    files are a part.
    """
    said = (record.outcome.stderr.data + record.outcome.stdout.data).lower()
    is_full = any(words in said for words in SAYS_FULL)
    if SAYS_NOT_UNPACKED in said:
        is_full |= (record.outcome.usage.memory_peak_bytes or 0) >= record.order.limits.disk_bytes
    if record.status != ExecutionStatus.DEPENDENCY_ERROR or not is_full:
        return record
    outcome = replace(record.outcome, limits_hit=record.outcome.limits_hit | LimitKind.DISK)
    status = judge(record.order, outcome)
    message = message_of(status, record.order, outcome)
    return StageRecord(order=record.order, outcome=outcome, status=status, message=message)


def _with_failures(record: StageRecord, session: MirrorSession) -> StageRecord:
    """Say what a registry failed at, by its name, where that is why the installation failed."""
    failures = session.failures
    if record.status == ExecutionStatus.SUCCESS or not failures:
        return record
    worst = next((each for each in failures if each.is_unreachable), failures[-1])
    return replace(record, message=f"{record.message}; {worst.reason}")
