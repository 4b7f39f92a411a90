"""What installs dependencies works inside the trees, after all trimming, as a user without rights."""

import zipfile
from pathlib import Path

import pytest

from sandbox.rootfs import find_trees
from sandbox.rootfs.shell import TreeShell
from sandbox.tree import LanguageTree, Runtime
from tests.conftest import state_dir

pytestmark = [pytest.mark.root, pytest.mark.tree]

ASK = {
    "python": ("{install}", "--version"),
    "javascript": ("{install}", "--version"),
    "typescript": ("{install}", "--version"),
    "java": ("{run}", "-jar", "{install}", "-version"),
    "go": ("{install}", "version"),
    "php": ("{install}", "--version"),
    "swift": ("{install}", "--version"),
}
MANIFEST = "// swift-tools-version:5.9\nimport PackageDescription\nlet package = Package(name: "


def first(language: str) -> tuple[LanguageTree, Runtime]:
    """Return the default version of a language and its tree."""
    tree = find_trees(state_dir())[0]
    (runtime,) = [each for each in tree.runtimes if each.language == language]
    return tree, runtime


def write(folder: Path, files: dict[str, str]) -> None:
    """Write files by path."""
    for path, text in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


@pytest.mark.versions
@pytest.mark.parametrize("language", ASK)
def test_installer_of_every_version_answers(language: str, tmp_path: Path) -> None:
    """Each version's tree has the program that installs for it, and it starts without a network."""
    found = [
        (tree, each)
        for tree in find_trees(state_dir())
        for each in tree.runtimes
        if each.language == language
    ]
    assert len(found) == (1 if language == "swift" else 2)
    for tree, runtime in found:
        argv = [word.format(**runtime.programs) for word in ASK[language]]
        printed = TreeShell(tree.path, tmp_path, is_unprivileged=True).require(argv)
        assert any(character.isdigit() for character in printed) or "Ivy" in printed


def test_go_builds_a_module_from_a_proxy(tmp_path: Path) -> None:
    """The go command downloads a module from a proxy made of files, and builds with it."""
    tree, runtime = first("go")
    proxy = "proxy/example.test/word/@v"
    write(
        tmp_path,
        {
            "main.go": 'package main\n\nimport "example.test/word"\n\nfunc main() { print(word.Word()) }\n',
            "go.mod": "module program\n\ngo 1.24\n\nrequire example.test/word v1.0.0\n",
            f"{proxy}/list": "v1.0.0\n",
            f"{proxy}/v1.0.0.info": '{"Version": "v1.0.0"}\n',
            f"{proxy}/v1.0.0.mod": "module example.test/word\n",
        },
    )
    with zipfile.ZipFile(tmp_path / proxy / "v1.0.0.zip", "w") as archive:
        archive.writestr("example.test/word@v1.0.0/go.mod", "module example.test/word\n")
        archive.writestr(
            "example.test/word@v1.0.0/word.go", 'package word\n\nfunc Word() string { return "fetched" }\n'
        )
    env = {
        "CGO_ENABLED": "0",
        "GOCACHE": "/work/cache",
        "GOENV": "off",
        "GOFLAGS": "-mod=mod -modcacherw",
        "GOPATH": "/work/go",
        "GOPROXY": "file:///work/proxy",
        "GOSUMDB": "off",
        "GOTOOLCHAIN": "local",
    }
    shell = TreeShell(tree.path, tmp_path, is_unprivileged=True)
    shell.require([runtime.programs["install"], "mod", "download", "all"], env=env)
    shell.require([runtime.programs["install"], "build", "-o", "program", "."], env=env)
    assert shell.run(["/work/program"]).stderr == b"fetched"


@pytest.mark.slow
def test_swift_package_manager_builds_a_package_with_a_dependency(tmp_path: Path) -> None:
    """SwiftPM resolves a package from a git repository, builds it and links it."""
    tree, runtime = first("swift")
    write(
        tmp_path,
        {
            "app/Package.swift": MANIFEST
            + '"app", dependencies: [.package(url: "file:///work/word", from: "1.0.0")],'
            ' targets: [.executableTarget(name: "app",'
            ' dependencies: [.product(name: "Word", package: "word")])])\n',
            "app/Sources/app/main.swift": "import Word\nprint(word())\n",
            "word/Package.swift": MANIFEST + '"word", products: [.library(name: "Word", targets: ["Word"])],'
            ' targets: [.target(name: "Word")])\n',
            "word/Sources/Word/word.swift": 'public func word() -> String { "fetched" }\n',
        },
    )
    shell = TreeShell(tree.path, tmp_path, is_unprivileged=True)
    identity = "-c user.name=a -c user.email=a@example.test"
    script = (
        "set -e; export HOME=/work; cd /work/word; git init -q; git add -A\n"
        f"git {identity} commit -qm one; git tag 1.0.0; cd /work/app\n"
        '"$1" resolve >&2; "$2" --disable-sandbox --disable-index-store >&2; .build/debug/app\n'
    )
    programs = (runtime.programs["install"], runtime.programs["build"])
    assert shell.require(["/bin/sh", "-c", script, "swift", *programs]) == "fetched\n"
