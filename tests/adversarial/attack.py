"""A row of the adversarial table: a program that attacks, how it must end, and how it ends without a wall.

Invariant: a row is data; it is read by the service under attack, by the tests and by the threat model alike.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sandbox.languages import LANGUAGES
from sandbox.request import Dependency, ExecutionRequest, Limits, SourceFile
from sandbox.result import ExecutionResult, ExecutionStatus, LimitKind
from tests.support.registries import PackageSite
from tests.support.sandboxes import SMALL

__all__ = ["CALL", "Attack", "Ending", "Outcome", "Without", "calls"]

Said = bytes | re.Pattern[bytes]

# Calls a system call by number and prints the name of its error, or "ok"; the same for a function.
CALL = """
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(*a):
    r = libc.syscall(*[ctypes.c_long(x) if isinstance(x, int) else x for x in a])
    print("ok" if r >= 0 else errno.errorcode[ctypes.get_errno()], flush=True)
    return r
def attempt(f, *a):
    try:
        f(*a); print("ok")
    except OSError as e:
        print(errno.errorcode.get(e.errno, e.errno))
"""

# Clocks are set by what a row expects, so that a busy machine changes no verdict.
CLOCKS: Mapping[ExecutionStatus, Mapping[str, float]] = {
    ExecutionStatus.TIMEOUT: {"wall_time_s": 1.0, "cpu_time_s": 60.0},
    ExecutionStatus.CPU_LIMIT: {"cpu_time_s": 0.6, "wall_time_s": 120.0},
}


def calls(code: str) -> str:
    """Return a program that has `CALL`'s two functions."""
    return f"{CALL}\n{code}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an attack: a result, or the error of the service."""

    result: ExecutionResult | None = None
    error: str = ""
    """Name of the exception's class and its message."""
    then: ExecutionResult | None = None
    """What became of the program that ran afterwards."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How an attack ends. What is None is not looked at."""

    status: ExecutionStatus | tuple[ExecutionStatus, ...] = ExecutionStatus.SUCCESS
    """One, or those of which the kernel's timing decides."""
    stdout: Said | None = None
    stderr: Said | None = None
    hits: LimitKind | None = None
    files: Mapping[str, bytes] | None = None
    """The outputs, neither more nor fewer."""
    may_find: Mapping[str, bytes] | None = None
    """Outputs that may be there or not; no other may."""
    found: bytes | None = None
    """What one of the outputs holds."""
    message: str | None = None
    then: bytes | None = None
    """What the program prints that runs afterwards."""
    error: str | None = None
    """The request is refused with an error that begins so; nothing else is looked at then."""
    why: str = ""
    """For an ending that only one back end has: why it honestly differs."""

    def check(self, outcome: Outcome) -> None:
        """Raise AssertionError where an outcome is another."""
        if self.error is not None:
            assert outcome.error.startswith(self.error), outcome
            return
        result = outcome.result
        assert result is not None, outcome.error
        seen = (
            result.status.name,
            result.error_message,
            result.stdout.data[-600:],
            result.stderr.data[-900:],
        )
        assert result.status in self.statuses(), seen
        assert _says(self.stdout, result.stdout.data), seen
        assert _says(self.stderr, result.stderr.data), seen
        assert self.hits is None or result.limits_hit == self.hits, (result.limits_hit, seen)
        found = {file.path: file.content for file in result.files}
        assert self.files is None or found == self.files, (found, seen)
        if self.may_find is not None:
            assert found.items() <= self.may_find.items(), (found, seen)
        if self.found is not None:
            assert any(self.found in content for content in found.values()), (found, seen)
        assert self.message is None or self.message in result.error_message, seen
        if self.then is not None:
            assert outcome.then is not None, seen
            assert outcome.then.stdout.data == self.then, (outcome.then.stdout.data, outcome.then.stderr.data)

    def statuses(self) -> tuple[ExecutionStatus, ...]:
        """Return every status that is right."""
        return self.status if isinstance(self.status, tuple) else (self.status,)


@dataclass(frozen=True, kw_only=True)
class Without(Ending):
    """How the same attack ends where walls are left out: it succeeds."""

    walls: tuple[str, ...]
    """Names known to `tests.support.walls`; where a back end knows one of them not, there is no such run."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One row."""

    name: str
    """The attack; the same name in another language is the same attack."""
    line: str
    """The line of the catalogue (`tests.adversarial.catalogue`) that it belongs to."""
    wall: str
    """What stands against it, for people."""
    code: str = ""
    language: str = "python"
    path: str = ""
    """Where the code lies; the language's usual place when empty."""
    ends: Ending = field(default_factory=Ending)
    elsewhere: Mapping[str, Ending] = field(default_factory=dict)
    """Back end to the ending that it has instead, with the reason."""
    without: Without | None = None
    limits: Limits = SMALL
    args: Sequence[str] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    has_gateway: bool = False
    """The run has a way out: a gateway that echoes, on the port `tests.adversarial.guard.GATEWAY_PORT`."""
    network: str = ""
    """The egress policy that is asked for; the operator has one, ``api``, for a host that is nowhere."""
    dependencies: Sequence[str] = ()
    """Names of the packages that are asked for."""
    packages: Callable[[PackageSite], object] | None = None
    """Puts packages into a registry that only this row has; None where the node installs nothing."""
    env_vars: Mapping[str, str] = field(default_factory=dict)
    afterwards: str = ""
    """A program of somebody else, with the same dependencies, that runs when the attack has ended."""
    has_mount: bool = False
    """A folder of the operator, open to everybody by its modes, shows at ``/opt/shared``."""
    build: Callable[[], ExecutionRequest] | None = None
    """Makes the request instead, where the request is the attack."""

    @property
    def key(self) -> str:
        """The name of the row, in tests and in the threat model."""
        name = re.sub(r"[^A-Za-z0-9_.+#]+", "-", self.name).strip("-")
        return name if self.language == "python" else f"{name}-{self.language}"

    @property
    def needs_tree(self) -> bool:
        """True when the Python of this machine is not enough."""
        return self.language != "python" or self.packages is not None

    def ending(self, backend: str) -> Ending:
        """Return how it ends on a back end."""
        return self.elsewhere.get(backend, self.ends)

    def bounds(self, ending: Ending) -> Limits:
        """Return the limits of the operator for a run that is to end so."""
        return replace(self.limits, **CLOCKS.get(ending.statuses()[0], {}))  # type: ignore[arg-type]

    def request(self, words: Mapping[str, str]) -> ExecutionRequest:
        """Build the request; ``{name}`` in an argument stands for one of ``words``."""
        if self.build is not None:
            return self.build()
        path = self.path or LANGUAGES[self.language].default_file
        return ExecutionRequest(
            language=self.language,
            files=[SourceFile(path=path, content=self.code.encode())],
            args=[argument.format(**words) for argument in self.args],
            options=self.options,
            outputs=self.outputs,
            network=self.network,
            dependencies=[Dependency(name=name) for name in self.dependencies],
            env_vars=self.env_vars,
        )


def _says(expected: Said | None, data: bytes) -> bool:
    if isinstance(expected, re.Pattern):
        return expected.fullmatch(data) is not None
    return expected is None or expected == data
