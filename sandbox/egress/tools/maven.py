"""The Maven repositories of this host: mirrors, servers and profiles of its settings, or Maven's own default.

Invariant: central is asked only where Maven would ask it: a mirror of it takes its place.
"""

import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

from sandbox.egress.registry import Credentials, Registry, RegistryConfigError, RegistryKind
from sandbox.egress.tools.found import found_registry, numbered

__all__ = ["central_of", "parse", "registries"]

SUPER_POM = "org/apache/maven/model/pom-4.0.0.xml"
CENTRAL = "central"


def registries() -> list[Registry]:
    """Return the repositories of the user's settings, the installation's settings and Maven itself."""
    home = _maven_home()
    paths = [Path.home() / ".m2/settings.xml", *([home / "conf/settings.xml"] if home else [])]
    texts = [path.read_text(encoding="utf-8") for path in paths if path.is_file()]
    return parse(texts, central_of(home) if home else "", os.environ)


def parse(texts: list[str], central: str, environ: Mapping[str, str]) -> list[Registry]:
    """Read settings files, the user's first.

    Args:
        texts: ``settings.xml`` files.
        central: where Maven itself has its central repository; empty where there is no Maven.
        environ: for ``${env.NAME}``.

    Raises:
        RegistryConfigError: a file is not XML, or its password is encrypted.
    """
    try:
        roots = [_without_namespaces(ET.fromstring(text)) for text in texts]  # noqa: S314 - the operator's own
    except ET.ParseError as exc:
        raise RegistryConfigError(f"registry maven: settings.xml is not well-formed: {exc}") from exc
    servers = {_text(each, "id", environ): each for root in reversed(roots) for each in root.iter("server")}
    wanted = {CENTRAL: central} if central else {}
    for root in roots:
        wanted |= {_text(each, "id", environ): _text(each, "url", environ) for each in _repositories(root)}
    asked: dict[str, str] = {}
    for name, url in wanted.items():
        mirror = _mirror_of(name, url, roots)
        if mirror is None:
            asked[name] = url
        elif _text(mirror, "blocked", environ) != "true":
            asked[_text(mirror, "id", environ)] = _text(mirror, "url", environ)
    return [
        found_registry(
            RegistryKind.MAVEN,
            url,
            name=numbered(RegistryKind.MAVEN, position),
            credentials=_credentials(servers.get(name), environ),
        )
        for position, (name, url) in enumerate(asked.items())
    ]


def central_of(home: Path) -> str:
    """Read Maven's default repository from the model that it has built in."""
    for archive in sorted((home / "lib").glob("maven-model-builder*.jar")):
        with zipfile.ZipFile(archive) as jar:
            if SUPER_POM in jar.namelist():
                root = _without_namespaces(ET.fromstring(jar.read(SUPER_POM)))  # noqa: S314 - Maven's own file
                for repository in root.iter("repository"):
                    if _text(repository, "id", {}) == CENTRAL:
                        return _text(repository, "url", {})
    return ""


def _maven_home() -> Path | None:
    program = shutil.which("mvn")
    return Path(program).resolve().parent.parent if program else None


def _repositories(root: ET.Element) -> Iterator[ET.Element]:
    """Yield the repositories of the profiles that are active in any project."""
    active = {(each.text or "").strip() for each in root.iter("activeProfile")}
    for profile in root.iter("profile"):
        name, by_default = _text(profile, "id", {}), _text(profile, "activation/activeByDefault", {})
        if name in active or by_default == "true":
            yield from profile.iterfind("repositories/repository")


def _mirror_of(name: str, url: str, roots: list[ET.Element]) -> ET.Element | None:
    """Return the first mirror that takes the place of a repository, by Maven's rules for ``mirrorOf``."""
    fitting = {name, "*", "external:*", *(("external:http:*",) if url.startswith("http:") else ())}
    for root in roots:
        for mirror in root.iter("mirror"):
            patterns = {part.strip() for part in _text(mirror, "mirrorOf", {}).split(",")}
            if f"!{name}" not in patterns and fitting & patterns:
                return mirror
    return None


def _credentials(server: ET.Element | None, environ: Mapping[str, str]) -> Credentials | None:
    if server is None or not (username := _text(server, "username", environ)):
        return None
    password = _text(server, "password", environ)
    if re.fullmatch(r"\{.+\}", password):
        raise RegistryConfigError(
            "registry maven: the password in settings.xml is encrypted by Maven; "
            "write it as ${env.NAME} instead"
        )
    return Credentials(username=username, password=password)


def _text(element: ET.Element, path: str, environ: Mapping[str, str]) -> str:
    text = (element.findtext(path) or "").strip()
    return re.sub(r"\$\{env\.([^}]+)\}", lambda match: environ.get(match[1], match[0]), text)


def _without_namespaces(root: ET.Element) -> ET.Element:
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root
