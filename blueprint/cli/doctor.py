"""``blueprint doctor``: each thing that the node needs, how it stands here, and the fix."""

import asyncio
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
from rich.table import Table
from rich.text import Text

from blueprint.cli.deploy.prerequisites import place_findings
from blueprint.cli.exits import ExitCode
from blueprint.cli.link import connected
from blueprint.cli.outcome import size_text
from blueprint.cli.sandboxes import capacity_of
from blueprint.cli.session import Session, node_command
from blueprint.errors import BlueprintError
from blueprint.log import printable
from sandbox.check import Finding, Level, backends_that_serve, check
from sandbox.errors import SandboxUnavailableError
from sandbox.rootfs import Manifest, find_tree, find_trees, is_current, list_trees, survey_host
from sandbox.rootfs.seal import measure

__all__ = ["command", "own_findings"]

_SETTINGS = (
    "state_dir",
    "trees_dir",
    "rpc_url",
    "rpc_timeout_s",
    "chain_id",
    "contract",
    "keystore",
    "private_key_file",
    "place",
    "cloud_api_key_file",
    "trust_development_root",
)
_TREE_ROOM_BYTES: Final = 6 * 1024**3
_LEAST_ROOM_BYTES: Final = 1024**3
_DEGRADED: Final = (
    "programs can run here under bubblewrap, without the guarantees that are weak above: "
    "--backend bubblewrap, and accept each by name with --allow-degraded"
)
_STYLES: Final = {Level.OK: "green", Level.WEAK: "yellow", Level.MISSING: "red"}


@click.command("doctor", help="Check what this machine offers, and print the fix for what is missing.")
@click.option("--verify-trees", is_flag=True, help="Also read every language tree, and compare its digest.")
@node_command(settings=_SETTINGS)
def command(session: Session, *, verify_trees: bool) -> int:
    """Try everything; exit code 5 when programs cannot be isolated, 1 when something else is missing."""
    own, isolation = asyncio.run(_examine(session))
    if verify_trees:
        own += [_integrity(folder, manifest) for folder, manifest in list_trees(session.trees_dir)]
    serving = backends_that_serve(isolation)
    can_isolate = bool(serving)
    findings = own + isolation
    session.emit(
        {
            "can_isolate": can_isolate,
            "backends": serving,
            "findings": [
                {n: str(getattr(f, n)) for n in ("name", "level", "detail", "fix", "backend")}
                for f in findings
            ],
        },
        _table(findings),
    )
    if not can_isolate:
        session.say("programs cannot be isolated here: apply a fix above", "red")
        return ExitCode.SANDBOX_UNAVAILABLE
    if any(f.level == Level.MISSING for f in own):
        return ExitCode.FAILURE
    if "slot" not in serving:
        session.say(_DEGRADED, "yellow")
    session.suggest("blueprint demo")
    return ExitCode.OK


async def _examine(session: Session) -> tuple[list[Finding], list[Finding]]:
    own = await asyncio.to_thread(own_findings, session)
    return [*own, *await place_findings(session), await _chain(session)], await check()


def own_findings(session: Session) -> list[Finding]:
    """Return what concerns the node itself: Python, its folder, the room in it, capacity, languages, key."""
    checks: list[Callable[[Session], Finding]] = [_python, _state_folder, _room, _capacity, _languages, _key]
    return [each(session) for each in checks]


def _python(_session: Session) -> Finding:
    return Finding(name="python", level=Level.OK, detail=f"{platform.python_version()} at {sys.executable}")


def _state_folder(session: Session) -> Finding:
    folder = _existing(session.state_dir)
    if os.access(folder, os.W_OK | os.X_OK):
        return Finding(name="state folder", level=Level.OK, detail=str(session.state_dir))
    fix = f"set --state-dir to a folder that this account can write, or: chown {os.geteuid()} {folder}"
    return Finding(name="state folder", level=Level.MISSING, detail=f"{folder} cannot be written", fix=fix)


def _room(session: Session) -> Finding:
    free = shutil.disk_usage(_existing(session.state_dir)).free
    detail = f"{size_text(free)} free below {_existing(session.state_dir)}"
    if free < _LEAST_ROOM_BYTES:
        fix = "free some space, or set --state-dir to another disk"
        return Finding(name="disk", level=Level.MISSING, detail=detail, fix=fix)
    if free < _TREE_ROOM_BYTES and find_tree(session.trees_dir) is None:
        fix = f"building the language tree takes up to {size_text(_TREE_ROOM_BYTES)}"
        return Finding(name="disk", level=Level.WEAK, detail=detail, fix=fix)
    return Finding(name="disk", level=Level.OK, detail=detail)


