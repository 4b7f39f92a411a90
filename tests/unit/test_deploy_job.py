"""The deploy job: two phases and a removal, by whom, how often, until when; and every way to fail."""

import asyncio
import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import structlog
from calls import make_call

from blueprint.errors import (
    AttestorUnavailableError,
    InputsUndecodableError,
    PolicyViolationError,
    PostponedError,
)
from blueprint.extract.abi import abi_type
from blueprint.extract.annotations import bind_type
from blueprint.job import Handler
from blueprint.layers import retry
from blueprint.router import Router
from blueprint.tee.sealing import SecretVariable, seal
from blueprint.types import Address, JobCall
from jobs import build_router
from jobs.deploy.codec import (
    NOBODY,
    ChainSealingKey,
    ChainSize,
    Commitment,
    DeployRequest,
    DeployResult,
    DeployStatus,
    Preparation,
    Removal,
    decode_request,
    decode_result,
    encode_request,
)
from jobs.deploy.errors import (
    ApplicationFailedError,
    DeployError,
    NoCapacityError,
    NotReadyError,
    OrderRefusedError,
)
from jobs.deploy.handler import DeployJob, DeployTerms, add_deploy
from jobs.deploy.order import Deployed, Order
from jobs.deploy.order_book import OrderBook
from jobs.deploy.shelf import ComposeShelf
from jobs.deploy.testing import FakeDeployer
from sandbox.testing import FakeExecutor

SOLIDITY = Path(__file__).resolve().parents[2] / "contracts/src/libraries/DeployJob.sol"
OPERATOR = Address(b"\x0b" * 20)
OTHER = Address(b"\x0c" * 20)
STRANGER = Address(b"\x99" * 20)
COMPOSE = 'services:\n  web:\n    image: busybox\n    environment: ["TOKEN=${TOKEN}"]\n'
PREPARATION = Preparation(name="my-app", compose=COMPOSE, names=("TOKEN",))


class Crash(BaseException):
    """Ends everything at once, as kill -9 does."""


class TroublesomeError(DeployError):
    """A failure of the place that passes."""

    retryable = True


@dataclass
class Troubles:
    """Lets steps of the fake fail, as often as errors are listed."""

    errors: dict[str, list[BaseException]] = field(default_factory=dict)

    def __call__(self, step: str, key: str) -> None:
        if waiting := self.errors.get(step):
            raise waiting.pop(0)


class Allowance:
    """A policy of at most so many applications of one caller, and no name of evil."""

    most = 3

    def admit(self, order: Order, *, caller: Address, deployments: int) -> None:
        if deployments >= self.most:
            raise OrderRefusedError(f"policy: at most {self.most} applications a caller")
        if "evil" in order.name:
            raise OrderRefusedError("policy: no evil", advice="be good")


async def no_sleep(_: float) -> None:
    """Do not wait."""


