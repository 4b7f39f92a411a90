"""Every language in the real sandbox, with the real language tree."""

import re
import secrets
from collections.abc import Mapping

import pytest

from sandbox.backends.slot import SlotBackend
from sandbox.bounds import StageBounds
from sandbox.executor import CodeExecutor
from sandbox.languages import LANGUAGES
from sandbox.request import ExecutionRequest, Limits, SourceFile
from sandbox.result import ExecutionResult, ExecutionStatus
from sandbox.rootfs import find_tree
from sandbox.tree import LanguageTree
from tests.conftest import state_dir
from tests.support.programs import BROKEN, ECHO, EXITS_7, MANY_FILES, THROWS

pytestmark = [pytest.mark.root, pytest.mark.tree]

COMPILED = ("typescript", "java", "go", "cpp", "swift")


def tree() -> LanguageTree:
    """Return the built tree."""
    found = find_tree(state_dir())
    assert found is not None
    return found


async def run(
    language: str,
    source: str | Mapping[str, str],
    *,
    stdin: bytes = b"",
    args: tuple[str, ...] = (),
    env_vars: Mapping[str, str] | None = None,
    entry_point: str = "",
    **options: str,
) -> ExecutionResult:
    """Run one program in a sandbox of its own."""
    files = {LANGUAGES[language].default_file: source} if isinstance(source, str) else source
    request = ExecutionRequest(
        language=language,
        files=[SourceFile(path=path, content=text.encode()) for path, text in files.items()],
        stdin=stdin,
        args=args,
        env_vars=env_vars or {},
        entry_point=entry_point,
        options=options,
    )
    executor = CodeExecutor([tree()], SlotBackend(), bounds=StageBounds(run=Limits(wall_time_s=60.0)))
    try:
        return await executor.execute(request)
    finally:
        await executor.aclose()


def printed(result: ExecutionResult) -> str:
    """Return what a program printed, after asserting that it succeeded."""
    said = result.stderr.data.decode("utf-8", "replace")
    assert result.status is ExecutionStatus.SUCCESS, f"{result.status.name}: {result.error_message} {said}"
    return result.stdout.data.decode()


@pytest.mark.parametrize("language", LANGUAGES)
async def test_sample_transforms_a_word_that_nobody_knew(language: str) -> None:
    """Each language reads a random word and prints it reversed, in the version that the tree names."""
    word = secrets.token_hex(8)
    result = await run(language, LANGUAGES[language].sample, stdin=f"{word}\n".encode())
    assert printed(result).strip() == word[::-1].upper()
    (runtime,) = [runtime for runtime in tree().runtimes if runtime.language == language]
    assert result.runtime.version == runtime.version
    assert re.fullmatch(r"\d+(\.\d+)*", runtime.version)


@pytest.mark.parametrize("language", ECHO)
async def test_arguments_variables_and_input_arrive(language: str) -> None:
    """Arguments with blanks and dashes, a variable and standard input reach the program unchanged."""
    nonce = secrets.token_hex(6)
    result = await run(
        language,
        ECHO[language],
        stdin=b"from stdin\n",
        args=("-x", "two words", nonce),
        env_vars={"NAME": nonce},
    )
    assert printed(result).strip() == f"-x|two words|{nonce}|{nonce}|from stdin"


@pytest.mark.parametrize("language", EXITS_7)
async def test_exit_code_is_the_programs(language: str) -> None:
    """A program that exits with 7 after printing ends as nonzero_exit, and what it printed is kept."""
    result = await run(language, EXITS_7[language])
    assert (result.status, result.exit_code) == (ExecutionStatus.NONZERO_EXIT, 7)
    assert result.stdout.data.strip() == b"before"


@pytest.mark.parametrize("language", THROWS)
async def test_uncaught_error_is_the_programs_failure(language: str) -> None:
    """An error that nobody catches ends the program with its words on stderr, not as a failure of ours."""
    nonce = secrets.token_hex(6)
    result = await run(language, THROWS[language].replace("NONCE", nonce))
    assert result.status in (ExecutionStatus.NONZERO_EXIT, ExecutionStatus.SIGNALLED)
    assert nonce.encode() in result.stderr.data


@pytest.mark.parametrize("language", COMPILED)
async def test_source_that_does_not_compile_says_where(language: str) -> None:
    """A compile error has its own status; the compiler's words name the file and the line."""
    result = await run(language, BROKEN[language])
    assert result.status is ExecutionStatus.COMPILATION_ERROR
    output = (result.stdout.data + result.stderr.data).decode()
    assert re.search(r"[Mm]ain\.\w+[:(]3\b", output), output


