"""What the fake cloud demands of a request, and the bytes that it makes of an app-compose object.

Invariant: a request that the real cloud or the guest would refuse is refused, with the place in it.
"""

import hashlib
import json
import re
from collections.abc import Mapping

from aiohttp import web

from blueprint.foreign_json import JsonValue, parse_json
from blueprint.testing.cloud.faults import Refusal, refusal

__all__ = ["compose_bytes", "demand", "demand_compose", "demand_name", "read_object"]

_NAME = re.compile(r"[a-zA-Z](?!.*--)([a-zA-Z0-9-]*[a-zA-Z0-9])?")
_NAME_LENGTHS = range(5, 64)
_MAX_COMPOSE_BYTES = 200 * 1024
_KINDS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "number": (int,),
    "list": (list,),
    "object": (dict,),
}
_COMPOSE_MEMBERS = {
    "docker_compose_file": "string",
    "pre_launch_script": "string",
    "name": "string",
    "allowed_envs": "list",
    "public_logs": "boolean",
    "public_sysinfo": "boolean",
    "public_tcbinfo": "boolean",
    "kms_enabled": "boolean",
    "gateway_enabled": "boolean",
    "storage_fs": "string",
}
_DEFAULTS: Mapping[str, JsonValue] = {
    "manifest_version": 2,
    "runner": "docker-compose",
    "kms_enabled": True,
    "gateway_enabled": True,
    "public_logs": False,
    "public_sysinfo": False,
    "allowed_envs": [],
}


async def read_object(request: web.Request) -> dict[str, JsonValue]:
    """Return the body of a request, which must be a JSON object."""
    content = await request.read()
    try:
        value = parse_json(content) if content else {}
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _invalid("body", "Input should be a valid dictionary")
    return value


def demand(
    body: Mapping[str, JsonValue], kinds: Mapping[str, str], *, required: tuple[str, ...] = ()
) -> None:
    """Check the types of members that are there, and that those are there that must be."""
    for name in required:
        if body.get(name) is None:
            raise _invalid(name, "Field required")
    for name, kind in kinds.items():
        value = body.get(name)
        is_bool = isinstance(value, bool) and kind != "boolean"
        if value is not None and (is_bool or not isinstance(value, _KINDS[kind])):
            raise _invalid(name, f"Input should be a valid {kind}")


def demand_name(name: JsonValue) -> str:
    """Return a machine's name that the cloud accepts."""
    if not isinstance(name, str) or len(name) not in _NAME_LENGTHS or not _NAME.fullmatch(name):
        raise _invalid("name", "5 to 63 letters, digits and single hyphens, beginning with a letter")
    return name


def demand_compose(value: JsonValue) -> dict[str, JsonValue]:
    """Return the app-compose object with the members that the cloud adds."""
    if not isinstance(value, dict):
        raise _invalid("compose_file", "Input should be a valid dictionary")
    demand(value, _COMPOSE_MEMBERS)
    text, script = value.get("docker_compose_file"), value.get("pre_launch_script") or ""
    if not isinstance(text, str) or not isinstance(script, str) or not text.strip():
        raise Refusal(refusal(400, "a compose file is required", code="ERR-01-002"))
    if len(text.encode()) + len(script.encode()) > _MAX_COMPOSE_BYTES:
        raise _invalid("docker_compose_file", "more than 200 KiB with the script")
    if value.get("storage_fs", "zfs") not in ("zfs", "ext4"):
        raise _invalid("storage_fs", "Input should be 'ext4' or 'zfs'")
    return {**_DEFAULTS, **{name: member for name, member in value.items() if name != "update_env_vars"}}


def compose_bytes(compose: Mapping[str, JsonValue]) -> tuple[bytes, str]:
    """Return the cloud's own serialisation of an app-compose object, and its hash: keys sorted, compact."""
    made = json.dumps(compose, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return made, hashlib.sha256(made).hexdigest()


def _invalid(place: str, message: str) -> Refusal:
    return Refusal(refusal(422, [{"loc": ["body", place], "msg": message, "type": "value_error"}]))
