"""Back ends with a wall left out, for control runs: without it the attack must succeed.

Three places where a wall is built, three ways to leave one out, none of which a setting or a request reaches:
limits are loosened by a back end that stands around the real one, walls inside are left out by another
launcher (`launcher_without`) or by another ``bwrap``, and the rules of collection by replacing them in a
service process that exists for one control run only.
"""

import stat
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

from sandbox.backends import bubblewrap_stage
from sandbox.backends.backend import (
    Backend,
    BoxUsage,
    Gateway,
    Mount,
    OnSample,
    Sandbox,
    StageOrder,
    StageOutcome,
)
from sandbox.backends.bubblewrap import BubblewrapBackend
from sandbox.backends.slot import SlotBackend
from sandbox.kernel import files, seccomp
from sandbox.languages import npm_packages, python
from sandbox.request import Limits
from sandbox.result import Guarantees
from sandbox.tree import LanguageTree
from tests.support.launcher_without import STEPS

__all__ = [
    "LIMITS",
    "POLICY",
    "RULES",
    "Refitted",
    "known_walls",
    "leave_out_rules",
    "loosened",
    "open_bwrap",
    "open_slot",
]

PROJECT = Path(__file__).resolve().parents[2]

LIMITS: Mapping[str, Mapping[str, float]] = {
    "memory limit": {"memory_bytes": 1 << 30},
    "process limit": {"processes": 300},
    "CPU clock": {"cpu_time_s": 120.0},
    "wall clock": {"wall_time_s": 120.0},
    "disk quota": {"disk_bytes": 1 << 28},
    "inode quota": {"inodes": 100_000},
    "file size limit": {"file_size_bytes": 1 << 32},
    "descriptor limit": {"open_files": 4096},
}
"""Name of a limit to what replaces it: far away, but not without end, for this machine is shared."""


def loosened(limits: Limits, names: Iterable[str]) -> Limits:
    """Return limits of which some are far away."""
    far = {field: value for name in names for field, value in LIMITS.get(name, {}).items()}
    assert set(far) <= {field.name for field in fields(Limits)}
    return replace(limits, **far)  # type: ignore[arg-type]


class Refitted:
    """A back end around a back end: its sandboxes have some limits far away, or something beside the tree.

    Args:
        inner: the real one.
        names: limits that are loosened.
        mounts: what else shows in every sandbox.
        gateway: the way out of every stage.
    """

    def __init__(
        self,
        inner: Backend,
        names: Iterable[str] = (),
        *,
        mounts: Sequence[Mount] = (),
        gateway: Gateway | None = None,
    ) -> None:
        self.name = inner.name
        self._inner = inner
        self._names = tuple(names)
        self._mounts = tuple(mounts)
        self._gateway = gateway

    def guarantees(self) -> Guarantees:
        return self._inner.guarantees()

    async def open(
        self, tree: LanguageTree, limits: Limits, sandbox_id: str, mounts: Sequence[Mount] = ()
    ) -> "RefittedSandbox":
        limits = loosened(limits, self._names)
        sandbox = await self._inner.open(tree, limits, sandbox_id, (*mounts, *self._mounts))
        return RefittedSandbox(sandbox, self._names, self._gateway)

    async def aclose(self) -> None:
        await self._inner.aclose()


class RefittedSandbox:
    """A sandbox whose stages have some limits far away, or a way out."""

    def __init__(self, inner: Sandbox, names: tuple[str, ...], gateway: Gateway | None) -> None:
        self._inner = inner
        self._names = names
        self._gateway = gateway

    @property
    def files_fd(self) -> int:
        return self._inner.files_fd

    @property
    def owner_uid(self) -> int | None:
        return self._inner.owner_uid

    async def run(self, order: StageOrder, on_sample: OnSample | None = None) -> StageOutcome:
        limits = loosened(order.limits, self._names)
        tasks_max = max(order.tasks_max, limits.processes) if limits != order.limits else order.tasks_max
        gateway = self._gateway or order.gateway
        order = replace(order, limits=limits, tasks_max=tasks_max, gateway=gateway)
        return await self._inner.run(order, on_sample)

    def usage(self) -> BoxUsage | None:
        return self._inner.usage()

    async def destroy(self) -> None:
        await self._inner.destroy()


def _follow_links() -> None:
    files.WALK = files.Resolve.NO_MAGICLINKS  # type: ignore[misc]  # what the rules are without
    files.READ_FLAGS &= ~files.os.O_NOFOLLOW  # type: ignore[misc]