class World:
    """One operator's job over the fake, with a clock of its own; restarted at will."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = time.time()
        self.troubles = Troubles()
        self.kept: list[bytes] = []
        self.book = OrderBook(folder / "book.db", clock=lambda: self.now)
        self.start()

    def start(self, operator: Address = OPERATOR, **terms: float) -> None:
        """Start the job over what is on the disk."""
        self.deployer = FakeDeployer(self.folder / "fake.json", reach=self.troubles)
        self.job = DeployJob(
            self.deployer,
            self.book,
            admission=Allowance(),
            operator=operator,
            evidence=self,
            find_compose=ComposeShelf(self.folder / "shelf").find,
            terms=DeployTerms(**terms),  # type: ignore[arg-type]  # numbers all
            clock=lambda: self.now,
        )
        router = Router()
        add_deploy(router, self.job, retries=retry(sleep=no_sleep))
        self.handler: Handler = router.bind({})

    def put(self, data: bytes) -> str:
        self.kept.append(data)
        return hashlib.sha256(data).hexdigest()

    async def ask(self, call: JobCall) -> DeployResult:
        """Let the node's handler answer."""
        return decode_result(await self.handler(call))

    async def prepare(self, call_id: int = 1, preparation: Preparation = PREPARATION) -> DeployResult:
        """Prepare, as call ``call_id``."""
        return await self.ask(made(preparation, call_id=call_id))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world, quiet."""
    world = World(tmp_path)
    with structlog.testing.capture_logs():
        yield world
    world.book.close()


def made(
    body: Preparation | Commitment | Removal,
    *,
    call_id: int,
    operator: Address = NOBODY,
    caller: Address | None = None,
) -> JobCall:
    """Return a call of the deploy job."""
    call = make_call(1, encode_request(DeployRequest(body=body, operator=operator)), call_id=call_id)
    return call if caller is None else replace(call, caller=caller)


def commitment(prepared: DeployResult, value: str = "secret", call_id: int = 1) -> Commitment:
    """Return a commit of what was prepared by a call."""
    sealed = seal([SecretVariable("TOKEN", value)], prepared.sealing_key.key)
    return Commitment(call_id=call_id, compose_hash=prepared.compose_hash, sealed_variables=sealed)


def commit(body: Commitment, *, call_id: int = 2, caller: Address | None = None) -> JobCall:
    """Return the call of a commit."""
    return made(body, call_id=call_id, operator=OPERATOR, caller=caller)


def solidity_type(name: str) -> str:
    """Return the ABI type of a struct in ``DeployJob.sol``."""
    body = re.search(rf"struct {name} {{(.*?)}}", SOLIDITY.read_text(), re.DOTALL)
    assert body is not None
    types = []
    for line in body[1].split(";")[:-1]:
        found = re.fullmatch(r"\s*(\w+)((?:\[\])?) \w+", line)
        assert found is not None
        base, suffix = found.groups()
        types.append((solidity_type(base) if base[0].isupper() else base) + suffix)
    return f"({','.join(types)})"


# The codec.


@pytest.mark.parametrize(
    ("struct", "name"),
    [
        (Preparation, "Preparation"),
        (Commitment, "Commitment"),
        (Removal, "Removal"),
        (DeployResult, "Result"),
        (ChainSealingKey, "SealingKey"),
        (ChainSize, "Size"),
    ],
)
def test_deploy_structs_are_those_of_the_solidity_library(struct: type, name: str) -> None:
    """Types, order and names agree with the library that owns them."""
    shape = bind_type(struct, name).shape
    body = re.search(rf"struct {name} {{(.*?)}}", SOLIDITY.read_text(), re.DOTALL)
    assert body is not None
    assert abi_type(shape) == solidity_type(name)
    assert [child.name.replace("_", "") for child in shape.children] == [
        member.lower() for member in re.findall(r" (\w+);", body[1])
    ]


def test_deploy_statuses_and_actions_are_those_of_the_solidity_library() -> None:
    """Each number of the library has its name in Python, and none is missing."""
    constants = dict(re.findall(r"uint8 internal constant (\w+) = (\d+);", SOLIDITY.read_text()))
    words = {name: int(value) for name, value in constants.items() if name != "INDEX"}
    actions = {name: words.pop(name) for name in ("PREPARE", "COMMIT", "REMOVE")}
    assert words == {status.name: status.value for status in DeployStatus}
    assert actions == {"PREPARE": 1, "COMMIT": 2, "REMOVE": 3}


@pytest.mark.parametrize(
    "inputs", [b"", b"\0", bytes(32), b"\xff" * 64, (2).to_bytes(32, "big"), (32).to_bytes(32, "big")]
)
def test_deploy_inputs_of_no_known_version_say_what_is_expected(inputs: bytes) -> None:
    """Junk is refused with the form that is understood."""
    with pytest.raises(InputsUndecodableError, match="deploy request of version 1"):
        decode_request(inputs)


async def test_an_unknown_action_is_rejected_by_name(world: World) -> None:
    """The answer lists the actions."""
    inputs = bytearray(encode_request(DeployRequest(body=Removal(call_id=1))))
    inputs[95] = 9
    result = await world.ask(make_call(1, bytes(inputs)))
    assert (result.status, result.operator) == (20, OPERATOR)
    assert "expected one of 1 (prepare), 2 (commit), 3 (remove); received 9" in result.error_message


# Not offered.


async def test_without_a_deployer_the_job_is_rejected_not_ignored() -> None:
    """An operator who offers no deployments says so to every call."""
    handler = build_router(FakeExecutor()).bind({})
    result = decode_result(await handler(made(PREPARATION, call_id=1)))
    assert result.status == 20
    assert "this operator offers no deployments" in result.error_message


# The two phases.


async def test_prepare_answers_what_a_caller_seals_to(world: World) -> None:
    """App id, key, the KMS's signature, compose hash, expiry and operator come in one answer."""
    result = await world.prepare()
    app_id = bytes(result.app_id)
    assert (result.status, result.action, result.operator) == (0, 1, OPERATOR)
    assert result.sealing_key.key == world.deployer.kms.env_public_key(app_id)
    assert result.sealing_key.signature == world.deployer.kms.sign_public_key(app_id)
    assert any(result.compose_hash)
    assert result.expires_at == int(world.now + 3600)
    assert world.deployer.running == {}


