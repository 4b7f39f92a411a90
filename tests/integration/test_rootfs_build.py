"""Building a tree: complete or nothing, one at a time, found again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.errors import RequestError, SandboxUnavailableError, SystemFailureError
from sandbox.languages import LANGUAGES
from sandbox.rootfs import (
    BuildStep,
    build_tree,
    find_tree,
    find_trees,
    host_tree,
    is_current,
    list_trees,
    survey_host,
)
from sandbox.rootfs.bootstrap import require_tools
from sandbox.rootfs.process import leashed, run_streaming, started
from sandbox.rootfs.recipe import load_recipes
from sandbox.rootfs.shell import TreeShell
from sandbox.rootfs.trees import Manifest, build_folder, locked, publish
from sandbox.tree import Runtime
from tests.conftest import PROJECT, state_dir

BUILD = """
import sys
from pathlib import Path
from sandbox.rootfs import build_tree
def report(step):
    print(step.phase, flush=True)
build_tree(Path(sys.argv[1]), ["python"], progress=report, force=True)
"""


def manifest(
    digest: str = "a" * 64,
    *,
    languages: tuple[str, ...] = ("python",),
    recipe: str = "",
    tree: str = "trixie",
) -> Manifest:
    """Make the manifest of a made-up tree."""
    (made_by,) = [each for each in load_recipes() if each.name == tree]
    return Manifest(
        digest=digest,
        tree=tree,
        recipe=recipe or made_by.digest,
        recipes={each.name: each.digest for each in made_by.languages if each.name in languages},
        suite="trixie",
        architecture="amd64",
        runtimes=tuple(Runtime(language=name, version="1", programs={"run": "/x"}) for name in languages),
        packages={},
        npm={},
        wheels={},
        size_bytes=1,
        files=1,
    )


def put(state: Path, made: Manifest) -> Path:
    """Publish an empty tree with this manifest."""
    with locked(state, lambda: None) as trees, build_folder(trees) as folder:
        (folder / "root").mkdir()
        return publish(folder, trees, made).path


def names(state: Path) -> list[str]:
    """List what lies in the folder of trees, the lock left out."""
    return sorted(path.name for path in (state / "trees").iterdir() if path.name != ".lock")


def start_build(state: Path) -> subprocess.Popen[str]:
    """Start a build of Python's tree in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(state)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_naming(word: str) -> list[str]:
    """List the command lines of running processes that hold a word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if word in text and path.parent.name != str(os.getpid()):
            found.append(text)
    return found


# --- the folder of trees


def test_published_tree_is_found_again(tmp_path: Path) -> None:
    """A published tree is found by its languages, aliases too, with everything of its manifest."""
    path = put(tmp_path, manifest(languages=("python", "cpp")))
    found = find_tree(tmp_path, ["c++"])
    assert found is not None
    assert (found.path, found.digest, found.kind) == (path, "a" * 64, "debian")
    assert [runtime.language for runtime in found.runtimes] == ["python", "cpp"]
    assert names(tmp_path) == ["a" * 64]


def test_tree_without_a_language_is_not_found(tmp_path: Path) -> None:
    """A tree that lacks one of the languages asked for does not serve."""
    put(tmp_path, manifest())
    assert find_tree(tmp_path, ["python", "swift"]) is None
    assert find_tree(tmp_path) is not None


def test_tree_of_another_recipe_is_not_found(tmp_path: Path) -> None:
    """A tree that an older recipe made is out of date."""
    put(tmp_path, manifest(recipe="0" * 64))
    assert find_tree(tmp_path) is None
    assert len(list_trees(tmp_path)) == 1


def test_tree_with_an_older_recipe_of_a_language_is_not_found(tmp_path: Path) -> None:
    """A tree is out of date when the recipe of one of its languages has changed, and only then."""
    made = manifest(languages=("python", "go"))
    put(tmp_path, replace(made, recipes={**made.recipes, "go": "0" * 64}))
    assert find_tree(tmp_path) is None
    assert not is_current(list_trees(tmp_path)[0][1])
    put(tmp_path, manifest("b" * 64))
    assert find_tree(tmp_path).digest == "b" * 64


def test_further_trees_follow_the_first(tmp_path: Path) -> None:
    """Trees with further versions are found after the one with the default versions, in order."""
    put(tmp_path, manifest("a" * 64, languages=("php",), tree="bookworm"))
    assert find_trees(tmp_path) == ()
    put(tmp_path, manifest("b" * 64, languages=("python", "php")))
    put(tmp_path, manifest("c" * 64, languages=("go",), tree="trixie-more"))
    assert [tree.digest[0] for tree in find_trees(tmp_path)] == ["b", "c", "a"]
    assert find_tree(tmp_path).digest == "b" * 64
    assert find_trees(tmp_path, ["go"]) == ()


def test_further_tree_that_is_missing_or_stale_is_left_out(tmp_path: Path) -> None:
    """Without the others, or with one of an older recipe, the first tree serves alone."""
    put(tmp_path, manifest())
    assert [tree.digest[0] for tree in find_trees(tmp_path)] == ["a"]
    put(tmp_path, manifest("b" * 64, languages=("php",), tree="bookworm", recipe="0" * 64))
    assert [tree.digest[0] for tree in find_trees(tmp_path)] == ["a"]


def test_newest_tree_wins(tmp_path: Path) -> None:
    """Of several trees that serve, the newest is taken."""
    first = put(tmp_path, manifest("a" * 64))
    second = put(tmp_path, manifest("b" * 64))
    os.utime(first.parent / "manifest.json", (1, 1))
    assert find_tree(tmp_path).path == second
    os.utime(second.parent / "manifest.json", (0, 0))
    assert find_tree(tmp_path).path == first


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}', '{"format": 1, "runtimes": 3}'])
def test_broken_manifest_is_no_tree(tmp_path: Path, content: str) -> None:
    """A manifest that cannot be read is left out, and breaks nothing."""
    folder = tmp_path / "trees" / ("c" * 64)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(content)
    assert find_tree(tmp_path) is None


def test_no_state_is_no_tree(tmp_path: Path) -> None:
    """A state directory that does not exist holds no tree."""
    assert find_tree(tmp_path / "none") is None


def test_equal_tree_is_kept_once(tmp_path: Path) -> None:
    """Building the same content again keeps the first tree and leaves nothing beside it."""
    assert put(tmp_path, manifest()) == put(tmp_path, manifest())
    assert names(tmp_path) == ["a" * 64]


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    """Whatever ends a build, an interrupt included, its folder is gone."""

    def build() -> None:
        with locked(tmp_path, lambda: None) as trees, build_folder(trees) as folder:
            (folder / "root/usr").mkdir(parents=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build()
    assert names(tmp_path) == []


def test_leftover_of_a_killed_build_is_removed_and_never_counts(tmp_path: Path) -> None:
    """A folder that a killed builder left is no tree, and the next builder removes it."""
    stale = tmp_path / "trees/.build-old"
    (stale / "root").mkdir(parents=True)
    (stale / "manifest.json").write_text(json.dumps({"format": 1}))
    assert find_tree(tmp_path) is None
    put(tmp_path, manifest())
    assert names(tmp_path) == ["a" * 64]


def test_second_builder_waits_and_reuses(tmp_path: Path) -> None:
    """While one builder holds the lock, another waits, says so, and then takes the first one's tree."""
    steps: list[BuildStep] = []
    result = []
    with locked(tmp_path, lambda: None) as trees, build_folder(trees) as folder:
        (folder / "root").mkdir()
        try:
            require_tools()
        except SandboxUnavailableError as exc:
            pytest.skip(str(exc))
        second = threading.Thread(
            target=lambda: result.append(build_tree(tmp_path, ["python"], progress=steps.append))
        )
        second.start()
        deadline_s = time.monotonic() + 10
        while not steps and time.monotonic() < deadline_s:
            time.sleep(0.01)
        published = publish(folder, trees, manifest())
    second.join(timeout=10)
    assert [tree.path for tree in result] == [published.path]
    assert {step.phase for step in steps} == {"wait"}


