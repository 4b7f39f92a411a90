"""Finds a router that lives outside this project, by the name of its module and variable.

Invariant: a module that is loaded this way never takes the place of one of ours.
"""

import difflib
import importlib
import importlib.util
import sys
from pathlib import Path

from blueprint.errors import ConfigError, RegistrationError
from blueprint.router import Router

__all__ = ["load_router"]

OURS = ("blueprint", "contracts", "jobs", "sandbox")
"""Import names of this distribution; a user's own module needs another one."""


def load_router(reference: str, *, folder: Path | None = None) -> Router:
    """Import a module and return the router in it.

    Args:
        reference: ``package.module:variable``; ``:router`` may be left out.
        folder: where the module is looked for last, after everything installed; the working directory if
            None. It is appended to ``sys.path``, so that it shadows nothing.

    Raises:
        ConfigError: the reference is malformed, or names a module, a variable or a type that is not there.
        RegistrationError: the module registers a job wrongly, or shadows one of ours.
    """
    module_name, _, variable = reference.partition(":")
    variable = variable or "router"
    if not all(part.isidentifier() for part in (*module_name.split("."), variable)):
        raise ConfigError(
            f"router {reference!r}: expected package.module:variable, as in my_jobs.echo:router"
        )
    where = str((folder or Path.cwd()).resolve())
    if where not in sys.path:
        sys.path.append(where)
    _refuse_shadowing(module_name, where)
    try:
        module = importlib.import_module(module_name)
    except RegistrationError as exc:
        raise RegistrationError(f"router {reference!r}: {exc}") from exc
    except ImportError as exc:
        raise ConfigError(f"router {reference!r}: {_import_problem(exc, module_name, where)}") from exc
    except SyntaxError as exc:
        raise ConfigError(f"router {reference!r}: {exc.filename}, line {exc.lineno}: {exc.msg}") from exc
    found = getattr(module, variable, None)
    if isinstance(found, Router):
        return found
    routers = [name for name, value in vars(module).items() if isinstance(value, Router)]
    close = difflib.get_close_matches(variable, routers, n=1) or routers
    hint = (
        f"did you mean {module_name}:{close[0]}?"
        if close
        else "the module has none; write `router = Router()`"
    )
    received = "nothing" if found is None else f"a {type(found).__name__}"
    raise ConfigError(f"router {reference!r}: expected a Router in {variable!r}, received {received}; {hint}")


def _refuse_shadowing(module_name: str, where: str) -> None:
    """A folder of the user's named like one of ours would be half used, or not at all: say so."""
    top = module_name.split(".", maxsplit=1)[0]
    for name in OURS:
        own = importlib.util.find_spec(name)
        theirs = [Path(where, name, "__init__.py"), Path(where, f"{name}.py")]
        is_ours = own is not None and own.origin is not None and Path(own.origin).resolve() in theirs
        if top == name and not is_ours and any(path.exists() for path in theirs):
            raise RegistrationError(
                f"router {module_name!r}: {where} holds a module {name!r}, which is the name of one of "
                "this node's own packages; rename it"
            )


def _import_problem(exc: ImportError, module_name: str, where: str) -> str:
    missing = exc.name or ""
    if isinstance(exc, ModuleNotFoundError) and (
        module_name == missing or module_name.startswith(f"{missing}.")
    ):
        return (
            f"there is no module {missing!r}, neither installed nor in {where}; check the name and the folder"
        )
    return f"importing {module_name!r} failed: {exc}; install what it needs beside this node"
