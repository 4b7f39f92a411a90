"""What a Language Executor declares: how a program in one language becomes stages to run.

Invariant: a `Plan` is data; it holds everything that a back end needs, and running it needs no knowledge
of the language.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from sandbox.bounds import StageBounds
from sandbox.request import ExecutionRequest, SourceFile
from sandbox.tree import Runtime

__all__ = [
    "DEPS",
    "LAYER",
    "LOCK",
    "HostPrograms",
    "InstallPlan",
    "Installs",
    "Language",
    "Plan",
    "Provision",
    "RegistryView",
    "Stage",
]

DEPS = "/deps"
"""Where most languages have the layer of their dependencies shown."""
LAYER = "/work/.layer"
"""The folder that an install stage fills; its content becomes the layer."""
LOCK = "/work/.lock"
"""The file in which an install stage says what it installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One command in the sandbox. The stages of a plan share ``/work``; each has its own processes."""

    name: str
    """``compile`` or ``run``: which of the operator's limits hold."""
    argv: tuple[str, ...]
    """An absolute program path and its arguments, as seen inside."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the base environment (PATH, HOME, LANG, TMPDIR); the user's variables join in ``run`` only."""
    tasks_max: int = 64
    """Kernel tasks (threads and processes) that the runtime needs at most: ``pids.max``."""
    counts_processes_exactly: bool = False
    """True where the runtime is single-threaded, so that ``pids.max`` is the limit on processes itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The files to lay down under ``/work`` beside the user's own, and the stages in order."""

    files: Sequence[SourceFile] = ()
    stages: tuple[Stage, ...]
    lock: str = ""
    """The libraries of the tree that the program is built with, one ``name version`` a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provision:
    """What a program is given to run with."""

    runtime: Runtime
    """One of the language's runtimes in the tree that will be mounted."""
    bounds: StageBounds
    """The limits in force; the heap of a JVM and of Node is sized by them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPrograms:
    """How a language is found on a machine that has no language tree."""

    programs: Mapping[str, str]
    """Role (``run``, ``compile`` ...) to the name of a program."""
    version: tuple[str, ...]
    """The command that prints the version; ``{run}`` stands for the path of the program with that role."""
    fix: str
    """The command that brings the programs, for people."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """As ``programs``; those that are missing are left out."""
    beside: Callable[[Mapping[str, str]], Mapping[str, str]] = lambda _: {}
    """Returns further roles that are known once the programs are found."""


class Language(Protocol):
    """A Language Executor. One instance per language, without state."""

    name: str
    """The lower-case name that requests use."""
    aliases: tuple[str, ...]
    title: str
    """The name as people write it."""
    default_file: str
    """The path that a lone snippet is given."""
    suffixes: tuple[str, ...]
    """What its source files end in, with the dot."""
    sample: str
    """A program that reads a word on standard input and prints it reversed, in upper case: a tree is sealed
    only after it has answered right."""
    host: HostPrograms

    def plan(self, request: ExecutionRequest, given: Provision) -> Plan:
        """Return the stages for a request.

        Args:
            request: the program.
            given: what it is run with.

        Raises:
            RequestError: the request cannot be planned in this language (no entry point, a bad option).
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryView:
    """A package registry as an installer inside a sandbox sees it."""

    name: str
    url: str
    """On the loopback of the sandbox, without a slash at its end."""
    scope: str = ""
    """The packages that it serves where that is not all of them."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Further settings of the tool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallPlan:
    """How dependencies are installed; everything that changes the outcome is in here, for the layer's key."""

    files: Sequence[SourceFile] = ()
    """Laid down under ``/work`` before the stage."""
    stage: Stage
    """Fills `LAYER`, and writes to `LOCK` what it installed, one package a line."""
    target: str = DEPS
    """The absolute path at which the later stages see the layer."""


@runtime_checkable
class Installs(Protocol):
    """What a language has beside `Language` when packages can be installed for it.

    Its `plan` may rely on the layer wherever the request has dependencies.
    """

    registry: str
    """The kind of registry that the packages come from: ``pypi``, ``npm`` ..."""

    def install(
        self, request: ExecutionRequest, given: Provision, registries: Sequence[RegistryView]
    ) -> InstallPlan:
        """Return how the request's dependencies are installed.

        Args:
            request: has at least one dependency.
            given: the runtime whose packages they are.
            registries: at least one, the preferred first.

        Raises:
            RequestError: a dependency is not written as this ecosystem writes it.
        """