async def test_commit_deploys_with_the_sealed_variables(world: World) -> None:
    """The ciphertext reaches the guest, and the answer names instance, endpoint and attestation."""
    prepared = await world.prepare()
    result = await world.ask(commit(commitment(prepared)))
    assert (result.status, result.action, result.operator) == (0, 2, OPERATOR)
    assert (result.app_id, result.compose_hash) == (prepared.app_id, prepared.compose_hash)
    assert any(result.instance_id)
    assert any(result.attestation_digest)
    assert result.endpoint.startswith("https://")
    assert list(world.deployer.running.values()) == [["TOKEN"]]
    (evidence,) = world.kept
    assert result.evidence_digest == hashlib.sha256(evidence).digest()


async def test_no_ciphertext_and_no_secret_is_logged(tmp_path: Path) -> None:
    """Log lines hold names and digests; the value is nowhere on the operator's disk."""
    world = World(tmp_path)
    with structlog.testing.capture_logs() as lines:
        prepared = await world.prepare()
        body = commitment(prepared, value="planted-secret")
        await world.ask(commit(body))
    world.book.close()
    text = repr(lines)
    assert "planted-secret" not in text
    assert body.sealed_variables.hex() not in text
    assert repr(body.sealed_variables) not in text
    assert repr(body.sealed_variables) not in repr(body)
    assert not [path for path in tmp_path.iterdir() if b"planted-secret" in path.read_bytes()]  # noqa: ASYNC240 - small files


async def test_a_call_that_runs_again_has_the_same_answer(world: World) -> None:
    """After a restart neither phase does anything twice."""
    first = await world.handler(made(PREPARATION, call_id=1))
    call = commit(commitment(decode_result(first)))
    done = await world.handler(call)
    world.start()
    assert await world.handler(made(PREPARATION, call_id=1)) == first
    assert await world.handler(call) == done
    assert world.deployer.steps == []


async def test_another_call_under_the_same_id_is_another_order(world: World) -> None:
    """After a reorganisation a call id may be somebody else's, who must not get that answer."""
    first = await world.prepare()
    theirs = await world.ask(made(PREPARATION, call_id=1, caller=STRANGER))
    other = await world.prepare(preparation=replace(PREPARATION, name="my-other-app"))
    assert len({first.app_id, theirs.app_id, other.app_id}) == 3


async def test_a_strangers_commit_is_refused(world: World) -> None:
    """Who has not prepared cannot commit, with any ciphertext, and does not disturb who has."""
    prepared = await world.prepare()
    result = await world.ask(commit(commitment(prepared), caller=STRANGER))
    assert result.status == 20
    assert "no preparation of this caller with call id 1" in result.error_message
    assert world.deployer.running == {}
    assert (await world.ask(commit(commitment(prepared), call_id=3))).status == 0


async def test_a_commit_for_another_compose_hash_is_refused(world: World) -> None:
    """What was sealed for one text never starts another."""
    prepared = await world.prepare()
    body = replace(commitment(prepared), compose_hash=b"\7" * 32)
    result = await world.ask(commit(body))
    assert result.status == 20
    assert f"call 1 prepared {prepared.compose_hash.hex()}, received {'07' * 32}" in result.error_message
    assert world.deployer.running == {}