def test_state_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A state directory under a file is refused with its path."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(SystemFailureError, match="cannot write to"), locked(tmp_path / "file", lambda: None):
        pass


def test_unknown_language_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """A language that does not exist makes no folder."""
    with pytest.raises(RequestError, match="did you mean 'swift'"):
        build_tree(tmp_path / "state", ["swifft"])
    assert not (tmp_path / "state").exists()


def test_missing_program_is_refused_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mmdebstrap the build names the exact command that installs it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailableError, match=r"apt-get install .*mmdebstrap"):
        build_tree(tmp_path / "state", ["python"])


@pytest.mark.root
def test_full_disk_is_refused_before_the_build(tmp_path: Path) -> None:
    """On a file system that is too small the build says what it needs, and leaves nothing."""
    try:
        require_tools()
    except SandboxUnavailableError as exc:
        pytest.skip(str(exc))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(tmp_path)], check=True)
    try:
        with pytest.raises(SandboxUnavailableError, match="GiB are free; make room"):
            build_tree(tmp_path, ["python"])
        assert names(tmp_path) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# --- running programs


def test_lines_and_exit_code_come_back() -> None:
    """Both streams are handed over line by line, and the exit code is the program's."""
    lines: list[str] = []
    done = run_streaming(["sh", "-c", "echo one; echo two >&2; exit 3"], lines.append)
    assert (done.exit_code, sorted(lines)) == (3, ["one", "two"])
    assert done.says("two")


