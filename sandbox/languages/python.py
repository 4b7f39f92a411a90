"""Python: the file is run as it is; packages are wheels, installed by uv."""

from collections.abc import Sequence

from sandbox.languages.entry import choose_entry, inside
from sandbox.languages.language import (
    DEPS,
    LAYER,
    LOCK,
    HostPrograms,
    InstallPlan,
    Plan,
    Provision,
    RegistryView,
    Stage,
)
from sandbox.languages.options import read_options
from sandbox.languages.requirement import Grammar, read_dependencies, registry_of
from sandbox.request import ExecutionRequest, SourceFile

__all__ = ["LANGUAGE", "Python"]

_VERSION = r"v?[0-9][0-9A-Za-z.*+!_-]*"
GRAMMAR = Grammar(
    name=r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?",
    requirement=rf"(\[[A-Za-z0-9._, -]+\])?\s*(({_VERSION})?|(~=|[=!<>]=|[<>])\s*{_VERSION}"
    rf"(\s*,\s*(~=|[=!<>]=|[<>])\s*{_VERSION})*)",
    example="requests >=2.31,<3",
)
# Wheels only: a source package is code that would run. The bytecode is valid whatever the files' times are.
INSTALL = """\
set -e
uv=$1 python=$2 index=$3 packages=$4
"$uv" pip install --no-build --python "$python" --target "$packages" --default-index "$index" \
    --requirements /work/.requirements --compile-bytecode
"$uv" pip freeze --python "$python" --target "$packages" >"$5"
rm -f "$packages/.lock"
"""


class Python:
    """CPython. The entry's folder is first on the module path, as for ``python3 file``.

    Packages lie where those of a user lie (``PYTHONUSERBASE``): after the standard library, so that none
    replaces a part of it, and with their ``.pth`` files read.
    """

    name = "python"
    aliases: tuple[str, ...] = ("py", "python3")
    title = "Python"
    default_file = "main.py"
    suffixes: tuple[str, ...] = (".py",)
    sample = "print(input()[::-1].upper())\n"
    host = HostPrograms(
        programs={"run": "python3"}, version=("{run}", "--version"), fix="apt-get install python3"
    )
    registry = "pypi"

    def plan(self, request: ExecutionRequest, given: Provision) -> Plan:
        """Plan one stage; a syntax error shows as Python itself shows it, with exit code 1."""
        read_options(request, {})
        entry = choose_entry(request, suffixes=self.suffixes, usual=("main.py", "__main__.py", "app.py"))
        packages = {"PYTHONUSERBASE": DEPS} if request.dependencies else {}
        return Plan(
            stages=(
                Stage(
                    name="run",
                    argv=(given.runtime.programs["run"], inside(entry.path), *request.args),
                    env={"PYTHONDONTWRITEBYTECODE": "1", **packages},
                    counts_processes_exactly=True,
                ),
            )
        )

    def install(
        self, request: ExecutionRequest, given: Provision, registries: Sequence[RegistryView]
    ) -> InstallPlan:
        """Plan ``uv pip install`` of wheels; a version without an operator is that version."""
        lines = [
            f"{name}{_specifier(requirement)}\n" for name, requirement in read_dependencies(request, GRAMMAR)
        ]
        registry = registry_of(request, registries)
        minor = ".".join(given.runtime.version.split(".")[:2])
        packages = f"{LAYER}/lib/python{minor}/site-packages"
        tools = (
            given.runtime.programs["install"],
            given.runtime.programs["run"],
            registry.url,
            packages,
            LOCK,
        )
        return InstallPlan(
            files=[SourceFile(path=".requirements", content="".join(lines).encode())],
            stage=Stage(
                name="install",
                argv=("/bin/sh", "-c", INSTALL, "install", *tools),
                env={
                    # On one file system with the packages: they are linked, not copied.
                    "UV_CACHE_DIR": "/work/.cache",
                    "UV_HTTP_RETRIES": "1",
                    "UV_LINK_MODE": "hardlink",
                    "UV_NO_CONFIG": "1",
                    "UV_NO_PROGRESS": "1",
                    "UV_PYTHON_DOWNLOADS": "never",
                    "PYC_INVALIDATION_MODE": "UNCHECKED_HASH",
                    **registry.environment,
                },
                tasks_max=256,
            ),
        )


LANGUAGE = Python()


def _specifier(requirement: str) -> str:
    extras, bracket, versions = requirement.rpartition("]")
    versions = versions.strip()
    exact = "==" if versions and versions[0] not in "~=!<>" else ""
    return f"{extras}{bracket}{exact}{versions}"
