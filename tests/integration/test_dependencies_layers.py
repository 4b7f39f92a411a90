"""What is installed is kept, shared, found out when damaged, and gone where it was not finished."""

import asyncio
import itertools
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.backends.slot import SlotBackend
from sandbox.capacity import Capacity
from sandbox.egress.registry import RegistryKind
from sandbox.errors import RequestError, SystemFailureError
from sandbox.result import ExecutionStatus
from tests.support.installing import PAGE, WHEEL, a_wheel, installing, layers, python
from tests.support.registries import PackageSite
from tests.support.sandboxes import Leftovers, groups_of

pytestmark = [pytest.mark.root, pytest.mark.tree]

MIB = 1024 * 1024


async def test_failure_is_not_kept(tmp_path: Path) -> None:
    """What could not be installed is tried again by the next request, and works once the registry does."""
    async with PackageSite() as site, installing(tmp_path, site.registry(RegistryKind.PYPI)) as executor:
        assert (await python(executor)).status == ExecutionStatus.DEPENDENCY_ERROR
        a_wheel(site)
        assert (await python(executor)).stdout.data == b"1.0\n"


async def test_failure_is_shared_by_those_who_wait(tmp_path: Path) -> None:
    """Ten requests at once for what is not there ask the registry as often as one does."""
    async with PackageSite() as site, installing(tmp_path, site.registry(RegistryKind.PYPI)) as executor:
        await python(executor)
        assert site.counts[PAGE] == 1
        results = await asyncio.gather(*(python(executor) for _ in range(10)))
        assert {result.status for result in results} == {ExecutionStatus.DEPENDENCY_ERROR}
        assert site.counts[PAGE] == 2
        paid = [result.process_stats.user_time_s > 0 for result in results]
        assert sum(paid) == 1


async def test_same_set_is_installed_once_by_all_who_ask(tmp_path: Path) -> None:
    """Ten requests of two services that share a store, in any order of packages, fetch each archive once."""
    async with PackageSite() as site:
        a_wheel(site)
        a_wheel(site, "other")
        registry = site.registry(RegistryKind.PYPI)
        async with installing(tmp_path, registry) as first, installing(tmp_path, registry) as second:
            packages = [("hello", "==1.0"), ("other", "")]
            results = await asyncio.gather(
                *(
                    python(executor, *order)
                    for executor, order in itertools.product(
                        (first, second), itertools.permutations(packages)
                    )
                    for _ in range(3)
                )
            )
        assert {result.stdout.data for result in results} == {b"1.0\n"}
        assert site.counts[PAGE] == 1
    assert len(layers(tmp_path)) == 1


async def test_layer_in_use_outlives_an_eviction(tmp_path: Path) -> None:
    """A program that runs keeps its packages while others push its layer out of the store."""
    source = "import time, sys\nprint('up', flush=True)\ntime.sleep(2)\nimport hello\nprint(hello.VERSION)\n"
    async with PackageSite() as site:
        a_wheel(site)
        a_wheel(site, "other")
        async with installing(tmp_path, site.registry(RegistryKind.PYPI), cap_bytes=0) as executor:
            running = asyncio.create_task(python(executor, source=source))
            await asyncio.sleep(1)
            other = await python(executor, ("other", ""), source="import other\nprint(other.VERSION)\n")
            assert other.stdout.data == b"1.0\n", other.stderr.data
            assert len(layers(tmp_path)) == 2
            assert (await running).stdout.data == b"up\n1.0\n"
            assert (await python(executor)).stdout.data == b"1.0\n"


def spoil(folder: Path) -> None:
    """Change a file of the layer of ``hello``."""
    (module,) = folder.rglob("hello/__init__.py")
    module.chmod(0o644)
    module.write_text("VERSION = 'evil'\n")


async def test_corrupt_layer_is_rebuilt(tmp_path: Path) -> None:
    """A layer that was changed on disk is found out by the next service, and installed anew."""
    async with PackageSite() as site:
        a_wheel(site)
        registry = site.registry(RegistryKind.PYPI)
        async with installing(tmp_path, registry) as executor:
            await python(executor)
        spoil(tmp_path)
        async with installing(tmp_path, registry) as executor:
            assert (await python(executor)).stdout.data == b"1.0\n"
        assert site.counts[PAGE] == 2


def grow_old(folder: Path) -> None:
    """Let the only layer have been made in 1970."""
    (manifest,) = folder.glob("*/manifest.json")
    manifest.write_text(re.sub(r'"made_at_s": [0-9.]+', '"made_at_s": 1.0', manifest.read_text()))


async def test_installation_that_was_not_foreseen_is_reserved_for(tmp_path: Path) -> None:
    """A layer that went while its request waited is not made within what a run alone has reserved."""
    async with PackageSite() as site, installing(tmp_path, site.registry(RegistryKind.PYPI)) as executor:
        a_wheel(site)
        assert (await python(executor)).stdout.data == b"1.0\n"
        usual = executor.scheduler.capacity
        # Less than an installation takes.
        executor.scheduler.capacity = Capacity(memory_bytes=1024 * MIB, cpus=2.0)
        assert (await python(executor)).stdout.data == b"1.0\n"
        grow_old(tmp_path)
        with pytest.raises(RequestError, match="reserves"):
            await python(executor)
        executor.scheduler.capacity = usual
        assert (await python(executor)).stdout.data == b"1.0\n"
        assert executor.scheduler.load.reserved.memory_bytes == 0
        assert site.counts[PAGE] == 2


