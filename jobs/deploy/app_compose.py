"""app-compose.json: what a guest measures of an application, made once and never serialised again.

Invariant: the same application always gives the same bytes, and whoever needs the bytes later takes those.

The form is dstack's own normal form: keys sorted, no spaces, UTF-8 as it is, no number but integers. It is
what dstack's libraries hash; how the cloud serialises the object that it is sent is not documented, so the
hash that it answers is compared with ours before anything is created.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from blueprint.foreign_json import JsonValue, parse_json
from jobs.deploy.backends.backend import Workload
from jobs.deploy.errors import DeployError

__all__ = [
    "MAX_SCRIPTS_BYTES",
    "AppCompose",
    "AppComposeError",
    "parse_app_compose",
    "read_app_compose",
    "with_variables",
]

MANIFEST_VERSION = 2
MAX_SCRIPTS_BYTES = 200 * 1024
"""The compose text and the pre-launch script together."""
_NAME = re.compile(r"[a-zA-Z](?!.*--)([a-zA-Z0-9-]*[a-zA-Z0-9])?")
_NAME_LENGTHS = range(5, 64)


class AppComposeError(DeployError):
    """An application cannot be described so, or bytes are no app-compose.json."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppCompose:
    """An application as it is measured. Nothing of it is public unless that is asked for."""

    name: str
    """Of the CVM: 5 to 63 letters, digits and single hyphens, a letter first, no hyphen last."""
    docker_compose_file: str
    """The user's text, byte for byte."""
    allowed_envs: tuple[str, ...] = ()
    """The variables that may be sealed; the guest drops others."""
    pre_launch_script: str = ""
    """Shell, run before the containers; measured too."""
    public_logs: bool = False
    public_sysinfo: bool = False
    public_tcbinfo: bool = True
    """Whether anybody may ask the guest for its measurements: what a verifier of the application needs."""
    kms_enabled: bool = True
    gateway_enabled: bool = True
    no_instance_id: bool = False
    secure_time: bool = False
    storage_fs: Literal["zfs", "ext4"] = "zfs"
    swap_size: int = 0
    """In bytes."""

    def __post_init__(self) -> None:
        if len(self.name) not in _NAME_LENGTHS or _NAME.fullmatch(self.name) is None:
            raise AppComposeError(
                "name: expected 5 to 63 letters, digits and single hyphens, a letter first and no hyphen "
                f"last; received {self.name[:80]!r}",
                advice="give one with --name, or as name in deploy.toml; without it, it is the folder's",
            )
        size = 0
        for member in ("docker_compose_file", "pre_launch_script"):
            try:
                size += len(getattr(self, member).encode())
            except UnicodeEncodeError as exc:
                raise AppComposeError(f"{member}: not UTF-8 at character {exc.start}") from exc
        if size > MAX_SCRIPTS_BYTES:
            raise AppComposeError(
                f"the compose text and the pre-launch script hold {size} bytes together, "
                f"at most {MAX_SCRIPTS_BYTES} are accepted"
            )
        if doubled := {name for name in self.allowed_envs if self.allowed_envs.count(name) > 1}:
            raise AppComposeError(f"variable {min(doubled)} is named twice")

    def workload(self) -> Workload:
        """Return the bytes with their hash: make them once, and keep them."""
        members: dict[str, object] = {
            "manifest_version": MANIFEST_VERSION,
            "runner": "docker-compose",
            "local_key_provider_enabled": False,
            **asdict(self),
        }
        if not self.pre_launch_script:
            del members["pre_launch_script"]
        return _measured(self.name, members)


_APPLICATION: Final = TypeAdapter(AppCompose)


def parse_app_compose(content: bytes | str) -> dict[str, JsonValue]:
    """Return the members of an app-compose.json, whoever made it; its bytes are what is hashed, not these.

    Raises:
        AppComposeError: the bytes are no JSON object with a compose text.
    """
    try:
        members = parse_json(content)
    except ValueError as exc:
        raise AppComposeError(f"app-compose.json is no JSON: {exc}") from exc
    if not isinstance(members, dict) or not isinstance(members.get("docker_compose_file"), str):
        raise AppComposeError("app-compose.json is no object with a docker_compose_file")
    return members


def read_app_compose(content: bytes) -> AppCompose:
    """Return an application of which these bytes are all that is measured.

    Raises:
        AppComposeError: they are no app-compose.json, or hold anything that an `AppCompose` does not say.
    """
    members = parse_app_compose(content)
    try:
        application = _APPLICATION.validate_json(content, strict=True)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise AppComposeError(f"app-compose.json: {where}: {first['msg']}") from None
    made = application.workload().app_compose
    if made != content:
        ours = parse_app_compose(made)
        odd = sorted(name for name in members if name not in ours or members[name] != ours[name])
        raise AppComposeError(
            "app-compose.json says more than this program makes of an application: "
            + (", ".join(repr(name[:40]) for name in odd) or "its form is another one")
        )
    return application


def with_variables(content: str, names: Collection[str]) -> Workload:
    """Return an application that may receive other variables, whatever else its app-compose.json says.

    Raises:
        AppComposeError: it is no app-compose.json.
    """
    members = {**parse_app_compose(content), "allowed_envs": sorted(names)}
    return _measured(str(members.get("name", "")), members)


def _measured(name: str, members: Mapping[str, object]) -> Workload:
    made = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return Workload(name=name, app_compose=made, compose_hash=hashlib.sha256(made).digest())