async def test_a_commit_after_the_expiry_is_told_to_prepare_again(world: World) -> None:
    """Status 12, not a rejection: the request was right, but late."""
    prepared = await world.prepare()
    world.now += 3600
    result = await world.ask(commit(commitment(prepared)))
    assert (result.status, "prepare again" in result.error_message) == (12, True)
    assert world.deployer.running == {}


async def test_an_abandoned_preparation_is_removed(world: World) -> None:
    """The house-keeping lets the place forget it, and the caller has room for another."""
    await world.prepare()
    assert await world.job.sweep() == 0
    world.now += 3600
    assert await world.job.sweep() == 1
    assert world.deployer.known == set()
    assert await world.job.sweep() == 0


async def test_what_is_deployed_does_not_expire(world: World) -> None:
    """A commit in time ends the waiting."""
    await world.ask(commit(commitment(await world.prepare())))
    world.now += 1e6
    assert await world.job.sweep() == 0
    assert len(world.deployer.running) == 1


async def test_a_second_commit_with_other_content_is_refused(world: World) -> None:
    """A preparation is committed once; what runs keeps its variables."""
    prepared = await world.prepare()
    await world.ask(commit(commitment(prepared)))
    result = await world.ask(commit(commitment(prepared, value="other"), call_id=3))
    assert result.status == 20
    assert "committed already, otherwise than so" in result.error_message
    assert [step for step, _ in world.deployer.steps].count("commit") == 1


async def test_the_same_commit_under_another_id_has_the_same_outcome(world: World) -> None:
    """A reorganisation may move a commit to another id: its caller still learns where it runs."""
    prepared = await world.prepare()
    body = commitment(prepared)
    first = await world.ask(commit(body, call_id=2))
    assert await world.ask(commit(body, call_id=5)) == first
    assert len(world.deployer.running) == 1


@pytest.mark.parametrize("step", ["prepare", "prepared"])
async def test_a_crash_in_a_preparation_leaves_one(world: World, step: str) -> None:
    """The call runs again and is answered; at most one identity is kept."""
    world.troubles.errors[step] = [Crash()]
    with pytest.raises(Crash):
        await world.handler(made(PREPARATION, call_id=1))
    world.start()
    assert (await world.prepare()).status == 0
    assert len(world.deployer.known) == 1


@pytest.mark.parametrize("step", ["commit", "committed"])
async def test_a_crash_in_a_commit_deploys_once(world: World, step: str) -> None:
    """The call runs again, after the expiry too, for it came in time."""
    prepared = await world.prepare()
    call = commit(commitment(prepared))
    world.troubles.errors[step] = [Crash()]
    with pytest.raises(Crash):
        await world.handler(call)
    world.now += 4000
    world.start()
    assert (await world.ask(call)).status == 0
    assert len(world.deployer.running) == 1


async def test_a_commit_that_never_comes_back_is_removed_in_the_end(world: World) -> None:
    """A commit that a reorganisation took away for ever leaves nothing that runs."""
    call = commit(commitment(await world.prepare()))
    world.troubles.errors["committed"] = [Crash()]
    with pytest.raises(Crash):
        await world.handler(call)
    world.start()
    assert await world.job.sweep() == 0
    world.now += 3600 + 2 * 1800
    assert await world.job.sweep() == 1
    assert world.deployer.running == {}
    assert (await world.ask(call)).status == 12


# Who may, how much.


async def test_the_policy_of_the_operator_is_told(world: World) -> None:
    """A refused name is a rejection with the policy's words, and nothing is prepared."""
    result = await world.prepare(preparation=replace(PREPARATION, name="evil-app"))
    assert (result.status, result.error_message) == (20, "policy: no evil; be good")
    assert world.deployer.steps == []


async def test_applications_of_a_caller_are_counted_until_they_end(world: World) -> None:
    """Preparations count as deployments do; removal and expiry give room again."""
    results = [await world.prepare(call_id) for call_id in range(4)]
    assert [result.status for result in results] == [0, 0, 0, 20]
    assert (await world.ask(made(PREPARATION, call_id=5, caller=STRANGER))).status == 0
    assert (await world.ask(made(Removal(call_id=0), call_id=6, operator=OPERATOR))).status == 0
    assert (await world.prepare(7)).status == 0
    world.now += 3600
    assert (await world.prepare(8)).status == 0


