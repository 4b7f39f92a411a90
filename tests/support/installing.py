"""An executor that installs dependencies from registries of a test, in real sandboxes of the built trees."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from sandbox.backends.backend import Backend
from sandbox.backends.slot import SlotBackend
from sandbox.bounds import StageBounds
from sandbox.dependencies.installer import Installer
from sandbox.dependencies.store import LayerStore
from sandbox.egress.mirror import Mirror
from sandbox.egress.registry import Registry
from sandbox.executor import CodeExecutor
from sandbox.languages import LANGUAGES
from sandbox.request import Dependency, ExecutionRequest, Limits, SourceFile
from sandbox.result import ExecutionResult
from sandbox.rootfs import find_trees
from tests.conftest import state_dir
from tests.support.registries import PackageSite

__all__ = ["PAGE", "WHEEL", "a_wheel", "depending", "installing", "layers", "python"]

CAP_BYTES = 1024**3
SHOWS = "import hello\nprint(hello.VERSION)\n"
PAGE = "/simple/hello/"
"""Where a registry lists the versions of ``hello``."""
WHEEL = "/files/hello-1.0-py3-none-any.whl"


@asynccontextmanager
async def installing(
    folder: Path,
    *registries: Registry,
    cap_bytes: int = CAP_BYTES,
    limits: Mapping[str, float] | None = None,
    deadline_s: float = 120.0,
    mirror: Mirror | None = None,
    backend: Backend | None = None,
) -> AsyncIterator[CodeExecutor]:
    """Yield an executor with a store in ``folder``; ``limits`` changes those of the install stage.

    ``mirror`` takes the place of one of the registries.
    """
    usual = StageBounds()
    bounds = StageBounds(
        run=Limits(wall_time_s=60.0),
        install=replace(usual.install, **(limits or {})),  # type: ignore[arg-type]
        deadline_s=deadline_s,
    )
    store = LayerStore(folder, cap_bytes=cap_bytes, max_age_s=3600.0)
    executor = CodeExecutor(
        find_trees(state_dir()),
        backend or SlotBackend(),
        bounds=bounds,
        max_concurrent=16,
        installer=Installer(store, mirror or Mirror(registries)),
    )
    try:
        yield executor
    finally:
        await executor.aclose()


def depending(
    language: str, source: str, *dependencies: tuple[str, str], runtime: str = "", **parts: object
) -> ExecutionRequest:
    """Build a request for a lone file that needs packages."""
    path = str(parts.pop("path", LANGUAGES[language].default_file))
    return ExecutionRequest(
        language=language,
        files=[SourceFile(path=path, content=source.encode())],
        runtime=runtime,
        dependencies=[Dependency(name=name, requirement=wanted) for name, wanted in dependencies],
        **parts,  # type: ignore[arg-type]
    )


def a_wheel(site: PackageSite, name: str = "hello", version: str = "1.0") -> str:
    """Add a package that says its version."""
    return site.add_wheel(name, version, {f"{name}/__init__.py": f"VERSION = '{version}'\n"})


async def python(
    executor: CodeExecutor, *dependencies: tuple[str, str], source: str = SHOWS, **parts: object
) -> ExecutionResult:
    """Run a Python program that needs ``hello``, or something else."""
    return await executor.execute(depending("python", source, *(dependencies or [("hello", "")]), **parts))


def layers(folder: Path) -> list[Path]:
    """Return the layers in a store, and whatever else lies there but its lock."""
    return [path for path in folder.iterdir() if path.name != ".lock"] if folder.exists() else []
