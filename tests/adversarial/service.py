"""A service under attack: one process that serves a batch of attacks side by side, and says how it fared.

It is started by the tests (`tests.adversarial.batch`) with an order on standard input, as root or as a user
without any right, and answers with a `Report`. A guard, a sandbox of somebody else, lives beside the attacks
from the first to the last; short programs of a third party are answered meanwhile, and timed.

Invariant: the service is the real executor with the real back end, or with exactly the walls left out that
the order names.
"""

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import pickle
import re
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from sandbox.backends.backend import Backend, Mount, Sandbox
from sandbox.backends.gvisor import GvisorBackend
from sandbox.bounds import StageBounds
from sandbox.dependencies.installer import Installer
from sandbox.egress.policy import EgressPolicy
from sandbox.egress.proxy import EgressProxy
from sandbox.errors import SandboxError
from sandbox.executor import CodeExecutor
from sandbox.request import Limits
from sandbox.result import ExecutionStatus, Guarantees
from sandbox.rootfs import find_tree
from sandbox.tree import LanguageTree
from tests.adversarial.attack import Attack, Outcome
from tests.adversarial.guard import ABSTRACT_NAME, GATEWAY_PORT, GUARD, INTACT
from tests.adversarial.installing import INSTALLING, installing
from tests.adversarial.table import ALL
from tests.support.sandboxes import SMALL, host_python, python_request
from tests.support.walls import POLICY, Refitted, leave_out_rules, loosened, open_bwrap, open_slot

__all__ = ["BACKENDS", "Health", "Order", "Report"]

PLACES = 4
ONE_HOST = "api.example.test:443"
GUARD_LIMITS = Limits(wall_time_s=300.0, memory_bytes=SMALL.memory_bytes, processes=4, open_files=64)
READY_TIMEOUT_S = 30.0
ATTACK_TIMEOUT_S = 200.0
PROBE_PAUSE_S = 0.3
LAG_PAUSE_S = 0.02
SYS_KEYCTL = 250
KEYCTL_JOIN_SESSION_KEYRING = 1

