"""Package registries that a test makes: one small package in each ecosystem, served over loopback.

Invariant: every request is counted by its path, and a test may answer any path in its own way.
"""

import asyncio
import base64
import hashlib
import io
import json
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from sandbox.egress.registry import Registry, RegistryKind
from tests.support.raw_server import Answer, RawServer, answer

__all__ = ["KINDS", "PackageSite", "npm_archive", "wheel"]

KINDS = {
    "python": RegistryKind.PYPI,
    "javascript": RegistryKind.NPM,
    "typescript": RegistryKind.NPM,
    "go": RegistryKind.GO,
    "java": RegistryKind.MAVEN,
    "php": RegistryKind.COMPOSER,
    "swift": RegistryKind.SWIFT,
}
SWIFT_HEADERS = {"Content_Version": "1"}


class PackageSite:
    """A web site of files, to which packages are added.

    Attributes:
        files: path to content and further headers.
        special: path to what answers it instead; it gets the head of the request.
        counts: how often each path was asked for.
        is_closing: what an answer without end must look at.
    """

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, Mapping[str, str]]] = {}
        self.special: dict[str, Callable[[str], Answer]] = {}
        self.counts: Counter[str] = Counter()
        self.is_closing = asyncio.Event()
        self._server = RawServer(self._respond)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_closing.set()
        await asyncio.sleep(0.1)  # answers without end find out, and close their connections
        await self._server.__aexit__(kind, error, trace)

    @property
    def url(self) -> str:
        return self._server.url

    def registry(self, kind: RegistryKind, *, is_private: bool = False) -> Registry:
        """Return this site as a registry of a kind."""
        folder = "/simple" if kind is RegistryKind.PYPI else ""
        return Registry(
            name=f"local-{kind.value}",
            kind=kind,
            base_url=f"{self.url}{folder}",
            is_private=is_private,
            environment={"GOSUMDB": "off"} if kind is RegistryKind.GO else {},
        )

    def _respond(self, head: str) -> Answer:
        path = head.split(" ", 2)[1].partition("?")[0]
        self.counts[path] += 1
        if path in self.special:
            return self.special[path](head)
        if path not in self.files:
            return answer(b"not here", "404 Not Found")
        body, headers = self.files[path]
        return answer(body, **headers)

    def put(self, path: str, content: bytes, **headers: str) -> None:
        """Add a file."""
        self.files[path] = (content, headers)

    def add_wheel(
        self,
        name: str,
        version: str,
        files: Mapping[str, str | bytes],
        *,
        requires: tuple[str, ...] = (),
        links: Mapping[str, str] | None = None,
    ) -> str:
        """Add a wheel, and return the path of its archive."""
        content = wheel(name, version, files, requires=requires, links=links)
        path = f"/files/{name}-{version}-py3-none-any.whl"
        self.put(path, content)
        self._list_file(name, path, hashlib.sha256(content).hexdigest())
        return path

    def _list_file(self, name: str, path: str, digest: str) -> None:
        page, _ = self.files.get(f"/simple/{name}/", (b"<!DOCTYPE html>\n", {}))
        file = path.rpartition("/")[2]
        link = f'<a href="../..{path}#sha256={digest}">{file}</a>\n'
        self.put(f"/simple/{name}/", page + link.encode(), Content_Type="text/html")

    def add_source(self, name: str, version: str, setup: str, files: Mapping[str, str] | None = None) -> None:
        """Add a source package of Python, which would run ``setup``, or what else ``files`` say."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            for path, text in {
                "setup.py": setup,
                "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
                **(files or {}),
            }.items():
                _add(archive, f"{name}-{version}/{path}", text.encode())
        path = f"/files/{name}-{version}.tar.gz"
        self.put(path, out.getvalue())
        self._list_file(name, path, hashlib.sha256(out.getvalue()).hexdigest())

    def add_npm(self, name: str, version: str, archive: bytes, **manifest: object) -> str:
        """Add a package of npm, and return the path of its archive."""
        path = f"/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
        self.put(path, archive)
        listed, _ = self.files.get(f"/{name}", (b'{"versions": {}}', {}))
        versions = json.loads(listed)["versions"]
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
        dist = {"tarball": f"{self.url}{path}", "integrity": integrity}
        versions[version] = {"name": name, "version": version, "dist": dist, **manifest}
        document = {"name": name, "dist-tags": {"latest": version}, "versions": versions}
        self.put(f"/{name}", json.dumps(document).encode(), Content_Type="application/json")
        return path

    def add_go(self, module: str, version: str, files: Mapping[str, str]) -> None:
        """Add a version of a Go module."""
        prefix, text = f"/{module}/@v", f"module {module}\n\ngo 1.21\n"
        listed, _ = self.files.get(f"{prefix}/list", (b"", {}))
        self.put(f"{prefix}/list", listed + f"{version}\n".encode())
        info = json.dumps({"Version": version, "Time": "2024-01-01T00:00:00Z"}).encode()
        self.put(f"{prefix}/{version}.info", info)
        self.put(f"/{module}/@latest", info)
        self.put(f"{prefix}/{version}.mod", text.encode())
        all_files = {"go.mod": text, **files}
        archive = _zip({f"{module}@{version}/{path}": content for path, content in all_files.items()})
        self.put(f"{prefix}/{version}.zip", archive)

    def add_maven(
        self, group: str, artifact: str, versions: tuple[str, ...], files: Mapping[str, str]
    ) -> None:
        """Add an artifact; each version's jar holds the files, with the version for ``VERSION``."""
        base = f"/{group.replace('.', '/')}/{artifact}"
        rows = "".join(f"<version>{version}</version>" for version in versions)
        self._put_summed(
            f"{base}/maven-metadata.xml",
            f"<metadata><groupId>{group}</groupId><artifactId>{artifact}</artifactId><versioning>"
            f"<latest>{versions[-1]}</latest><release>{versions[-1]}</release>"
            f"<versions>{rows}</versions></versioning></metadata>".encode(),
        )
        for version in versions:
            pom = (
                f"<project><modelVersion>4.0.0</modelVersion><groupId>{group}</groupId>"
                f"<artifactId>{artifact}</artifactId><version>{version}</version></project>"
            )
            jar = _zip({path: text.replace("VERSION", version) for path, text in files.items()})
            self._put_summed(f"{base}/{version}/{artifact}-{version}.pom", pom.encode())
            self._put_summed(f"{base}/{version}/{artifact}-{version}.jar", jar)

    def _put_summed(self, path: str, content: bytes) -> None:
        self.put(path, content)
        self.put(f"{path}.sha1", hashlib.sha1(content).hexdigest().encode())

    def add_composer(self, name: str, versions: Mapping[str, Mapping[str, str]], **package: object) -> None:
        """Add a package of composer with the files of each version."""
        entries = []
        for version, files in versions.items():
            path = f"/archives/{name.replace('/', '-')}-{version}.zip"
            archive = _zip({f"top/{file}": text for file, text in files.items()})
            self.put(path, archive)
            dist = {
                "type": "zip",
                "url": f"{self.url}{path}",
                "shasum": hashlib.sha1(archive).hexdigest(),
            }
            entries.append({"name": name, "version": version, "dist": dist, **package})
        pages: dict[str, object] = {
            f"/p2/{name}.json": {"packages": {name: entries}},
            "/packages.json": {"packages": [], "metadata-url": "/p2/%package%.json"},
        }
        for path, document in pages.items():
            self.put(path, json.dumps(document).encode(), Content_Type="application/json")

    def add_swift(self, identity: str, versions: Mapping[str, Mapping[str, str]]) -> None:
        """Add a package of a Swift package registry with the files of each version."""
        scope, _, name = identity.partition(".")
        base = f"/{scope}/{name}"
        releases = json.dumps({"releases": {version: {} for version in versions}}).encode()
        self.put(base, releases, Content_Type="application/json", **SWIFT_HEADERS)
        for version, files in versions.items():
            archive = _zip({f"{identity}-{version}/{path}": text for path, text in files.items()})
            source = {
                "name": "source-archive",
                "type": "application/zip",
                "checksum": hashlib.sha256(archive).hexdigest(),
            }
            release = {"id": identity, "version": version, "resources": [source], "metadata": {}}
            headers = {"Content_Type": "application/json", **SWIFT_HEADERS}
            self.put(f"{base}/{version}", json.dumps(release).encode(), **headers)
            manifest = files["Package.swift"].encode()
            self.put(
                f"{base}/{version}/Package.swift", manifest, Content_Type="text/x-swift", **SWIFT_HEADERS
            )
            self.put(f"{base}/{version}.zip", archive, Content_Type="application/zip", **SWIFT_HEADERS)


def wheel(
    name: str,
    version: str,
    files: Mapping[str, str | bytes],
    *,
    requires: tuple[str, ...] = (),
    links: Mapping[str, str] | None = None,
) -> bytes:
    """Return the archive of a pure Python package."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    contents: dict[str, str | bytes] = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*contents, *(links or {}), f"{info}/RECORD"))
    return _zip({**contents, f"{info}/RECORD": record}, links)


def npm_archive(files: Mapping[str, str], links: Mapping[str, str] | None = None) -> bytes:
    """Return the archive of an npm package; paths are as given, below ``package`` or not."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, text in files.items():
            _add(archive, path, text.encode())
        for path, target in (links or {}).items():
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return out.getvalue()


def _add(archive: tarfile.TarFile, path: str, content: bytes) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def _zip(files: Mapping[str, str | bytes], links: Mapping[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        for path, target in (links or {}).items():
            entry = zipfile.ZipInfo(path)
            entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16  # made on Unix: a link
            archive.writestr(entry, target)
    return out.getvalue()
