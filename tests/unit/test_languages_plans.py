"""How each language turns a request into stages."""

import contextlib
import re
import sys
import time

import pytest

from sandbox.bounds import StageBounds
from sandbox.errors import RequestError
from sandbox.languages import LANGUAGES, Plan
from sandbox.languages.language import Provision
from sandbox.request import ExecutionRequest, Limits, SourceFile
from sandbox.tree import Runtime

PROGRAMS = {
    "python": {"run": "/t/python3"},
    "javascript": {"run": "/t/node"},
    "typescript": {"run": "/t/node", "compile": "/t/tsc.js", "types": "/t/types"},
    "java": {"run": "/t/java", "compile": "/t/javac"},
    "go": {
        "compile": "/t/go",
        "compiler": "/t/compile",
        "linker": "/t/link",
        "packages": "/t/packages",
        "cache": "/t/cache",
    },
    "cpp": {"compile": "/t/g++", "linker": "/t/mold"},
    "php": {"run": "/t/php"},
    "swift": {"compile": "/t/swiftc", "linker": "/t/mold", "module_cache": "/t/modules"},
}


def plan(
    language: str,
    files: dict[str, str] | None = None,
    *,
    entry_point: str = "",
    args: tuple[str, ...] = (),
    memory_bytes: int | None = None,
    programs: dict[str, str] | None = None,
    **options: str,
) -> Plan:
    """Plan a program in a made-up runtime."""
    declared = LANGUAGES[language]
    contents = files if files is not None else {declared.default_file: "void main() {}"}
    request = ExecutionRequest(
        language=language,
        files=tuple(SourceFile(path=path, content=text.encode()) for path, text in contents.items()),
        entry_point=entry_point,
        args=args,
        options=options,
    )
    runtime = Runtime(language=language, version="1.2.3", programs=programs or PROGRAMS[language])
    bounds = StageBounds(run=Limits(memory_bytes=memory_bytes)) if memory_bytes else StageBounds()
    return declared.plan(request, Provision(runtime=runtime, bounds=bounds))


@pytest.mark.parametrize("language", PROGRAMS)
def test_last_stage_runs_with_the_arguments_at_the_end(language: str) -> None:
    """In every language the run stage comes last and hands the arguments over unchanged and in order."""
    last = plan(language, args=("-x", "two words", "--")).stages[-1]
    assert (last.name, last.argv[-3:]) == ("run", ("-x", "two words", "--"))


@pytest.mark.parametrize("language", PROGRAMS)
def test_every_program_is_an_absolute_path(language: str) -> None:
    """A back end is never asked to search for a program."""
    assert all(stage.argv[0].startswith("/") for stage in plan(language).stages)


@pytest.mark.parametrize("language", PROGRAMS)
def test_unknown_option_is_refused_by_name(language: str) -> None:
    """An option that a language does not know is not ignored: the message names it."""
    with pytest.raises(RequestError, match="'turbo'"):
        plan(language, turbo="1")


@pytest.mark.parametrize("language", PROGRAMS)
def test_entry_point_that_is_not_among_the_files_is_refused_with_the_closest(language: str) -> None:
    """A mistyped entry point is refused, and the message offers the file that was meant."""
    file = LANGUAGES[language].default_file
    with pytest.raises(RequestError, match=re.escape(f"did you mean '{file}'")):
        plan(language, {file: "void main() {}", "other.txt": ""}, entry_point=file[1:])


@pytest.mark.parametrize("language", ["python", "javascript", "php"])
def test_interpreted_languages_have_one_stage(language: str) -> None:
    """Python, JavaScript and PHP have nothing to compile."""
    assert tuple(stage.name for stage in plan(language).stages) == ("run",)


def test_only_single_threaded_runtimes_count_processes_by_tasks() -> None:
    """Python, PHP and C++ start with one task, so that the kernel's limit on tasks is that on processes."""
    exact = {name for name in PROGRAMS if plan(name).stages[-1].counts_processes_exactly}
    assert {"python", "php", "cpp"} == exact


@pytest.mark.parametrize(("memory_mib", "expected"), [(512, 384), (64, 48), (8, 16)])
def test_node_heap_follows_the_memory_limit(memory_mib: int, expected: int) -> None:
    """Node's heap is three quarters of the memory limit, and at least 16 MiB."""
    argv = plan("javascript", memory_bytes=memory_mib << 20).stages[-1].argv
    assert f"--max-old-space-size={expected}" in argv


