"""The recipe of a tree, and what is read out of a build."""

import base64
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.errors import RequestError, SandboxUnavailableError, SystemFailureError
from sandbox.languages import LANGUAGES
from sandbox.rootfs.bootstrap import BootstrapLog
from sandbox.rootfs.npm import check_integrity
from sandbox.rootfs.place import place_files
from sandbox.rootfs.progress import PHASES, BuildStep
from sandbox.rootfs.recipe import Recipe, load_recipes
from sandbox.rootfs.reporter import Reporter
from sandbox.rootfs.seal import installed_packages, measure
from sandbox.rootfs.trim import MOUNT_POINTS, remove_tree, strip_special_bits, trim
from sandbox.rootfs.verify import read_version
from sandbox.rootfs.warm import split_packages

LOG = """\
I: running apt-get update...
0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
Need to get 1500 kB of archives.
Get:1 http://m.test/debian sid/main amd64 a amd64 1 [500 kB]
Get:2 http://m.test/debian sid/main amd64 b amd64 1 [1000 kB]
I: extracting archives...
I: installing essential packages...
Setting up a (1) ...
Setting up b (1) ...
I: installing remaining packages inside the chroot...
0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.
Need to get 2 MB of archives.
Get:3 http://m.test/debian sid/main amd64 c amd64 1 [2 MB]
Setting up c (1) ...
"""


def recipe(*languages: str, tree: str = "trixie", machine: str | None = None) -> Recipe:
    """Load the recipe of one tree."""
    (found,) = [each for each in load_recipes(languages, machine) if each.name == tree]
    return found


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_recipe_covers_every_language_on_each_processor(machine: str) -> None:
    """Every version has packages or archives, a version command, absolute programs, and no word left over."""
    recipes = load_recipes((), machine)
    assert {language.name for language in recipes[0].languages} == set(LANGUAGES)
    for each in recipes:
        for language in each.languages:
            assert language.packages or language.npm or language.wheels
            assert language.version_argv[0].startswith("/")
            assert all(path.startswith("/") for path in language.programs.values())
            words = (*language.packages, *language.version_argv, *language.programs.values())
            assert not any("{" in word for word in words)
        assert not any("{" in pattern or pattern.startswith("/") for pattern in each.trims)


def test_all_of_the_eight_but_swift_have_two_releases() -> None:
    """Seven languages have releases that differ in their minor version, in trees apart."""
    releases: dict[str, list[str]] = {}
    for each in load_recipes():
        for language in each.languages:
            releases.setdefault(language.name, []).append(language.release)
    twice = {name for name, found in releases.items() if len(set(found)) > 1}
    assert twice >= {"python", "javascript", "typescript", "java", "go", "cpp", "php"}


def test_python_is_always_in() -> None:
    """What runs inside a sandbox is run by the tree's own Python, so no tree is without it."""
    assert [language.name for language in recipe("php").languages] == ["python", "php"]
    assert all("python3" in each.packages for each in load_recipes())


def test_trees_without_a_wanted_language_are_left_out() -> None:
    """Only the trees that have a version of a wanted language are built; the first is always among them."""
    assert [each.name for each in load_recipes(["swift"])] == ["trixie"]
    assert [each.name for each in load_recipes(["go"])] == ["trixie", "trixie-more"]
    assert [each.name for each in load_recipes(["php"])] == ["trixie", "bookworm"]
    assert [each.name for each in load_recipes()] == ["trixie", "trixie-more", "bookworm"]


def test_small_recipe_fetches_nothing_of_other_languages() -> None:
    """A recipe for Python alone has no compiler and nothing from npm."""
    small = recipe("python")
    assert not any("swift" in package or "jdk" in package for package in small.packages)
    assert not any(language.npm for language in small.languages)
    assert small.disk_bytes < recipe().disk_bytes / 5


def test_every_npm_package_is_pinned_by_its_digest() -> None:
    """No package of npm is fetched without a version and a SHA-512."""
    packages = [pack for each in load_recipes() for language in each.languages for pack in language.npm]
    assert packages
    assert all(package.integrity.startswith("sha512-") and package.version for package in packages)


def test_unknown_language_has_no_recipe() -> None:
    """A language without a recipe is refused by name."""
    with pytest.raises(RequestError, match="received cobol"):
        load_recipes(["cobol"])


def test_unknown_processor_is_sent_to_the_host_tree() -> None:
    """A processor that the recipe does not know is refused with the alternative."""
    with pytest.raises(SandboxUnavailableError, match="host tree"):
        load_recipes((), "riscv64")