# Back end to what makes it: walls to leave out, the user numbers it may use, a folder for its own files.
BACKENDS = {
    "slot": lambda walls, uids, folder: open_slot(walls, uid_base=uids.start, uid_count=len(uids)),
    "bubblewrap": lambda walls, uids, folder: open_bwrap(walls, folder),
    "gvisor": lambda walls, uids, folder: GvisorBackend(uid_base=uids.start, uid_count=len(uids)),
}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a service is to do; goes through JSON."""

    backend: str
    keys: Sequence[str]
    """Names of the rows."""
    walls: Sequence[str] = ()
    """What to leave out."""
    state_dir: str
    uids: tuple[int, int]
    user: int | None = None
    """Whom to become first; None to stay."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """How the service and its other clients fared meanwhile."""

    guard: str
    """What the guard's sandbox ended with: `INTACT`, unless something of it was touched."""
    answers: int
    """How many programs of the third party were answered, each correctly."""
    wrong_answers: Sequence[str]
    worst_answer_s: float
    worst_lag_s: float
    """The longest that the event loop of the service did not come round though the machine let it run."""
    descriptors: Sequence[str]
    """What is open that was not before."""
    memory_bytes: int
    """How much more the process holds than before."""
    threads: int
    children: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the service answers."""

    outcomes: Mapping[str, Outcome]
    seconds: Mapping[str, float] = field(default_factory=dict)
    health: Health
    pid: int


class Echo:
    """A gateway that answers each connection with what it sends, in capitals."""

    name = "echo"
    port = GATEWAY_PORT

    async def serve(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
        while True:
            peer, _ = await loop.sock_accept(listener)
            with peer:
                peer.setblocking(False)  # noqa: FBT003
                await loop.sock_sendall(peer, (await loop.sock_recv(peer, 1000)).upper())


class Watched:
    """A back end around a back end that keeps the sandbox in sight which it opened last."""

    def __init__(self, inner: Backend) -> None:
        self.name = inner.name
        self.box: Sandbox | None = None
        self._inner = inner

    def guarantees(self) -> Guarantees:
        return self._inner.guarantees()

    async def open(
        self, tree: LanguageTree, limits: Limits, sandbox_id: str, mounts: Sequence[Mount] = ()
    ) -> Sandbox:
        self.box = await self._inner.open(tree, limits, sandbox_id, mounts)
        return self.box

    async def aclose(self) -> None:
        await self._inner.aclose()


class Service:
    """One service for one batch."""

    def __init__(self, order: Order, backend: Backend, folder: Path) -> None:
        self._order = order
        self._backend = backend
        self._folder = folder
        self._mount = Mount(source=_shared_folder(folder), target="/opt/shared")
        self._host, self._tree = host_python(), find_tree(Path(order.state_dir))
        self._rows = {row.key: row for row in ALL}
        self._places = asyncio.Semaphore(PLACES)
        self._answers: list[float] = []
        self._wrong: list[str] = []
        self._lag_s = 0.0
        self._words: Mapping[str, str] = {"port": "1"}
        self._seconds: dict[str, float] = {}

    async def serve(self) -> Report:
        """Run the batch beside the guard."""
        await self._probe()  # what a first execution imports and opens is no leak
        self._answers.clear()
        before = _own_state()
        with _listeners() as self._words:
            async with asyncio.TaskGroup() as group:
                watched = Watched(self._backend)
                guard = group.create_task(self._guard(watched))
                box = await _guard_box(watched, guard)
                others = [group.create_task(self._probes()), group.create_task(self._watch_lag())]
                runs = [asyncio.create_task(self._attack(key)) for key in self._order.keys]
                outcomes = dict(zip(self._order.keys, await asyncio.gather(*runs), strict=True))
                await self._probe()
                for task in others:
                    task.cancel()
                os.close(os.open("stop", os.O_CREAT | os.O_WRONLY, dir_fd=box))
                os.close(box)
        after = _own_state()
        health = Health(
            guard=guard.result(),
            answers=len(self._answers),
            wrong_answers=self._wrong,
            worst_answer_s=max(self._answers, default=0.0),
            worst_lag_s=self._lag_s,
            descriptors=sorted((after[0] - before[0]).elements()),
            memory_bytes=after[1] - before[1],
            threads=after[2] - before[2],
            children=_children(),
        )
        return Report(outcomes=outcomes, seconds=self._seconds, health=health, pid=os.getpid())

    def _executor(
        self, limits: Limits, tree: LanguageTree, backend: Backend, installer: Installer | None = None
    ) -> CodeExecutor:
        """Make an executor of the one back end; it is not closed, for that would close the back end."""
        compiling = StageBounds().compile
        compiling = replace(compiling, wall_time_s=limits.wall_time_s, cpu_time_s=limits.cpu_time_s)
        return CodeExecutor(
            [tree],
            backend,
            bounds=StageBounds(
                run=limits, compile=compiling, install=loosened(INSTALLING, self._order.walls)
            ),
            networks={"api": partial(EgressProxy, self._policy())},
            installer=installer,
        )

    def _policy(self) -> EgressPolicy:
        """Return what the operator allows: one host, or this service's own port for a control run."""
        is_open = POLICY in self._order.walls
        return EgressPolicy(name="api", allow=(f"127.0.0.1:{self._words['port']}" if is_open else ONE_HOST,))

    async def _attack(self, key: str) -> Outcome:
        row = self._rows[key]
        async with self._places:
            began_s = time.monotonic()
            try:
                async with asyncio.timeout(ATTACK_TIMEOUT_S):
                    return await self._execute(row)
            except (SandboxError, ValueError, TypeError, TimeoutError) as exc:
                return Outcome(error=f"{type(exc).__name__}: {exc}")
            finally:
                self._seconds[key] = time.monotonic() - began_s

    async def _execute(self, row: Attack) -> Outcome:
        limits = row.bounds(row.ending(self._order.backend))
        tree = self._tree if row.needs_tree else self._host
        assert tree is not None, "the language tree is missing"
        backend = self._backend
        if row.has_gateway or row.has_mount:
            gateway, mounts = Echo() if row.has_gateway else None, [self._mount] if row.has_mount else []
            backend = Refitted(backend, gateway=gateway, mounts=mounts)
        if row.packages is None:
            executor = self._executor(limits, tree, backend)
            return Outcome(result=await executor.execute(row.request(self._words)))
        async with installing(row.packages, self._folder) as (installer, port):
            executor = self._executor(limits, tree, backend, installer)
            request = row.request({**self._words, "registry": port})
            result, then = await executor.execute(request), None
            if row.afterwards:
                file = replace(request.files[0], content=row.afterwards.encode())
                then = await executor.execute(replace(request, files=[file], caller="somebody-else"))
            return Outcome(result=result, then=then)

    async def _guard(self, watched: Watched) -> str:
        executor = self._executor(GUARD_LIMITS, self._host, watched)
        result = await executor.execute(python_request(GUARD))
        if result.status is ExecutionStatus.SUCCESS and result.stdout.data.decode().strip() == INTACT:
            return INTACT
        return f"{result.status.name} {result.error_message} {result.stdout.data!r} {result.stderr.data!r}"

    async def _probes(self) -> None:
        while True:
            await self._probe()
            await asyncio.sleep(PROBE_PAUSE_S)

    async def _probe(self) -> None:
        """Have a small program answered, as for another client."""
        began_s = time.monotonic()
        executor = self._executor(SMALL, self._host, self._backend)
        result = await executor.execute(python_request("print(input()[::-1])", stdin=b"evila\n"))
        self._answers.append(time.monotonic() - began_s)
        if (result.status, result.stdout.data) != (ExecutionStatus.SUCCESS, b"alive\n"):
            self._wrong.append(f"{result.status.name} {result.error_message} {result.stdout.data!r}")

    async def _watch_lag(self) -> None:
        while True:
            began_s = time.monotonic() - _run_delay_s()
            await asyncio.sleep(LAG_PAUSE_S)
            self._lag_s = max(self._lag_s, time.monotonic() - _run_delay_s() - began_s - LAG_PAUSE_S)


