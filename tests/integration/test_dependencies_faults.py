"""Whatever a registry or a package does, the answer says so, and nothing of it is left."""

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
from sandbox.egress.registry import Registry, RegistryKind
from sandbox.errors import RequestError, SystemFailureError
from sandbox.executor import CodeExecutor
from sandbox.result import ExecutionResult, ExecutionStatus, LimitKind
from tests.support.installing import depending, installing
from tests.support.raw_server import Answer, answer
from tests.support.registries import PackageSite, npm_archive, wheel
from tests.support.sandboxes import Leftovers, groups_of

pytestmark = [pytest.mark.root, pytest.mark.tree]

MIB = 1024 * 1024
SHOWS = "import hello\nprint(hello.VERSION)\n"
PAGE = "/simple/hello/"
WHEEL = "/files/hello-1.0-py3-none-any.whl"


def a_wheel(site: PackageSite, name: str = "hello", version: str = "1.0") -> str:
    """Add a package that says its version."""
    return site.add_wheel(name, version, {f"{name}/__init__.py": f"VERSION = '{version}'\n"})


async def python(
    executor: CodeExecutor, *dependencies: tuple[str, str], source: str = SHOWS, **parts: object
) -> ExecutionResult:
    """Run a Python program that needs ``hello``, or something else."""
    return await executor.execute(depending("python", source, *(dependencies or [("hello", "")]), **parts))


def links_below(folder: Path) -> set[str]:
    """Return the names of all links."""
    return {path.name for path in folder.rglob("*") if path.is_symlink()}


def layers(folder: Path) -> list[Path]:
    """Return the layers in a store, and whatever else lies there but its lock."""
    return [path for path in folder.iterdir() if path.name != ".lock"] if folder.exists() else []


async def failed(site: PackageSite, folder: Path, *words: str, **limits: float) -> ExecutionResult:
    """Try to install ``hello``; it must fail and say ``words``, and leave nothing in the store."""
    async with installing(folder, site.registry(RegistryKind.PYPI), limits=limits) as executor:
        result = await python(executor)
    assert result.status == ExecutionStatus.DEPENDENCY_ERROR, (result.error_message, result.stderr.data)
    said = f"{result.error_message}\n{result.stderr.data.decode()}"
    for word in words:
        assert word in said
    assert layers(folder) == []
    assert [stage.name for stage in result.process_stats.stages] == ["install"]
    return result


async def test_registry_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    """The message holds the registry's name, and neither its address nor anything of this machine."""
    registry = Registry(name="company", kind=RegistryKind.PYPI, base_url="http://127.0.0.1:9/simple")
    async with installing(tmp_path, registry) as executor:
        result = await python(executor)
    assert result.status == ExecutionStatus.DEPENDENCY_ERROR
    assert "registry company cannot be reached" in result.error_message
    assert "127.0.0.1:9" not in f"{result.error_message}{result.stderr.data.decode()}"


async def test_language_without_a_registry_is_refused_with_the_fix(tmp_path: Path) -> None:
    """Where no registry is configured, nothing is run, and the error says what to configure."""
    async with PackageSite() as site, installing(tmp_path, site.registry(RegistryKind.PYPI)) as executor:
        with pytest.raises(Exception, match="no npm registry is configured"):
            await executor.execute(depending("javascript", "", ("hello", "")))


async def test_unknown_package_is_a_dependency_error(tmp_path: Path) -> None:
    """The installer's own words come back on stderr."""
    async with PackageSite() as site:
        result = await failed(site, tmp_path, "hello", "the installer ended with exit code")
    assert b"hello" in result.stderr.data


async def test_conflicting_ranges_are_explained(tmp_path: Path) -> None:
    """Two packages that need what no version is give the resolver's explanation."""
    async with PackageSite() as site:
        a_wheel(site, "base", "1.0")
        a_wheel(site, "base", "2.0")
        site.add_wheel("first", "1.0", {"first.py": ""}, requires=("base<2",))
        site.add_wheel("second", "1.0", {"second.py": ""}, requires=("base>=2",))
        async with installing(tmp_path, site.registry(RegistryKind.PYPI)) as executor:
            result = await python(executor, ("first", ""), ("second", ""))
    assert result.status == ExecutionStatus.DEPENDENCY_ERROR
    assert all(word in result.stderr.data for word in (b"first", b"second", b"base"))


async def test_archive_with_another_checksum_is_refused(tmp_path: Path) -> None:
    """An archive that is not the one that the index names is not installed."""
    async with PackageSite() as site:
        a_wheel(site)
        site.put(WHEEL, wheel("hello", "1.0", {"hello/__init__.py": "VERSION = 'evil'\n"}))
        await failed(site, tmp_path, "ash mismatch")


async def test_truncated_download_is_an_error(tmp_path: Path) -> None:
    """An archive that breaks off in the middle is not installed, and the registry is named."""
    async with PackageSite() as site:
        a_wheel(site)
        whole = site.files[WHEEL][0]
        site.special[WHEEL] = lambda _head: answer(whole, Content_Length=str(len(whole) * 2))
        await failed(site, tmp_path, "registry local-pypi cannot be reached")


