"""The local place: a real Docker engine on this machine, and a simulated guest for each application.

A machine is a folder in the state folder, a process that plays its guest, and a Compose project on the
engine. What Docker does not isolate, this place does not isolate either: it is for trying things out, and its
root of trust is a development root that a verifier must be given by name.

Invariant: machines outlive the command that made them, and leave nothing once they are deleted.
"""

from pathlib import Path
from typing import Final

from jobs.deploy.backends.local.compose_program import find_compose
from jobs.deploy.backends.local.engine import DEFAULT_SOCKET, Engine, engine_socket
from jobs.deploy.backends.local.machines import LocalMachines
from jobs.deploy.backends.local.observation import LocalObservation
from jobs.deploy.backends.local.place import Place
from jobs.deploy.backends.local.provisioning import LocalProvisioning, LocalScaling
from jobs.deploy.backends.local.state import StateFolder
from jobs.deploy.backends.local.witness import LocalWitness

__all__ = ["DEFAULT_SOCKET", "LocalBackend", "engine_socket"]


class LocalBackend:
    """The five ports on this machine.

    Args:
        state_dir: keeps the place's keys and its machines; made when it does not exist.
        engine: the socket of the Docker engine; see :func:`engine_socket`.
        compose: the program of Docker Compose v2; found when None.
        docker_config: the folder with the credentials of image registries, if any.

    Attributes:
        kms_key: the root of the place's KMS, to pin: secp256k1, 33 bytes.
        root_ca: the platform's root certificate, DER: a development root.
    """

    name: Final = "local"

    def __init__(
        self,
        *,
        state_dir: Path,
        engine: Path = DEFAULT_SOCKET,
        compose: Path | None = None,
        docker_config: Path | None = None,
    ) -> None:
        self._engine = Engine(engine)
        state = StateFolder(state_dir)
        place = Place(
            state=state,
            engine=self._engine,
            compose=compose or find_compose(),
            docker_config=docker_config,
        )
        self.kms_key = state.kms().root_public_key
        self.root_ca = state.platform().root_ca
        self.provisioning = LocalProvisioning(place)
        self.machines = LocalMachines(place)
        self.scaling = LocalScaling(place)
        self.observation = LocalObservation(place)
        self.witness = LocalWitness(place)

    @property
    def engine(self) -> Path:
        """The socket of the Docker engine."""
        return self._engine.socket

    async def aclose(self) -> None:
        """Let go of connections; machines go on."""
        await self._engine.aclose()
