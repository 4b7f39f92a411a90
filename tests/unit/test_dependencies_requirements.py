"""Dependencies are read by the grammar of their ecosystem, and nothing else gets through."""

import contextlib
import itertools
import json
import time
from pathlib import Path

import pytest

from blueprint.cli.program import read_dependency
from sandbox.bounds import StageBounds
from sandbox.errors import RequestError
from sandbox.languages import LANGUAGES
from sandbox.languages.language import InstallPlan, Installs, Provision, RegistryView
from sandbox.request import Dependency, ExecutionRequest, SourceFile
from sandbox.tree import Runtime

REGISTRIES = (
    RegistryView(name="main", url="http://127.0.0.1:8081/main"),
    RegistryView(name="acme", url="http://127.0.0.1:8081/acme", scope="@acme"),
)
VERSIONS = {"go": "1.24.4", "python": "3.13.5"}
PROGRAMS = dict.fromkeys(("run", "compile", "install"), "/usr/bin/tool")


def planned(language: str, *dependencies: Dependency, files: dict[str, bytes] | None = None) -> InstallPlan:
    """Plan an installation."""
    installs = LANGUAGES[language]
    assert isinstance(installs, Installs)
    request = ExecutionRequest(
        language=language,
        files=[SourceFile(path=p, content=c) for p, c in (files or {installs.default_file: b""}).items()],
        dependencies=dependencies,
    )
    runtime = Runtime(language=language, version=VERSIONS.get(language, "1.0.0"), programs=PROGRAMS)
    return installs.install(request, Provision(runtime=runtime, bounds=StageBounds()), REGISTRIES)


def told(language: str, name: str, requirement: str) -> str:
    """Return everything that the installer is told of one dependency, as one text."""
    plan = planned(language, Dependency(name=name, requirement=requirement))
    files = "\n".join(file.content.decode() for file in plan.files if not file.path.endswith("packages.py"))
    return f"{files}\n{' '.join(plan.stage.argv[4:])}"


@pytest.mark.parametrize(
    ("language", "name", "requirement", "expected"),
    [
        ("python", "requests", "", "requests\n"),
        ("python", "requests", ">=2, <3", "requests>=2, <3\n"),
        ("python", "requests", "~=2.31", "requests~=2.31\n"),
        ("python", "requests", "2.31.0", "requests==2.31.0\n"),
        ("python", "requests", "==2.*", "requests==2.*\n"),
        ("python", "requests", "[socks,use-chardet]>=2", "requests[socks,use-chardet]>=2\n"),
        ("python", "requests", "[socks] 2.31.0", "requests[socks]==2.31.0\n"),
        ("javascript", "express", "^4.18", '"express": "^4.18"'),
        ("javascript", "express", "", '"express": "latest"'),
        ("javascript", "express", ">=4 <5 || ~5.1.0", '"express": ">=4 <5 || ~5.1.0"'),
        ("javascript", "express", "1.2.3 - 2.x", '"express": "1.2.3 - 2.x"'),
        ("typescript", "@types/node", "22.0.0-rc.1", '"@types/node": "22.0.0-rc.1"'),
        ("go", "github.com/google/uuid", "v1.6.0", "github.com/google/uuid@v1.6.0"),
        ("go", "github.com/google/uuid", "1.6", "github.com/google/uuid@v1.6"),
        ("go", "golang.org/x/text", "<v0.20.0", "golang.org/x/text@<v0.20.0"),
        ("go", "golang.org/x/text", "", "golang.org/x/text@latest"),
        ("java", "com.acme:lib", "[1.0,2.0)", 'org="com.acme" name="lib" rev="[1.0,2.0)"'),
        ("java", "com.acme:lib", "(,2.0]", 'rev="(,2.0]"'),
        ("java", "com.acme:lib", "[1.0]", 'rev="1.0"'),
        ("java", "com.acme:lib", "32.1.3-jre", 'rev="32.1.3-jre"'),
        ("java", "com.acme:lib", "", 'rev="latest.release"'),
        ("php", "monolog/monolog", "^3.0 || ^2.9", '"monolog/monolog": "^3.0 || ^2.9"'),
        ("php", "monolog/monolog", "3.*", '"monolog/monolog": "3.*"'),
        ("php", "monolog/monolog", "", '"monolog/monolog": "*"'),
        ("php", "monolog/monolog", ">= 2.1, < 3 |  4.*", '"monolog/monolog": ">= 2.1, < 3 |  4.*"'),
        ("php", "acme-2/lib__x.y-z9", "1 - 2", '"acme-2/lib__x.y-z9": "1 - 2"'),
        ("javascript", "express", ">= 4  < 5 ||  ~ 5.1", '"express": ">= 4  < 5 ||  ~ 5.1"'),
        ("swift", "mona.LinkedList", "from: 1.2.0", '.package(id: "mona.LinkedList", from: "1.2.0")'),
        ("swift", "mona.LinkedList", '"1.0.0"..<"2.0.0"', '(id: "mona.LinkedList", "1.0.0"..<"2.0.0")'),
        ("swift", "mona.LinkedList", "1.2.0", '(id: "mona.LinkedList", exact: "1.2.0")'),
    ],
)
def test_ranges_reach_the_installer_as_their_ecosystem_writes_them(
    language: str, name: str, requirement: str, expected: str
) -> None:
    """Exact versions, ranges and their absence are passed on; a lone version means that version."""
    assert expected in told(language, name, requirement)


