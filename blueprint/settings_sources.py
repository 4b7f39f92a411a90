"""Merges the five places that a setting may come from, and says which one each value came from.

A value is taken from the first of: command line, environment (``BLUEPRINT_*``), ``.env``, ``blueprint.toml``,
default. A wrong value is a `ConfigError` that names the setting, the place it came from and what is expected.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from blueprint.errors import ConfigError
from blueprint.settings import ENV_PREFIX, Settings

__all__ = ["LoadedSettings", "load_settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSettings:
    """The settings and where each one came from."""

    settings: Settings
    origins: Mapping[str, str]
    """Setting to ``command line``, ``environment`` or a file's name; what is absent has its default."""
    warnings: tuple[str, ...]
    """Variables with our prefix that name no setting: probably mistyped."""


def load_settings(
    flags: Mapping[str, object], *, env_file: Path = Path(".env"), toml_file: Path | None = None
) -> LoadedSettings:
    """Merge the five sources, the first one that has a value wins, and check the result.

    Args:
        flags: values from the command line by setting name; None means not given.
        env_file: a file of ``BLUEPRINT_NAME=value`` lines; need not exist.
        toml_file: a TOML file with setting names as keys; None takes ``blueprint.toml`` if it exists.

    Raises:
        ConfigError: an unknown key in the TOML file, an unreadable file, or a wrong value.
    """
    layers: list[tuple[str, Mapping[str, object]]] = [
        ("command line", {name: value for name, value in flags.items() if value is not None}),
        ("environment", _known(EnvSettingsSource(Settings, env_ignore_empty=True)())),
        (str(env_file), _known(DotEnvSettingsSource(Settings, env_file=env_file, env_ignore_empty=True)())),
    ]
    path = toml_file or Path("blueprint.toml")
    if toml_file is not None or path.exists():
        layers.append((str(path), _read_toml(path)))
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, values in layers:
        for name, value in values.items():
            if name not in merged:
                merged[name] = value
                origins[name] = origin
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        raise ConfigError(
            _explain(error.errors(include_url=False, include_context=False)[0], merged, origins)
        ) from None
    return LoadedSettings(settings=settings, origins=origins, warnings=_mistyped())


def _known(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if name in Settings.model_fields}


def _close(name: str) -> str:
    match = difflib.get_close_matches(name, list(Settings.model_fields), n=1)
    return match[0] if match else ""


def _mistyped() -> tuple[str, ...]:
    found = []
    for variable in sorted(os.environ):
        name = variable.removeprefix(ENV_PREFIX).lower()
        if variable.startswith(ENV_PREFIX) and name not in Settings.model_fields:
            near = _close(name)
            hint = f"; did you mean {ENV_PREFIX}{near.upper()}?" if near else ""
            found.append(f"{variable} is set in the environment but is no setting{hint}")
    return tuple(found)


def _read_toml(path: Path) -> dict[str, object]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    for name in values:
        if name not in Settings.model_fields:
            near = _close(name)
            hint = f"did you mean {near}?" if near else "`blueprint reference settings` lists them."
            raise ConfigError(f"{path} sets {name}, which is no setting; {hint}")
    return values


def _explain(error: ErrorDetails, merged: Mapping[str, object], origins: Mapping[str, str]) -> str:
    """One line: the setting as its source spells it, the source, what is expected, what came."""
    expected = error["msg"].removeprefix("Value error, ")
    expected = expected[0].lower() + expected[1:]
    if not error["loc"]:
        return f"settings contradict each other: {expected}"
    name = str(error["loc"][0])
    origin = origins.get(name, "default")
    spelled = name
    if origin == "command line":
        spelled = "--" + name.replace("_", "-")
    elif not origin.endswith(".toml"):
        spelled = ENV_PREFIX + name.upper()
    spelled += "".join(f".{part}" for part in error["loc"][1:] if isinstance(part, str))
    value = merged.get(name)
    field = Settings.model_fields.get(name)
    # A table may hold secrets anywhere.
    is_secret = field is None or "Secret" in str(field.annotation) or "dict[" in str(field.annotation)
    shown = "" if is_secret else f", received {str(value)[:80]!r}"
    return f"{spelled} (from {origin}): {expected}{shown}"
