"""The `deploy` job (index 1): an application prepared by one call, started by another, ended by a third.

A preparation belongs to its caller and to the operator that answered it. It waits for one commit and expires
without it; a commit that fails ends it, and nothing of it runs on.

Invariant: whatever is repeated has the outcome that it had: a call after a crash, and the same commit under
another id after a reorganisation. What only differs in its id is never deployed twice.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

import structlog

from blueprint.errors import (
    AttestationError,
    InputsInvalidError,
    JournalError,
    PolicyViolationError,
    PostponedError,
    Rejection,
)
from blueprint.extract import RawResult
from blueprint.job import Failure, Handler, Layer
from blueprint.layers import retry, time_limit
from blueprint.router import Router
from blueprint.types import Address, JobCall
from jobs.deploy.answers import deployed_answer, failure_answer, prepared_answer, removed_answer, status_of
from jobs.deploy.codec import (
    NOBODY,
    Commitment,
    DeployRequest,
    DeployStatus,
    Preparation,
    Removal,
    decode_request,
)
from jobs.deploy.errors import DeployError, PreparationLostError
from jobs.deploy.intake import check_sealed, order_key, order_of
from jobs.deploy.order import Deployer, Order
from jobs.deploy.order_book import Entry, EntryState, OrderBook

__all__ = ["DEPLOY_INDEX", "Admission", "DeployJob", "DeployTerms", "EvidenceStore", "add_deploy"]

DEPLOY_INDEX = 1
_log = structlog.get_logger(__name__)


class Admission(Protocol):
    """The operator's policy: whose applications are taken, which, how large and how many."""

    def admit(self, order: Order, *, caller: Address, deployments: int) -> None:
        """Let an order pass.

        Args:
            order: what is asked for.
            caller: who asks.
            deployments: how many applications of this caller there are already.

        Raises:
            OrderRefusedError: the policy does not allow it; the caller reads the message.
        """


class EvidenceStore(Protocol):
    """Keeps evidence for those who ask for it by digest."""

    def put(self, data: bytes) -> str:
        """Keep bytes, if there is room, and return their SHA-256 in hexadecimal; called from a thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployTerms:
    """How an operator offers deployments; times in seconds."""

    expires_s: float = 3600.0
    """How long a preparation waits for its commit."""
    timeout_s: float = 1800.0
    """The longest that one attempt to answer a call may take; the deployer's own limits are shorter."""
    other_operator_s: float = 2400.0
    """How long a call that names another operator is left to that one; then it is rejected here."""
    max_at_once: int = 8
    """Calls that are worked on at the same time; more are postponed."""
    postponed_s: float = 5.0
    """When a postponed call is taken up again."""
    house_keeping_s: float = 60.0
    """The pause between two rounds of removing what has expired."""
    removal_s: float = 120.0
    """The longest wait for one removal; it is tried again later."""