async def test_an_application_is_removed_by_its_caller_only(world: World) -> None:
    """The stranger is refused; the caller may say it twice."""
    await world.ask(commit(commitment(await world.prepare())))
    stranger = made(Removal(call_id=1), call_id=3, operator=OPERATOR, caller=STRANGER)
    assert (await world.ask(stranger)).status == 20
    assert len(world.deployer.running) == 1
    for call_id in (4, 5):
        result = await world.ask(made(Removal(call_id=1), call_id=call_id, operator=OPERATOR))
        assert (result.status, result.action) == (0, 3)
    assert world.deployer.known == set()


async def test_a_removed_preparation_cannot_be_committed(world: World) -> None:
    """The caller's own removal is final."""
    prepared = await world.prepare()
    await world.ask(made(Removal(call_id=1), call_id=2, operator=OPERATOR))
    assert (await world.ask(commit(commitment(prepared), call_id=3))).status == 12


# Several operators.


async def test_a_call_for_another_operator_is_left_to_that_one(world: World) -> None:
    """An answer from here would complete the call; only when nobody answers it is rejected."""
    prepared = await world.prepare()
    call = made(commitment(prepared), call_id=2, operator=OTHER)
    with pytest.raises(PostponedError) as postponed:
        await world.handler(call)
    assert postponed.value.retry_after_s == pytest.approx(2400)
    world.start()  # the wait is not begun anew
    world.now += 2400
    result = await world.ask(call)
    assert result.status == 20
    assert f"this one is 0x{OPERATOR.hex()}" in result.error_message


@pytest.mark.parametrize("body", [Removal(call_id=1), Commitment(call_id=1, compose_hash=bytes(32))])
async def test_a_commit_and_a_removal_name_their_operator(world: World, body: Commitment | Removal) -> None:
    """With several operators, a call for anybody would be answered by whoever knows nothing of it first."""
    result = await world.ask(made(body, call_id=2))
    assert result.status == 20
    assert "name the operator" in result.error_message


async def test_a_preparation_may_choose_its_operator(world: World) -> None:
    """The one that is named answers at once."""
    assert (await world.ask(made(PREPARATION, call_id=1, operator=OPERATOR))).status == 0


# Failures.


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OrderRefusedError("because"), 20),
        (NoCapacityError("because"), 13),
        (ApplicationFailedError("because"), 1),
        (NotReadyError("because"), 3),
        (PolicyViolationError("because"), 14),
    ],
)
async def test_each_failure_of_a_commit_has_its_status_and_leaves_nothing(
    world: World, error: Exception, status: int
) -> None:
    """The caller reads why; what ran is removed; said again, the call has the same answer."""
    call = commit(commitment(await world.prepare()))
    world.troubles.errors["committed"] = [error]
    result = await world.ask(call)
    assert (result.status, result.error_message) == (status, "because")
    assert world.deployer.known == set()
    world.start()
    assert await world.ask(call) == result
    assert world.deployer.steps == []


@pytest.mark.parametrize(("error", "status"), [(NoCapacityError("full"), 13), (OrderRefusedError("bad"), 20)])
async def test_a_failed_preparation_takes_no_room(world: World, error: Exception, status: int) -> None:
    """It is answered with its status, and does not count."""
    world.troubles.errors["prepared"] = [error]
    assert (await world.prepare()).status == status
    assert world.deployer.known == set()
    assert [(await world.prepare(call_id)).status for call_id in range(2, 6)] == [0, 0, 0, 20]


@pytest.mark.parametrize("error", [TroublesomeError("once"), AttestorUnavailableError("once")])
async def test_a_failure_that_passes_is_tried_again(world: World, error: Exception) -> None:
    """One retryable failure costs time, not the answer; nothing is deployed twice."""
    prepared = await world.prepare()
    world.troubles.errors["committed"] = [error]
    assert (await world.ask(commit(commitment(prepared)))).status == 0
    assert len(world.deployer.running) == 1


