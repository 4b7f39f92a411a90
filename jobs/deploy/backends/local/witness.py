"""Gives what can be verified of a local machine: the KMS's statement, and a quote over the caller's nonce.

Invariant: the quote comes from the guest's own agent, through its socket; the platform's root is offered, and
trusted by nobody who was not told to.
"""

import json
import time

from typing_extensions import override

from blueprint.errors import AttestationError
from blueprint.tee.guest_agent import GuestAgentClient
from jobs.deploy.backends.backend import Evidence, Machine, PublicKey, Witness
from jobs.deploy.backends.local.place import Place
from jobs.deploy.backends.local.provisioning import KMS, public_key
from jobs.deploy.errors import DeployError

__all__ = ["LocalWitness"]

_REPORT_DATA_BYTES = 64


class LocalWitness(Witness):
    """The port `Witness`."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @override
    async def public_key(self, app_id: str, kms: str) -> PublicKey:
        if kms not in {KMS, ""}:
            raise DeployError(f"there is no KMS {kms!r} here", advice=f"the local place has one: {KMS}")
        return public_key(self._place, app_id)

    @override
    async def evidence(self, machine: Machine, nonce: bytes) -> Evidence:
        """Return a quote whose report data is the nonce, with zeros on the right up to 64 bytes."""
        if len(nonce) > _REPORT_DATA_BYTES:
            raise DeployError(f"a nonce has at most {_REPORT_DATA_BYTES} bytes, not {len(nonce)}")
        record = self._place.record_of(machine)
        socket = self._place.state.folder(record.id).socket
        try:
            async with GuestAgentClient(str(socket)) as agent:
                info, quote = await agent.info(), await agent.get_quote(nonce)
        except AttestationError as error:
            raise DeployError(
                f"{machine.name}: the guest agent does not answer", advice="start the machine, then ask again"
            ) from error
        platform = self._place.state.platform()
        return Evidence(
            quote=quote.quote,
            event_log=quote.event_log,
            app_compose=str(json.loads(info.tcb_info)["app_compose"]).encode(),
            nonce=nonce,
            collateral=platform.collateral(int(time.time())),
            root=platform.root_ca,
        )
