"""The table ``[deploy]``: what the operator of a node deploys for callers on the chain.

Invariant: what the table does not name is refused, and it holds no key that nobody reads.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from blueprint.settings_field import read_address

__all__ = ["OfferSetting"]


class OfferSetting(BaseModel):
    """The operator's policy for the calls of the `deploy` job."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    callers: Literal["any"] | tuple[Annotated[bytes, BeforeValidator(read_address)], ...] = Field(
        (), description='Whose applications are taken: addresses, or "any".'
    )
    images: tuple[str, ...] = Field(
        (),
        description="Which images may run: whole references, `*` for all but `/` and `@`, `**` for all.",
    )
    instance_types: tuple[str, ...] = Field(
        (), description="Which sizes may be asked for by name; empty leaves the size to the operator."
    )
    vcpu: int | None = Field(None, description="Most processors that may be asked for.", ge=1)
    memory_mb: int | None = Field(None, description="Most memory that may be asked for, in MiB.", ge=1)
    disk_gb: int | None = Field(None, description="Largest disk that may be asked for, in GiB.", ge=1)
    max_deployments: int = Field(1, description="How many applications one caller may have.", ge=0)
    allow: tuple[str, ...] = Field((), description="Risks that a compose text may take, by name.")
    public: bool = Field(
        default=False, description="Whether logs and system information may be shown to everybody."
    )
    compose_dir: Path | None = Field(
        None, description="Folder of compose files that callers may ask for by digest."
    )
    expires_s: float = Field(
        3600.0, description="How long a preparation waits for its commit, in seconds.", gt=0, le=604_800
    )
