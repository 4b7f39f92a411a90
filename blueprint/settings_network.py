"""The settings that are tables: what runs may reach, and where packages come from.

Invariant: a table holds no key that nobody reads, and its secrets do not show.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

__all__ = ["EgressSetting", "RegistrySetting"]

MIB = 1024 * 1024


class EgressSetting(BaseModel):
    """One egress policy; its name is the table's."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    allow: tuple[str, ...] = Field(description="What may be reached: `host:port`, `*.example.org:port`.")
    connections: int = Field(16, description="Most connections at the same time.", ge=1, le=1024)
    total_bytes: int = Field(256 * MIB, description="Most bytes that one run sends and receives.", ge=1)


class RegistrySetting(BaseModel):
    """One package registry; its name is the table's."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kind: Literal["pypi", "npm", "go", "maven", "composer", "swift"]
    url: str = Field(description="Its address: https://, http:// or file://.")
    download_hosts: tuple[str, ...] | None = Field(
        None, description="Other hosts where it keeps its files; unset asks a Python index for them."
    )
    username: str = ""
    password: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")
    private: bool = Field(
        default=False, description="Whether what is installed from it is kept apart for each caller."
    )
    scope: str = Field("", description="The packages it serves, where that is not all: `@acme`.")
    ca_file: Path | None = Field(None, description="Certificates to trust instead of the host's.")
