"""The image's steps, carried out without Docker and without a registry."""

import shlex
from pathlib import Path

import pytest

from sandbox.rootfs import find_tree
from tests.conftest import PROJECT, state_dir
from tests.support.imagefile import parse, prove, run

DOCKERFILE = PROJECT / "Dockerfile"


def test_file_is_covered_by_the_proof() -> None:
    """Every instruction of the Dockerfile is one that the proof carries out."""
    stages = parse(DOCKERFILE.read_text())
    assert [stage.name for stage in stages][:3] == ["base", "build", "tree"]
    assert len(stages) == 4


def test_last_stage_runs_without_root_and_is_healthy_by_http() -> None:
    """The image ends with a user that is not root, a health check and the node as its program."""
    last = parse(DOCKERFILE.read_text())[-1]
    words = [instruction.word for instruction in last.instructions]
    assert {"USER", "HEALTHCHECK", "ENTRYPOINT", "CMD"} <= set(words)
    (user,) = [instruction.rest for instruction in last.instructions if instruction.word == "USER"]
    assert user not in ("root", "0")


def test_every_copied_path_is_there_and_not_ignored() -> None:
    """What is copied from the project exists, and .dockerignore lets it through."""
    let_through = {
        line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    for stage in parse(DOCKERFILE.read_text()):
        for instruction in stage.instructions:
            if instruction.word == "COPY" and "from" not in instruction.options:
                for source in instruction.rest.split()[:-1]:
                    assert (PROJECT / source).exists()
                    assert source in let_through


def test_base_images_are_debian() -> None:
    """Every stage starts from Debian or from an earlier stage."""
    stages = parse(DOCKERFILE.read_text())
    names = {stage.name for stage in stages}
    assert all(stage.base in names or stage.base.startswith("debian:") for stage in stages)


def test_unknown_instruction_is_refused() -> None:
    """An instruction that the proof cannot carry out is not passed over."""
    with pytest.raises(ValueError, match="ONBUILD is not covered"):
        parse("FROM debian:trixie-slim\nONBUILD RUN true\n")


@pytest.mark.root
@pytest.mark.tree
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_image_is_built_and_its_program_answers(tmp_path: Path) -> None:
    """All steps succeed on a fresh Debian, and the node in it answers as its user; the tree is given."""
    tree = find_tree(state_dir())
    assert tree is not None
    stage = tmp_path / "tree-stage"
    trees = stage / "var/lib/tee-job-node/trees"
    trees.mkdir(parents=True)
    (trees / tree.digest).mkdir()
    (trees / tree.digest / "manifest.json").write_bytes((tree.path.parent / "manifest.json").read_bytes())
    root, last = prove(DOCKERFILE.read_text(), tmp_path, {"tree": stage})
    assert "runtimes" in run(root, last, shlex.join([*last.entrypoint, "--help"]))
    listed = run(root, last, "id -un; python3 -c 'import urllib.request'; command -v bwrap")
    assert listed.split() == ["node", "/usr/bin/bwrap"]
    assert (root / "var/lib/tee-job-node/trees" / tree.digest / "manifest.json").is_file()
