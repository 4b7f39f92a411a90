"""A C++ program's dependencies become flags of its compiler."""

import pytest

from sandbox.bounds import StageBounds
from sandbox.errors import RequestError
from sandbox.languages import LANGUAGES
from sandbox.languages.language import Provision
from sandbox.languages.libraries import choose_libraries
from sandbox.request import Dependency, ExecutionRequest, SourceFile
from sandbox.tree import Library, Runtime

LIBRARIES = (
    Library(name="fmt", version="10.1.1", include="/l/fmt/include", flags=("-DFMT_HEADER_ONLY",)),
    Library(name="spdlog", version="1.15.2", include="/l/spdlog/include", needs=("fmt",)),
    Library(name="zlib", version="1.3.1", include="/l/zlib/include", archives="/l/zlib/lib", flags=("-lz",)),
    Library(
        name="openssl",
        version="3.5.9",
        include="/l/openssl/include",
        archives="/l/openssl/lib",
        flags=("-lssl", "-lcrypto"),
        needs=("zlib",),
    ),
)
RUNTIME = Runtime(language="cpp", version="14.2.0", programs={"compile": "/t/g++"}, libraries=LIBRARIES)


def wanted(*names: str, requirement: str = "", source: str = "") -> list[Dependency]:
    """Name dependencies."""
    return [Dependency(name=name, requirement=requirement, source=source) for name in names]


def test_no_dependency_is_no_flag() -> None:
    """A program that asks for nothing is compiled as before, with an empty lock."""
    chosen = choose_libraries((), RUNTIME)
    assert (chosen.flags, chosen.lock) == ((), "")


def test_needed_libraries_come_along_and_are_linked_after() -> None:
    """A library brings what it needs, which follows it: static archives are read once."""
    chosen = choose_libraries(wanted("zlib", "openssl"), RUNTIME)
    assert chosen.flags == (
        *("-isystem", "/l/openssl/include", "-L/l/openssl/lib", "-lssl", "-lcrypto"),
        *("-isystem", "/l/zlib/include", "-L/l/zlib/lib", "-lz"),
    )
    assert chosen.lock == "openssl 3.5.9\nzlib 1.3.1\n"


def test_library_of_headers_alone_has_no_folder_of_archives() -> None:
    """A header library gives an include folder and its definitions, and so does the one it is built on."""
    assert choose_libraries(wanted("spdlog"), RUNTIME).flags == (
        *("-isystem", "/l/spdlog/include"),
        *("-isystem", "/l/fmt/include", "-DFMT_HEADER_ONLY"),
    )


def test_flags_follow_the_sources_in_the_plan() -> None:
    """The compile stage of a program with dependencies ends in their flags, after its sources."""
    request = ExecutionRequest(
        language="cpp",
        files=(SourceFile(path="main.cpp", content=b"int main() {}"),),
        dependencies=wanted("zlib"),
    )
    plan = LANGUAGES["cpp"].plan(request, Provision(runtime=RUNTIME, bounds=StageBounds()))
    assert plan.lock == "zlib 1.3.1\n"
    argv = plan.stages[0].argv
    assert argv[-5:] == ("/work/main.cpp", "-isystem", "/l/zlib/include", "-L/l/zlib/lib", "-lz")


def test_version_of_a_library_is_checked() -> None:
    """A range that the library meets passes; one that it does not is refused with what is there."""
    assert choose_libraries(wanted("fmt", requirement=">=9,<11"), RUNTIME).lock == "fmt 10.1.1\n"
    with pytest.raises(RequestError, match=r"dependencies: fmt: expected one of 10\.1\.1, received '\^11'"):
        choose_libraries(wanted("fmt", requirement="^11"), RUNTIME)


def test_unknown_library_is_refused_with_the_closest() -> None:
    """A name that is not there is refused with the list and the closest."""
    with pytest.raises(
        RequestError, match=r"expected one of fmt, spdlog, zlib, openssl.*did you mean 'spdlog'"
    ):
        choose_libraries(wanted("spdlogg"), RUNTIME)


def test_source_of_a_library_is_refused() -> None:
    """Libraries come from the tree only: a source is refused rather than ignored."""
    with pytest.raises(RequestError, match="expected no source"):
        choose_libraries(wanted("fmt", source="https://example.test/"), RUNTIME)


def test_runtime_without_libraries_refuses_all() -> None:
    """A runtime of the host has no libraries of its own and says so."""
    with pytest.raises(RequestError, match="expected one of none"):
        choose_libraries(wanted("fmt"), Runtime(language="cpp", version="12", programs={}))
