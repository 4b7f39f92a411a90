"""Makes local machines and changes them: identity, commit, update, resources, replicas.

Invariant: a machine's id follows from its application and number, so the same commit again finds the same
machine; what was sealed is opened by the guest alone.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Final

from typing_extensions import override

from blueprint.foreign_json import JsonValue
from jobs.deploy.app_compose import parse_app_compose
from jobs.deploy.backends.backend import (
    Machine,
    Placement,
    Provision,
    Provisioning,
    PublicKey,
    Scaling,
    Workload,
)
from jobs.deploy.backends.local.disk import Record, Wanted
from jobs.deploy.backends.local.place import Place
from jobs.deploy.errors import DeployError

__all__ = ["KMS", "LocalProvisioning", "LocalScaling", "public_key"]

KMS: Final = "local"
_ID_DIGITS = 12
_INSTANCE_BYTES = 20


class LocalProvisioning(Provisioning):
    """The port `Provisioning`."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @override
    async def provision(self, workload: Workload, placement: Placement) -> Provision:
        await self._place.engine.check()
        seed = (
            self._place.state.kms().root_public_key + workload.name.encode() + b"\0" + workload.compose_hash
        )
        app_id = hashlib.sha256(b"app-id" + seed).hexdigest()[:40]
        return self._provision(workload, app_id, placement)

    @override
    async def commit(
        self,
        workload: Workload,
        placement: Placement,
        provision: Provision,
        sealed: bytes,
        names: Sequence[str],
    ) -> Machine:
        _check_hash(workload, provision)
        place = self._place
        async with place.state.locked():
            await place.tidy()
            self._check_name(workload.name, provision.app_id)
            record = self._existing(provision, workload)
            if record is None:
                record = _record(workload, provision, placement)
                folder = place.state.folder(record.id)
                record = folder.create(record, workload.app_compose, sealed)
            elif record.sealed != (digest := place.state.folder(record.id).keep(sealed)):
                record = record.rebooted(sealed=digest)
            await place.change(replace(record, wanted=Wanted.RUNNING))
            return await place.machine(record)

    @override
    async def revise(self, machine: Machine, workload: Workload) -> Provision:
        async with self._place.state.locked():
            record = self._place.record_of(machine)
            revised = self._provision(workload, record.app_id, record.placement)
            self._place.state.folder(record.id).prepare(workload.app_compose)
        return revised

    @override
    async def apply(
        self, machine: Machine, provision: Provision | None, sealed: bytes | None, names: Sequence[str]
    ) -> None:
        place = self._place
        async with place.state.locked():
            record = place.record_of(machine)
            folder = place.state.folder(record.id)
            changes: dict[str, str] = {}
            if provision is not None and provision.compose_hash.hex() != record.app_compose:
                prepared = folder.prepared()
                if hashlib.sha256(prepared).digest() != provision.compose_hash:
                    raise DeployError(
                        f"{machine.name}: another update was prepared meanwhile",
                        advice="plan and update again",
                    )
                changes["app_compose"] = folder.keep(prepared)
            if sealed is not None:
                changes["sealed"] = folder.keep(sealed)
            if all(getattr(record, name) == value for name, value in changes.items()):
                await place.change(replace(record, wanted=Wanted.RUNNING))
            else:
                await place.change(record.rebooted(**changes))

    def _provision(self, workload: Workload, app_id: str, placement: Placement) -> Provision:
        content = _content(workload)
        platform = self._place.state.platform()
        return Provision(
            app_id=app_id,
            compose_hash=hashlib.sha256(workload.app_compose).digest(),
            public_key=public_key(self._place, app_id) if content.get("kms_enabled") is True else None,
            os_image_hash=hashlib.sha256(platform.measurement("mrtd")).digest(),
            instance_type=placement.instance_type,
        )

    def _existing(self, provision: Provision, workload: Workload) -> Record | None:
        try:
            record = self._place.state.folder(_machine_id(provision.app_id, 0)).record()
        except FileNotFoundError:
            return None
        if record.app_compose != workload.compose_hash.hex():
            raise DeployError(
                f"app {provision.app_id} exists as {record.name} with the compose hash {record.app_compose}, "
                f"not {workload.compose_hash.hex()}",
                advice="update that machine, or delete it first",
            )
        return record

    def _check_name(self, name: str, app_id: str) -> None:
        for record in self._place.state.records():
            if record.name == name and record.app_id != app_id:
                raise DeployError(
                    f"the name {name} belongs to app {record.app_id} (machine {record.id})",
                    advice="update that machine, or take another name",
                )