def _capacity(session: Session) -> Finding:
    try:
        capacity = capacity_of(session.settings)
    except SandboxUnavailableError as error:
        return Finding(
            name="capacity", level=Level.MISSING, detail=str(error), fix="free memory, or lower the limits"
        )
    detail = f"executions may reserve {size_text(capacity.memory_bytes)} and {capacity.cpus:g} places on CPUs"
    return Finding(name="capacity", level=Level.OK, detail=detail)


def _languages(session: Session) -> Finding:
    trees, built = find_trees(session.trees_dir), list_trees(session.trees_dir)
    current = {manifest.tree for _, manifest in built if is_current(manifest)}
    stale = sorted({manifest.tree for _, manifest in built} - current)
    detail = ", ".join(f"{r.language} {r.version}" for tree in trees for r in tree.runtimes)
    if stale:
        return Finding(
            name="languages",
            level=Level.WEAK,
            detail=f"out of date: {', '.join(stale)}; of use: {detail or 'none'}",
            fix="blueprint runtimes build (as root, once)",
        )
    if trees:
        return Finding(name="languages", level=Level.OK, detail=detail)
    host = survey_host()
    if not host.tree.runtimes:
        return Finding(
            name="languages",
            level=Level.MISSING,
            detail="no tree, no language on the host",
            fix="blueprint runtimes build",
        )
    names = ", ".join(runtime.language for runtime in host.tree.runtimes)
    return Finding(
        name="languages",
        level=Level.WEAK,
        detail=f"no language tree; the host itself has {names}",
        fix="blueprint runtimes build (as root, once)",
    )


def _integrity(folder: Path, manifest: Manifest) -> Finding:
    name = f"tree {manifest.digest[:12]}"
    found = measure(folder / "root")
    if found.digest != manifest.digest:
        detail = (
            f"its content is {found.digest[:12]}, in {found.files} files where {manifest.files} were made"
        )
        fix = f"rm -r {folder} && blueprint runtimes build"
        return Finding(name=name, level=Level.MISSING, detail=detail, fix=fix)
    detail = f"{found.files} files, {size_text(found.size_bytes)}, as when it was made"
    return Finding(name=name, level=Level.OK, detail=detail)


def _key(session: Session) -> Finding:
    settings = session.settings
    for name, path in (("keystore", settings.keystore), ("private_key_file", settings.private_key_file)):
        if path is not None:
            if os.access(path, os.R_OK):
                return Finding(name="key", level=Level.OK, detail=f"{name} {path}")
            return Finding(
                name="key",
                level=Level.MISSING,
                detail=f"{name} {path} cannot be read",
                fix="check the path and its owner",
            )
    if settings.private_key is not None:
        return Finding(name="key", level=Level.OK, detail="BLUEPRINT_PRIVATE_KEY")
    fix = "only needed for run and submit: blueprint keys new"
    return Finding(name="key", level=Level.WEAK, detail="no operator's key is set", fix=fix)


async def _chain(session: Session) -> Finding:
    settings = session.settings
    if settings.contract is None:
        fix = "only needed for run and submit: set BLUEPRINT_CONTRACT; to try: blueprint chain"
        return Finding(name="chain", level=Level.WEAK, detail="no contract is set", fix=fix)
    try:
        async with connected(session) as link:
            detail = f"chain {link.chain_id} at {link.rpc.shown_url}, head {link.head_number}"
            return Finding(name="chain", level=Level.OK, detail=detail)
    except BlueprintError as error:
        return Finding(
            name="chain",
            level=Level.MISSING,
            detail=str(error),
            fix="check BLUEPRINT_RPC_URL and BLUEPRINT_CONTRACT",
        )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _table(findings: list[Finding]) -> Table:
    table = Table("", "requirement", "here", "fix", box=None, pad_edge=False)
    for finding in findings:
        level = Text(finding.level.value, style=_STYLES[finding.level])
        table.add_row(level, finding.name, printable(finding.detail), printable(finding.fix))
    return table