TRICKS = [
    "@ https://evil.test/x.whl",
    "@ file:///etc/passwd",
    "git+https://evil.test/x",
    "https://evil.test/x.tgz",
    "file:../../etc",
    "file:///etc/passwd",
    "npm:other@1",
    "link:/etc",
    "workspace:*",
    "github:evil/x",
    "evil/x",
    "evil/x#main",
    "../x",
    "/etc/passwd",
    "./x.tgz",
    ">=1 --index-url http://evil.test",
    ">=1; python_version > '2'",
    ">=1 ; os_name == 'posix'",
    ">=1 \\",
    ">=1 -r /etc/passwd",
    "dev-main#abc",
    "1.0 as 2.0",
    "$(id)",
    "`id`",
    "1.0'",
    '1.0"',
    '1.0" org="evil',
    "<evil/>",
    "&evil;",
    '"1.0.0"), .package(path: "/etc")',
    'branch: "main"',
    "revision: abc",
    "ssh://evil.test",
]


@pytest.mark.parametrize("requirement", TRICKS)
@pytest.mark.parametrize(
    ("language", "name"),
    [
        ("python", "requests"),
        ("javascript", "express"),
        ("typescript", "express"),
        ("go", "github.com/google/uuid"),
        ("java", "com.acme:lib"),
        ("php", "monolog/monolog"),
        ("swift", "mona.LinkedList"),
    ],
)
def test_requirements_that_are_no_ranges_are_refused(language: str, name: str, requirement: str) -> None:
    """An address, a path, an alias, an option, a marker or another language's text is no range."""
    with pytest.raises(RequestError, match="dependencies: a package and a range of versions are expected"):
        told(language, name, requirement)


@pytest.mark.parametrize(
    ("language", "name"),
    [
        ("python", "acme/lib"),
        ("python", "acme:lib"),
        ("python", "lib@1"),
        ("javascript", "acme:lib"),
        ("javascript", "a/b/c"),
        ("javascript", "user/repo"),
        ("go", "fmt"),
        ("go", "./x"),
        ("go", "example.com/x@v1"),
        ("java", "lib"),
        ("java", "a:b:c"),
        ("java", "a/b:c"),
        ("php", "ext-zip"),
        ("php", "php"),
        ("php", "a/b/c"),
        ("swift", "https:x"),
        ("swift", "lib"),
        ("swift", "a.b.c/d"),
    ],
)
def test_names_of_another_ecosystem_are_refused(language: str, name: str) -> None:
    """What is no package's name in this ecosystem is refused with an example."""
    try:
        dependency = Dependency(name=name)
    except RequestError:
        return
    with pytest.raises(RequestError, match="are expected as in"):
        planned(language, dependency)


def test_a_package_that_comes_twice_is_refused() -> None:
    """Which of two ranges holds is not guessed."""
    with pytest.raises(RequestError, match="'requests' comes twice"):
        planned("python", Dependency(name="requests"), Dependency(name="requests", requirement=">=2"))