class LocalScaling(Scaling):
    """The port `Scaling`."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @override
    async def price(self, placement: Placement) -> str:
        """Return nothing: this machine is paid for."""
        return ""

    @override
    async def resize(self, machine: Machine, placement: Placement) -> None:
        """Change the limits of each container; the machine is booted again."""
        async with self._place.state.locked():
            record = self._place.record_of(machine)
            given = {field.name: getattr(placement, field.name) for field in fields(placement)}
            merged = replace(record.placement, **{name: value for name, value in given.items() if value})
            if merged == record.placement:
                return
            resized = replace(record, placement=merged)
            await self._place.change(resized.rebooted() if record.wanted is Wanted.RUNNING else resized)

    @override
    async def replicate(self, machine: Machine, node: str) -> Machine:
        place = self._place
        if node:
            raise DeployError(f"there is no node {node!r}: the local place is this machine alone")
        async with place.state.locked():
            await place.tidy()
            origin = place.record_of(machine)
            folder = place.state.folder(origin.id)
            taken = {record.index for record in place.state.records() if record.app_id == origin.app_id}
            index = next(number for number in range(1, len(taken) + 2) if number not in taken)
            record = replace(
                origin,
                id=_machine_id(origin.app_id, index),
                index=index,
                instance_id=os.urandom(_INSTANCE_BYTES).hex(),
                wanted=Wanted.RUNNING,
                boot=1,
            )
            app_compose, sealed = folder.read(origin.app_compose), folder.read(origin.sealed)
            place.state.folder(record.id).create(record, app_compose, sealed)
            await place.change(record)
            return await place.machine(record)


def public_key(place: Place, app_id: str) -> PublicKey:
    """Return what an application's variables are sealed to, stated now."""
    kms, now_s = place.state.kms(), int(time.time())
    number = bytes.fromhex(app_id)
    signature = kms.sign_public_key(number, timestamp_s=now_s)
    return PublicKey(key=kms.env_public_key(number), signature=signature, timestamp_s=now_s, kms=KMS)


def _record(workload: Workload, provision: Provision, placement: Placement) -> Record:
    return Record(
        id=_machine_id(provision.app_id, 0),
        name=workload.name,
        app_id=provision.app_id,
        instance_id=os.urandom(_INSTANCE_BYTES).hex(),
        index=0,
        app_compose="",
        sealed="",
        placement=placement,
    )


def _machine_id(app_id: str, index: int) -> str:
    return hashlib.sha256(f"machine {app_id} {index}".encode()).hexdigest()[:_ID_DIGITS]


def _check_hash(workload: Workload, provision: Provision) -> None:
    ours = hashlib.sha256(workload.app_compose).digest()
    if not ours == workload.compose_hash == provision.compose_hash:
        raise DeployError(
            f"the compose hash is {ours.hex()}, but {workload.compose_hash.hex()} was stated and "
            f"{provision.compose_hash.hex()} provisioned",
            advice="provision again",
        )


def _content(workload: Workload) -> dict[str, JsonValue]:
    """Return app-compose.json as the guest would read it."""
    content = parse_app_compose(workload.app_compose)
    # SECURITY: these would run as root on this host (test_scripts_of_the_guest_are_refused).
    for name in ("pre_launch_script", "init_script"):
        if content.get(name):
            raise DeployError(
                f"app-compose.json: {name} is not run by the local place",
                advice="leave it out to try it here",
            )
    if content.get("runner", "docker-compose") != "docker-compose":
        raise DeployError(f"app-compose.json: the runner {content['runner']!r} is not known here")
    return content
