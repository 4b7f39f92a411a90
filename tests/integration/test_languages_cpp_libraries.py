"""The C++ libraries of the language tree, compiled and run in the real sandbox."""

from collections.abc import Sequence

import pytest

from sandbox.backends.slot import SlotBackend
from sandbox.errors import RequestError
from sandbox.executor import CodeExecutor
from sandbox.request import Dependency, ExecutionRequest, SourceFile
from sandbox.result import ExecutionResult, ExecutionStatus
from sandbox.rootfs import find_trees
from tests.conftest import state_dir

pytestmark = [pytest.mark.root, pytest.mark.tree]

# Libraries that are asked for, a program that uses each, and what it prints.
PROGRAMS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "formats": (
        ("nlohmann-json", "rapidjson", "pugixml", "yaml-cpp"),
        """
#include <iostream>
#include <nlohmann/json.hpp>
#include <pugixml.hpp>
#include <rapidjson/document.h>
#include <yaml-cpp/yaml.h>
int main() {
  pugi::xml_document xml;
  xml.load_string("<a b='3'/>");
  rapidjson::Document json;
  json.Parse("{\\"x\\": 2}");
  std::cout << nlohmann::json::parse("[1]")[0] << json["x"].GetInt()
    << xml.child("a").attribute("b").as_int() << YAML::Load("{y: 4}")["y"].as<int>();
}
""",
        "1234",
    ),
    "spdlog": (
        ("spdlog",),
        '#include <spdlog/spdlog.h>\nint main() { spdlog::info("{:>3}", 5); }\n',
        "[info]   5",
    ),
    "cli11": (
        ("cli11",),
        '#include <CLI/CLI.hpp>\nint main() { std::puts(CLI::App("five is the answer").help().c_str()); }\n',
        "five is the answer",
    ),
    "archives": (
        ("zlib", "zstd", "sqlite3", "gmp", "libsodium", "openssl"),
        """
#include <iostream>
#include <gmpxx.h>
#include <openssl/evp.h>
#include <sodium.h>
#include <sqlite3.h>
#include <zlib.h>
#include <zstd.h>
int main() {
  mpz_class big;
  mpz_ui_pow_ui(big.get_mpz_t(), 2, 70);
  unsigned char digest[32];
  unsigned int size = 0;
  EVP_Digest("abc", 3, digest, &size, EVP_sha256(), nullptr);
  sqlite3 *database;
  sqlite3_open(":memory:", &database);
  std::cout << crc32(0, (const unsigned char *)"abc", 3) << ' '
    << ZSTD_isError(ZSTD_compressBound(9)) << ' '
    << sqlite3_exec(database, "create table t(a)", nullptr, nullptr, nullptr) << ' '
    << big << ' ' << (sodium_init() >= 0) << ' ' << std::hex << int(digest[0]);
}
""",
        "891568578 0 0 1180591620717411303424 1 ba",
    ),
    "headers": (
        ("eigen3", "range-v3", "fmt"),
        """
#include <vector>
#include <Eigen/Dense>
#include <fmt/ranges.h>
#include <range/v3/range/conversion.hpp>
#include <range/v3/view/filter.hpp>
#include <range/v3/view/iota.hpp>
int main() {
  Eigen::Matrix2d matrix;
  matrix << 1, 2, 3, 4;
  auto odd = ranges::views::iota(1, 6) | ranges::views::filter([](int i) { return i % 2; });
  fmt::print("{} {}", matrix.determinant(), odd | ranges::to<std::vector<int>>());
}
""",
        "-2 [1, 3, 5]",
    ),
    "gtest": (
        ("gtest",),
        "#include <gtest/gtest.h>\nTEST(Sum, Adds) { EXPECT_EQ(1 + 1, 2); }\n",
        "[  PASSED  ] 1 test.",
    ),
    "catch2": (
        ("catch2",),
        '#include <catch2/catch_test_macros.hpp>\nTEST_CASE("sum") { REQUIRE(1 + 1 == 2); }\n',
        "All tests passed (1 assertion in 1 test case)",
    ),
}


async def compile_and_run(source: str, names: Sequence[str], *, version: str) -> ExecutionResult:
    """Compile and run one C++ program with some libraries, in a version of the compiler."""
    request = ExecutionRequest(
        language="cpp",
        runtime=version,
        files=[SourceFile(path="main.cpp", content=source.encode())],
        dependencies=[Dependency(name=name) for name in names],
    )
    executor = CodeExecutor(find_trees(state_dir()), SlotBackend())
    try:
        return await executor.execute(request)
    finally:
        await executor.aclose()


@pytest.mark.parametrize("name", PROGRAMS)
async def test_program_with_libraries_compiles_and_answers(name: str) -> None:
    """A program that asks for libraries is compiled and linked with them, and the lock names each."""
    libraries, source, expected = PROGRAMS[name]
    result = await compile_and_run(source, libraries, version="14")
    assert result.status is ExecutionStatus.SUCCESS, result.stderr.data.decode()[-3000:]
    assert expected in result.stdout.data.decode()
    locked = dict(line.split() for line in result.lock.splitlines())
    assert set(libraries) <= set(locked)
    assert all(version[0].isdigit() for version in locked.values())


async def test_library_that_is_not_there_is_refused() -> None:
    """A name or a version that the tree does not have is refused before anything runs."""
    with pytest.raises(RequestError, match="did you mean 'zlib'"):
        await compile_and_run("int main() {}", ["zlibb"], version="14")


@pytest.mark.versions
async def test_libraries_serve_the_other_compiler_too() -> None:
    """The archives are linked by the second version of the compiler as well."""
    libraries, source, expected = PROGRAMS["archives"]
    result = await compile_and_run(source, libraries, version="13")
    assert result.status is ExecutionStatus.SUCCESS, result.stderr.data.decode()[-3000:]
    assert expected in result.stdout.data.decode()


def test_every_library_is_used_by_a_program() -> None:
    """No library of the tree is left untried."""
    (cpp,) = [runtime for runtime in find_trees(state_dir())[0].runtimes if runtime.language == "cpp"]
    assert {library.name for library in cpp.libraries} == {
        name for libraries, _, _ in PROGRAMS.values() for name in libraries
    }


async def test_program_sees_no_library_that_it_does_not_ask_for() -> None:
    """Without dependencies none of the libraries' headers is found."""
    headers = ("fmt/core.h", "Eigen/Dense", "zlib.h", "openssl/evp.h", "gmp.h", "sqlite3.h", "gtest/gtest.h")
    source = "#include <cstdio>\nint main() {\n"
    source += "".join(
        f'#if __has_include(<{header}>)\n  std::puts("{header}");\n#endif\n' for header in headers
    )
    result = await compile_and_run(source + '  std::puts("none");\n}\n', (), version="14")
    assert result.stdout.data.decode() == "none\n"