def test_jvm_heap_follows_the_memory_limit() -> None:
    """The JVM is told its heap for compiling and running, because it would size itself by the machine."""
    compile_stage, run_stage = plan("java", memory_bytes=512 << 20).stages
    assert "-J-Xmx512m" in compile_stage.argv  # half of what a compiler may take
    assert "-Xmx358m" in run_stage.argv


def test_no_stage_limits_the_address_space() -> None:
    """No plan asks for RLIMIT_AS: the JVM, V8 and Go would not start under one."""
    assert not any(
        "ulimit" in word for name in PROGRAMS for stage in plan(name).stages for word in stage.argv
    )


# --- entry points


def test_usual_name_wins_among_several_files() -> None:
    """Without an entry point the language's usual first file is started."""
    argv = plan("python", {"a.py": "", "main.py": "", "z.py": ""}).stages[-1].argv
    assert argv[-1] == "/work/main.py"


def test_only_file_is_the_entry_whatever_its_name() -> None:
    """A lone file is started even when its name says nothing."""
    assert plan("python", {"snippet": ""}).stages[-1].argv[-1] == "/work/snippet"


def test_only_source_among_data_files_is_the_entry() -> None:
    """Of a source and data files the source is started."""
    assert plan("javascript", {"data.json": "", "a.js": ""}).stages[-1].argv[-1] == "/work/a.js"


def test_ambiguous_entry_is_refused() -> None:
    """Two candidates and no entry point is an error that names the field to set."""
    with pytest.raises(RequestError, match="set entry_point"):
        plan("python", {"a.py": "", "b.py": ""})


def test_entry_point_wins() -> None:
    """The request's entry point wins over the usual name."""
    assert plan("python", {"main.py": "", "b.py": ""}, entry_point="b.py").stages[-1].argv[-1] == "/work/b.py"


# --- C++


def test_cpp_compiles_every_source_and_finds_headers() -> None:
    """All sources are compiled together, headers are not, and the folder is on the include path."""
    argv = plan("cpp", {"main.cpp": "", "lib/a.cc": "", "lib/a.h": ""}).stages[0].argv
    assert argv[-2:] == ("/work/main.cpp", "/work/lib/a.cc")
    assert "-I/work" in argv


@pytest.mark.parametrize("standard", ["c++11", "c++17", "c++20", "c++23"])
def test_cpp_standard_is_an_option(standard: str) -> None:
    """The C++ standard can be chosen."""
    assert f"-std={standard}" in plan("cpp", standard=standard).stages[0].argv


def test_cpp_standard_that_does_not_exist_is_refused() -> None:
    """An unknown standard is refused and the known ones are listed."""
    with pytest.raises(RequestError, match=r"one of c\+\+17, c\+\+11"):
        plan("cpp", standard="c++18")


def test_cpp_without_a_source_is_refused() -> None:
    """Files without a C++ source cannot be planned."""
    with pytest.raises(RequestError, match=r"ends in \.cpp"):
        plan("cpp", {"main.h": "", "a.txt": ""})


def test_cpp_links_with_the_default_linker_without_mold() -> None:
    """A runtime without mold (a host tree) still compiles."""
    argv = plan("cpp", programs={"compile": "/usr/bin/g++"}).stages[0].argv
    assert not any("fuse-ld" in word for word in argv)


# --- Go


def test_go_program_of_one_package_is_compiled_directly() -> None:
    """A plain program leaves the go command out."""
    argv = plan("go", {"main.go": "package main", "b.go": "package main"}).stages[0].argv
    assert argv[0] == "/bin/sh"
    assert argv[-2:] == ("/work/main.go", "/work/b.go")


@pytest.mark.parametrize(
    "files",
    [
        {"go.mod": "module m", "main.go": "package main", "u/u.go": "package u"},
        {"main.go": "//go:build linux\npackage main"},
        {"main.go": 'package main\nimport _ "embed"\n//go:embed a.txt\nvar s string', "a.txt": ""},
        {"main.go": 'package main\nimport "C"'},
        {"main.go": "package main", "x_linux.go": "package main"},
    ],
    ids=["packages", "constraint", "embed", "cgo", "name"],
)
def test_go_command_builds_what_only_it_understands(files: dict[str, str]) -> None:
    """Modules, build constraints, embedded files and cgo go through the go command."""
    assert plan("go", files).stages[0].argv[0] == "/t/go"


