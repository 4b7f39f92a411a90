"""Whatever a registry or a package does, the answer says so, and nothing of it is left."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.egress.registry import Registry, RegistryKind
from sandbox.result import ExecutionResult, ExecutionStatus, LimitKind
from tests.support.installing import WHEEL, a_wheel, depending, installing, layers, python
from tests.support.raw_server import Answer, answer
from tests.support.registries import PackageSite, npm_archive, wheel

pytestmark = [pytest.mark.root, pytest.mark.tree]

MIB = 1024 * 1024


def links_below(folder: Path) -> set[str]:
    """Return the names of all links."""
    return {path.name for path in folder.rglob("*") if path.is_symlink()}


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
