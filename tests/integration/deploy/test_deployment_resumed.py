"""Commands that are killed at any request, run again: nothing is created twice, nothing is left half done."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from typing_extensions import override

from blueprint.tee.sealing import SecretVariable, seal
from blueprint.testing.cloud import FakeCloud, Fault
from jobs.deploy.backends.backend import Placement
from jobs.deploy.errors import PreparationLostError
from jobs.deploy.record import Stage
from jobs.deploy.service import DockerDeploymentService, UnknownDeploymentError
from jobs.deploy.wanted import Sealed
from tests.support.cloud_service import GREETING, SECRET, service_at, wanted

LARGE = Placement(instance_type="tdx.large", disk_gb=40)


class Killed(BaseException):
    """Stands for the end of the process: nothing of the project catches it."""


class Deadly(httpx.AsyncBaseTransport):
    """The network of a process that is killed at its nth request: before it is sent, or once it is done."""

    def __init__(self, number: int, *, is_sent: bool) -> None:
        self._left = number
        self._is_sent = is_sent
        self._inner = httpx.AsyncHTTPTransport()

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._left -= 1
        if self._left == 0 and not self._is_sent:
            raise Killed
        answer = await self._inner.handle_async_request(request)
        if self._left == 0:
            await answer.aclose()
            raise Killed
        return answer

    @override
    async def aclose(self) -> None:
        await self._inner.aclose()


Step = Callable[[DockerDeploymentService], Awaitable[object]]


async def killed_at_each_request(folder: Path, before: Step, step: Step) -> AsyncIterator[FakeCloud]:
    """Yield a cloud for each moment at which `step` can be killed, after it was killed and begun again."""
    for is_sent in (False, True):
        for number in itertools.count(1):
            here = folder / f"{is_sent}-{number}"
            async with FakeCloud() as cloud:
                async with service_at(cloud, here) as service:
                    await before(service)
                async with service_at(cloud, here, transport=Deadly(number, is_sent=is_sent)) as service:
                    try:
                        await step(service)
                    except Killed:
                        pass
                    else:
                        assert number > 1, "it sends nothing"
                        break
                async with service_at(cloud, here) as service:
                    await step(service)
                yield cloud


async def nothing(_: DockerDeploymentService) -> None:
    """Begin with an empty cloud."""


async def create(service: DockerDeploymentService) -> None:
    """Deploy for the first time."""
    record = await service.up(wanted(), GREETING)
    assert record.stage is Stage.VERIFIED


async def change(service: DockerDeploymentService) -> None:
    """Change text, variable and size."""
    record = await service.up(wanted("nginx:1.26", LARGE), [SecretVariable("GREETING", "another")])
    assert record.stage is Stage.VERIFIED
    assert record.placement == LARGE


async def delete(service: DockerDeploymentService) -> None:
    """Remove it; whoever is killed after the last step finds it removed."""
    with suppress(UnknownDeploymentError):
        await service.delete("web-app")
    assert not service.records.all()


async def test_a_deployment_killed_at_any_request_is_made_once(tmp_path: Path) -> None:
    """Whatever was sent and whatever was heard of it, the same command again ends with one machine."""
    runs = 0
    async for cloud in killed_at_each_request(tmp_path, nothing, create):
        assert [machine.number for machine in cloud.machines] == [1]
        assert cloud.machines[0].guest is not None
        assert [found.value for found in cloud.machines[0].guest.variables] == [SECRET]
        runs += 1
    assert runs > 12, "fewer moments than a deployment has steps"


async def test_a_change_killed_at_any_request_is_made_whole(tmp_path: Path) -> None:
    """Text, variables and size are all as wanted in the end, on the machine that was there."""
    runs = 0
    async for cloud in killed_at_each_request(tmp_path, create, change):
        (machine,) = cloud.machines
        assert machine.number == 1
        assert machine.guest is not None
        assert machine.guest.compose_hash == wanted("nginx:1.26").workload.compose_hash
        assert [found.value for found in machine.guest.variables] == ["another"]
        assert (machine.prepared.size["instance_type"], machine.disk_gb) == ("tdx.large", 40)
        runs += 1
    assert runs > 12, "fewer moments than a change has steps"


async def test_a_removal_killed_at_any_request_is_finished(tmp_path: Path) -> None:
    """Neither the machine nor the record stays."""
    async for cloud in killed_at_each_request(tmp_path, create, delete):
        assert not cloud.machines


async def test_a_resize_that_failed_does_not_repeat_the_update(cloud: FakeCloud, tmp_path: Path) -> None:
    """What was carried out is recorded before the next step, so that only what is left is sent again."""
    async with service_at(cloud, tmp_path) as service:
        await create(service)
        cloud.fail("PATCH", "/cvms/{id}/resources", Fault(status=500))
        with pytest.raises(Exception, match="answered 500"):
            await change(service)
        before = len(cloud.requests)
        await change(service)
    sent = [each.rpartition("/")[2] for each in cloud.requests[before:] if not each.startswith("GET")]
    assert sent == ["resources"]


async def test_a_preparation_that_expired_is_made_anew(cloud: FakeCloud, tmp_path: Path) -> None:
    """The cloud forgets what is not committed in time: the same command goes on with a new identity."""
    async with service_at(cloud, tmp_path) as service:
        first = await service.prepare(wanted())
        cloud.forget_prepared()
        record = await service.up(wanted(), GREETING)
    assert record.stage is Stage.VERIFIED
    assert record.app_id != first.app_id
    assert len(cloud.machines) == 1


async def test_what_was_sealed_for_an_expired_preparation_is_refused(
    cloud: FakeCloud, tmp_path: Path
) -> None:
    """Another identity has another key: whoever sealed must seal again, and preparing again works."""
    async with service_at(cloud, tmp_path) as service:
        first = await service.prepare(wanted())
        sealed = Sealed(ciphertext=seal(GREETING, bytes.fromhex(first.public_key)), names=("GREETING",))
        cloud.forget_prepared()
        with pytest.raises(PreparationLostError, match="prepare it again"):
            await service.up(wanted(), sealed)
        assert not cloud.machines
        assert (await service.prepare(wanted())).app_id != first.app_id
