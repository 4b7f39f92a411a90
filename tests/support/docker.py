"""A Docker engine for the tests, apart from any other on this machine, and applications to deploy to it.

Invariant: when `engine_of_ours` returns, nothing of the engine is left: no process, mount or control group.
"""

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from blueprint.tee.sealing import SecretVariable, seal
from jobs.deploy.app_compose import AppCompose
from jobs.deploy.backends.backend import Machine, MachineState, Placement, Workload
from jobs.deploy.backends.local import LocalBackend
from jobs.deploy.backends.local.compose_program import find_compose
from jobs.deploy.backends.local.engine import Engine
from jobs.deploy.backends.local.private_engine import PrivateEngine
from jobs.deploy.errors import DeployError

__all__ = [
    "IMAGE", "PROJECT", "SECRET", "TWO_SERVICES", "App", "compose", "engine_of_ours", "everything_of",
    "local", "logs_of", "printed", "reached", "why_no_docker",
]  # fmt: skip

PROJECT = Path(__file__).resolve().parents[2]
IMAGE = "tee-job-node/hello:1"
_TIMEOUT_S = 60.0
SECRET = "ein \"Geheimnis\" mit $HOME, 'Zeichen' und\nzwei Zeilen: ü"
TWO_SERVICES = f"""
services:
  web:
    image: {IMAGE}
    container_name: a-fixed-name
    command:
      - sh
      - -c
      - |
        printf '%s' "$$TOKEN" > /data/token
        printf '<%s>' "$$FORBIDDEN" > /data/forbidden
        ask-agent GetQuote '{{"report_data":"'"$$NONCE"'"}}' > /data/quote && exec httpd -f -p 80 -h /data
    stop_grace_period: 0s
    environment:
      TOKEN: ${{TOKEN}}
      NONCE: ${{NONCE}}
      FORBIDDEN: ${{FORBIDDEN:-}}
    ports: ["8080:80"]
    volumes:
      - data:/data
      - /var/run/dstack.sock:/var/run/dstack.sock
    healthcheck:
      test: [CMD, wget, -q, -O, /tmp/quote, "http://127.0.0.1/quote"]
      interval: 200ms
      retries: 50
  reader:
    image: {IMAGE}
    command:
      - sh
      - -c
      - |
        for file in token forbidden quote; do echo [$$file]; wget -q -O - http://web/$$file; echo; done
        sleep 600
    stop_grace_period: 0s
    depends_on: {{web: {{condition: service_healthy}}}}
volumes:
  data:
    name: a-fixed-volume
"""
"""`web` shows what it was given and a quote; `reader` prints that; the fixed names belong to others."""


def why_no_docker() -> str:
    """Return why no engine can be had here; empty if it can."""
    try:
        find_compose()
    except DeployError as error:
        return str(error)
    return PrivateEngine.missing()


@contextmanager
def engine_of_ours() -> Iterator[PrivateEngine]:
    """Start an engine with the image of the examples, and end it."""
    before = {path.name for path in Path("/run").iterdir()}
    with tempfile.TemporaryDirectory(prefix="engine-") as folder:
        engine = PrivateEngine(Path(folder) / "engine")
        asyncio.run(_start(engine))
        try:
            yield engine
        finally:
            group = engine.group
            asyncio.run(engine.remove())
        assert everything_of(group) == []
        assert {
            path.name for path in Path("/run").iterdir() if re.match("docker|containerd|engine", path.name)
        } <= before


async def _start(engine: PrivateEngine) -> None:
    await engine.start()
    build = await asyncio.create_subprocess_exec(
        sys.executable,
        "examples/compose/image/build.py",
        IMAGE,
        cwd=PROJECT,
        env={**os.environ, "DOCKER_HOST": f"unix://{engine.socket}"},
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert await build.wait() == 0


def everything_of(word: str) -> list[str]:
    """Return the processes, mounts and control groups of this machine whose description has a word."""
    commands = {path: _read(path).replace("\0", " ") for path in Path("/proc").glob("[0-9]*/cmdline")}
    found = [f"{path.parent.name} {command}" for path, command in commands.items() if word in command]
    found += [line for line in _read(Path("/proc/self/mountinfo")).splitlines() if word in line]
    groups = Path("/sys/fs/cgroup")
    return found + [
        str(path) for pattern in ("*", "*/*") for path in groups.glob(pattern) if word in path.name
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # the process has ended
        return ""


def compose(command: str, *lines: str) -> str:
    """Return a compose file with one service, ``app``; further lines belong to the service."""
    service = ["image: " + IMAGE, f"command: [sh, -c, {command!r}]", "stop_grace_period: 0s", *lines]
    return "services:\n  app:\n" + "".join(f"    {line}\n" for line in service)


@dataclass(frozen=True, kw_only=True)
class App:
    """An application with its variables."""

    text: str
    name: str = "hello"
    variables: Sequence[tuple[str, str]] = ()
    allowed: tuple[str, ...] | None = None
    placement: Placement = field(default_factory=Placement)

    @property
    def workload(self) -> Workload:
        """What is measured."""
        names = tuple(key for key, _ in self.variables)
        content = AppCompose(
            name=self.name,
            docker_compose_file=self.text,
            allowed_envs=names if self.allowed is None else self.allowed,
            public_logs=True,
        )
        return content.workload()

    def sealed(self, public_key: bytes) -> bytes:
        """The variables, for the guest alone."""
        variables = [SecretVariable(key, value) for key, value in self.variables]
        return seal(variables, public_key) if variables else b""

    async def create(self, backend: LocalBackend) -> Machine:
        """Provision and commit; returns as soon as the place has accepted it."""
        workload = self.workload
        provision = await backend.provisioning.provision(workload, self.placement)
        assert provision.public_key is not None
        sealed = self.sealed(provision.public_key.key)
        return await backend.provisioning.commit(workload, self.placement, provision, sealed, ())

    async def deploy(self, backend: LocalBackend) -> Machine:
        """Create, and wait until it runs."""
        return await reached(backend, await self.create(backend), MachineState.RUNNING)


async def reached(backend: LocalBackend, machine: Machine, target: MachineState) -> Machine:
    """Return a machine once it has a state, or has failed where that is not the target."""
    async with asyncio.timeout(_TIMEOUT_S):
        seen = [one async for one in backend.observation.watch(machine, target)]
    assert seen[-1].state is target, seen[-1].said
    return seen[-1]


@asynccontextmanager
async def local(state_dir: Path, engine: Path) -> AsyncIterator[LocalBackend]:
    """Open the local place; at the end, delete all its machines and look that nothing is left of them."""
    backend = LocalBackend(state_dir=state_dir, engine=engine)
    try:
        yield backend
    finally:
        for machine in await backend.machines.list():
            await backend.machines.delete(machine)
        await backend.aclose()
    async with Engine(engine) as asked:
        assert await asked.projects("cvm-") == frozenset()
    assert os.listdir(state_dir / "machines") == []  # noqa: PTH208
    deadline = time.monotonic() + 2
    while (left := everything_of(str(state_dir))) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    assert left == []


async def logs_of(backend: LocalBackend, machine: Machine, service: str = "app") -> str:
    pieces = [piece async for piece in backend.observation.logs(machine, service, follow=False, tail=None)]
    return b"".join(pieces).decode()


async def printed(
    backend: LocalBackend, machine: Machine, pattern: str, service: str = "app"
) -> re.Match[str]:
    """Wait until a service has printed something."""
    async with asyncio.timeout(20):
        while (match := re.search(pattern, await logs_of(backend, machine, service), re.DOTALL)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return match