async def test_a_failure_of_the_place_is_not_told_on_chain(world: World) -> None:
    """After three attempts the answer is 21; the operator's own words stay in the log."""
    prepared = await world.prepare()
    world.troubles.errors["commit"] = [TroublesomeError("GET /cvms/operators-own-name failed")] * 3
    with structlog.testing.capture_logs() as lines:
        result = await world.ask(commit(commitment(prepared)))
    assert result.status == 21
    assert "operators-own-name" not in result.error_message
    (line,) = [line for line in lines if line["event"] == "deployment_failed"]
    assert line["incident"] in result.error_message
    assert world.deployer.known == set()


async def test_an_unexpected_error_is_answered_and_leaves_nothing(world: World) -> None:
    """Not even a bug of the deployer leaves a call without an answer, or a machine without an owner."""
    prepared = await world.prepare()
    world.troubles.errors["committed"] = [RuntimeError("a bug")]
    result = await world.ask(commit(commitment(prepared)))
    assert result.status == 21
    assert "a bug" not in result.error_message
    assert world.deployer.known == set()


async def test_a_removal_that_fails_is_made_up_for(world: World) -> None:
    """The failed commit is answered all the same, and the house-keeping removes what is left."""
    prepared = await world.prepare()
    world.troubles.errors = {"committed": [NotReadyError("late")], "remove": [TroublesomeError("not now")]}
    assert (await world.ask(commit(commitment(prepared)))).status == 3
    assert len(world.deployer.running) == 1
    assert await world.job.sweep() == 1
    assert world.deployer.running == {}


async def test_more_calls_than_places_are_postponed(world: World) -> None:
    """They go back to the journal; so does a call for what another call is at work on."""
    world.start(max_at_once=0)
    with pytest.raises(PostponedError):
        await world.prepare()


async def test_a_commit_that_another_call_is_at_work_on_gives_its_place_back(world: World) -> None:
    """Repetitions of one commit, and its removal, wait in the journal, not in the places of others."""
    prepared = await world.prepare()
    body = commitment(prepared)
    started, gate = asyncio.Event(), asyncio.Event()

    class Slow(FakeDeployer):
        async def commit(self, key: str, sealed: bytes) -> Deployed:
            started.set()
            await gate.wait()
            return await super().commit(key, sealed)

    world.job._deployer = Slow(world.folder / "fake.json")
    first = asyncio.create_task(world.ask(commit(body)))
    await started.wait()
    for call in (commit(body, call_id=3), made(Removal(call_id=1), call_id=4, operator=OPERATOR)):
        with pytest.raises(PostponedError):
            await world.handler(call)
    world.now += 1e6
    assert await world.job.sweep() == 0
    gate.set()
    assert (await first).status == 0
    assert await world.ask(commit(body, call_id=3)) == await first


# Bounds.

REFUSALS: list[tuple[Preparation, str]] = [
    (replace(PREPARATION, name="abcd"), "name: expected 5 to 54"),
    (replace(PREPARATION, name="a" * 55), "name: expected 5 to 54"),
    (replace(PREPARATION, name="my--app"), "single hyphens"),
    (replace(PREPARATION, name="1-app"), "name: "),
    (replace(PREPARATION, name="my-app-"), "name: "),
    (replace(PREPARATION, name="my_app"), "name: "),
    (replace(PREPARATION, name="my-app\n"), "name: "),
    (replace(PREPARATION, compose=""), "neither was received"),
    (replace(PREPARATION, compose_digest=b"\1" * 32), "both was received"),
    (replace(PREPARATION, compose="", compose_digest=b"\1" * 32), "offers no compose text with SHA-256 0101"),
    (replace(PREPARATION, names=("1A",)), "names: '1A' does not match"),
    (replace(PREPARATION, names=("A", "B", "A")), "names: 'A' comes twice"),
    (replace(PREPARATION, names=("A" * 256,)), "names: 'AAAA"),
    (replace(PREPARATION, volumes=tuple(f"v{n}" for n in range(65))), "volumes: at most 64 are accepted"),
    (replace(PREPARATION, volumes=("../x",)), "volumes: '../x' does not match"),
    (replace(PREPARATION, size=ChainSize(instance_type="a b")), "size.instanceType: 'a b' is no name"),
    (replace(PREPARATION, compose="nothing here"), "it has no services; add one"),
]


