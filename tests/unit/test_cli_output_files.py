"""Files that a program left are written where nothing is, and nowhere else."""

import hashlib
from pathlib import Path

import pytest

from blueprint.cli.output_files import left_out, made_folder, write_files
from blueprint.errors import BlueprintError
from sandbox.result import OutputFile


def left(path: str, content: bytes = b"new") -> OutputFile:
    """Return a file of a program."""
    digest = hashlib.sha256(content).hexdigest()
    return OutputFile(path=path, content=content, size_bytes=len(content), sha256=digest)


def test_files_are_written_with_the_folders_between(tmp_path: Path) -> None:
    """Content and path are those that the program chose."""
    write_files(made_folder(tmp_path / "a/b"), [left("one"), left("deep/er/two", b"\xff")])
    assert (tmp_path / "a/b/one").read_bytes() == b"new"
    assert (tmp_path / "a/b/deep/er/two").read_bytes() == b"\xff"


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    """A file of the user's stays as it is, and the error names it and the way out."""
    (tmp_path / "one").write_text("mine")
    with pytest.raises(BlueprintError, match="one: File exists; .* --outputs-to"):
        write_files(tmp_path, [left("one")])
    assert (tmp_path / "one").read_text() == "mine"


def test_no_link_is_followed(tmp_path: Path) -> None:
    """Neither a link to a folder nor one to a file leads out of the folder."""
    outside, folder = tmp_path / "outside", made_folder(tmp_path / "folder")
    outside.mkdir()
    (folder / "way").symlink_to(outside)
    (folder / "file").symlink_to(outside / "file")
    for path in ("way/one", "file", "../outside/one", "a/../../outside/one"):
        with pytest.raises(BlueprintError, match="--outputs-to"):
            write_files(folder, [left(path)])
    assert list(outside.iterdir()) == []


def test_control_characters_of_a_name_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """The error shows them escaped."""
    name = "\x1b[2Jevil\n"
    (tmp_path / name).touch()
    with pytest.raises(BlueprintError) as caught:
        write_files(tmp_path, [left(name)])
    assert "\\x1b[2Jevil\\n" in str(caught.value)


def test_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """Before anything runs."""
    (tmp_path / "one").touch()
    with pytest.raises(BlueprintError, match="--outputs-to .*one: File exists"):
        made_folder(tmp_path / "one")


def test_paths_without_a_file_are_told() -> None:
    """A folder is there when a file is below it, not when another's name begins so."""
    assert left_out(["one", "folder", "fold", "two"], [left("one"), left("folder/x")]) == ["fold", "two"]