def _without_option(language: ModuleType, option: str) -> None:
    assert option in language.INSTALL, f"{language} has no {option} any more: the control run proves nothing"
    language.INSTALL = language.INSTALL.replace(option, "")  # type: ignore[attr-defined]


POLICY = "egress policy"
"""The wall that is a policy of the operator's: left out, it names a port of the service."""

RULES: Mapping[str, Callable[[], None]] = {
    "rules of collection": _follow_links,
    "rule of wheels only": lambda: _without_option(python, "--no-build "),
    "ban on install scripts": lambda: _without_option(npm_packages, "--ignore-scripts "),
}
"""Name of a wall in the service's own process to what leaves it out."""


def leave_out_rules(walls: Iterable[str]) -> None:
    """Leave rules out of this process, for good: it must be the service of one control run."""
    for name in walls:
        RULES.get(name, lambda: None)()


def open_slot(walls: Iterable[str], *, uid_base: int, uid_count: int) -> SlotBackend:
    """Make the slot back end, with another launcher where walls are left out."""
    backend = SlotBackend(uid_base=uid_base, uid_count=uid_count)
    left_out = tuple(name for name in walls if name in STEPS)
    if left_out:
        backend.launcher_code = (
            f"import sys; sys.path.append({str(PROJECT)!r}); "
            f"from {main_module()} import main; main({left_out!r})"
        )
    return backend


def main_module() -> str:
    """Return the name of the module with the launcher of control runs."""
    return "tests.support.launcher_without"


# Option of bwrap to what stands instead of it.
BWRAP_OPTIONS: Mapping[str, Callable[[list[str]], list[str]]] = {
    "network namespace": lambda argv: _expand(argv, leave_out="--unshare-net"),
    "IPC namespace": lambda argv: _expand(argv, leave_out="--unshare-ipc"),
    "pid namespace": lambda argv: _expand(argv, leave_out="--unshare-pid"),
    "UTS namespace": lambda argv: _cut(_expand(argv, leave_out="--unshare-uts"), "--hostname", 2),
    "rlimits": lambda argv: [word for word in argv if not _is_bound(word)],
}
KINDS = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")


def _expand(argv: list[str], *, leave_out: str) -> list[str]:
    kinds = [kind for kind in KINDS if kind != leave_out]
    place = argv.index("--unshare-all")
    return [*argv[:place], *kinds, *argv[place + 1 :]]


def _cut(argv: list[str], option: str, count: int) -> list[str]:
    place = argv.index(option)
    return [*argv[:place], *argv[place + count :]]


def _is_bound(word: str) -> bool:
    return word.startswith(("--msgqueue=", "--memlock=", "--core="))


def _bound_nothing(pid: int, order: StageOrder) -> None:
    """Leave init as it is."""


def open_bwrap(walls: Iterable[str], folder: Path) -> BubblewrapBackend:
    """Make the bubblewrap back end; where walls are left out, ``bwrap`` is a script that drops options."""
    backend, walls = BubblewrapBackend(), tuple(walls)
    if "seccomp filter" in walls:
        program = seccomp.Program()
        program.emit(seccomp.RETURN, seccomp.RET_ALLOW)
        backend.filter = program.assemble()
    if "rlimits" in walls:
        bubblewrap_stage.bound_init = _bound_nothing  # of this process alone: it serves one control run
    left_out = [name for name in walls if name in BWRAP_OPTIONS]
    if left_out:
        script = folder / "bwrap"
        script.write_text(
            f"#!{sys.executable}\nimport os, sys\nsys.path.insert(0, {str(PROJECT)!r})\n"
            f"from tests.support.walls import BWRAP_OPTIONS\nargv = sys.argv\n"
            f"for name in {left_out!r}: argv = BWRAP_OPTIONS[name](argv)\n"
            f"os.execv({backend.bwrap!r}, argv)\n"
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        backend.bwrap = str(script)
    return backend


def known_walls(backend: str) -> frozenset[str]:
    """Return the names of what can be left out of a back end."""
    if backend == "gvisor":  # the guest's own kernel bounds those two
        return (frozenset(LIMITS) | frozenset(RULES)) - {"process limit", "descriptor limit"}
    inside = {"slot": frozenset(STEPS), "bubblewrap": frozenset({*BWRAP_OPTIONS, "seccomp filter"})}
    return inside.get(backend, frozenset()) | frozenset(LIMITS) | frozenset(RULES) | {POLICY}