def test_digest_of_a_language_does_not_depend_on_the_others() -> None:
    """A tree with fewer languages has the same digests, so that it stays current when another one changes."""
    small, large = recipe("php"), recipe()
    assert small.digest == large.digest
    digests = {language.name: language.digest for language in large.languages}
    assert {language.name: language.digest for language in small.languages}.items() <= digests.items()
    assert len(set(digests.values())) == len(digests)


def test_digest_sees_a_change_of_the_recipe() -> None:
    """Another pin, trim or suite is another digest."""
    (python,) = recipe("python").languages
    assert replace(python, trims=()).digest != python.digest
    assert replace(python, wheels=()).digest != python.digest
    assert replace(recipe(), suite="sid").digest != recipe().digest


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("Python 3.13.5\n", "3.13.5"),
        ("v24.21.0", "24.21.0"),
        ("openjdk 25 2025-09-16", "25"),
        ("go version go1.24.4 linux/amd64", "1.24.4"),
        ("Swift version 6.0.3 (swift-6.0.3-RELEASE)\nTarget: x86_64", "6.0.3"),
    ],
)
def test_version_is_the_first_number(printed: str, version: str) -> None:
    """The version is read from what the program itself prints."""
    assert read_version(printed) == version


def test_no_version_is_a_failure() -> None:
    """A program that prints no version fails the build."""
    with pytest.raises(SystemFailureError, match="expected a version"):
        read_version("command not found")


# --- progress


def test_bootstrap_log_becomes_phases_bytes_and_packages() -> None:
    """What mmdebstrap prints becomes phases with counts: two rounds of download and install."""
    steps: list[BuildStep] = []
    reporter = Reporter(steps.append, clock=lambda: 0.0)
    log = BootstrapLog(reporter)
    for line in LOG.splitlines():
        log.read(line)
    reporter.finish()
    assert [step.phase for step in steps if step.is_finished] == [
        "download", "unpack", "install", "download", "install",
    ]  # fmt: skip
    counted = [(step.done, step.total, step.unit) for step in steps if step.total is not None]
    assert counted == [
        (1_500_000, 1_500_000, "bytes"),
        (2, 2, "packages"),
        (2_000_000, 2_000_000, "bytes"),
        (1, 1, "packages"),
    ]


def test_reports_are_spaced_but_the_last_is_never_left_out() -> None:
    """Reports within a phase come at most five a second, and the one that completes it always comes."""
    now, steps = [0.0], list[BuildStep]()
    reporter = Reporter(steps.append, clock=lambda: now[0])
    reporter.begin("install", "x")
    for done in range(1, 101):
        now[0] += 0.01
        reporter.advance(done, 100, "packages")
    counts = [step.done for step in steps if step.done is not None]
    assert len(counts) <= 6
    assert counts[-1] == 100


def test_phase_times_are_summed() -> None:
    """A phase that comes twice counts once, with both times."""
    now = [0.0]
    reporter = Reporter(lambda step: None, clock=lambda: now[0])
    for phase, seconds in (("download", 2.0), ("install", 1.0), ("download", 3.0)):
        reporter.begin(phase, "")
        now[0] += seconds
    reporter.finish()
    assert reporter.times_s == {"download": 5.0, "install": 1.0}
    assert set(reporter.times_s) <= set(PHASES)


# --- npm


def test_wrong_archive_is_refused(tmp_path: Path) -> None:
    """An archive with another digest than the recipe's never reaches the tree."""
    archive = tmp_path / "a.tgz"
    archive.write_bytes(b"right")
    check_integrity(archive, "sha512-" + base64.b64encode(hashlib.sha512(b"right").digest()).decode())
    archive.write_bytes(b"wrong")
    with pytest.raises(SystemFailureError, match="not the file that the recipe pins"):
        check_integrity(archive, "sha512-" + base64.b64encode(hashlib.sha512(b"right").digest()).decode())


def test_only_named_files_are_placed(tmp_path: Path) -> None:
    """Of a package only the named files come into the tree, programs executable and the rest not."""
    unpacked, root = tmp_path / "p", tmp_path / "root"
    (unpacked / "bin").mkdir(parents=True)
    (unpacked / "bin/node").write_text("x")
    (unpacked / "bin/node").chmod(0o777)
    (unpacked / "lib.a.d.ts").write_text("a")
    (unpacked / "README.md").write_text("no")
    place_files(unpacked, root, {"bin/node": "usr/bin/node", "lib.*.d.ts": "usr/lib/"})
    placed = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert placed == {"usr/bin/node", "usr/lib/lib.a.d.ts"}
    assert (root / "usr/bin/node").stat().st_mode & 0o777 == 0o755


