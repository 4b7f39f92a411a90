"""Programs from files and folders, and what is refused before anything runs."""

from pathlib import Path

import pytest

from blueprint.cli.program import read_program
from blueprint.cli.submit import to_chain
from blueprint.errors import ConfigError
from jobs.execute import to_execution_request
from sandbox.request import Dependency, ExecutionRequest, Limits


def read(source: Path, **changes: object) -> ExecutionRequest:
    """Read a program with every option at its default but the given ones."""
    values: dict[str, object] = {
        "language": None,
        "runtime": "",
        "entry_point": "",
        "stdin_from": None,
        "arguments": (),
        "env_vars": (),
        "options": (),
        "timeout_s": None,
        "network": "",
        "memory_bytes": None,
    }
    return read_program(source=source, **(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("a.py", "python"),
        ("a.mjs", "javascript"),
        ("a.ts", "typescript"),
        ("A.java", "java"),
        ("a.go", "go"),
        ("a.cc", "cpp"),
        ("a.php", "php"),
        ("a.swift", "swift"),
    ],
)
def test_language_is_told_from_the_name(tmp_path: Path, name: str, language: str) -> None:
    """The file's ending names the language."""
    (tmp_path / name).write_text("x")
    assert language == read(tmp_path / name).language


def test_folder_becomes_files_with_relative_paths(tmp_path: Path) -> None:
    """A folder is sent whole, less hidden files and installed packages."""
    for name in ("main.py", "lib/tool.py", ".git/config", "node_modules/x.js", "__pycache__/x.pyc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    request = read(tmp_path, entry_point="main.py")
    assert [file.path for file in request.files] == ["lib/tool.py", "main.py"]
    assert (request.language, request.entry_point) == ("python", "main.py")


def test_everything_is_passed_on(tmp_path: Path) -> None:
    """Standard input, arguments, variables, options and limits reach the request."""
    (tmp_path / "a.ts").write_text("code")
    (tmp_path / "in").write_bytes(b"\x00\xff")
    request = read(
        tmp_path / "a.ts",
        stdin_from=tmp_path / "in",
        arguments=("-x", "y"),
        env_vars=("A=1", "B=a=b", "C="),
        options=("strict=false",),
        timeout_s=1.5,
        network="api",
        memory_bytes=64 << 20,
    )
    assert request.network == "api"
    assert (request.stdin, request.args, request.timeout_s) == (b"\x00\xff", ("-x", "y"), 1.5)
    assert request.env_vars == {"A": "1", "B": "a=b", "C": ""}
    assert request.options == {"strict": "false"}
    assert request.limits is not None
    assert request.limits.memory_bytes == 64 << 20


def test_device_is_no_program() -> None:
    """What is neither a file nor a folder is named so, and not read."""
    with pytest.raises(ConfigError, match="/dev/zero is neither a file nor a folder"):
        read(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("files", "changes", "expected"),
    [
        (("a.txt",), {}, "no known ending; say --language, one of python"),
        (("a.py", "b.js"), {}, "holds javascript and python; say --language"),
        ((), {}, "holds no files"),
        (("a.py",), {"env_vars": ("NOVALUE",)}, "--env 'NOVALUE': expected NAME=VALUE"),
        (("a.py",), {"options": ("=x",)}, "--option '=x': expected NAME=VALUE"),
        (("a.py",), {"stdin_from": Path("/does/not/exist")}, "cannot read /does/not/exist"),
    ],
)
def test_wrong_programs_are_refused(
    tmp_path: Path, files: tuple[str, ...], changes: dict[str, object], expected: str
) -> None:
    """What cannot become a request is a usage error that says what to do."""
    for name in files:
        (tmp_path / name).write_text("x")
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, **changes)
    assert expected in str(caught.value)


def test_giant_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    """A sparse giant is refused by its size."""
    with (tmp_path / "a.py").open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(ConfigError, match="more than"):
        read(tmp_path / "a.py")


def test_dependencies_come_through_the_chain(tmp_path: Path) -> None:
    """What a program needs reaches the executor as it was written on the command line."""
    (tmp_path / "a.py").write_text("x")
    request = read(tmp_path / "a.py", dependencies=["requests>=2,<3", "numpy"])
    arrived = to_execution_request(to_chain(request), Limits())
    expected = (Dependency(name="requests", requirement=">=2,<3"), Dependency(name="numpy"))
    assert arrived.dependencies == request.dependencies == expected
