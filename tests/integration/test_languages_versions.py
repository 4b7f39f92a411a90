"""Every version of every language in the real sandbox, told apart by what it does."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.backends.slot import SlotBackend
from sandbox.bounds import StageBounds
from sandbox.errors import RequestError
from sandbox.executor import CodeExecutor
from sandbox.languages import LANGUAGES
from sandbox.request import ExecutionRequest, Limits, SourceFile
from sandbox.result import ExecutionResult, ExecutionStatus
from sandbox.rootfs import find_trees
from tests.conftest import PROJECT, state_dir

pytestmark = [pytest.mark.root, pytest.mark.tree, pytest.mark.versions]

HAS_PRINT = "#if __has_include(<print>)\n#define ANSWER 1\n#else\n#define ANSWER 0\n#endif\n"
# Each prints what only one of the two versions has; none asks for the version.
PROGRAMS = {
    "python": "try:\n    exec('type Pair[T] = tuple[T, T]')\n    print('new')\n"
    "except SyntaxError:\n    print('old')\n",
    "javascript": "console.log(typeof RegExp.escape === 'function' ? 'new' : 'old');\n",
    "typescript": "const escape: unknown = Reflect.get(RegExp, 'escape');\n"
    "console.log(typeof escape === 'function' ? 'new' : 'old');\n",
    "java": "class Main {\n  public static void main(String[] a) {\n"
    '    try { Class.forName("java.lang.IO"); System.out.println("new"); }\n'
    '    catch (ClassNotFoundException e) { System.out.println("old"); }\n  }\n}\n',
    "go": "package main\n\nfunc main() {\n\tfor range 2 {\n\t\tp := new(20 + 1)\n\t\t_ = *p\n\t}\n"
    '\tprintln("unseen")\n}\n',
    "cpp": f'#include <cstdio>\n{HAS_PRINT}int main() {{ std::puts(ANSWER ? "new" : "old"); }}\n',
    "php": "<?php\necho function_exists('array_find') ? 'new' : 'old', PHP_EOL;\n",
}


async def run(
    language: str, source: str, runtime: str, *, stdin: bytes = b"", **options: str
) -> ExecutionResult:
    """Run one program in a version, over all trees."""
    request = ExecutionRequest(
        language=language,
        runtime=runtime,
        files=[SourceFile(path=LANGUAGES[language].default_file, content=source.encode())],
        stdin=stdin,
        options=options,
    )
    trees = find_trees(state_dir())
    executor = CodeExecutor(trees, SlotBackend(), bounds=StageBounds(run=Limits(wall_time_s=60.0)))
    try:
        return await executor.execute(request)
    finally:
        await executor.aclose()


def tree_of(language: str, version: str) -> str:
    """Return the digest of the tree that has a version."""
    (digest,) = [
        tree.digest
        for tree in find_trees(state_dir())
        for runtime in tree.runtimes
        if (runtime.language, runtime.version) == (language, version)
    ]
    return digest


@pytest.mark.parametrize(
    ("language", "wanted", "starts_with", "printed"),
    [
        ("python", "", "3.13.", "new"),
        ("python", "3.11", "3.11.", "old"),
        ("python", ">=3.11,<3.13", "3.11.", "old"),
        ("javascript", ">=20", "24.", "new"),
        ("javascript", "^22", "22.", "old"),
        ("typescript", "5", "5.9.", "new"),
        ("typescript", "~5.8", "5.8.", "old"),
        ("java", ">=17", "25.", "new"),
        ("java", "21", "21.", "old"),
        ("cpp", "", "14.", "new"),
        ("cpp", "<14", "13.", "old"),
        ("php", "^8.3", "8.4.", "new"),
        ("php", "8.2", "8.2.", "old"),
    ],
)
async def test_version_shows_in_what_the_program_can_do(
    language: str, wanted: str, starts_with: str, printed: str
) -> None:
    """The version that was asked for runs, behaves as itself, and is named with its tree."""
    standard = {"standard": "c++23"} if language == "cpp" else {}
    result = await run(language, PROGRAMS[language], wanted, **standard)
    assert result.status is ExecutionStatus.SUCCESS, result.stderr.data.decode()
    assert result.stdout.data.decode().strip() == printed
    assert result.runtime.version.startswith(starts_with)
    assert result.runtime.tree_digest == tree_of(language, result.runtime.version)


@pytest.mark.parametrize(
    ("wanted", "starts_with", "status"),
    [("", "1.24.", ExecutionStatus.COMPILATION_ERROR), ("1.26", "1.26.", ExecutionStatus.SUCCESS)],
)
async def test_go_version_shows_in_what_compiles(
    wanted: str, starts_with: str, status: ExecutionStatus
) -> None:
    """The value form of new compiles from Go 1.26 on."""
    result = await run("go", PROGRAMS["go"], wanted)
    assert (result.status, result.runtime.version[:5]) == (status, starts_with)


@pytest.mark.parametrize(
    ("wanted", "status"), [("5.9", ExecutionStatus.COMPILATION_ERROR), ("5.8", ExecutionStatus.SUCCESS)]
)
async def test_typescript_version_shows_in_what_type_checks(wanted: str, status: ExecutionStatus) -> None:
    """The compiler is the version's own: from 5.9 on a typed array is no ArrayBuffer."""
    source = "const view: ArrayBuffer = new Uint8Array(2);\nconsole.log(view.byteLength);\n"
    assert (await run("typescript", source, wanted)).status is status


