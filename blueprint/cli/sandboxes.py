"""Chooses language tree and back end, and refuses when a guarantee would silently be missing.

Invariant: an executor that comes out of here has every guarantee in force but those that the operator allowed
to be missing by name.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from blueprint.cli.session import Session
from blueprint.settings import Settings
from sandbox.backends.backend import Backend
from sandbox.backends.bubblewrap import BubblewrapBackend
from sandbox.backends.gvisor import GvisorBackend
from sandbox.backends.slot import SlotBackend
from sandbox.bounds import StageBounds
from sandbox.check import prove
from sandbox.errors import SandboxUnavailableError
from sandbox.executor import CodeExecutor, Executor
from sandbox.languages import LANGUAGES, find
from sandbox.result import Guarantees
from sandbox.rootfs import find_tree, survey_host
from sandbox.tree import LanguageTree

__all__ = [
    "SANDBOX_SETTINGS",
    "OpenedSandbox",
    "bounds_of",
    "choose_backend",
    "choose_tree",
    "opened_sandbox",
]

SANDBOX_SETTINGS: Final = (
    "backend", "allow_degraded", "tree",
    "limit_wall_time_s", "limit_cpu_time_s", "limit_memory_bytes", "limit_disk_bytes", "limit_inodes",
    "limit_file_size_bytes", "limit_output_bytes", "limit_processes",
    "compile_wall_time_s", "compile_memory_bytes",
    "install_wall_time_s", "install_memory_bytes", "install_disk_bytes", "request_deadline_s",
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


def choose_tree(session: Session, languages: Sequence[str] = ()) -> LanguageTree:
    """Return the tree that the settings ask for: a built one, the host's, or the first that is there.

    Raises:
        RequestError: no language has one of the names.
        SandboxUnavailableError: there is no such tree, or the host has none of the languages.
    """
    wanted = tuple(languages or session.settings.languages)
    kind = session.settings.tree
    if kind != "host":
        tree = find_tree(session.trees_dir, wanted)
        if tree is not None:
            return tree
        if kind == "debian":
            what = ", ".join(wanted) or "any language"
            raise SandboxUnavailableError(
                f"no language tree with {what} below {session.trees_dir}; build it: blueprint runtimes build"
            )
    host = survey_host()
    names = {find(name).name for name in wanted}
    lacking = {name: fix for name, fix in host.missing.items() if name in names}
    if lacking or not host.tree.runtimes:
        fixes = "; ".join(f"{name}: {fix}" for name, fix in (lacking or host.missing).items())
        raise SandboxUnavailableError(f"this machine lacks languages ({fixes}), or: blueprint runtimes build")
    return host.tree


def choose_backend(settings: Settings) -> Backend:
    """Return the back end that the settings ask for; ``auto`` is ``slot`` as root, else ``bubblewrap``.

    Raises:
        SandboxUnavailableError: it cannot work here, or lacks a guarantee that was not allowed to be missing.
    """
    backend: Backend
    if settings.backend == "slot" or (settings.backend == "auto" and os.geteuid() == 0):
        backend = SlotBackend()
    elif settings.backend == "gvisor":
        backend = GvisorBackend()
    else:
        backend = BubblewrapBackend()
    missing = backend.guarantees().not_enforced
    if ALL not in settings.allow_degraded:
        refused = {name: why for name, why in missing.items() if name not in settings.allow_degraded}
        if refused:
            reasons = "; ".join(f"{name}: {why}" for name, why in sorted(refused.items()))
            raise SandboxUnavailableError(
                f"back end {backend.name} cannot enforce {reasons}. "
                f"Use the back end slot as root, or accept it: --allow-degraded {','.join(sorted(missing))}"
            )
    return backend


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
    tree: LanguageTree
    guarantees: Guarantees


@asynccontextmanager
async def opened_sandbox(session: Session, languages: Sequence[str] = ()) -> AsyncIterator[OpenedSandbox]:
    """Choose tree and back end, hand the executor out, and close it with everything that it holds.

    Args:
        session: its settings say which tree, back end and limits.
        languages: what must be there; the settings' languages when empty.

    Raises:
        RequestError: no language has one of the names.
        SandboxUnavailableError: as `choose_tree` and `choose_backend` say, or no program can run here.
    """
    settings = session.settings
    tree = choose_tree(session, languages)
    backend = choose_backend(settings)
    await _prove(backend, tree)
    offered = {find(name).name for name in settings.languages} or set(LANGUAGES)
    executor = CodeExecutor(
        [tree],
        backend,
        languages={name: language for name, language in LANGUAGES.items() if name in offered},
        bounds=bounds_of(settings),
        max_concurrent=settings.max_concurrent,
    )
    try:
        yield OpenedSandbox(executor=executor, tree=tree, guarantees=backend.guarantees())
    finally:
        await executor.aclose()
