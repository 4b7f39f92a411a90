"""An execution request that exists is well formed: every way to break that is refused by name."""

from dataclasses import replace

import pytest

from sandbox.errors import RequestError
from sandbox.request import Dependency, ExecutionRequest, Limits, SourceFile
from sandbox.wellformed import MAX_ARGS, MAX_ENV_VARS, MAX_FILES, MAX_STDIN_BYTES

MAIN = SourceFile(path="main.py", content=b"print(1)")
GOOD = ExecutionRequest(
    language="python",
    files=[MAIN, SourceFile(path="data/in.bin", content=b"\0\1")],
    entry_point="main.py",
    args=["--flag", "two\nlines"],
    env_vars={"NAME": "value\twith tab", "_x1": ""},
    dependencies=[Dependency(name="@scope/pkg", requirement=">=1.0"), Dependency(name="github.com/a/b")],
    timeout_s=300,
    options={"standard": "c++20"},
    outputs=["out", "out/deep.txt"],
)


def test_request_keeps_what_it_was_given() -> None:
    """A well-formed request is accepted as it is."""
    assert [file.path for file in GOOD.files] == ["main.py", "data/in.bin"]
    assert GOOD.env_vars == {"NAME": "value\twith tab", "_x1": ""}


def test_request_does_not_change_when_its_parts_do() -> None:
    """The request holds copies: what was checked is what is run."""
    files, env_vars = [MAIN], {"A": "1"}
    request = ExecutionRequest(language="python", files=files, env_vars=env_vars)
    files.append(SourceFile(path="evil", content=b""))
    env_vars["LATER"] = "x"
    assert len(request.files) == 1
    assert request.env_vars == {"A": "1"}


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../out",
        "a/../../b",
        "a/..",
        ".",
        "./a",
        "a//b",
        "a/",
        "",
        "nul\0byte",
        "new\nline",
        "\x7f",
        "\ud800",
        "x" * 256,
        "/".join(["d" * 200] * 6),
    ],
)
def test_request_refuses_paths_that_leave_work(path: str) -> None:
    """Only plain relative paths are accepted, for files, the entry point and outputs alike."""
    with pytest.raises(RequestError, match="files: "):
        SourceFile(path=path, content=b"")
    with pytest.raises(RequestError, match="outputs: "):
        replace(GOOD, outputs=[path])
    if path:
        with pytest.raises(RequestError, match="entry_point: "):
            replace(GOOD, entry_point=path)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-r",
        "--index-url=x",
        "../up",
        "/abs",
        "a b",
        "git+https://x",
        "a\nb",
        "file:///x",
        "a/",
        "x" * 300,
    ],
)
def test_request_refuses_dependency_tricks(name: str) -> None:
    """A dependency's name is no option, no path and no address."""
    with pytest.raises(RequestError, match="dependencies: the name of a package"):
        Dependency(name=name)
    with pytest.raises(RequestError, match="requirement: must not start with '-'"):
        Dependency(name="pkg", requirement="--pre")
    with pytest.raises(RequestError, match="source: a NUL"):
        Dependency(name="pkg", source="\0")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"language": ""}, "language: a name is expected"),
        ({"language": "x" * 65}, "language: at most 64 bytes"),
        ({"runtime": "3\0"}, "runtime: a NUL"),
        ({"files": []}, "files: at least one"),
        ({"files": [MAIN, MAIN]}, "'main.py' comes twice"),
        (
            {"files": [SourceFile(path="a", content=b""), SourceFile(path="a/b/c", content=b"")]},
            "'a' is a file and a",
        ),
        (
            {"files": [SourceFile(path=f"f{n}", content=b"") for n in range(MAX_FILES + 1)]},
            "at most 256 entries",
        ),
        (
            {"files": [SourceFile(path=f"f{n}", content=bytes(20 << 20)) for n in range(2)]},
            "files: at most .* bytes",
        ),
        ({"files": [SourceFile(path="snippet", content=b"a\0b")], "entry_point": ""}, "has one at byte 1"),
        ({"files": [MAIN, SourceFile(path="lib.py", content=b"\0")]}, "'lib.py' has one at byte 0"),
        ({"stdin": bytes(MAX_STDIN_BYTES + 1)}, "stdin: at most"),
        ({"args": ["x"] * (MAX_ARGS + 1)}, "args: at most 256 entries, *|args: at most"),
        ({"args": ["a\0"]}, "args: a NUL character is not accepted"),
        ({"args": ["x" * 40_000] * 2}, "args: at most 65536 bytes are accepted, received 80000"),
        (
            {"env_vars": {f"V{n}": "" for n in range(10_000)}},
            f"env_vars: at most {MAX_ENV_VARS} .* received 10000",
        ),
        ({"env_vars": {"A": "x" * 70_000}}, "env_vars.A: at most 65536 bytes"),
        ({"env_vars": {"A": "x" * 40_000, "B": "x" * 40_000}}, "env_vars: at most 65536 bytes"),
        ({"env_vars": {"A=B": ""}}, "env_vars: a name has letters"),
        ({"env_vars": {"1A": ""}}, "env_vars: a name has letters"),
        ({"env_vars": {"": ""}}, "env_vars: a name has letters"),
        ({"env_vars": {"A": "x\0"}}, "env_vars.A: a NUL"),
        ({"env_vars": {"A": "\udcff"}}, "env_vars.A: .*surrogate"),
        ({"timeout_s": 0}, "timeout_s: a number over 0"),
        ({"timeout_s": -1.0}, "timeout_s: a number over 0"),
        ({"timeout_s": float("nan")}, "timeout_s: a number over 0"),
        ({"timeout_s": 86401.0}, "timeout_s: at most 86400"),
        ({"options": {"BIG": ""}}, "options: an option is named in lower case"),
        ({"options": {"a": "x" * 300}}, "options.a: at most 256"),
        ({"options": {f"o{n}": "" for n in range(40)}}, "options: at most 32"),
        ({"dependencies": [Dependency(name="a")] * 65}, "dependencies: at most 64"),
        ({"outputs": ["a"] * 65}, "outputs: at most 64"),
    ],
)
def test_request_that_is_malformed_names_the_field(change: dict[str, object], problem: str) -> None:
    """Each malformed field has its own message, and nothing is run."""
    with pytest.raises(RequestError, match=problem):
        replace(GOOD, **change)  # type: ignore[arg-type] # wrong on purpose


@pytest.mark.parametrize("field", ["wall_time_s", "memory_bytes", "disk_bytes", "processes", "output_bytes"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), True])
def test_request_limits_are_positive_numbers(field: str, value: float) -> None:
    """A limit that is no positive, finite number would not limit anything."""
    with pytest.raises(RequestError, match=rf"limits\.{field}: a number over 0"):
        Limits(**{field: value})  # type: ignore[arg-type] # wrong on purpose


def test_request_messages_show_no_contents() -> None:
    """Values of variables and contents of files may be secrets: messages do not repeat them."""
    with pytest.raises(RequestError) as caught:
        replace(GOOD, env_vars={"TOKEN": "hunter2\0"})
    assert "hunter2" not in str(caught.value)
    assert "value" not in repr(GOOD)
