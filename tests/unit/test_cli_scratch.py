"""The folder of one run: removed at its end, after a kill by the next run, never under a living one."""

import contextlib
import tempfile
from pathlib import Path

import pytest

from blueprint.cli.scratch import scratch_folder


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put temporary files into a folder of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_folder_is_removed_at_the_end(temporary_files: Path) -> None:
    """Nothing is left when the run ends, not even by an error."""
    with contextlib.suppress(ZeroDivisionError), scratch_folder("run-") as folder:
        (folder / "log").write_text("x")
        raise ZeroDivisionError
    assert list(temporary_files.iterdir()) == []


def test_folder_of_a_killed_run_is_removed_by_the_next(temporary_files: Path) -> None:
    """A folder that nobody holds is a killed run's; another program's files stay."""
    (temporary_files / "run-killed").mkdir()
    (temporary_files / "run-killed" / "log").write_text("x")
    (temporary_files / "run-file").write_text("no folder")
    (temporary_files / "other-1").mkdir()
    with scratch_folder("run-") as folder:
        assert {path.name for path in temporary_files.iterdir()} == {folder.name, "run-file", "other-1"}


def test_folder_of_a_living_run_stays() -> None:
    """Two runs at the same time do not touch each other's folder."""
    with scratch_folder("run-") as first, scratch_folder("run-") as second:
        assert first.is_dir()
        assert second.is_dir()