class DeployJob:
    """Answers the calls of one operator.

    Args:
        deployer: deploys.
        book: what is remembered; it stays the caller's to close.
        admission: the operator's policy.
        operator: the account that answers.
        evidence: keeps what was verified; without it none is kept.
        find_compose: gives the compose text for a digest; without it only texts themselves are taken.
        terms: times and limits.
        clock: Unix seconds.
    """

    def __init__(
        self,
        deployer: Deployer,
        book: OrderBook,
        *,
        admission: Admission,
        operator: Address,
        evidence: EvidenceStore | None = None,
        find_compose: Callable[[bytes], str | None] = lambda _: None,
        terms: DeployTerms = DeployTerms(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.operator = operator
        self.terms = terms
        self._deployer = deployer
        self._book = book
        self._admission = admission
        self._evidence = evidence
        self._find_compose = find_compose
        self._clock = clock
        self._running = 0
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._moving: dict[str, str] = {}

    # A call.

    async def answer(self, call: JobCall) -> bytes:
        """Do what a call asks for and return the answer; raise what is to be retried or refused."""
        request = decode_request(call.inputs)
        self._leave_to_others(call, request)
        body = request.body
        if isinstance(body, Preparation):
            return await self._prepare(call, body)
        if isinstance(body, Commitment):
            return await self._commit(call, body)
        return await self._remove(call, body)

    def _leave_to_others(self, call: JobCall, request: DeployRequest) -> None:
        """Let a call pass that is for this operator; the answer of another would otherwise come too late."""
        if request.operator == self.operator:
            return
        if request.operator == NOBODY:
            if isinstance(request.body, Preparation):
                return
            raise InputsInvalidError(
                "operator: a commit and a removal name the operator that answered the preparation"
            )
        until = self._book.waits_since(order_key(call)) + self.terms.other_operator_s
        if (left_s := until - self._clock()) > 0:
            raise PostponedError("the call names another operator", retry_after_s=left_s)
        raise InputsInvalidError(
            f"operator: 0x{request.operator.hex()} is no operator of this service that answers; this one is "
            f"0x{self.operator.hex()}"
        )

    async def _prepare(self, call: JobCall, asked: Preparation) -> bytes:
        key = order_key(call)
        async with self._held(key):
            entry = self._book.find(key)
            if entry is not None and entry.answer and (entry.commitment or entry.expires_at > self._clock()):
                return entry.answer
            order = order_of(key, asked, self._find_compose)
            others = self._book.count(call.caller, beside=key)
            self._admission.admit(order, caller=call.caller, deployments=others)
            self._book.open(key, call)
            self._moving[key] = key
            prepared = await self._deployer.prepare(order)
            expires_at = int(self._clock() + self.terms.expires_s)
            answer = prepared_answer(self.operator, prepared, expires_at=expires_at)
            self._book.record_prepared(
                key,
                answer=answer,
                compose_hash=prepared.compose_hash,
                takes_variables=bool(order.names),
                expires_at=expires_at,
            )
        _log.info("deployment_prepared", **_names(call), key=key, app_id=prepared.app_id)
        return answer

    async def _commit(self, call: JobCall, asked: Commitment) -> bytes:
        key = self._prepared_by(call, asked).key
        commitment = hashlib.sha256(call.inputs).digest()
        async with self._held(key):
            entry = self._book.find(key)  # it may have changed while another call had it
            if entry is not None and entry.commitment:
                if entry.commitment != commitment:
                    raise InputsInvalidError(
                        f"callId: call {asked.call_id} was committed already, otherwise than so"
                    )
                if entry.outcome:
                    return entry.outcome
            if entry is None or not self._is_committable(entry):
                raise PreparationLostError("the preparation is no longer kept", advice="prepare again")
            check_sealed(asked.sealed_variables, takes_variables=entry.takes_variables)
            self._book.record_commitment(key, commitment)
            self._moving[order_key(call)] = key
            deployed = await self._deployer.commit(key, asked.sealed_variables)
            if deployed.compose_hash != entry.compose_hash:
                raise PolicyViolationError(
                    "what was deployed has another compose hash than what was prepared"
                )
            answer = deployed_answer(
                self.operator, deployed, evidence_digest=await self._keep(deployed.evidence)
            )
            self._book.record_outcome(key, answer, EntryState.DEPLOYED)
        _log.info("deployment_verified", **_names(call), key=key, app_id=deployed.app_id)
        return answer

    async def _remove(self, call: JobCall, asked: Removal) -> bytes:
        entries = self._book.of_call(call, asked.call_id)
        if not entries:
            raise _unknown(asked.call_id)
        for entry in entries:
            async with self._held(entry.key):
                self._book.record_state(entry.key, EntryState.ENDING)
                await self._deployer.remove(entry.key)
                self._book.record_state(entry.key, EntryState.ENDED)
        _log.info("deployment_removed", **_names(call), keys=[entry.key for entry in entries])
        return removed_answer(self.operator)

    def _prepared_by(self, call: JobCall, asked: Commitment) -> Entry:
        """Return what this caller has prepared under the call id, for exactly this compose hash."""
        # SECURITY: looked up by the account that calls, so that nobody commits what another has prepared:
        # test_a_strangers_commit_is_refused
        entries = [entry for entry in self._book.of_call(call, asked.call_id) if entry.answer]
        if not entries:
            raise _unknown(asked.call_id)
        for entry in entries:
            if entry.compose_hash == asked.compose_hash:
                return entry
        raise InputsInvalidError(
            f"composeHash: call {asked.call_id} prepared {entries[0].compose_hash.hex()}, received "
            f"{asked.compose_hash.hex()}"
        )

    def _is_committable(self, entry: Entry) -> bool:
        if entry.state is EntryState.PREPARED:
            return entry.expires_at > self._clock()
        return entry.state is EntryState.COMMITTING

    # Failures.

    def answering(self, handler: Handler) -> Handler:
        """Wrap the handler and its retries: bound the calls at work, answer what cannot be retried."""

        async def answered(call: JobCall) -> bytes:
            if self._running >= self.terms.max_at_once:
                raise PostponedError("enough deployments are under way", retry_after_s=self.terms.postponed_s)
            self._running += 1
            try:
                return await handler(call)
            except (Rejection, PostponedError, JournalError):
                raise
            except Exception as exc:
                answer = self._failed(call, exc)
                answer = await self._give_up(call, answer)
                if not answer:
                    raise
                return answer
            finally:
                self._running -= 1
                self._moving.pop(order_key(call), None)

        return answered

    def _failed(self, call: JobCall, exc: Exception) -> bytes:
        """Return the answer to a failure, or nothing where the router has the words for it."""
        status = status_of(exc)
        if status is not None:
            _log.info("deployment_failed", **_names(call), status=status.name, reason=type(exc).__name__)
            return failure_answer(status, str(exc), self.operator)
        if not isinstance(exc, DeployError | AttestationError):
            return b""
        incident = secrets.token_hex(4)
        _log.error("deployment_failed", **_names(call), incident=incident, exc_info=exc)
        # SECURITY: the place's own words may hold the operator's names and addresses:
        # test_a_failure_of_the_place_is_not_told_on_chain
        text = f"the deployment failed on this node with {type(exc).__name__} (incident {incident})"
        return failure_answer(DeployStatus.SYSTEM_ERROR, text, self.operator)

    async def _give_up(self, call: JobCall, answer: bytes) -> bytes:
        """End what the call was moving; return its answer, or that of the same commit which has succeeded."""
        key = self._moving.get(order_key(call))
        if key is None:
            return answer
        async with self._lock(key):
            entry = self._book.find(key)
            if entry is not None and entry.state is EntryState.DEPLOYED:
                return entry.outcome
            self._book.record_outcome(key, answer, EntryState.ENDING)
            await self._end(key)
        return answer

    async def _end(self, key: str) -> bool:
        """Remove what there is under a key that is ENDING; what fails is tried again by the house-keeping."""
        try:
            async with asyncio.timeout(self.terms.removal_s):
                await self._deployer.remove(key)
        except (DeployError, TimeoutError) as exc:
            _log.warning("removal_failed", key=key, reason=type(exc).__name__)
            return False
        self._book.record_state(key, EntryState.ENDED)
        return True

    # The house-keeping.

    async def keep_house(self) -> None:
        """Remove what has expired, again and again, until cancelled."""
        while True:
            await asyncio.sleep(self.terms.house_keeping_s)
            await self.sweep()

    async def sweep(self) -> int:
        """Remove what has expired or is still to be removed, and return how much of it is gone."""
        patience_s = self.terms.expires_s + 2 * self.terms.timeout_s
        ended = 0
        for key in self._book.lapsed(patience_s):
            lock = self._lock(key)
            if lock.locked() or key in self._moving.values():
                continue
            async with lock:
                if key not in self._book.lapsed(patience_s):
                    continue  # it moved on while another one was removed
                self._book.record_state(key, EntryState.ENDING)
                ended += await self._end(key)
        self._book.maintain()
        return ended

    @asynccontextmanager
    async def _held(self, key: str) -> AsyncIterator[None]:
        """Let no other call change what there is under a key; one that would wait gives its place back."""
        lock = self._lock(key)
        if lock.locked():
            raise PostponedError("another call is at work on it", retry_after_s=self.terms.postponed_s)
        async with lock:
            yield

    def _lock(self, key: str) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())

    # Answers.

    async def _keep(self, evidence: bytes) -> bytes:
        """Keep what was verified, and return its digest; zero where nothing is kept."""
        if not evidence or self._evidence is None:
            return bytes(32)
        return bytes.fromhex(await asyncio.to_thread(self._evidence.put, evidence))

    def encode_failure(self, failure: Failure) -> bytes:
        """Encode an error answer of the router in this job's own form."""
        return failure_answer(failure.status, failure.message, self.operator)


def add_deploy(router: Router, deploys: DeployJob | None, *, retries: Layer | None = None) -> None:
    """Register the `deploy` job.

    Args:
        router: where to.
        deploys: answers; None where the operator does not offer it, and then every call is rejected.
        retries: the layer that repeats what failed by the node's fault; three attempts if None.
    """
    if deploys is None:

        @router.job(DEPLOY_INDEX, name="deploy", on_error=_encode_refusal)
        async def not_offered(call: JobCall) -> RawResult:
            raise InputsInvalidError(f"job {call.job_index} (deploy): this operator offers no deployments")

        return
    layers = [deploys.answering, retries or retry(), time_limit(deploys.terms.timeout_s)]

    @router.job(DEPLOY_INDEX, name="deploy", layers=layers, on_error=deploys.encode_failure)
    async def deploy(call: JobCall) -> RawResult:
        return await deploys.answer(call)


def _encode_refusal(failure: Failure) -> bytes:
    return failure_answer(failure.status, failure.message)


def _unknown(call_id: int) -> InputsInvalidError:
    return InputsInvalidError(
        f"callId: this operator has answered no preparation of this caller with call id {call_id}; name the "
        "call that prepared, and the operator that answered it"
    )


def _names(call: JobCall) -> dict[str, int]:
    return {"service_id": call.key.service_id, "call_id": call.key.call_id}