@pytest.mark.parametrize("language", MANY_FILES)
async def test_program_of_several_files(language: str) -> None:
    """A program whose parts stand in several files and folders finds them."""
    nonce = secrets.token_hex(6)
    files, entry_point = MANY_FILES[language]
    result = await run(
        language,
        {path: text.replace("NONCE", nonce) for path, text in files.items()},
        entry_point=entry_point,
    )
    assert printed(result).strip() == f"part {nonce}"


async def test_java_class_of_any_name() -> None:
    """A lone Java file may hold a public class of any name, in a package."""
    source = (
        "package a.b;\npublic class Whatever {\n"
        '  public static void main(String[] a) { System.out.println("ok"); }\n}\n'
    )
    assert printed(await run("java", source)) == "ok\n"


async def test_java_without_a_class() -> None:
    """A compact source file, with nothing but a main method, runs."""
    assert printed(await run("java", 'void main() { IO.println("ok"); }\n')) == "ok\n"


@pytest.mark.parametrize(
    ("standard", "number"), [("c++17", "201703"), ("c++20", "202002"), ("c++23", "202302")]
)
async def test_cpp_standards(standard: str, number: str) -> None:
    """The chosen C++ standard is the one that the compiler uses."""
    source = "#include <iostream>\nint main() { std::cout << __cplusplus; }\n"
    assert printed(await run("cpp", source, standard=standard)) == number


async def test_go_imports_large_packages() -> None:
    """The compiled standard library holds what programs really import."""
    source = (
        'package main\n\nimport (\n\t"encoding/json"\n\t"fmt"\n\t"net/http"\n\t"regexp"\n)\n\nfunc main() {\n'
        '\tb, _ := json.Marshal(map[string]int{"a": http.StatusOK})\n'
        '\tfmt.Println(string(b), regexp.MustCompile("b+").FindString("abbc"))\n}\n'
    )
    assert printed(await run("go", source)) == '{"a":200} bb\n'


async def test_go_refuses_internal_packages() -> None:
    """What the standard library keeps to itself cannot be imported."""
    result = await run("go", 'package main\n\nimport _ "internal/abi"\n\nfunc main() {}\n')
    assert result.status is ExecutionStatus.COMPILATION_ERROR


async def test_swift_macros_foundation_and_concurrency() -> None:
    """Foundation, concurrency and macros link and run."""
    source = (
        "import Foundation\nimport Observation\n\n@Observable final class Model { var x = 1 }\n"
        "struct P: Codable { var a: Int }\nlet m = Model()\nm.x = 2\n"
        "let d = try JSONEncoder().encode(P(a: m.x))\n"
        "let t = Task { String(data: d, encoding: .utf8)! }\nprint(await t.value)\n"
    )
    assert printed(await run("swift", source)) == '{"a":2}\n'


async def test_typescript_without_type_check() -> None:
    """With type_check off a wrong type runs, and an enum still works."""
    source = (
        "enum E { A = 3 }\nconst n: number = 'text' as any;\n"
        "const wrong: number = 'x';\nconsole.log(E.A, wrong);\n"
    )
    assert printed(await run("typescript", source, type_check="false")) == "3 x\n"


async def test_typescript_waits_outside_functions() -> None:
    """An await outside functions makes an ES module, and runs."""
    source = "const x: number = await Promise.resolve(41);\nconsole.log(x + 1);\n"
    assert printed(await run("typescript", source)) == "42\n"


async def test_typescript_strict_is_an_option() -> None:
    """An implicit any passes by default and is refused when strict is asked for."""
    source = "function f(x) { return x; }\nconsole.log(f(1));\n"
    assert printed(await run("typescript", source)) == "1\n"
    assert (await run("typescript", source, strict="true")).status is ExecutionStatus.COMPILATION_ERROR


async def test_javascript_modules() -> None:
    """An ES module is told from its source."""
    source = "import os from 'node:os';\nconst x = await Promise.resolve(os.EOL.length);\nconsole.log(x);\n"
    assert printed(await run("javascript", source)) == "1\n"


async def test_go_package_of_several_files() -> None:
    """The files of one package, without a module file, are compiled together."""
    files = {
        "main.go": 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println(part()) }\n',
        "part.go": 'package main\n\nfunc part() string { return "part" }\n',
    }
    assert printed(await run("go", files)) == "part\n"
