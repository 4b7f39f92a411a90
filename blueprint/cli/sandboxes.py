"""Chooses language tree and back end, and refuses when a guarantee would silently be missing.

Invariant: an executor that comes out of here has every guarantee in force but those that the operator allowed
to be missing by name.
"""

import os
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from blueprint.cli.networks import mirror_of, networks_of
from blueprint.cli.session import Session
from blueprint.settings import Settings
from sandbox.backends.backend import Backend
from sandbox.backends.bubblewrap import BubblewrapBackend, usable_bubblewrap
from sandbox.backends.gvisor import GvisorBackend
from sandbox.backends.slot import SlotBackend
from sandbox.bounds import StageBounds
from sandbox.capacity import Capacity, measure_capacity
from sandbox.check import prove
from sandbox.dependencies.installer import Installer
from sandbox.dependencies.store import LayerStore
from sandbox.errors import SandboxUnavailableError
from sandbox.executor import CodeExecutor, Executor, most_claimed_bytes
from sandbox.languages import LANGUAGES, find
from sandbox.request import MIB
from sandbox.result import Guarantees
from sandbox.rootfs import find_trees, survey_host
from sandbox.scheduler import Scheduler
from sandbox.tree import LanguageTree

__all__ = [
    "SANDBOX_SETTINGS",
    "OpenedSandbox",
    "bounds_of",
    "capacity_of",
    "choose_backend",
    "choose_trees",
    "layers_of",
    "opened_sandbox",
]

SANDBOX_SETTINGS: Final = (
    "backend", "allow_degraded", "tree",
    "limit_wall_time_s", "limit_cpu_time_s", "limit_memory_bytes", "limit_disk_bytes", "limit_inodes",
    "limit_file_size_bytes", "limit_output_bytes", "limit_processes",
    "compile_wall_time_s", "compile_memory_bytes",
    "install_wall_time_s", "install_memory_bytes", "install_disk_bytes", "request_deadline_s",
    "memory_reserve_bytes", "executions_per_cpu",
    "layers_dir", "layers_max_bytes", "layers_max_age_s",
)  # fmt: skip
"""What every command that opens a sandbox can be told on its command line."""
ALL: Final = "all"
"""As a value of ``allow_degraded``: every guarantee may be missing."""


def bounds_of(settings: Settings) -> StageBounds:
    """Return the operator's bounds by kind of stage."""
    usual = StageBounds()
    return StageBounds(
        run=replace(
            usual.run,
            wall_time_s=settings.limit_wall_time_s,
            cpu_time_s=settings.limit_cpu_time_s,
            memory_bytes=settings.limit_memory_bytes,
            disk_bytes=settings.limit_disk_bytes,
            inodes=settings.limit_inodes,
            file_size_bytes=settings.limit_file_size_bytes,
            output_bytes=settings.limit_output_bytes,
            processes=settings.limit_processes,
        ),
        compile=replace(
            usual.compile,
            wall_time_s=settings.compile_wall_time_s,
            memory_bytes=settings.compile_memory_bytes,
        ),
        install=replace(
            usual.install,
            wall_time_s=settings.install_wall_time_s,
            memory_bytes=settings.install_memory_bytes,
            disk_bytes=settings.install_disk_bytes,
        ),
        deadline_s=settings.request_deadline_s,
    )


def choose_trees(session: Session, languages: Sequence[str] = ()) -> tuple[LanguageTree, ...]:
    """Return the trees that the settings ask for: the built ones, the host's, or the first that are there.

    Raises:
        RequestError: no language has one of the names.
        SandboxUnavailableError: there is no such tree, or the host has none of the languages.
    """
    wanted = tuple(languages or session.settings.languages)
    kind = session.settings.tree
    if kind != "host":
        trees = find_trees(session.trees_dir, wanted)
        if trees:
            return trees
        if kind == "debian":
            what = ", ".join(wanted) or "any language"
            raise SandboxUnavailableError(
                f"no language tree with {what} below {session.trees_dir}; build it: blueprint runtimes build"
            )
        having = f" with {', '.join(wanted)}" if wanted else ""
        session.say(
            f"no current language tree{having} below {session.trees_dir}, so this machine's own programs are "
            "used; to make one: blueprint runtimes build"
        )
    host = survey_host()
    names = {find(name).name for name in wanted}
    lacking = {name: fix for name, fix in host.missing.items() if name in names}
    if lacking or not host.tree.runtimes:
        fixes = "; ".join(f"{name}: {fix}" for name, fix in (lacking or host.missing).items())
        raise SandboxUnavailableError(f"this machine lacks languages ({fixes}), or: blueprint runtimes build")
    return (host.tree,)