def test_error_while_reading_ends_the_program() -> None:
    """When the reader fails, the program is killed and waited for."""

    def fail(line: str) -> None:
        raise ValueError(line)

    word = f"sleep 97.{os.getpid()}"
    with pytest.raises(ValueError, match="x"):
        run_streaming(leashed(["sh", "-c", f"echo x; {word}"]), fail)
    deadline_s = time.monotonic() + 5
    while processes_naming(word) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert processes_naming(word) == []


def test_started_program_runs_beside_us_and_is_waited_for() -> None:
    """A program that was started goes on by itself; its output comes when it is asked for, however much."""
    with started(["sh", "-c", "head -c 200000 /dev/zero | tr '\\0' x; echo noise >&2"]) as finish:
        assert finish() == "x" * 200_000


def test_started_program_that_fails_is_a_failure() -> None:
    """A failed program is told with its last words, when its end is asked for."""
    with (
        started(["sh", "-c", "echo sorry >&2; exit 3"]) as finish,
        pytest.raises(SystemFailureError, match="ended with 3: sorry"),
    ):
        finish()


def test_started_program_is_killed_when_it_is_left() -> None:
    """When something else fails, or an interrupt comes, nothing that was started goes on."""
    word = f"sleep 98.{os.getpid()}"
    with pytest.raises(KeyboardInterrupt), started(["sh", "-c", f"{word}; true"]):
        raise KeyboardInterrupt
    deadline_s = time.monotonic() + 5
    while processes_naming(word) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert processes_naming(word) == []


# --- the host as a tree


def test_host_tree_names_what_is_there_and_the_fix_for_the_rest() -> None:
    """Each language is either there with its version and real programs, or missing with its fix."""
    survey = survey_host()
    there = {runtime.language for runtime in survey.tree.runtimes}
    assert there | set(survey.missing) == set(LANGUAGES)
    assert not there & set(survey.missing)
    assert all("install" in fix for fix in survey.missing.values())
    for runtime in survey.tree.runtimes:
        assert runtime.version[0].isdigit()
        for path in runtime.programs.values():
            assert Path(path).exists()
            assert path.startswith("/usr/")
    assert (survey.tree.kind, survey.tree.path) == ("host", Path("/"))
    assert host_tree() == survey.tree


