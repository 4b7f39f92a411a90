"""A program with dependencies in every language that installs them, from a registry of the test's own."""

from pathlib import Path

import pytest

from sandbox.backends.bubblewrap import BubblewrapBackend
from sandbox.result import ExecutionStatus
from tests.support.installing import depending, installing
from tests.support.registries import KINDS, PackageSite, npm_archive

pytestmark = [pytest.mark.root, pytest.mark.tree]

VERSIONS = ("1.2.0", "1.3.0", "2.0.0")
WANTED = {
    "python": ("hello", ">=1,<2"),
    "javascript": ("hello", "^1.2"),
    "typescript": ("hello", "^1.2"),
    "go": ("example.test/hello", "<v2.0.0"),
    "java": ("com.acme:hello", "[1.0,2.0)"),
    "php": ("acme/hello", "^1.2"),
    "swift": ("acme.hello", "from: 1.0.0"),
}
PROGRAMS = {
    "python": "import hello\nprint(hello.VERSION, hello.__file__)\n",
    "javascript": "const hello = require('hello');\nconsole.log(hello.version, require.resolve('hello'));\n",
    "typescript": "import { version } from 'hello';\nconst shown: string = version;\n"
    "console.log(shown, require.resolve('hello'));\n",
    "go": 'package main\n\nimport (\n\t"fmt"\n\n\t"example.test/hello"\n\t"example.test/hello/inner"\n)\n\n'
    "func main() { fmt.Println(hello.Version, inner.Name) }\n",
    "java": "public class Main {\n  public static void main(String[] a) throws Exception {\n"
    '    var text = Main.class.getResource("/hello.txt");\n'
    "    System.out.println(new String(text.openStream().readAllBytes()) + text);\n  }\n}\n",
    "php": "<?php\nrequire __DIR__ . '/vendor/autoload.php';\n"
    "echo Acme\\Hello::VERSION, ' ', (new ReflectionClass('Acme\\Hello'))->getFileName(), PHP_EOL;\n",
    "swift": "import Hello\nprint(hello())\n",
}
SHOWN = {
    "python": "1.3.0 /deps/lib/python3.",
    "javascript": "1.3.0 /node_modules/hello/index.js",
    "typescript": "1.3.0 /node_modules/hello/index.js",
    "go": "1.3.0 inner",
    "java": "1.3.0 jar:file:/deps/com.acme@hello@1.3.0.jar!/hello.txt",
    "php": "1.3.0 /deps/vendor/acme/hello/src/Hello.php",
    "swift": "hello 1.3.0, squared 9",
}
LOCKS = {
    "python": "hello==1.3.0\n",
    "javascript": "hello@1.3.0 sha512-",
    "typescript": "hello@1.3.0 sha512-",
    "go": "example.test/hello v1.3.0 h1:",
    "java": "com.acme:hello:1.3.0\n",
    "php": "acme/hello 1.3.0 ",
    "swift": "acme.hello 1.3.0\n",
}
SWIFT_MANIFEST = """\
// swift-tools-version: 5.9
import PackageDescription
let package = Package(
    name: "hello",
    products: [.library(name: "Hello", targets: ["Hello"])],
    targets: [.target(name: "CSquare"), .target(name: "Hello", dependencies: ["CSquare"])]
)
"""


def add_packages(site: PackageSite) -> None:
    """Add one package in three versions to every ecosystem; each says its own version."""
    for version in VERSIONS:
        site.add_wheel("hello", version, {"hello/__init__.py": f"VERSION = '{version}'\n"})
        files = {
            "package/package.json": '{"name": "hello", "main": "index.js", "types": "index.d.ts"}',
            "package/index.js": f"exports.version = '{version}';\n",
            "package/index.d.ts": "export declare const version: string;\n",
        }
        site.add_npm("hello", version, npm_archive(files))
        if version != "2.0.0":  # the major version would be part of the module's name
            source = f'package hello\n\nconst Version = "{version}"\n'
            inner = 'package inner\n\nconst Name = "inner"\n'
            site.add_go("example.test/hello", f"v{version}", {"hello.go": source, "inner/inner.go": inner})
    site.add_maven("com.acme", "hello", VERSIONS, {"hello.txt": "VERSION "})
    composer = {
        v: {"src/Hello.php": f"<?php\nnamespace Acme;\nclass Hello {{ const VERSION = '{v}'; }}\n"}
        for v in VERSIONS
    }
    site.add_composer("acme/hello", composer, autoload={"psr-4": {"Acme\\": "src/"}})
    swift = {
        v: {
            "Package.swift": SWIFT_MANIFEST,
            "Sources/Hello/Hello.swift": "import CSquare\npublic func hello() -> String "
            f'{{ "hello {v}, squared \\(square(3))" }}\n',
            "Sources/CSquare/square.c": "int square(int x) { return x * x; }\n",
            "Sources/CSquare/include/CSquare.h": "int square(int x);\n",
        }
        for v in VERSIONS
    }
    site.add_swift("acme.hello", swift)


