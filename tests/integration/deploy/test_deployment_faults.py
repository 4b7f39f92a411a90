"""Each fault of the cloud and each bad input through the whole service: an error that says what to do."""

from pathlib import Path

import pytest

from blueprint.tee.sealing import SealingError, SecretVariable
from blueprint.testing.cloud import FakeCloud, FakeContainer, Fault
from blueprint.testing.cloud.checks import VERSIONS
from jobs.deploy.backends.backend import Placement
from jobs.deploy.cloud import errors
from jobs.deploy.cloud.retry import RetryPolicy
from jobs.deploy.errors import ApplicationFailedError, DeployError, NotReadyError
from jobs.deploy.record import Stage
from jobs.deploy.wanted import DeploymentConflictError, Sealed
from tests.support.cloud_service import GREETING, SECRET, service_at, wanted

FAULTS: list[tuple[Fault, type[DeployError]]] = [
    (Fault(status=401), errors.UnauthorizedError),
    (Fault(status=403), errors.ForbiddenError),
    (Fault(status=409, code="ERR-03-007"), errors.AppConflictError),
    (Fault(status=409), errors.BusyError),
    (Fault(status=422), errors.InvalidRequestError),
    (Fault(status=429, retry_after="3600"), errors.RateLimitedError),
    (Fault(status=465), errors.HashUnregisteredError),
    (Fault(status=500), errors.CloudServerError),
    (Fault(status=409, code="ERR-02-005"), errors.NoRoomError),
    (Fault(status=403, code="ERR-04-002"), errors.QuotaError),
    (Fault(body=b"<html>"), errors.CloudProtocolError),
    (Fault(body=b'{"new": "shape"}'), errors.CloudProtocolError),
    (Fault(is_cut=True), errors.CloudInterruptedError),
]


@pytest.mark.parametrize(("fault", "kind"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_commit_that_fails_is_told_and_made_up_for(
    cloud: FakeCloud, tmp_path: Path, fault: Fault, kind: type[DeployError]
) -> None:
    """The error has advice and no secret; once the fault has passed, the same command makes one machine."""
    cloud.fail("POST", "/cvms", fault, times=RetryPolicy().attempts)
    async with service_at(cloud, tmp_path) as service:
        with pytest.raises(kind) as caught:
            await service.up(wanted(), GREETING)
        assert caught.value.advice
        assert SECRET not in repr(caught.value)
        known = service.records.get("web-app")
        assert known is not None
        assert known.stage is Stage.PREPARED
        cloud.mend()
        assert (await service.up(wanted(), GREETING)).stage is Stage.VERIFIED
    assert [machine.number for machine in cloud.machines] == [1]
    assert cloud.requests.count("POST /cvms/provision") == 1


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        ("Up 9 minutes (unhealthy)", ApplicationFailedError, "service web is unhealthy"),
        ("Up 9 minutes (health: starting)", NotReadyError, r"after 0\.3 s; last seen: web starting"),
    ],
    ids=["unhealthy", "for ever starting"],
)
async def test_an_application_that_is_never_healthy_fails(
    tmp_path: Path, status: str, kind: type[DeployError], said: str
) -> None:
    """That the machine runs is not enough; the wait ends, and the record says how far it came."""
    async with (
        FakeCloud(container=lambda service: FakeContainer(service, status=status)) as cloud,
        service_at(cloud, tmp_path, timeout_s=0.3) as service,
    ):
        with pytest.raises(kind, match=said):
            await service.up(wanted(), GREETING)
        record = service.records.get("web-app")
        assert record is not None
        assert (record.stage, record.attestation) == (Stage.COMMITTED, "")


async def test_a_container_that_ends_at_its_start_fails(tmp_path: Path) -> None:
    """Exit code 0 is no success of a service that is to go on; the same container that may end is one."""

    def ended(service: str) -> FakeContainer:
        return FakeContainer(service, state="exited", status="Exited (0) Less than a second ago")

    async with FakeCloud(container=ended) as cloud, service_at(cloud, tmp_path) as service:
        with pytest.raises(ApplicationFailedError, match="service web ended with exit code 0"):
            await service.up(wanted(), GREETING)


async def test_a_boot_that_fails_is_told_with_its_reason(cloud: FakeCloud, tmp_path: Path) -> None:
    """The guest's own words come with what to do; what was sealed for somebody else does not boot."""
    async with service_at(cloud, tmp_path) as service:
        with pytest.raises(ApplicationFailedError, match="does not boot: sealed variables.* mend that"):
            await service.up(wanted(), Sealed(ciphertext=b"\x09" * 100, names=("GREETING",)))