def test_go_tests_are_not_part_of_the_program() -> None:
    """A file that ends in _test.go is not compiled."""
    argv = plan("go", {"main.go": "package main", "main_test.go": "package main"}).stages[0].argv
    assert "/work/main_test.go" not in argv


def test_go_without_archives_uses_the_go_command() -> None:
    """A host tree has no compiled standard library, so the go command builds it in the sandbox."""
    stage = plan("go", programs={"compile": "/usr/lib/go/bin/go"}).stages[0]
    assert stage.argv[0] == "/usr/lib/go/bin/go"
    assert stage.env["GOCACHE"].startswith("/tmp/")


def test_go_never_downloads() -> None:
    """Neither modules nor toolchains are fetched while a program is built."""
    env = plan("go").stages[0].env
    assert (env["GOPROXY"], env["GOTOOLCHAIN"], env["CGO_ENABLED"]) == ("off", "local", "0")


# --- Swift


def test_swift_entry_of_another_name_is_compiled_as_main() -> None:
    """Only main.swift of several files may hold statements, so the entry is compiled under that name."""
    planned = plan("swift", {"app.swift": "print(1)", "b.swift": ""}, entry_point="app.swift")
    assert [file.path for file in planned.files] == [".entry/main.swift"]
    assert planned.stages[0].argv[-2:] == ("/work/.entry/main.swift", "/work/b.swift")


def test_swift_main_attribute_means_a_library() -> None:
    """A program that starts at @main is parsed as a library, whatever its files are called."""
    planned = plan("swift", {"a.swift": "@main struct A { static func main() {} }", "b.swift": ""})
    assert "-parse-as-library" in planned.stages[0].argv


def test_swift_without_a_source_is_refused() -> None:
    """Files without a Swift source cannot be planned."""
    with pytest.raises(RequestError, match=r"\.swift"):
        plan("swift", {"a.txt": "", "b.txt": ""})


# --- TypeScript


def test_typescript_without_type_check_runs_the_source() -> None:
    """With type_check off there is no compile stage: Node.js strips the types itself."""
    stages = plan("typescript", type_check="false").stages
    assert len(stages) == 1
    assert stages[0].argv[-1] == "/work/main.ts"


def test_typescript_runs_what_was_compiled_from_the_entry() -> None:
    """The run stage starts the compiled file of the entry, in the same sub-folder."""
    planned = plan("typescript", {"src/app.mts": "", "src/b.mts": ""}, entry_point="src/app.mts")
    assert planned.stages[-1].argv[-1] == "/work/.js/src/app.mjs"


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("import fs from 'fs';", "commonjs"),
        ("const x = await fetch('a');", "module"),
        ("await main();", "module"),
        ("const f = async () => { return await g(); };", "commonjs"),
        ("async function f() {\n  await g();\n}\nf();", "commonjs"),
        ("console.log(import.meta.url);", "module"),
        ("// await comes later", "commonjs"),
        ("for await (const line of lines) {}", "module"),
    ],
)
def test_typescript_module_kind_is_told_from_the_source(source: str, kind: str) -> None:
    """An await outside functions, or import.meta, makes an ES module; everything else is CommonJS."""
    planned = plan("typescript", {"main.ts": source})
    assert f'{{"type": "{kind}"}}'.encode() == planned.files[0].content


def test_typescript_module_option_and_package_decide_before_the_source() -> None:
    """The option wins over package.json, and package.json over the guess."""
    files = {"main.ts": "await 1;", "package.json": '{"type": "commonjs"}'}
    assert b"commonjs" in plan("typescript", files, entry_point="main.ts").files[0].content
    assert b'"module"' in plan("typescript", files, entry_point="main.ts", module="esm").files[0].content


@pytest.mark.parametrize("limit", [1_000, 1_000_000])
@pytest.mark.parametrize("content", ["[" * 200_000, '{"type":' * 900 + "1" + "}" * 900], ids=["many", "deep"])
def test_a_package_file_of_brackets_ends_nothing(limit: int, content: str) -> None:
    """A package.json that nests without end is Node.js's to complain of, whatever the recursion limit is."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    try:
        planned = plan("typescript", {"main.ts": "", "package.json": content}, entry_point="main.ts")
    finally:
        sys.setrecursionlimit(before)
    assert b"commonjs" in planned.files[0].content


def test_typescript_project_file_is_respected() -> None:
    """A tsconfig.json among the files sets the compiler's options; ours only say where to write."""
    argv = plan("typescript", {"main.ts": "", "tsconfig.json": "{}"}).stages[0].argv
    assert "--project" in argv
    assert "--target" not in argv


