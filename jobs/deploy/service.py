"""The Docker Deployment Service: takes an application from its text to a machine that proved what it runs.

Invariant: what is done is recorded before the next step begins, so the same call again goes on where an
interrupted one stopped, and nothing is created twice. A variable's value is in
memory only while it is sealed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from blueprint.errors import PolicyViolationError, QuoteInvalidError
from jobs.deploy.attestation import Attestation, Verifier
from jobs.deploy.backends.backend import (
    Action,
    Backend,
    Machine,
    MachineState,
    Placement,
    Provision,
    PublicKey,
    Workload,
)
from jobs.deploy.errors import PreparationLostError
from jobs.deploy.fleet import Fleet, UnknownDeploymentError, unknown
from jobs.deploy.placement import check_change, difference, resized
from jobs.deploy.progress import committed, is_only_prepared, keyed, prepared, stated_key, verified
from jobs.deploy.readiness import LOOK_S, wait_until_ready, wait_until_stopped
from jobs.deploy.record import DeploymentRecord, Entry, RecordStore, Stage
from jobs.deploy.trust import KmsTrust
from jobs.deploy.wanted import (
    DeploymentConflictError,
    Sealed,
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
        self.fleet = Fleet(backend, records)
        self._trust = trust
        self._verifier = verifier
        self.say = say
        self.ready_timeout_s = ready_timeout_s
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
            machines = await self.fleet.to_change(entry.record, wanted)
            if not machines or is_only_prepared(entry.record, wanted):
                machines = (await self._create(entry, wanted, variables),)
            else:
                machines = await self._change(entry, machines, wanted, variables)
            await self._settle(entry, machines, wanted)
            if is_verified:
                return (await self._prove(entry, machines))[0]
            self.say("not verified, as asked")
            record = _recorded(entry)
            return entry.write(
                replace(record, stage=Stage.READY, is_verification_waived=True, attestation="", checks=())
            )

    async def verify(self, name: str) -> tuple[DeploymentRecord, Attestation]:
        """Verify a deployment's machine again, now, and each replica of it; the attestation is its own one's.

        Raises:
            UnknownDeploymentError: there is none of this name.
            AttestationError: one does not prove what it runs.
        """
        with self.records.locked(name) as entry:
            return await self._prove(entry, await self.fleet.present(entry.record, name))

    async def rekey(self, name: str) -> DeploymentRecord:
        """Record the key that a deployment's variables are sealed to now: a KMS may rotate its keys.

        Raises:
            UnknownDeploymentError: there is none of this name.
            AttestationError: the key is not vouched for.
        """
        with self.records.locked(name) as entry:
            if entry.record is None:
                raise unknown(name, self.records)
            record = entry.record
            stated = await self.backend.witness.public_key(record.app_id, record.kms)
            return entry.write(self._keyed(record, stated))

    async def delete(self, name: str) -> DeploymentRecord:
        """Remove a deployment's machines with their disks, and forget it; what is gone is no failure."""
        with self.records.locked(name) as entry:
            record = entry.record
            if record is None:
                raise unknown(name, self.records)
            for machine in reversed(await self.fleet.of(record)):  # its own one last: by it the rest is found
                await self.backend.machines.delete(machine)
            entry.remove()
            return record

    async def machine(self, name: str) -> tuple[DeploymentRecord, Machine]:
        """Return a deployment and its own machine as it is now."""
        with self.records.locked(name) as entry:
            (machine, *_) = await self.fleet.present(entry.record, name)
            return _recorded(entry), machine

    async def _prepare(self, entry: Entry, wanted: Wanted) -> DeploymentRecord:
        record, workload = entry.record, wanted.workload
        if (
            record is not None
            and record.compose_hash == workload.compose_hash.hex()
            and record.placement == wanted.placement
            and record.place == self.backend.name
        ):
            return record
        self.say(f"provisioning {workload.name} at {self.backend.name}")
        provision = await self.backend.provisioning.provision(workload, wanted.placement)
        self._same_hash(workload, provision)
        record = prepared(wanted, provision, place=self.backend.name, now_s=self._now_s())
        return entry.write(self._keyed(record, provision.public_key))

    def _keyed(self, record: DeploymentRecord, stated: PublicKey | None) -> DeploymentRecord:
        """Put the key into the record, once the KMS has been found to vouch for it."""
        return record if stated is None else keyed(record, stated, self._trust.verify(record.app_id, stated))

    async def _create(self, entry: Entry, wanted: Wanted, variables: Variables | None) -> Machine:
        record = await self._prepare(entry, wanted)
        try:
            return await self._commit(entry, record, wanted, variables)
        except PreparationLostError:
            entry.remove()  # or the same call again would commit it again, for ever
            if record.order or isinstance(variables, Sealed):
                raise  # others know its identity, and have sealed for it
        self.say(f"what was prepared for {record.name} has expired: preparing it again")
        return await self._commit(entry, await self._prepare(entry, wanted), wanted, variables)

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
        self.say(f"creating {record.name} as {record.app_id}")
        machine = await self.backend.provisioning.commit(
            wanted.workload, wanted.placement, provision, ciphertext, wanted.names
        )
        entry.write(committed(record, machine, wanted, variables, now_s=self._now_s()))
        return machine

    async def _change(
        self,
        entry: Entry,
        machines: Sequence[Machine],
        wanted: Wanted,
        variables: Variables | None,
    ) -> tuple[Machine, ...]:
        """Make all machines what is wanted; each step is recorded at its end, so that it is made again."""
        record = _recorded(entry)
        wanted = replace(wanted, placement=resized(record.placement, wanted.placement))
        to_resize = await self._resizable(record, machines, wanted.placement)
        is_other = record.compose_hash != wanted.workload.compose_hash.hex() or record.stage is Stage.PREPARED
        has_new = variables is not None and not is_same(record, variables)
        if is_other and variables is None and set(wanted.names) - set(record.names):
            missing = ", ".join(sorted(set(wanted.names) - set(record.names)))
            raise DeploymentConflictError(
                f"{record.name} needs variables that it does not have: {missing}",
                advice="give all of them: an update replaces all variables",
            )
        if is_other or has_new:
            new = variables if has_new else None
            for machine in machines:
                record = await self._apply(record, machine, wanted, new, is_other=is_other)
            so_far = replace(wanted, placement=record.placement)
            record = entry.write(committed(record, machines[0], so_far, new, now_s=self._now_s()))
        if to_resize != Placement():
            self.say(f"resizing {record.name}")
            for machine in machines:
                await self.backend.scaling.resize(machine, to_resize)
            entry.write(committed(record, machines[0], wanted, None, now_s=self._now_s()))
        return tuple([await self._woken(machine) for machine in machines])

    async def _resizable(
        self, record: DeploymentRecord, machines: Sequence[Machine], placement: Placement
    ) -> Placement:
        """Return what is to change of a size, once it is known that it can."""
        changed = difference(record.placement, placement)
        if changed != Placement():
            for machine in machines:
                check_change(record.name, record.placement, placement, machine.placement)
            await self.backend.scaling.price(placement)  # raises where the place does not offer it
        return changed

    async def _woken(self, machine: Machine) -> Machine:
        """Start a machine that stands still, or is about to: it is wanted up."""
        now = await self.backend.machines.get(machine.id) or machine
        if now.state is MachineState.STOPPING:
            now = await wait_until_stopped(
                self.backend.observation, now, timeout_s=self.ready_timeout_s, say=self.say
            )
        if now.state in {MachineState.STOPPED, MachineState.FAILED}:
            self.say(f"starting {now.name}, which is {now.state}")
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
            self.say(f"revising {record.name}")
            provision = await self.backend.provisioning.revise(machine, wanted.workload)
            self._same_hash(wanted.workload, provision)
        ciphertext = None
        if variables is not None:
            stated = await self.backend.witness.public_key(record.app_id, record.kms)
            record = self._keyed(record, stated)  # keys may have been rotated
            ciphertext = sealed_for(record, variables)
        await self.backend.provisioning.apply(machine, provision, ciphertext, wanted.names)
        return record

    async def _settle(self, entry: Entry, machines: Sequence[Machine], wanted: Wanted) -> None:
        for machine in machines:
            if machine is not machines[0]:
                self.say(f"replica {machine.id}")
            await wait_until_ready(
                self.backend.observation,
                machine,
                timeout_s=self.ready_timeout_s,
                one_shots=wanted.one_shots,
                say=self.say,
                look_s=self._look_s,
            )
        record = _recorded(entry)
        now = await self.backend.machines.get(machines[0].id) or machines[0]
        entry.write(
            replace(
                record,
                stage=Stage.READY if record.stage is not Stage.VERIFIED else record.stage,
                instance_id=now.instance_id,
                endpoints=tuple(now.endpoints),
                updated_at_s=self._now_s(),
            )
        )

    async def _prove(self, entry: Entry, machines: Sequence[Machine]) -> tuple[DeploymentRecord, Attestation]:
        """Verify all machines, and record the own one's attestation; none is left where one does not hold."""
        record = _recorded(entry)
        try:
            own, *others = [await self._attest(record, machine) for machine in machines]
            _check_apart((own, *others))
        except (PolicyViolationError, QuoteInvalidError):
            entry.write(replace(record, stage=Stage.READY, attestation="", checks=()))
            raise
        return entry.write(verified(record, own, now_s=self._now_s())), own

    async def _attest(self, record: DeploymentRecord, machine: Machine) -> Attestation:
        self.say("verifying the attestation")
        # SECURITY: the identity is the one that variables were sealed for
        # (test_a_machine_of_another_application_is_not_verified_by_its_own_word).
        return await self._verifier.attest(
            self.backend.witness, machine, app_id=record.app_id, app_compose=record.app_compose.encode()
        )

    @staticmethod
    def _same_hash(workload: Workload, provision: Provision) -> None:
        # SECURITY: what is measured must be what was meant (test_another_compose_hash_stops_before_...).
        if provision.compose_hash != workload.compose_hash:
            raise DeploymentConflictError(
                f"the place counts the compose hash {provision.compose_hash.hex()}, ours is "
                f"{workload.compose_hash.hex()}: it would run something else than what was meant",
                advice="nothing was created",
            )


def _check_apart(attestations: Sequence[Attestation]) -> None:
    # SECURITY: one guest's evidence does not stand for two (test_one_guest_does_not_prove_two_machines).
    if len({each.verified.instance_id for each in attestations}) < len(attestations):
        raise PolicyViolationError(
            "two machines show the evidence of one instance: one of them proves nothing"
        )


def _recorded(entry: Entry) -> DeploymentRecord:
    assert entry.record is not None, "a machine is found through its record"
    return entry.record