@pytest.mark.parametrize(
    "variable",
    [
        SecretVariable("GREETING", "x" * 129 * 1024),
        SecretVariable("G" * 256, "x"),
        SecretVariable("1GREETING", "x"),
        SecretVariable("GREETING", "nul\0"),
    ],
    ids=["129 KiB", "long key", "bad key", "NUL"],
)
async def test_a_variable_that_the_guest_refuses_is_never_sent(
    cloud: FakeCloud, tmp_path: Path, variable: SecretVariable
) -> None:
    """It would fail the boot; here nothing has been asked of the cloud yet."""
    async with service_at(cloud, tmp_path) as service:
        with pytest.raises(SealingError):
            await service.up(wanted(), [variable])
    assert not cloud.requests


def _disk(disk_gb: int) -> Placement:
    return Placement(instance_type="tdx.small", disk_gb=disk_gb)


@pytest.mark.parametrize(
    ("placement", "kind", "said"),
    [
        (_disk(39), DeploymentConflictError, "has 40 GiB, and a disk cannot shrink to 39"),
        (Placement(instance_type="tdx.huge"), errors.UnknownChoiceError, "no instance type 'tdx.huge'"),
        (Placement(vcpu=99), errors.UnknownChoiceError, "nothing has 99 vCPU"),
        (Placement(node="2"), DeploymentConflictError, "is not given another: 2"),
    ],
    ids=["smaller disk", "type", "processors", "node"],
)
async def test_a_size_that_cannot_be_is_refused_before_anything_changes(
    cloud: FakeCloud, tmp_path: Path, placement: Placement, kind: type[DeployError], said: str
) -> None:
    """Text and variables, which are to change with it, are not sent either."""
    async with service_at(cloud, tmp_path) as service:
        first = await service.up(wanted(placement=_disk(40)), GREETING)
        before = [each for each in cloud.requests if not each.startswith("GET")]
        with pytest.raises(kind, match=said):
            await service.up(wanted("nginx:1.26", placement), [SecretVariable("GREETING", "another")])
        assert [each for each in cloud.requests if not each.startswith("GET")] == before
        assert service.records.get("web-app") == first


async def test_a_disk_that_the_place_chose_does_not_shrink_either(cloud: FakeCloud, tmp_path: Path) -> None:
    """What was never asked for is compared with what the machine has."""
    async with service_at(cloud, tmp_path) as service:
        await service.up(wanted(), GREETING)
        cloud.machines[0].prepared.size["disk_size"] = 60
        with pytest.raises(DeploymentConflictError, match="has 60 GiB"):
            await service.up(wanted(placement=_disk(50)), GREETING)
        record = await service.up(wanted(placement=_disk(70)), GREETING)
    assert (record.placement.disk_gb, cloud.machines[0].disk_gb) == (70, 70)


async def test_a_size_that_is_left_out_again_stays(cloud: FakeCloud, tmp_path: Path) -> None:
    """What is not said is not changed: nothing is sent, and the record keeps what was asked for."""
    async with service_at(cloud, tmp_path) as service:
        await service.up(wanted(placement=_disk(40)), GREETING)
        before = [each for each in cloud.requests if not each.startswith("GET")]
        record = await service.up(wanted(placement=Placement()), GREETING)
        assert [each for each in cloud.requests if not each.startswith("GET")] == before
        assert record.placement == _disk(40)
        assert (await service.up(wanted(placement=Placement(disk_gb=50)), GREETING)).placement == _disk(50)


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_version_of_the_api_is_understood(cloud: FakeCloud, tmp_path: Path, version: str) -> None:
    """The shapes that each of them answers with make the same deployment."""
    async with service_at(cloud, tmp_path, api_version=version) as service:
        record = await service.up(wanted(), GREETING)
        assert [machine.name for machine in await service.backend.machines.list()] == ["web-app"]
    assert record.stage is Stage.VERIFIED


async def test_a_version_that_the_cloud_does_not_know_is_an_error(cloud: FakeCloud, tmp_path: Path) -> None:
    """The client does not go on with shapes that nobody promised."""
    async with service_at(cloud, tmp_path, api_version="1999-01-01") as service:
        with pytest.raises(errors.InvalidRequestError, match="unknown API version '1999-01-01'"):
            await service.up(wanted(), GREETING)
