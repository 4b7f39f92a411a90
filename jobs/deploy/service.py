"""The Docker Deployment Service: takes an application from its text to a machine that proved what it runs.

Invariant: what is done is recorded before the next step begins, so the same call again goes on where an
interrupted one stopped, and nothing is created twice. A variable's value is in
memory only while it is sealed.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from blueprint.errors import PolicyViolationError
from jobs.deploy.attestation import Attestation, Verifier
from jobs.deploy.backends.backend import (
    Action,
    Backend,
    Machine,
    MachineState,
    Provision,
    PublicKey,
    Workload,
)
from jobs.deploy.errors import DeployError
from jobs.deploy.progress import committed, is_only_prepared, keyed, prepared, stated_key, verified
from jobs.deploy.readiness import LOOK_S, wait_until_ready
from jobs.deploy.record import DeploymentRecord, Entry, RecordStore, Stage
from jobs.deploy.trust import KmsTrust
from jobs.deploy.wanted import (
    DeploymentConflictError,
    Variables,
    Wanted,
    check_names,
    is_same,
    sealed_for,
)

__all__ = [
    "DockerDeploymentService",
    "UnknownDeploymentError",
]

READY_TIMEOUT_S = 600.0


class UnknownDeploymentError(DeployError):
    """No deployment of this name is recorded here."""


class DockerDeploymentService:
    """Deploys to one place, and keeps a record of it.

    Args:
        backend: the place.
        records: what is known of deployments.
        trust: which KMS keys are believed.
        verifier: judges attestations.
        say: called with lines of progress.
        ready_timeout_s: how long an application may take to come up.
        look_s: between two looks at its containers.
        now_s: seconds since 1970.
    """

    def __init__(
        self,
        backend: Backend,
        records: RecordStore,
        trust: KmsTrust,
        verifier: Verifier,
        *,
        say: Callable[[str], None] = lambda _: None,
        ready_timeout_s: float = READY_TIMEOUT_S,
        look_s: float = LOOK_S,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.backend = backend
        self.records = records
        self._trust = trust
        self._verifier = verifier
        self._say = say
        self._ready_timeout_s = ready_timeout_s
        self._look_s = look_s
        self._now_s = now_s

    async def prepare(self, wanted: Wanted) -> DeploymentRecord:
        """Have the place give an application its identity and key; nothing runs, nothing is owed.

        Prepared again, the same application keeps what it got.

        Raises:
            DeploymentConflictError: the name is taken, or the place counts another compose hash than we.
            DeployError: the place refuses, or cannot be reached.
            AttestationError: the public key is not vouched for.
        """
        with self.records.locked(wanted.workload.name) as entry:
            record = entry.record
            if record is not None and record.stage is not Stage.PREPARED:
                raise DeploymentConflictError(
                    f"{record.name} is deployed already, as {record.machine_id}",
                    advice="`deploy up` changes it, `deploy delete` removes it",
                )
            return await self._prepare(entry, wanted)

    async def up(
        self,
        wanted: Wanted,
        variables: Variables | None = None,
        *,
        is_verified: bool = True,
    ) -> DeploymentRecord:
        """Make what is wanted true: create, change, or leave; then wait until it is up, and verify it.

        Args:
            wanted: the application.
            variables: all of its variables, in clear or sealed for it; None leaves those it has.
            is_verified: False records that somebody waived the verification.

        Raises:
            DeploymentConflictError: something else has the name, or the hashes differ.
            SealingError: a variable breaks a limit of the guest.
            ApplicationFailedError, NotReadyError: it did not come up.
            AttestationError: it runs, but does not prove what it runs.
        """
        check_names(wanted, variables)
        with self.records.locked(wanted.workload.name) as entry:
            machine = await self._find(entry.record, wanted)
            if machine is None or is_only_prepared(entry.record, wanted):
                record = await self._prepare(entry, wanted)
                machine = await self._commit(entry, record, wanted, variables)
            else:
                machine = await self._change(entry, machine, wanted, variables)
            await self._settle(entry, machine, wanted)
            return await self._judge(entry, machine, is_verified=is_verified)

    async def verify(self, name: str) -> tuple[DeploymentRecord, Attestation]:
        """Verify a deployment's machine again, now.

        Raises:
            UnknownDeploymentError: there is none of this name.
            AttestationError: it does not prove what it runs.
        """
        with self.records.locked(name) as entry:
            record, machine = await self._present(entry)
            attestation = await self._attest(record, machine)
            return entry.write(verified(record, attestation, now_s=self._now_s())), attestation

    async def rekey(self, name: str) -> DeploymentRecord:
        """Record the key that a deployment's variables are sealed to now: a KMS may rotate its keys.

        Raises:
            UnknownDeploymentError: there is none of this name.
            AttestationError: the key is not vouched for.
        """
        with self.records.locked(name) as entry:
            if entry.record is None:
                raise self._unknown(name)
            record = entry.record
            stated = await self.backend.witness.public_key(record.app_id, record.kms)
            return entry.write(self._keyed(record, stated))

    async def delete(self, name: str) -> DeploymentRecord:
        """Remove a deployment's machine with its disk, and forget it; one that is gone is no failure."""
        with self.records.locked(name) as entry:
            record = entry.record
            if record is None:
                raise self._unknown(name)
            machine = await self._machine(record)
            if machine is not None:
                await self.backend.machines.delete(machine)
            entry.remove()
            return record

    async def machine(self, name: str) -> tuple[DeploymentRecord, Machine]:
        """Return a deployment and its machine as it is now."""
        with self.records.locked(name) as entry:
            return await self._present(entry)

    async def _present(self, entry: Entry) -> tuple[DeploymentRecord, Machine]:
        record = entry.record
        if record is None:
            raise self._unknown(entry.path.stem)
        machine = await self._machine(record)
        if machine is None:
            raise self._gone(record)
        return record, machine

    async def _machine(self, record: DeploymentRecord) -> Machine | None:
        if record.place != self.backend.name:
            raise DeploymentConflictError(
                f"{record.name} was deployed to {record.place}, not to {self.backend.name}",
                advice=f"use --place {record.place}",
            )
        if record.machine_id:
            return await self.backend.machines.get(record.machine_id)
        found = await self.backend.machines.get(record.name)
        # A commit whose answer was lost: the machine is ours when it has the identity that we were given.
        return found if found is not None and found.app_id == record.app_id else None

    async def _find(self, record: DeploymentRecord | None, wanted: Wanted) -> Machine | None:
        """Return the machine to change; None when one is to be created."""
        if record is not None:
            machine = await self._machine(record)
            if machine is None and record.stage is not Stage.PREPARED:
                raise self._gone(record)
            if machine is not None:
                return machine
        stranger = await self.backend.machines.get(wanted.workload.name)
        if stranger is not None:
            raise DeploymentConflictError(
                f"{self.backend.name} has a machine named {stranger.name} that was not deployed from here "
                f"(app id {stranger.app_id}, {stranger.state})",
                advice="choose another name, or deploy from where its record is",
            )
        return None

    async def _prepare(self, entry: Entry, wanted: Wanted) -> DeploymentRecord:
        record, workload = entry.record, wanted.workload
        if (
            record is not None
            and record.compose_hash == workload.compose_hash.hex()
            and record.placement == wanted.placement
            and record.place == self.backend.name
        ):
            return record
        self._say(f"provisioning {workload.name} at {self.backend.name}")
        provision = await self.backend.provisioning.provision(workload, wanted.placement)
        self._same_hash(workload, provision)
        record = prepared(wanted, provision, place=self.backend.name, now_s=self._now_s())
        return entry.write(self._keyed(record, provision.public_key))

    def _keyed(self, record: DeploymentRecord, stated: PublicKey | None) -> DeploymentRecord:
        """Put the key into the record, once the KMS has been found to vouch for it."""
        return record if stated is None else keyed(record, stated, self._trust.verify(record.app_id, stated))

    async def _commit(
        self,
        entry: Entry,
        record: DeploymentRecord,
        wanted: Wanted,
        variables: Variables | None,
    ) -> Machine:
        if wanted.names and variables is None:
            raise DeploymentConflictError(
                f"{record.name} needs the variables {', '.join(wanted.names)}",
                advice="give them with --env-file, or sealed with --sealed",
            )
        ciphertext = sealed_for(record, variables)
        provision = Provision(
            app_id=record.app_id,
            compose_hash=wanted.workload.compose_hash,
            public_key=stated_key(record),
        )
        self._say(f"creating {record.name} as {record.app_id}")
        machine = await self.backend.provisioning.commit(
            wanted.workload, wanted.placement, provision, ciphertext, wanted.names
        )
        entry.write(committed(record, machine, wanted, variables, now_s=self._now_s()))
        return machine

    async def _change(
        self,
        entry: Entry,
        machine: Machine,
        wanted: Wanted,
        variables: Variables | None,
    ) -> Machine:
        record = entry.record
        assert record is not None, "a machine is found through its record"
        is_other = record.compose_hash != wanted.workload.compose_hash.hex() or record.stage is Stage.PREPARED
        has_new = variables is not None and not is_same(record, variables)
        if is_other and variables is None and set(wanted.names) - set(record.names):
            missing = ", ".join(sorted(set(wanted.names) - set(record.names)))
            raise DeploymentConflictError(
                f"{record.name} needs variables that it does not have: {missing}",
                advice="give all of them: an update replaces all variables",
            )
        if is_other or has_new:
            record = await self._apply(
                record, machine, wanted, variables if has_new else None, is_other=is_other
            )
        if wanted.placement != record.placement:
            self._say(f"resizing {record.name}")
            await self.backend.scaling.resize(machine, wanted.placement)
        if is_other or has_new or wanted.placement != record.placement:
            entry.write(
                committed(record, machine, wanted, variables if has_new else None, now_s=self._now_s())
            )
        return await self._woken(machine)

    async def _woken(self, machine: Machine) -> Machine:
        """Start a machine that stands still: it is wanted up."""
        now = await self.backend.machines.get(machine.id) or machine
        if now.state in {MachineState.STOPPED, MachineState.FAILED}:
            self._say(f"starting {now.name}, which is {now.state}")
            await self.backend.machines.act(now, Action.START)
        return now

    async def _apply(
        self,
        record: DeploymentRecord,
        machine: Machine,
        wanted: Wanted,
        variables: Variables | None,
        *,
        is_other: bool,
    ) -> DeploymentRecord:
        provision = None
        if is_other:
            self._say(f"revising {record.name}")
            provision = await self.backend.provisioning.revise(machine, wanted.workload)
            self._same_hash(wanted.workload, provision)
        ciphertext = None
        if variables is not None:
            stated = await self.backend.witness.public_key(record.app_id, record.kms)
            record = self._keyed(record, stated)  # keys may have been rotated
            ciphertext = sealed_for(record, variables)
        await self.backend.provisioning.apply(machine, provision, ciphertext, wanted.names)
        return record

    async def _settle(self, entry: Entry, machine: Machine, wanted: Wanted) -> None:
        machine = await wait_until_ready(
            self.backend.observation,
            machine,
            timeout_s=self._ready_timeout_s,
            one_shots=wanted.one_shots,
            say=self._say,
            look_s=self._look_s,
        )
        record = entry.record
        assert record is not None, "it was committed"
        now = await self.backend.machines.get(machine.id) or machine
        entry.write(
            replace(
                record,
                stage=Stage.READY if record.stage is not Stage.VERIFIED else record.stage,
                instance_id=now.instance_id,
                endpoints=tuple(now.endpoints),
                updated_at_s=self._now_s(),
            )
        )

    async def _judge(self, entry: Entry, machine: Machine, *, is_verified: bool) -> DeploymentRecord:
        record = entry.record
        assert record is not None, "it was committed"
        if not is_verified:
            self._say("not verified, as asked")
            return entry.write(
                replace(record, stage=Stage.READY, is_verification_waived=True, attestation="", checks=())
            )
        try:
            attestation = await self._attest(record, machine)
        except PolicyViolationError:
            entry.write(replace(record, stage=Stage.READY, attestation="", checks=()))
            raise
        return entry.write(verified(record, attestation, now_s=self._now_s()))

    async def _attest(self, record: DeploymentRecord, machine: Machine) -> Attestation:
        self._say("verifying the attestation")
        return await self._verifier.attest(self.backend.witness, machine, record.app_compose.encode())

    @staticmethod
    def _same_hash(workload: Workload, provision: Provision) -> None:
        # SECURITY: what is measured must be what was meant (test_another_compose_hash_stops_before_...).
        if provision.compose_hash != workload.compose_hash:
            raise DeploymentConflictError(
                f"the place counts the compose hash {provision.compose_hash.hex()}, ours is "
                f"{workload.compose_hash.hex()}: it would run something else than what was meant",
                advice="nothing was created",
            )

    def _unknown(self, name: str) -> UnknownDeploymentError:
        return UnknownDeploymentError(
            f"no deployment named {name!r} is recorded in {self.records.folder}",
            advice="`blueprint deploy list` shows those that are",
        )

    def _gone(self, record: DeploymentRecord) -> DeploymentConflictError:
        return DeploymentConflictError(
            f"the machine {record.machine_id or record.app_id} of {record.name} is gone from {record.place}",
            advice=f"`blueprint deploy delete {record.name}` forgets it; then deploy it anew",
        )
