"""Describes the host itself as a language tree: its own ``/usr``, with whichever languages are installed.

Invariant: every program of a host tree lies under ``/usr`` by its real path, because that is what a sandbox
mounts; a language whose programs lie elsewhere counts as missing.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SystemFailureError
from sandbox.languages import LANGUAGES
from sandbox.languages.language import HostPrograms
from sandbox.rootfs.verify import read_version
from sandbox.tree import LanguageTree, Runtime

__all__ = ["HostTree", "host_tree", "survey_host"]

USR = Path("/usr")
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/usr/local/go/bin:/usr/libexec/swift/bin:/usr/sbin"
VERSION_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTree:
    """The host as a tree, and what it lacks."""

    tree: LanguageTree
    missing: Mapping[str, str]
    """The name of each language that the host does not have, and the command that brings it."""


def host_tree() -> LanguageTree:
    """Describe the host as a tree. It may hold no runtime at all; `survey_host` says what is missing."""
    return survey_host().tree


def survey_host(search_path: str = SYSTEM_PATH) -> HostTree:
    """Look for every language on the host and ask each for its version.

    Args:
        search_path: folders to look in, separated by ``:``; what is found outside ``/usr`` is not usable.
    """
    runtimes, missing = [], {}
    for name, language in LANGUAGES.items():
        programs = _find(language.host.programs, search_path)
        version = _version(language.host, programs) if programs is not None else None
        if programs is None or version is None:
            missing[name] = language.host.fix
            continue
        for role, program in language.host.optional.items():
            programs |= _find({role: program}, search_path) or {}
        programs |= language.host.beside(programs)
        runtimes.append(Runtime(language=name, version=version, programs=programs))
    listing = json.dumps([[r.language, r.version, dict(r.programs)] for r in runtimes], sort_keys=True)
    digest = hashlib.sha256(b"host\0" + listing.encode()).hexdigest()
    tree = LanguageTree(path=Path("/"), digest=digest, kind="host", runtimes=tuple(runtimes))
    return HostTree(tree=tree, missing=missing)


def _find(programs: Mapping[str, str], search_path: str) -> dict[str, str] | None:
    found = {}
    for role, program in programs.items():
        path = shutil.which(program, path=search_path)
        real = Path(path).resolve() if path else None
        if real is None or not real.is_relative_to(USR):
            return None
        # A program that is several (swiftc) goes by the name it is called with; a link through
        # /etc/alternatives is followed, because a sandbox may not have that folder.
        found[role] = path if path and _stays_in_usr(Path(path)) else str(real)
    return found


def _stays_in_usr(path: Path) -> bool:
    while path.is_relative_to(USR):
        if not path.is_symlink():
            return True
        path = path.parent.resolve() / path.readlink()
    return False


def _version(host: HostPrograms, programs: Mapping[str, str]) -> str | None:
    argv = [word.format(**programs) for word in host.version]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False)
        return read_version(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, SystemFailureError):
        return None  # a broken installation is a missing one