# --- trim and seal


def test_trim_removes_what_matches_and_makes_mount_points(tmp_path: Path) -> None:
    """Matching files and folders go, others stay, and the places to mount on are there."""
    (tmp_path / "usr/share/doc/a").mkdir(parents=True)
    (tmp_path / "usr/share/doc/a/b").write_text("x")
    (tmp_path / "usr/keep").write_text("x")
    trim(tmp_path, ["usr/share/doc/*"])
    assert not (tmp_path / "usr/share/doc/a").exists()
    assert (tmp_path / "usr/keep").exists()
    assert all((tmp_path / name).is_dir() for name in MOUNT_POINTS)


def test_trim_stays_inside_the_tree(tmp_path: Path) -> None:
    """A link that leads out of the tree never lets the trim remove something outside."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    (outside / "doc").mkdir(parents=True)
    (root / "usr").mkdir(parents=True)
    (root / "usr/share").symlink_to(outside)
    trim(root, ["usr/share/doc"])
    assert (outside / "doc").is_dir()


def test_trim_removes_a_link_and_not_its_target(tmp_path: Path) -> None:
    """A matching link goes; what it points to stays."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a")
    trim(tmp_path, ["b"])
    assert (tmp_path / "a").is_dir()
    assert not (tmp_path / "b").is_symlink()


def test_set_uid_bits_are_cleared(tmp_path: Path) -> None:
    """No program of a tree has a set-uid or set-gid bit, and none is writable by others."""
    program = tmp_path / "su"
    program.write_text("x")
    program.chmod(0o6757)
    assert strip_special_bits(tmp_path) == 1
    assert program.stat().st_mode & 0o7777 == 0o755


def test_remove_tree_copes_with_folders_without_write_permission(tmp_path: Path) -> None:
    """A folder without write permission is removed too, as packages of Go's module cache have them."""
    folder = tmp_path / "a/b"
    folder.mkdir(parents=True)
    (folder / "c").write_text("x")
    folder.chmod(0o500)
    remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("change", ["byte", "mode", "name", "link", "folder"])
def test_digest_sees_every_change(tmp_path: Path, change: str) -> None:
    """One byte, one mode bit, one name, one link target or one empty folder changes the digest."""
    (tmp_path / "f").write_text("x")
    (tmp_path / "l").symlink_to("f")
    before = measure(tmp_path).digest
    if change == "byte":
        (tmp_path / "f").write_text("y")
    elif change == "mode":
        (tmp_path / "f").chmod(0o600)
    elif change == "name":
        (tmp_path / "f").rename(tmp_path / "g")
    elif change == "link":
        (tmp_path / "l").unlink()
        (tmp_path / "l").symlink_to("g")
    else:
        (tmp_path / "d").mkdir()
    assert measure(tmp_path).digest != before


def test_digest_ignores_times_and_order(tmp_path: Path) -> None:
    """Two trees with the same content have one digest, whenever and in whatever order they were made."""
    for name, order in (("a", "xyz"), ("b", "zyx")):
        (tmp_path / name).mkdir()
        for letter in order:
            (tmp_path / name / letter).write_text(letter)
    first, second = measure(tmp_path / "a"), measure(tmp_path / "b")
    assert first == second
    assert (first.size_bytes, first.files) == (3, 3)


def test_installed_packages_are_read_from_dpkg(tmp_path: Path) -> None:
    """Packages that are installed count, removed ones do not."""
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text(
        "Package: a\nStatus: install ok installed\nVersion: 1:2-3\nDescription: x\n more: y\n\n"
        "Package: b\nStatus: deinstall ok config-files\nVersion: 1\n"
    )
    assert installed_packages(tmp_path) == {"a": "1:2-3"}


def test_internal_packages_are_linked_but_not_importable() -> None:
    """A program may import the public standard library only; it is linked from all of it."""
    public, everything = split_packages(
        "fmt=/c/1\ninternal/abi=/c/2\nnet/http/internal=/c/3\nvendor/x=/c/4\nunsafe=\n"
    )
    assert public == "packagefile fmt=/c/1\n"
    assert everything.count("packagefile") == 4