async def test_redirect_to_another_host_is_refused(tmp_path: Path) -> None:
    """The other host is not asked for anything."""
    async with PackageSite() as site, PackageSite() as other:
        a_wheel(site)
        a_wheel(other)
        site.special[WHEEL] = lambda _head: answer(b"", "302 Found", Location=f"{other.url}{WHEEL}")
        await failed(site, tmp_path, "registry local-pypi")
        assert other.counts.total() == 0


async def test_slow_registry_ends_at_the_clock_of_the_stage(tmp_path: Path) -> None:
    """A download that drips is killed after the install stage's wall time, with a status of its own."""

    async def drip() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
        while not site.is_closing.is_set():
            yield b"x"
            await asyncio.sleep(0.05)

    async with PackageSite() as site:
        a_wheel(site)
        site.special[WHEEL] = lambda _head: drip()
        registry = site.registry(RegistryKind.PYPI)
        async with installing(tmp_path, registry, limits={"wall_time_s": 1.5}) as executor:
            result = await python(executor)
    assert (result.status, result.limits_hit) == (ExecutionStatus.TIMEOUT, LimitKind.WALL_TIME)
    assert result.error_message.startswith("install: killed after 1.5 s of wall time")
    assert layers(tmp_path) == []


@pytest.mark.parametrize("what", ["archive", "metadata"])
async def test_endless_answer_ends_at_a_limit(what: str, tmp_path: Path) -> None:
    """An archive or a page without end stops at the limits of the stage; the service does not hold it."""

    async def endless() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
        for _ in range(4096):
            yield b"<a>" * (MIB // 12)

    def respond(_head: str) -> Answer:
        return endless()

    async with PackageSite() as site:
        a_wheel(site)
        site.special[WHEEL if what == "archive" else "/simple/hello/"] = respond
        limits = {"disk_bytes": 32 * MIB, "memory_bytes": 160 * MIB, "wall_time_s": 4.0}
        async with installing(tmp_path, site.registry(RegistryKind.PYPI), limits=limits) as executor:
            result = await python(executor)
    expected = {
        ExecutionStatus.DISK_LIMIT,
        ExecutionStatus.MEMORY_LIMIT,
        ExecutionStatus.TIMEOUT,
        ExecutionStatus.DEPENDENCY_ERROR,
    }
    assert result.status in expected, (result.status, result.error_message)
    assert layers(tmp_path) == []


async def test_zip_bomb_ends_at_the_disk_limit_of_the_stage(tmp_path: Path) -> None:
    """A small archive that becomes large is stopped by the quota, and the result says by which."""
    async with PackageSite() as site:
        site.add_wheel("hello", "1.0", {f"hello/{n}.bin": b"\0" * (16 * MIB) for n in range(4)})
        assert len(site.files[WHEEL][0]) < MIB
        registry = site.registry(RegistryKind.PYPI)
        async with installing(tmp_path, registry, limits={"disk_bytes": 24 * MIB}) as executor:
            result = await python(executor)
    assert result.status == ExecutionStatus.DISK_LIMIT, result.stderr.data
    assert LimitKind.DISK in result.limits_hit
    assert result.error_message.startswith("install: ended with")


PHP_BOMB = {"composer.json": '{"name": "acme/hello"}', "big.php": "x" * (64 * MIB)}
NPM_BOMB = {"package/package.json": '{"name": "hello", "version": "1.0.0"}', "package/big": "x" * (64 * MIB)}


@pytest.mark.parametrize(("language", "name"), [("javascript", "hello"), ("php", "acme/hello")])
async def test_full_disk_is_named_whatever_the_installer_says(
    language: str, name: str, tmp_path: Path
) -> None:
    """A tool that says in words of its own, or not at all, that it found no room fails for the disk."""
    kind = {"javascript": RegistryKind.NPM, "php": RegistryKind.COMPOSER}[language]
    async with PackageSite() as site:
        site.add_npm("hello", "1.0.0", npm_archive(NPM_BOMB))
        site.add_composer("acme/hello", {"1.0.0": PHP_BOMB})
        async with installing(tmp_path, site.registry(kind), limits={"disk_bytes": 24 * MIB}) as executor:
            result = await executor.execute(depending(language, "", (name, "")))
    assert result.status == ExecutionStatus.DISK_LIMIT, result.stderr.data
    assert LimitKind.DISK in result.limits_hit


async def test_archive_that_is_none_does_not_pass_for_a_full_disk(tmp_path: Path) -> None:
    """The same words of the installer, with room left, are a fault of the package."""
    async with PackageSite() as site, installing(tmp_path, site.registry(RegistryKind.NPM)) as executor:
        site.add_npm("hello", "1.0.0", b"no archive")
        result = await executor.execute(depending("javascript", "", ("hello", "")))
    assert b"Fail extracting tarball" in result.stderr.data
    assert (result.status, result.limits_hit) == (ExecutionStatus.DEPENDENCY_ERROR, LimitKind.NONE)


async def test_source_package_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    """What would have to be built runs nothing: the installer takes wheels only."""
    async with PackageSite() as site:
        site.add_source("hello", "1.0", "import urllib.request\nraise SystemExit('the code ran')\n")
        result = await failed(site, tmp_path, "hello")
    assert b"the code ran" not in result.stderr.data + result.stdout.data


def names_in(folder: str) -> list[str]:
    """List a folder."""
    return [path.name for path in Path(folder).iterdir()]


HOSTILE_PATHS = ("package/../../../evil", "/tmp/evil", "../evil", "package/a/../../../../../evil")


@pytest.mark.parametrize("path", HOSTILE_PATHS)
async def test_archive_entries_that_leave_do_not(path: str, tmp_path: Path) -> None:
    """An entry with .. or an absolute path lands inside the package or nowhere; the layer has no more."""
    files = {
        "package/package.json": '{"name": "hello", "version": "1.0.0", "main": "index.js"}',
        "package/index.js": "exports.version = 1;\n",
        path: "evil",
    }
    source = "console.log(require('hello').version, require('fs').readdirSync('/node_modules').join());\n"
    async with PackageSite() as site, installing(tmp_path, site.registry(RegistryKind.NPM)) as executor:
        site.add_npm("hello", "1.0.0", npm_archive(files))
        result = await executor.execute(depending("javascript", source, ("hello", "")))
    if result.status == ExecutionStatus.SUCCESS:
        assert result.stdout.data == b"1 hello\n"
    else:
        assert result.status == ExecutionStatus.DEPENDENCY_ERROR
        assert layers(tmp_path) == []
    assert "evil" not in names_in("/tmp")


async def test_wheel_with_an_entry_that_leaves_is_refused(tmp_path: Path) -> None:
    """A wheel whose file would lie outside the packages is not installed, or installed without it."""
    source = "import hello, pathlib\nprint(sorted(str(p) for p in pathlib.Path('/deps').rglob('*evil*')))\n"
    async with PackageSite() as site, installing(tmp_path, site.registry(RegistryKind.PYPI)) as executor:
        site.add_wheel(
            "hello", "1.0", {"hello/__init__.py": "", "../../../../evil.py": "", "/work/evil.py": ""}
        )
        result = await python(executor, source=source)
    assert result.status in {ExecutionStatus.DEPENDENCY_ERROR, ExecutionStatus.SUCCESS}
    if result.status == ExecutionStatus.SUCCESS:
        assert result.stdout.data == b"[]\n"


async def test_links_that_leave_do_not_reach_a_layer(tmp_path: Path) -> None:
    """A link of an archive to a file of the machine never shows in what was installed."""
    files = {
        "package/package.json": '{"name": "hello", "version": "1.0.0", "main": "index.js"}',
        "package/index.js": "",
    }
    links = {"package/absolute": "/etc/passwd", "package/above": "../../../../etc/passwd"}
    async with PackageSite() as site, installing(tmp_path, site.registry(RegistryKind.NPM)) as executor:
        site.add_npm("hello", "1.0.0", npm_archive(files, links))
        result = await executor.execute(depending("javascript", "require('hello');\n", ("hello", "")))
    assert result.status in {ExecutionStatus.DEPENDENCY_ERROR, ExecutionStatus.SUCCESS}
    assert not links_below(tmp_path) & {"absolute", "above"}


async def test_hundreds_of_thousands_of_files_end_at_the_inodes_of_the_stage(tmp_path: Path) -> None:
    """An archive of very many empty files is stopped by the count."""
    async with PackageSite() as site:
        site.add_wheel("hello", "1.0", {f"hello/{number}.txt": "" for number in range(3000)})
        registry = site.registry(RegistryKind.PYPI)
        async with installing(tmp_path, registry, limits={"inodes": 1000}) as executor:
            result = await python(executor)
    assert result.status == ExecutionStatus.DISK_LIMIT, (result.error_message, result.stderr.data)
    assert LimitKind.DISK in result.limits_hit


async def test_nothing_of_the_request_is_seen_where_packages_are_installed(tmp_path: Path) -> None:
    """A manifest of Swift, which is a program, finds no variable, argument, input or file of the request."""
    manifest = """\
// swift-tools-version: 5.9
import Foundation
import PackageDescription
let seen = ProcessInfo.processInfo.environment.description + CommandLine.arguments.description
    + (try! FileManager.default.subpathsOfDirectory(atPath: "/work")).description
fatalError("SEEN " + seen)
"""
    async with PackageSite() as site, installing(tmp_path, site.registry(RegistryKind.SWIFT)) as executor:
        site.add_swift("acme.hello", {"1.0.0": {"Package.swift": manifest, "Sources/Hello/a.swift": ""}})
        request = depending(
            "swift",
            "print(1)",
            ("acme.hello", ""),
            env_vars={"TOKEN": "planted-secret"},
            args=["planted-secret"],
            stdin=b"planted-secret",
            path="planted-secret.swift",
        )
        result = await executor.execute(request)
    assert result.status == ExecutionStatus.DEPENDENCY_ERROR
    assert b"SEEN" in result.stderr.data
    assert b"planted-secret" not in result.stderr.data


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