@pytest.mark.parametrize("language", WANTED)
async def test_program_uses_what_was_installed(language: str, tmp_path: Path) -> None:
    """The newest version in the range is found where the language looks for it, and the lock names it.

    The second run installs nothing: the registry is not asked again, and the stage has cost nothing.
    """
    request = depending(language, PROGRAMS[language], WANTED[language])
    async with PackageSite() as site, installing(tmp_path, site.registry(KINDS[language])) as executor:
        add_packages(site)
        result = await executor.execute(request)
        assert (result.status, result.error_message) == (ExecutionStatus.SUCCESS, ""), result.stderr.data
        assert result.stdout.data.decode().startswith(SHOWN[language])
        assert result.lock.startswith(LOCKS[language])
        first = result.process_stats.stages[0]
        assert first.name == "install"
        assert first.memory_peak_bytes
        assert "network_none" in result.guarantees.enforced
        asked = site.counts.total()
        again = await executor.execute(request)
        assert (again.stdout.data, again.lock) == (result.stdout.data, result.lock)
        second = again.process_stats.stages[0]
        assert (second.name, second.user_time_s, second.memory_peak_bytes) == ("install", 0.0, 0)
        assert site.counts.total() == asked


@pytest.mark.bubblewrap
@pytest.mark.parametrize("language", ["python", "javascript", "php"])
async def test_bubblewrap_installs_and_shows_layers_too(language: str, tmp_path: Path) -> None:
    """The other back end gives the same answer, and its run has no network either."""
    request = depending(language, PROGRAMS[language], WANTED[language])
    async with PackageSite() as site:
        add_packages(site)
        registry = site.registry(KINDS[language])
        async with installing(tmp_path, registry, backend=BubblewrapBackend()) as executor:
            result = await executor.execute(request)
    assert result.status == ExecutionStatus.SUCCESS, (result.error_message, result.stderr.data)
    assert result.stdout.data.decode().startswith(SHOWN[language])
    assert "network_none" in result.guarantees.enforced


async def test_es_modules_find_packages(tmp_path: Path) -> None:
    """An import statement finds a package too, in JavaScript and in TypeScript without a type check."""
    source = "import { version } from 'hello';\nconsole.log(version);\n"
    async with PackageSite() as site, installing(tmp_path, site.registry(KINDS["javascript"])) as executor:
        add_packages(site)
        for language, path in (("javascript", "main.mjs"), ("typescript", "main.mts")):
            result = await executor.execute(depending(language, source, ("hello", "1.2.0"), path=path))
            assert result.stdout.data == b"1.2.0\n", result.stderr.data


async def test_every_version_of_python_has_a_layer_of_its_own(tmp_path: Path) -> None:
    """Two versions of a runtime do not share a layer, and each finds its own."""
    async with PackageSite() as site, installing(tmp_path, site.registry(KINDS["python"])) as executor:
        add_packages(site)
        for runtime in ("3.11", "3.13"):
            request = depending("python", PROGRAMS["python"], WANTED["python"], runtime=runtime)
            result = await executor.execute(request)
            assert f"/deps/lib/python{runtime}/" in result.stdout.data.decode(), result.stderr.data


async def test_module_file_of_a_go_program_is_kept(tmp_path: Path) -> None:
    """Packages of the program's own module are found beside those of its dependencies."""
    files = {
        "go.mod": "module mine.test/program\n\ngo 1.21\n",
        "main.go": 'package main\n\nimport (\n\t"fmt"\n\n\t"example.test/hello"\n\t'
        '"mine.test/program/own"\n)\n\n'
        "func main() { fmt.Println(hello.Version, own.Name) }\n",
        "own/own.go": 'package own\n\nconst Name = "own"\n',
    }
    async with PackageSite() as site, installing(tmp_path, site.registry(KINDS["go"])) as executor:
        add_packages(site)
        first = depending("go", "", WANTED["go"])
        request = type(first)(
            language="go",
            files=[type(first.files[0])(path=path, content=text.encode()) for path, text in files.items()],
            dependencies=first.dependencies,
        )
        result = await executor.execute(request)
        assert result.stdout.data == b"1.3.0 own\n", result.stderr.data