@pytest.mark.parametrize("language", [*PROGRAMS, "swift"])
async def test_every_version_answers_by_its_exact_name(language: str) -> None:
    """Each version can be asked for by its exact name, answers right, and is named in the result."""
    offered = [
        (each.version, tree.digest)
        for tree in find_trees(state_dir())
        for each in tree.runtimes
        if each.language == language
    ]
    minors = {tuple(version.split(".")[:2]) for version, _ in offered}
    assert len(minors) == len(offered) == (1 if language == "swift" else 2)
    for version, digest in offered:
        word = secrets.token_hex(8)
        result = await run(language, LANGUAGES[language].sample, version, stdin=word.encode())
        assert result.stdout.data.decode().strip() == word[::-1].upper(), result.stderr.data.decode()
        assert (result.runtime.version, result.runtime.tree_digest) == (version, digest)


async def test_version_that_is_not_there_is_refused_with_those_that_are() -> None:
    """The refusal lists what this machine has."""
    with pytest.raises(RequestError, match=r"expected one of 3\.13\.\d+, 3\.11\.\d+, received "):
        await run("python", "print(1)\n", "3.12.9")


def test_command_runs_the_version_that_is_asked_for(tmp_path: Path) -> None:
    """``blueprint exec --runtime`` takes a range, and says which version ran."""
    program = tmp_path / "program.py"
    program.write_text("import sys\nprint(sys.version_info[:2])\n")
    argv = [sys.executable, "-m", "blueprint", "exec", "--json", "--runtime", ">=3.10,<3.13", str(program)]
    done = subprocess.run(argv, capture_output=True, check=True, cwd=PROJECT)
    result = json.loads(done.stdout)
    assert result["stdout"]["text"] == "(3, 11)\n"
    assert result["runtime"]["version"].startswith("3.11.")


def test_doctor_names_a_tree_that_is_out_of_date(tmp_path: Path) -> None:
    """A further tree of an older recipe is named with the fix, and the others stay of use."""
    for tree in find_trees(state_dir()):
        data = json.loads((tree.path.parent / "manifest.json").read_text())
        if data["tree"] == "bookworm":
            data["recipes"]["php"] = "0" * 64
        folder = tmp_path / "trees" / tree.digest
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps(data))
    argv = [sys.executable, "-m", "blueprint", "doctor", "--json"]
    env = os.environ | {"BLUEPRINT_TREES_DIR": str(tmp_path)}
    done = subprocess.run(argv, capture_output=True, check=False, cwd=PROJECT, env=env)
    (finding,) = [each for each in json.loads(done.stdout)["findings"] if each["name"] == "languages"]
    assert (finding["level"], "out of date: bookworm;" in finding["detail"]) == ("weak", True)
    assert "python 3.13" in finding["detail"]
    assert "python 3.11" not in finding["detail"]
    assert "runtimes build" in finding["fix"]


def test_command_lists_every_version_with_its_digest() -> None:
    """``blueprint runtimes list --json`` has each version, its tree's digest, installer and libraries."""
    argv = [sys.executable, "-m", "blueprint", "runtimes", "list", "--json"]
    done = subprocess.run(argv, capture_output=True, check=True, cwd=PROJECT, env=dict(os.environ))
    listed = [entry for entry in json.loads(done.stdout) if entry["kind"] == "debian" and entry["is_current"]]
    shown = {(r["language"], r["version"], entry["digest"]) for entry in listed for r in entry["runtimes"]}
    there = {(r.language, r.version, tree.digest) for tree in find_trees(state_dir()) for r in tree.runtimes}
    assert there <= shown
    by_language = {r["language"]: r for r in listed[0]["runtimes"]}
    assert by_language["python"]["installer"] == "uv"
    assert "fmt" in [library["name"] for library in by_language["cpp"]["libraries"]]