def choose_backend(settings: Settings) -> Backend:
    """Return the back end that the settings ask for; ``auto`` is ``slot`` as root, else ``bubblewrap``.

    Raises:
        SandboxUnavailableError: it cannot work here, or lacks a guarantee that was not allowed to be missing.
    """
    backend: Backend
    if settings.backend == "slot" or (settings.backend == "auto" and os.geteuid() == 0):
        backend = _slot()
    elif settings.backend == "gvisor":
        backend = GvisorBackend()
    else:
        backend = BubblewrapBackend()
    missing = backend.guarantees().not_enforced
    if ALL not in settings.allow_degraded:
        refused = missing.keys() - settings.allow_degraded
        if refused:
            instead = "use --backend slot" if os.geteuid() == 0 else "run as root"
            raise SandboxUnavailableError(
                f"back end {backend.name} cannot enforce {', '.join(sorted(refused))}; {instead}, or accept "
                f"it: --allow-degraded {','.join(sorted(missing))} (why: blueprint doctor)"
            )
    return backend


def _slot() -> Backend:
    try:
        return SlotBackend()
    except SandboxUnavailableError as error:
        if not _has_bubblewrap():
            raise
        raise SandboxUnavailableError(
            f"{error}; or do without, weaker: --backend bubblewrap --allow-degraded all"
        ) from error


def _has_bubblewrap() -> bool:
    try:
        usable_bubblewrap()
    except SandboxUnavailableError:
        return False
    return True


def capacity_of(settings: Settings) -> Capacity:
    """Return what executions may reserve on this machine now.

    Raises:
        SandboxUnavailableError: an execution with the operator's own limits could never be admitted.
    """
    capacity = measure_capacity(
        memory_reserve_bytes=settings.memory_reserve_bytes, executions_per_cpu=settings.executions_per_cpu
    )
    most_bytes = most_claimed_bytes(bounds_of(settings))
    if most_bytes > capacity.memory_bytes:
        raise SandboxUnavailableError(
            f"one execution may take {most_bytes // MIB} MiB of memory, and this machine can give "
            f"{capacity.memory_bytes // MIB} MiB: lower --limit-memory-bytes and --compile-memory-bytes, or "
            f"--memory-reserve-bytes (now {settings.memory_reserve_bytes})"
        )
    return capacity


def layers_of(session: Session) -> LayerStore:
    """Return the store of installed dependencies that the settings name; it is not opened yet."""
    settings = session.settings
    return LayerStore(
        settings.layers_dir or session.trees_dir / "layers",
        cap_bytes=settings.layers_max_bytes,
        max_age_s=settings.layers_max_age_s,
    )


def _allow_open_files() -> None:
    """Raise the soft bound to the hard one: each sandbox holds some, and the usual 1,024 are soon gone."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _prove(backend: Backend, tree: LanguageTree) -> None:
    """Refuse to open where no program could run: a node would answer every call with a system error."""
    try:
        await prove(backend, tree)
    except SandboxUnavailableError as error:
        await backend.aclose()
        raise SandboxUnavailableError(f"{error}. To find out what is missing: blueprint doctor") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSandbox:
    """An executor that is ready, and what stands behind it."""

    executor: Executor
    scheduler: Scheduler
    """Of the executor: what runs and waits, and the way to let it run dry."""
    trees: tuple[LanguageTree, ...]
    """The first is the preferred one."""
    guarantees: Guarantees


@asynccontextmanager
async def opened_sandbox(session: Session, languages: Sequence[str] = ()) -> AsyncIterator[OpenedSandbox]:
    """Choose tree and back end, hand the executor out, and close it with everything that it holds.

    Args:
        session: its settings say which tree, back end and limits.
        languages: what must be there; the settings' languages when empty.

    Raises:
        RequestError: no language has one of the names.
        SandboxUnavailableError: as `choose_trees` and `choose_backend` say, or no program can run here.
    """
    settings = session.settings
    _allow_open_files()
    networks = networks_of(settings)
    installer = Installer(layers_of(session), mirror_of(settings))
    trees = choose_trees(session, languages)
    capacity = capacity_of(settings)
    backend = choose_backend(settings)
    await _prove(backend, trees[0])
    offered = {find(name).name for name in settings.languages} or set(LANGUAGES)
    executor = CodeExecutor(
        trees,
        backend,
        languages={name: language for name, language in LANGUAGES.items() if name in offered},
        bounds=bounds_of(settings),
        capacity=capacity,
        max_concurrent=settings.max_concurrent,
        max_waiting=settings.max_waiting,
        installer=installer,
        networks=networks,
    )
    try:
        yield OpenedSandbox(
            executor=executor, scheduler=executor.scheduler, trees=trees, guarantees=backend.guarantees()
        )
    finally:
        await executor.aclose()