# --- Java


@pytest.mark.parametrize(
    ("source", "main_class", "copied"),
    [
        ("public class Main { public static void main(String[] a) {} }", "Main", None),
        ("public class Foo { public static void main(String[] a) {} }", "Foo", ".entry/Foo.java"),
        ("package a.b; public class Foo { static void main() {} }", "a.b.Foo", ".entry/a/b/Foo.java"),
        ("class A {} class B { static void main(String[] x) {} }", "B", None),
        ("void main() { IO.println(1); }", "Main", None),
        ("public record R(int x) { public static void main(String[] a) {} }", "R", ".entry/R.java"),
        ('class A { String s = "class X { void main("; } class C { void main() {} }', "C", None),
        ("/* class X { void main( */ class C { void main() {} }", "C", None),
        ('class A { String s = """\n class X { void main( """; }\nclass C { void main() {} }', "C", None),
        (
            "public class O { class I { void main() {} } public static void main(String[] a) {} }",
            "O",
            ".entry/O.java",
        ),
    ],
)
def test_java_main_class_is_found_in_the_source(source: str, main_class: str, copied: str | None) -> None:
    """Any public class may stand in a snippet: it is compiled under its own name, and its main is found."""
    planned = plan("java", {"Main.java": source})
    assert main_class == planned.stages[-1].argv[-1]
    assert ([copied] if copied else []) == [file.path for file in planned.files]


def test_java_without_main_is_refused() -> None:
    """A program without a main method is refused before anything runs."""
    with pytest.raises(RequestError, match="main method"):
        plan("java", {"Main.java": "class A {}"})


def test_java_with_two_mains_asks_for_the_entry_point() -> None:
    """Two classes with main and no entry point is an error that lists them; the entry point resolves it."""
    files = {
        "A.java": "class A { static void main(String[] a) {} }",
        "B.java": "class B { static void main(String[] a) {} }",
    }
    with pytest.raises(RequestError, match=r"A\.java, B\.java"):
        plan("java", files)
    assert plan("java", files, entry_point="B.java").stages[-1].argv[-1] == "B"


def test_java_several_files_are_compiled_together() -> None:
    """Every Java file is compiled, and the one with main is started."""
    files = {"util/U.java": "package util; public class U {}", "App.java": "class App { void main() {} }"}
    compile_stage, run_stage = plan("java", files).stages
    assert compile_stage.argv[-2:] == ("/work/util/U.java", "/work/App.java")
    assert run_stage.argv[-1] == "App"


PIECES = (
    *(
        "\n",
        " ",
        "//",
        "// ",
        "//\n",
        "/* ",
        "final ",
        "public ",
        "public\n",
        "class ",
        "class x{}",
        "void main(",
    ),
    *(
        "@a ",
        "@a\n",
        "package ",
        "package a\n",
        '"',
        '"\\',
        '"""',
        '"""\\',
        '\\"""',
        "'",
        "'\\\n",
        "{",
        "import ",
        '"C"\n',
    ),
    *('"C" ', "x await ", "await=>\n", "import.meta", "async ", "@main ", "\t@main"),
)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("language", PROGRAMS)
def test_sources_are_read_at_once(language: str) -> None:
    """Planning reads a source once, whatever it repeats: the service reads it, and everybody waits."""
    began_s = time.process_time()
    for piece in PIECES:
        for end in ("", "\\", "\nvoid main() {}\n"):
            with contextlib.suppress(RequestError):
                plan(language, {LANGUAGES[language].default_file: (piece * 150_000)[:150_000] + end})
    assert time.process_time() - began_s < 20.0


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("public final class A { public static void main(String[] a) {} }", "A"),
        ("class B {}\npublic @Deprecated class A { void main() {} }\nclass C {}", "A"),
        ("public interface P {}\nclass B { static void main() {} }", "B"),
        ("@A\n@B package p.q;\nclass A { void main () {} }", "p.q.A"),
        ("/* c */ package p ;\nimport x.y;\nfinal class A { void main() {} } /* open", "p.A"),
        (
            'class A { String s="""\n } class X {void main(){} \\""" """;\nchar c = \'"\'; void main() {} }',
            "A",
        ),
    ],
)
def test_java_finds_the_class_that_starts(source: str, expected: str) -> None:
    """The class with a main method is found among modifiers, annotations, strings and comments."""
    argv = plan("java", {"Some.java": source}).stages[-1].argv
    assert expected in argv
