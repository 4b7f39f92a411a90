"""The kinds of requests of a soak, each with what must come of it.

Invariant: the same seed gives the same requests in the same order.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import dedent

from sandbox.languages import LANGUAGES
from sandbox.request import MIB, Dependency, ExecutionRequest, Limits, SourceFile
from sandbox.result import ExecutionStatus
from tests.support.programs import BROKEN, EXITS_7, THROWS

__all__ = ["PACKAGES", "POLICY", "Kind", "kinds_for", "requests"]

S = ExecutionStatus
FAST = ("python", "php")
PACKAGES = tuple(f"soaked{number}" for number in range(8))
"""What the soak's own registry has, one module each."""
POLICY = "soak"
"""The egress policy that lets a program reach that registry."""
SMALL = Limits(memory_bytes=48 * MIB, disk_bytes=4 * MIB, inodes=200, file_size_bytes=2 * MIB, processes=5)

# What the sandbox must take away with it: each leaves something that would outlive an ordinary process.
LEAVINGS = {
    "orphans": """
        import os, time
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                time.sleep(600)
    """,
    "System V objects": """
        import ctypes
        c = ctypes.CDLL(None)
        assert min(c.shmget(0, 65536, 0o1666), c.msgget(0, 0o1666), c.semget(0, 3, 0o1666)) >= 0
    """,
    "files": """
        import os
        for folder in ("/work", "/tmp", "/dev/shm"):
            os.makedirs(folder + "/a/b/c")
            open(folder + "/a/b/c/d", "w").write("x" * 9999)
    """,
    "sockets": """
        import os, socket, time
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("\\0soak")
        listener.listen()
        if os.fork() == 0:
            time.sleep(600)
    """,
    "fifos and links": """
        import os
        os.mkfifo("/tmp/fifo")
        os.symlink("/etc/passwd", "/work/symbolic")
        os.link("/work/main.py", "/work/hard")
    """,
    "zombies": """
        import os
        for _ in range(3):
            if os.fork() == 0:
                os._exit(0)
        os.kill(os.getpid(), 9)
    """,
    "shared memory": """
        import os
        from multiprocessing.shared_memory import SharedMemory
        SharedMemory(create=True, size=1 << 20)
        os._exit(0)
    """,
}


REACHES = """
    import os, urllib.request
    with urllib.request.urlopen(os.environ["SITE"] + "/hello") as answer:
        assert answer.read() == b"hello"
"""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of request and the statuses that it may end with."""

    name: str
    language: str
    source: str
    expected: Sequence[ExecutionStatus]
    limits: Limits | None = None
    timeout_s: float | None = None
    outputs: Sequence[str] = ()
    cancel_after_s: float | None = None
    dependencies: Sequence[str] = ()
    network: str = ""
    weight: int = 1

    def request(self, site: str) -> ExecutionRequest:
        """Build the request; ``site`` is the address that the policy allows."""
        file = SourceFile(path=LANGUAGES[self.language].default_file, content=self.source.encode())
        return ExecutionRequest(
            language=self.language,
            files=[file],
            limits=self.limits,
            timeout_s=self.timeout_s,
            outputs=self.outputs,
            dependencies=[Dependency(name=name) for name in self.dependencies],
            network=self.network,
            env_vars={"SITE": site} if self.network else {},
        )


def kinds_for(languages: Sequence[str]) -> list[Kind]:
    """Return the kinds that a machine with these languages can serve."""
    found = list(_of_python()) if "python" in languages else []
    for language in languages:
        weight = 6 if language in FAST else 1
        ended = (S.SIGNALLED, S.NONZERO_EXIT)
        found += [
            Kind(name=f"{language}: exit code", language=language, source=EXITS_7[language],
                 expected=(S.NONZERO_EXIT,), weight=weight),
            Kind(name=f"{language}: uncaught error", language=language, source=THROWS[language],
                 expected=ended, weight=weight),
        ]  # fmt: skip
        if language in BROKEN:
            broken = Kind(
                name=f"{language}: does not compile",
                language=language,
                source=BROKEN[language],
                expected=(S.COMPILATION_ERROR,),
            )
            found.append(broken)
    return found


def _of_python() -> Iterator[Kind]:
    def kind(name: str, source: str, *expected: ExecutionStatus, **more: object) -> Kind:
        return Kind(name=name, language="python", source=dedent(source), expected=expected, **more)  # type: ignore[arg-type]

    small = {"limits": SMALL, "weight": 2}
    sleep = "import time; time.sleep(60)"
    clock = Limits(cpu_time_s=0.2, wall_time_s=3.0)
    fills = "for n in range(99): open(str(n), 'wb').write(bytes(1 << 20))"
    hoards = "x = [bytearray(1 << 20) for _ in range(500)]"
    yield kind("prints", "print(6 * 7)", S.SUCCESS, weight=12)
    yield kind("runs into the clock", sleep, S.TIMEOUT, timeout_s=0.3, weight=2)
    yield kind("uses up memory", hoards, S.MEMORY_LIMIT, S.NONZERO_EXIT, S.SIGNALLED, **small)
    yield kind("uses up the disk", fills, S.DISK_LIMIT, **small)
    yield kind("uses up processes", "import os\nwhile True: os.fork()", S.PROCESS_LIMIT, **small)
    yield kind("uses up its CPU time", "while True: pass", S.CPU_LIMIT, S.TIMEOUT, limits=clock)
    yield kind("is cancelled", sleep, S.CANCELLED, cancel_after_s=0.2, weight=3)
    yield kind("leaves outputs", "open('out', 'w').write('x')", S.SUCCESS, outputs=("out",), weight=3)
    yield kind("prints a lot", "print('x' * 3_000_000)", S.SUCCESS, weight=2)
    yield kind("kills itself", "import os; os.kill(os.getpid(), 9)", S.SIGNALLED)
    for package in PACKAGES:
        yield kind("uses a package", f"import {package}", S.SUCCESS, dependencies=(package,))
    yield kind("asks for a package that is not there", "", S.DEPENDENCY_ERROR, dependencies=("unheard-of",))
    yield kind("reaches what a policy allows", REACHES, S.SUCCESS, network=POLICY, weight=2)
    for name, source in LEAVINGS.items():
        yield kind(f"leaves {name}", source, S.SUCCESS, S.SIGNALLED, weight=2)


def requests(kinds: Sequence[Kind], count: int, seed: int) -> list[Kind]:
    """Draw ``count`` kinds by their weights; each comes at least once where the count allows it."""
    chosen = random.Random(seed)
    drawn = [
        *kinds[:count],
        *chosen.choices(kinds, [kind.weight for kind in kinds], k=max(0, count - len(kinds))),
    ]
    chosen.shuffle(drawn)
    return drawn
