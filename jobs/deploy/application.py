"""Reads an application from where its author keeps it: a compose file, or a folder with a ``deploy.toml``.

Invariant: a description holds no key that nobody reads and no value of a variable; every file that it names
is in its own folder.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.deploy.app_compose import AppCompose
from jobs.deploy.backends.backend import Placement
from jobs.deploy.compose.check import Compose, check_compose
from jobs.deploy.compose.findings import Allowance
from jobs.deploy.errors import DeployError
from jobs.deploy.manifest import Description, write_manifest
from jobs.deploy.wanted import Wanted

__all__ = [
    "DESCRIPTION",
    "Application",
    "ApplicationError",
    "Described",
    "DescribedService",
    "read_application",
]

DESCRIPTION = "deploy.toml"
_COMPOSE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_MAX_BYTES = 1024 * 1024


class ApplicationError(DeployError):
    """A description of an application cannot be read, or makes no sense."""


_Positive = Annotated[int, Field(ge=1)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class DescribedService(_Table):
    """The table ``[service]``."""

    image: str
    command: list[str] = Field(default_factory=list)
    ports: list[str] = Field(default_factory=list)
    volumes: dict[str, str] = Field(default_factory=dict)


class _Size(_Table):
    instance_type: str = ""
    vcpu: _Positive | None = None
    memory_mb: _Positive | None = None
    disk_gb: _Positive | None = None
    image: str = ""
    node: str = ""
    region: str = ""


class Described(_Table):
    """A ``deploy.toml`` as it is written."""

    name: str = ""
    compose: str = ""
    service: DescribedService | None = None
    env_file: str = ""
    variables: list[str] = Field(default_factory=list)
    allow: list[Annotated[Allowance, Field(strict=False)]] = Field(default_factory=list)
    pre_launch_script: str = ""
    public_logs: bool = False
    public_sysinfo: bool = False
    size: _Size = _Size()


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An application as its author describes it, not yet checked."""

    name: str
    """Of the deployment and the CVM."""
    compose: str
    """The text, byte for byte."""
    script: str = ""
    """A pre-launch script."""
    env_file: Path | None = None
    """Where the values of its variables are, if the author keeps them beside it."""
    variables: tuple[str, ...] = ()
    """The names of its variables, where the values are somebody else's."""
    allow: frozenset[Allowance] = frozenset()
    public_logs: bool = False
    public_sysinfo: bool = False
    placement: Placement = field(default_factory=Placement)

    def checked(self, names: tuple[str, ...]) -> tuple[Wanted, Compose]:
        """Return what is to be deployed with variables of these names, and what its text says.

        Raises:
            ComposeError: the text is not accepted.
            AppComposeError: the application cannot be described so.
        """
        # The order of names is measured: it must not depend on the order of lines in a file of values.
        names = tuple(sorted(names))
        compose = check_compose(self.compose, names=names, allow=self.allow, script=self.script)
        measured = AppCompose(
            name=self.name,
            docker_compose_file=self.compose,
            allowed_envs=names,
            pre_launch_script=self.script,
            public_logs=self.public_logs,
            public_sysinfo=self.public_sysinfo,
        )
        wanted = Wanted(
            workload=measured.workload(),
            names=names,
            placement=self.placement,
            one_shots=compose.one_shots,
        )
        return wanted, compose


def read_application(path: Path) -> Application:
    """Read a compose file, a ``deploy.toml``, or a folder that has one of them.

    Raises:
        ApplicationError: there is none, it cannot be read, or a key of it makes no sense.
    """
    if path.is_dir():
        found = [path / name for name in (DESCRIPTION, *_COMPOSE_NAMES) if (path / name).is_file()]
        if not found:
            raise ApplicationError(
                f"{path}: neither a {DESCRIPTION} nor a compose file is in it",
                advice=f"expected one of {', '.join((DESCRIPTION, *_COMPOSE_NAMES))}",
            )
        path = found[0]
    folder = path.absolute().parent
    if path.suffix != ".toml":
        return Application(name=folder.name, compose=_read(path))
    return _described(path, folder)


def _described(path: Path, folder: Path) -> Application:
    described = _parse(path)
    if bool(described.compose) and described.service is not None:
        raise ApplicationError(f"{path}: it has a compose file and a [service]", advice="keep one of them")
    if described.service is not None:
        text = _manifest(described.service, described.variables, path)
    else:
        text = _read(_compose_file(path, folder, described.compose))
    return Application(
        name=described.name or folder.name,
        compose=text,
        script=_read(_inside(folder, described.pre_launch_script)) if described.pre_launch_script else "",
        env_file=_inside(folder, described.env_file) if described.env_file else None,
        variables=tuple(described.variables),
        allow=frozenset(described.allow),
        public_logs=described.public_logs,
        public_sysinfo=described.public_sysinfo,
        placement=Placement(**described.size.model_dump()),
    )


def _parse(path: Path) -> Described:
    try:
        members: Mapping[str, Any] = tomllib.loads(_read(path))
        return Described.model_validate(members)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ApplicationError(f"{path}: {where}: {first['msg']}") from None
    except ValueError as exc:  # also a number of thousands of digits
        raise ApplicationError(f"{path}: {exc}") from exc
    except RecursionError:
        raise ApplicationError(f"{path}: nested too deep") from None


def _compose_file(path: Path, folder: Path, named: str) -> Path:
    if named:
        return _inside(folder, named)
    found = next((_inside(folder, name) for name in _COMPOSE_NAMES if (folder / name).is_file()), None)
    if found is None:
        raise ApplicationError(
            f"{path}: it names no compose file and has no [service]", advice='say compose = "FILE"'
        )
    return found


def _inside(folder: Path, named: str) -> Path:
    """Return a file of the folder."""
    path = folder / named
    # SECURITY: a folder from elsewhere could have a key of this account measured, and so shown to everybody,
    # or sealed for its own image (test_a_description_reaches_nothing_outside_its_folder).
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a NUL, or links in a circle
        is_inside = False
    if not is_inside:
        raise ApplicationError(
            f"{named[:200]!r} is not in the folder {folder}",
            advice="a description names files of its own folder; --env-file takes any",
        )
    return path


def _manifest(service: DescribedService, names: list[str], path: Path) -> str:
    try:
        return write_manifest(
            Description(
                image=service.image,
                command=tuple(service.command),
                ports=tuple(service.ports),
                volumes=service.volumes,
                names=tuple(names),
            )
        )
    except DeployError as exc:
        raise ApplicationError(f"{path}: {exc}") from exc


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ApplicationError(f"{path}: over {_MAX_BYTES} bytes")
        return content.decode()
    except OSError as exc:
        raise ApplicationError(f"{path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ApplicationError(f"{path}: not UTF-8 (at byte {exc.start})") from exc