def test_source_is_the_name_of_a_registry() -> None:
    """A dependency may name the registry it comes from; a name that is none, or two of them, are refused."""
    plan = planned("javascript", Dependency(name="x", source="acme"))
    assert "http://127.0.0.1:8081/acme/" in plan.stage.argv
    for sources in (["other"], ["main", "acme"]):
        dependencies = [Dependency(name=f"x{index}", source=name) for index, name in enumerate(sources)]
        with pytest.raises(RequestError, match=r"one registry of this node is expected \(main, acme\)"):
            planned("javascript", *dependencies)


def test_scoped_registries_serve_their_scope() -> None:
    """Packages of a scope come from its registry, all others from the main one."""
    plan = planned("javascript", Dependency(name="@acme/x"), Dependency(name="y"))
    files = {file.path: file.content.decode() for file in plan.files}
    assert files[".npmrc"] == "@acme:registry=http://127.0.0.1:8081/acme/\n"
    assert "http://127.0.0.1:8081/main/" in plan.stage.argv
    assert json.loads(files["package.json"])["dependencies"] == {"@acme/x": "latest", "y": "latest"}


def test_no_installation_sees_the_program() -> None:
    """Of the request only the dependencies reach the installer, and a module file of Go."""
    for language, installs in LANGUAGES.items():
        if not isinstance(installs, Installs):
            continue
        name = {"go": "example.com/x", "java": "a:b", "php": "a/b", "swift": "a.b"}.get(language, "x")
        files = {installs.default_file: b"SECRET", "go.mod": b"module mine\n", "package.json": b"SECRET"}
        plan = planned(language, Dependency(name=name), files=files)
        contents = b"\n".join(file.content for file in plan.files)
        assert b"SECRET" not in contents
        assert (b"module mine" in contents) == (language == "go")


@pytest.mark.parametrize(
    ("text", "name", "requirement"),
    [
        ("requests", "requests", ""),
        ("requests>=2,<3", "requests", ">=2,<3"),
        ("requests ~=2.1", "requests", "~=2.1"),
        ("requests[socks]==2.1", "requests", "[socks]==2.1"),
        ("express@^4", "express", "^4"),
        ("@types/node@22", "@types/node", "22"),
        ("@types/node", "@types/node", ""),
        ("github.com/google/uuid@v1.6.0", "github.com/google/uuid", "v1.6.0"),
        ("com.google.guava:guava", "com.google.guava:guava", ""),
        ("com.google.guava:guava:[32.0,33.0)", "com.google.guava:guava", "[32.0,33.0)"),
        ("monolog/monolog:^3", "monolog/monolog", "^3"),
        ("mona.LinkedList from: 1.2.0", "mona.LinkedList", "from: 1.2.0"),
    ],
)
def test_command_line_parts_a_package_from_its_versions(text: str, name: str, requirement: str) -> None:
    """A dependency may be written as its ecosystem's own tools take it."""
    assert read_dependency(text) == Dependency(name=name, requirement=requirement)


def test_every_installer_is_in_a_file_of_its_own_language() -> None:
    """No installer names a registry's host: addresses come from the configuration."""
    folder = Path(__file__).parents[2] / "sandbox/languages"
    texts = "\n".join(path.read_text() for path in folder.glob("*.py"))
    assert "https://" not in texts


PIECES = (
    "a",
    "1",
    "1.",
    "1-",
    "1   ",
    ">=1 , ",
    "1||",
    "a-",
    "a.",
    "a_",
    "a/",
    "@a/",
    "a:",
    "[a,",
    "*",
    "v1 - ",
)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "language", sorted(name for name, each in LANGUAGES.items() if isinstance(each, Installs))
)
def test_grammars_read_any_text_at_once(language: str) -> None:
    """The longest names and ranges of whatever repeats are read in no time, also where they fail at last."""
    began_s = time.process_time()
    for piece, end in itertools.product(PIECES, ("", "!", "a", " ", "~")):
        for name, requirement in (((piece * 200)[:190], ""), ("acme", (piece * 500)[:500] + end)):
            for around in ("", "acme/", "acme:", "acme."):
                with contextlib.suppress(RequestError):
                    planned(language, Dependency(name=f"{around}{name}", requirement=requirement))
    assert time.process_time() - began_s < 5.0