async def test_layer_is_read_only_inside(tmp_path: Path) -> None:
    """A program cannot change what it shares with others."""
    source = (
        "import hello, os\n"
        "for path in ('/deps/x', hello.__file__):\n"
        "    try:\n        open(path, 'w')\n"
        "    except OSError as error:\n        print(error.strerror)\n"
    )
    async with PackageSite() as site, installing(tmp_path, site.registry(RegistryKind.PYPI)) as executor:
        a_wheel(site)
        result = await python(executor, source=source)
    assert result.stdout.data == b"Read-only file system\n" * 2


async def test_layers_of_a_private_registry_are_not_shared_between_callers(tmp_path: Path) -> None:
    """Each caller of a private registry gets a layer of its own; one caller's is used again."""
    async with PackageSite() as site:
        a_wheel(site)
        registry = site.registry(RegistryKind.PYPI, is_private=True)
        async with installing(tmp_path, registry) as executor:
            for caller in ("first", "second", "first"):
                assert (await python(executor, caller=caller)).stdout.data == b"1.0\n"
        assert site.counts[PAGE] == 2
    assert len(layers(tmp_path)) == 2


def hang(site: PackageSite, path: str = WHEEL) -> asyncio.Event:
    """Let an archive never arrive; returns what tells that it was asked for."""
    asked = asyncio.Event()

    async def nothing() -> AsyncIterator[bytes]:
        asked.set()
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
        await site.is_closing.wait()

    site.special[path] = lambda _head: nothing()
    return asked


async def test_cancelled_installation_leaves_nothing(tmp_path: Path) -> None:
    """Who is cancelled while packages are installed leaves no sandbox and no build; another goes on."""
    async with PackageSite() as site:
        a_wheel(site)
        asked = hang(site)
        async with installing(tmp_path, site.registry(RegistryKind.PYPI)) as executor:
            first = asyncio.create_task(python(executor))
            async with asyncio.timeout(20):
                await asked.wait()
            second = asyncio.create_task(python(executor))
            await asyncio.sleep(0.2)
            site.special.clear()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert (await second).stdout.data == b"1.0\n"
    assert len(layers(tmp_path)) == 1


async def test_installations_leave_nothing_but_layers(tmp_path: Path) -> None:
    """After one that succeeds, one that fails and one that is cancelled, the machine is as it was before."""
    uids = range(700_000_000, 700_001_000)
    before = Leftovers.look(uids)
    async with PackageSite() as site:
        backend = SlotBackend(uid_base=uids.start, uid_count=len(uids))
        async with installing(tmp_path, site.registry(RegistryKind.PYPI), backend=backend) as executor:
            await python(executor, ("absent", ""))
            a_wheel(site)
            await python(executor)
            a_wheel(site, version="2.0")
            asked = hang(site, "/files/hello-2.0-py3-none-any.whl")
            cancelled = asyncio.create_task(python(executor, ("hello", "==2.0")))
            async with asyncio.timeout(20):
                await asked.wait()
            cancelled.cancel()
            await asyncio.wait([cancelled])
    assert Leftovers.look(uids) == before
    assert len(layers(tmp_path)) == 1


async def test_deadline_of_the_request_covers_the_installation(tmp_path: Path) -> None:
    """A request whose packages do not come in time is answered at its deadline."""
    async with PackageSite() as site:
        a_wheel(site)
        hang(site)
        async with installing(tmp_path, site.registry(RegistryKind.PYPI), deadline_s=1.5) as executor:
            results = await asyncio.gather(python(executor), python(executor))
    assert {result.status for result in results} == {ExecutionStatus.TIMEOUT}
    assert all("deadline" in result.error_message for result in results)
    assert layers(tmp_path) == []


async def test_service_that_is_killed_while_it_installs_holds_nobody_up(tmp_path: Path) -> None:
    """After kill -9 in the middle, nothing of the installation runs on, and the next service installs."""
    async with PackageSite() as site:
        a_wheel(site)
        asked = hang(site)
        service = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.installing_service", str(tmp_path), f"{site.url}/simple"),
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(60):
            await asked.wait()
        assert groups_of(service.pid)
        service.kill()
        await service.wait()
        site.special.clear()
        async with installing(tmp_path, site.registry(RegistryKind.PYPI)) as executor:
            assert (await python(executor)).stdout.data == b"1.0\n"
        async with asyncio.timeout(20):
            while groups_of(service.pid):  # noqa: ASYNC110 - the launcher removes them when it notices
                await asyncio.sleep(0.05)
    assert len(layers(tmp_path)) == 1


def small_disk(folder: Path, *, is_there: bool = True) -> None:
    """Mount a file system with room for 64 KiB on a folder, or take it away."""
    if is_there:
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=True)
    else:
        subprocess.run(["umount", folder], check=True)


async def test_store_on_a_full_disk_says_so(tmp_path: Path) -> None:
    """A layer that does not fit on the disk is a failure of ours that says what to do, and leaves nothing."""
    store = tmp_path / "store"
    small_disk(store)
    try:
        async with PackageSite() as site:
            site.add_wheel("hello", "1.0", {"hello/__init__.py": "", "hello/data": os.urandom(256 * 1024)})
            async with installing(store, site.registry(RegistryKind.PYPI)) as executor:
                with pytest.raises(SystemFailureError, match=r"the disk under .* is full"):
                    await python(executor)
        assert layers(store) == []
    finally:
        small_disk(store, is_there=False)
