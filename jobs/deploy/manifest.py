"""Writes the compose text of an application from a short description of it.

Invariant: the text is made by a YAML library and holds the names of variables, never a value; it is checked
like a text that somebody wrote by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from jobs.deploy.compose.document import Dumper
from jobs.deploy.errors import DeployError

__all__ = ["Description", "write_manifest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """An application of one service."""

    image: str
    """With its digest or tag."""
    service: str = "app"
    command: tuple[str, ...] = ()
    """Word by word and as it is, a dollar sign included; empty for the image's own."""
    ports: tuple[str, ...] = ()
    """As compose writes them: ``8080:80``."""
    volumes: Mapping[str, str] = field(default_factory=dict)
    """Names of volumes, each with its path in the container."""
    names: tuple[str, ...] = ()
    """Of the variables that the container gets; their values are sealed apart from this."""


def write_manifest(description: Description) -> str:
    """Return the compose text, which `jobs.deploy.compose.check.check_compose` has yet to accept.

    Raises:
        DeployError: a volume's name would not be taken for one.
    """
    for volume, path in description.volumes.items():
        if volume.startswith(("/", ".", "~")) or not path.startswith("/"):
            raise DeployError(
                f"{volume}:{path} is no volume", advice="give a name and a path that begins with /"
            )
    members: dict[str, object] = {
        "image": description.image,
        "command": [word.replace("$", "$$") for word in description.command],
        "environment": {name: f"${{{name}}}" for name in description.names},
        "ports": list(description.ports),
        "volumes": [f"{volume}:{path}" for volume, path in description.volumes.items()],
        "restart": "unless-stopped",
    }
    service = {key: value for key, value in members.items() if value}
    document: dict[str, object] = {"services": {description.service: service}}
    if description.volumes:
        document["volumes"] = {volume: {} for volume in description.volumes}
    return yaml.dump(document, Dumper=Dumper, sort_keys=False, width=1000)
