"""``python -m tests.soak.service``: serves a part of a soak and prints one JSON line for each request.

Invariant: a line is printed after the request's sandbox is destroyed, so a killed service has at most as many
requests under way as it has places.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from sandbox.backends.backend import Backend
from sandbox.backends.bubblewrap import BubblewrapBackend
from sandbox.backends.slot import SlotBackend
from sandbox.dependencies.installer import Installer
from sandbox.dependencies.store import LayerStore
from sandbox.egress.mirror import Mirror
from sandbox.egress.policy import EgressPolicy
from sandbox.egress.proxy import EgressProxy
from sandbox.egress.registry import RegistryKind
from sandbox.errors import SandboxError
from sandbox.executor import CodeExecutor
from sandbox.rootfs import find_tree, host_tree
from sandbox.tree import LanguageTree
from tests.soak.kinds import PACKAGES, POLICY, Kind, kinds_for, requests
from tests.support.registries import PackageSite

PLACES = 4
LAYERS_BYTES = 1024**3
LAYERS_AGE_S = 20.0
"""Sets are installed anew now and then."""


def main() -> None:
    """Serve the requests from ``--start`` on."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--backend", choices=("slot", "bubblewrap"), required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--start", type=int, required=True)
    parser.add_argument("--layers", type=Path, required=True, help="where installed packages are kept")
    options = parser.parse_args()
    tree = find_tree(options.state_dir) or host_tree()
    languages = list(dict.fromkeys(runtime.language for runtime in tree.runtimes))
    drawn = requests(kinds_for(languages), options.count, options.seed)[options.start :]
    backend: Backend = SlotBackend() if options.backend == "slot" else BubblewrapBackend()
    asyncio.run(_serve(tree, backend, options.layers, iter(drawn)))


async def _serve(tree: LanguageTree, backend: Backend, layers: Path, drawn: Iterator[Kind]) -> None:
    async with PackageSite() as site:
        site.put("/hello", b"hello")
        for name in PACKAGES:
            site.add_wheel(name, "1.0", {f"{name}.py": ""})
        policy = EgressPolicy(name=POLICY, allow=(site.url.removeprefix("http://"),))
        store = LayerStore(layers, cap_bytes=LAYERS_BYTES, max_age_s=LAYERS_AGE_S)
        executor = CodeExecutor(
            [tree],
            backend,
            max_concurrent=PLACES,
            networks={POLICY: partial(EgressProxy, policy)},
            installer=Installer(store, Mirror([site.registry(RegistryKind.PYPI)])),
        )
        await _answer(executor, site.url, drawn)


async def _answer(executor: CodeExecutor, site: str, drawn: Iterator[Kind]) -> None:
    print(json.dumps({"ready": True}), flush=True)

    async def work() -> None:
        for kind in drawn:
            status, message = await _one(executor, kind, site)
            is_right = status in {each.name for each in kind.expected}
            print(
                json.dumps({"kind": kind.name, "status": status, "ok": is_right, "message": message}),
                flush=True,
            )

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(PLACES):
                group.create_task(work())
    finally:
        await executor.aclose()


async def _one(executor: CodeExecutor, kind: Kind, site: str) -> tuple[str, str]:
    try:
        if kind.cancel_after_s is None:
            result = await executor.execute(kind.request(site))
            return result.status.name, result.error_message
        with suppress(TimeoutError):
            await asyncio.wait_for(executor.execute(kind.request(site)), kind.cancel_after_s)
            return "NOT_CANCELLED", ""
    except SandboxError as exc:
        return type(exc).__name__, str(exc)
    return "CANCELLED", ""


if __name__ == "__main__":
    sys.exit(main())