def test_host_without_anything_misses_everything(tmp_path: Path) -> None:
    """Where nothing is installed there is a tree without runtimes, and a fix for each language."""
    survey = survey_host(str(tmp_path))
    assert survey.tree.runtimes == ()
    assert set(survey.missing) == set(LANGUAGES)


def test_program_outside_usr_counts_as_missing(tmp_path: Path) -> None:
    """A program that a sandbox could not see is not offered."""
    program = tmp_path / "php"
    program.write_text("#!/bin/sh\necho 8.9.9\n")
    program.chmod(0o755)
    assert "php" in survey_host(str(tmp_path)).missing


# --- the real thing


@pytest.mark.root
@pytest.mark.tree
def test_shell_is_apart_from_the_host(tmp_path: Path) -> None:
    """A command in a tree sees neither the host's processes nor its network, and leaves no mount."""
    tree = find_tree(state_dir())
    mounts = Path("/proc/self/mountinfo").read_text()
    shell = TreeShell(tree.path, tmp_path, is_unprivileged=True)
    code = "import os; pids = [p for p in os.listdir('/proc') if p.isdigit()]; "
    code += "print(len(pids), os.getuid(), os.listdir('/sys'))"
    assert shell.require(["/usr/bin/python3", "-c", code]).split() == ["1", "65534", "[]"]
    assert Path("/proc/self/mountinfo").read_text() == mounts
    with pytest.raises(SystemFailureError, match="ended with 3 inside the tree: oh"):
        shell.require(["/bin/sh", "-c", "echo oh >&2; exit 3"])


@pytest.mark.tree
def test_built_tree_carries_nothing_of_the_host() -> None:
    """The tree in use has no apt settings, identity, logs, set-uid programs or unreadable programs."""
    tree = find_tree(state_dir())
    for path in ("etc/apt", "etc/machine-id", "etc/resolv.conf", "etc/hostname", "var/lib/apt"):
        assert not (tree.path / path).exists()
    assert list((tree.path / "var/log").iterdir()) == []
    assert list((tree.path / "dev").iterdir()) == []
    bad = [path for path in (tree.path / "usr/bin").iterdir() if path.lstat().st_mode & 0o6000]
    assert bad == []
    data = json.loads((tree.path.parent / "manifest.json").read_text())
    assert data["digest"] == tree.digest == tree.path.parent.name
    assert data["packages"]["python3"].startswith("3.13")
    assert {runtime.language for runtime in tree.runtimes} <= {
        entry["language"] for entry in data["runtimes"]
    }


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.tree
def test_killed_build_leaves_no_process_no_mount_and_no_tree(tmp_path: Path) -> None:
    """After kill -9 nothing runs, nothing is mounted, nothing counts; the next builder cleans up."""
    mounts = Path("/proc/self/mountinfo").read_text()
    child = start_build(tmp_path)
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == "unpack":
            break
    assert any(name.startswith(".build-") for name in names(tmp_path))
    child.send_signal(signal.SIGKILL)
    child.communicate()
    deadline_s = time.monotonic() + 10
    while processes_naming(str(tmp_path)) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert processes_naming(str(tmp_path)) == []
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert find_tree(tmp_path) is None
    put(tmp_path, manifest())
    assert names(tmp_path) == ["a" * 64]


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.tree
@pytest.mark.timeout(600)
def test_interrupted_build_cleans_up_itself(tmp_path: Path) -> None:
    """Ctrl-C during the build ends it at once and leaves nothing."""
    child = start_build(tmp_path)
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == "download":
            break
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    assert child.returncode != 0
    assert names(tmp_path) == []
    assert processes_naming(str(tmp_path)) == []