@pytest.mark.parametrize(("preparation", "problem"), REFUSALS)
async def test_a_malformed_preparation_is_rejected(
    world: World, preparation: Preparation, problem: str
) -> None:
    """The answer names the member and what is expected; nothing is kept."""
    result = await world.prepare(preparation=preparation)
    assert (result.status, result.operator) == (20, OPERATOR)
    assert problem in result.error_message
    assert world.deployer.known == set()


@pytest.mark.parametrize("size", [0, 1, 60])
async def test_a_missing_ciphertext_is_refused_before_anything_runs(world: World, size: int) -> None:
    """Variables that were named must be sent; the preparation waits for a better commit."""
    prepared = await world.prepare()
    body = replace(commitment(prepared), sealed_variables=bytes(size))
    assert (await world.ask(commit(body))).status == 20
    assert (await world.ask(commit(commitment(prepared), call_id=3))).status == 0


async def test_a_ciphertext_for_no_variables_is_refused(world: World) -> None:
    """Where none was named, the guest would drop them silently; without them it works."""
    prepared = await world.prepare(preparation=replace(PREPARATION, names=()))
    result = await world.ask(commit(commitment(prepared)))
    assert (result.status, "names no variables" in result.error_message) == (20, True)
    body = replace(commitment(prepared), sealed_variables=b"")
    assert (await world.ask(commit(body, call_id=3))).status == 0


async def test_inputs_beyond_the_cap_are_answered(world: World) -> None:
    """A ciphertext that is too long for the chain is rejected in this job's own form."""
    prepared = await world.prepare()
    body = replace(commitment(prepared), sealed_variables=bytes(97 * 1024))
    result = await world.ask(commit(body))
    assert (result.status, "at most 98304 are accepted" in result.error_message) == (20, True)


async def test_a_compose_text_may_be_named_by_its_digest(world: World) -> None:
    """The operator's folder is read when the call comes; the result is that of the text itself."""
    (world.folder / "shelf").mkdir()
    digest = hashlib.sha256(COMPOSE.encode()).digest()
    by_digest = replace(PREPARATION, compose="", compose_digest=digest)
    assert (await world.prepare(preparation=by_digest)).status == 20
    (world.folder / "shelf" / "any name.yml").write_text(COMPOSE)
    named = await world.prepare(2, by_digest)
    assert (named.status, named.compose_hash) == (0, (await world.prepare(3)).compose_hash)


def test_a_shelf_offers_nothing_that_it_should_not(tmp_path: Path) -> None:
    """Files of other kinds, in folders below, or too large are not offered; others do not matter."""
    secret = b"not for others"
    (tmp_path / "secret.txt").write_bytes(secret)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.yml").write_bytes(secret)
    (tmp_path / "folder.yml").mkdir()
    (tmp_path / "gone.yml").symlink_to(tmp_path / "nowhere")
    large = b"x" * (200 * 1024 + 1)
    (tmp_path / "large.yml").write_bytes(large)
    (tmp_path / "latin.yml").write_bytes(b"\xff")
    shelf = ComposeShelf(tmp_path)
    found = [shelf.find(hashlib.sha256(content).digest()) for content in (secret, large, b"\xff")]
    assert found == [None, None, None]
    assert ComposeShelf(tmp_path / "none").find(bytes(32)) is None


async def test_the_size_reaches_the_deployer(world: World, tmp_path: Path) -> None:
    """Zero is the operator's choice."""
    orders: list[Order] = []

    class Watching(FakeDeployer):
        async def prepare(self, order: Order):  # type: ignore[no-untyped-def]
            orders.append(order)
            return await super().prepare(order)

    world.job._deployer = Watching(tmp_path / "watching.json")
    size = ChainSize(instance_type="tdx.small", vcpu=2, disk_gb=40)
    await world.prepare(preparation=replace(PREPARATION, size=size, volumes=("data",), public_logs=True))
    (order,) = orders
    placement = order.placement
    assert (placement.instance_type, placement.vcpu, placement.memory_mb, placement.disk_gb) == (
        "tdx.small", 2, None, 40,
    )  # fmt: skip
    assert (order.volumes, order.public_logs, order.public_sysinfo) == (("data",), True, False)
    assert len(order.machine_name) <= 63
    assert order.machine_name.startswith("my-app-")