async def _guard_box(watched: Watched, guard: asyncio.Task[str]) -> int:
    """Wait until the guard has laid out all that attacks could reach for; return its work folder."""
    async with asyncio.timeout(READY_TIMEOUT_S):
        while True:
            if guard.done():
                raise RuntimeError(f"the guard has ended: {guard.result()}")
            await asyncio.sleep(0.02)
            if watched.box is not None:
                with contextlib.suppress(OSError):
                    os.stat("work/ready", dir_fd=watched.box.files_fd)
                    return os.open("work", os.O_RDONLY | os.O_DIRECTORY, dir_fd=watched.box.files_fd)


@contextlib.contextmanager
def _listeners() -> Iterator[Mapping[str, str]]:
    """Listen as a service does, on loopback and at an abstract name; yield what attacks are told of it."""
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        unix.bind(f"\0{ABSTRACT_NAME}-{os.getpid()}")
        unix.listen()
        yield {
            "port": str(tcp.getsockname()[1]),
            "abstract": f"{ABSTRACT_NAME}-{os.getpid()}",
            "host": socket.gethostname(),
            "pid": str(os.getpid()),
        }


def _run_delay_s() -> float:
    """Return how long the main thread has waited, ready to run, for a processor."""
    return int(Path(f"/proc/self/task/{os.getpid()}/schedstat").read_text().split()[1]) / 1e9


def _own_state() -> tuple[Counter[str], int, int]:
    """Return open descriptors, resident bytes and threads of this process."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    resident, threads = (int(status.split(f"{name}:")[1].split()[0]) for name in ("VmRSS", "Threads"))
    return _descriptors(), resident * 1024, threads


def _descriptors() -> Counter[str]:
    """Count what this process has open, by what it is; numbers of pipes and sockets are left out."""
    found: Counter[str] = Counter()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[re.sub(r"\[\d+\]", "", str(path.readlink()))] += 1
    return found


def _children() -> list[str]:
    """List the processes that this one still has."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def _shared_folder(folder: Path) -> Path:
    shared = folder / "shared"
    shared.mkdir()
    (shared / "file").write_text("of the operator")
    for path, mode in ((folder, 0o711), (shared, 0o777), (shared / "file", 0o666)):
        path.chmod(mode)
    return shared


async def _run(order: Order) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        backend: Backend = BACKENDS[order.backend](order.walls, range(*order.uids), Path(folder))
        backend = Refitted(backend, order.walls)
        try:
            return await Service(order, backend, Path(folder)).serve()
        finally:
            await backend.aclose()


def main() -> None:
    """Read an order, become its user, serve, answer."""
    order = Order(**json.load(sys.stdin))
    if order.user is not None:
        os.setgroups([])
        os.setresgid(order.user, order.user, order.user)
        os.setresuid(order.user, order.user, order.user)
    leave_out_rules(order.walls)
    # As an init system gives each service: what is started here has it too.
    ctypes.CDLL(None).syscall(SYS_KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, None)
    pickle.dump(asyncio.run(_run(order)), sys.stdout.buffer)
