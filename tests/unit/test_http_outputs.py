"""Whole outputs are kept by digest, within a bound, and never served wrong."""

import hashlib
import os
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from blueprint.http.outputs import OutputStore


def make(folder: Path, *, max_bytes: int = 1000, item_max_bytes: int = 400) -> OutputStore:
    """Return a small store."""
    return OutputStore(folder, max_bytes=max_bytes, item_max_bytes=item_max_bytes)


def files(folder: Path) -> list[str]:
    """Return the names of all files below a folder."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_put_then_get(tmp_path: Path) -> None:
    """What was put comes back under its SHA-256."""
    store = make(tmp_path)
    digest = store.put(b"hello")
    assert hashlib.sha256(b"hello").hexdigest() == digest
    assert store.get(digest) == b"hello"


def test_empty_output_is_an_output(tmp_path: Path) -> None:
    """Zero bytes are kept like any others."""
    store = make(tmp_path)
    assert store.get(store.put(b"")) == b""


def test_same_bytes_are_kept_once(tmp_path: Path) -> None:
    """Putting the same bytes twice takes their room once."""
    store = make(tmp_path)
    assert store.put(b"x" * 100) == store.put(b"x" * 100)
    assert store.total_bytes == 100


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    """A read protects an output; the one that was used longest ago makes room."""
    store = make(tmp_path)
    first, second = store.put(b"1" * 400), store.put(b"2" * 400)
    assert store.get(first) is not None
    third = store.put(b"3" * 400)
    assert [store.get(d) is not None for d in (first, second, third)] == [True, False, True]
    assert store.total_bytes == 800
    assert len(files(tmp_path)) == 2


def test_too_large_item_is_refused_with_a_fix(tmp_path: Path) -> None:
    """An output over the item cap is not kept, its digest is true, and the log says what to do."""
    store = make(tmp_path)
    with capture_logs() as logs:
        digest = store.put(b"x" * 401)
    assert digest == hashlib.sha256(b"x" * 401).hexdigest()
    assert store.get(digest) is None
    assert [(e["event"], "fix" in e) for e in logs] == [("output_not_stored", True)]


def test_restart_finds_the_outputs_in_order_of_use(tmp_path: Path) -> None:
    """A new store over the same folder serves what is there and evicts the longest unused first."""
    store = make(tmp_path)
    old, new = store.put(b"o" * 400), store.put(b"n" * 400)
    os.utime(tmp_path / old[:2] / old, (1, 1))
    again = make(tmp_path)
    assert again.total_bytes == 800
    again.put(b"z" * 400)
    assert (again.get(old), again.get(new)) == (None, b"n" * 400)


def test_restart_drops_half_written_files_and_shrinks_to_a_lower_cap(tmp_path: Path) -> None:
    """What a crash left half written is removed, and a lowered cap takes effect at start."""
    store = make(tmp_path)
    kept = store.put(b"k" * 400)
    store.put(b"m" * 400)
    os.utime(tmp_path / kept[:2] / kept, (1, 1))
    (tmp_path / kept[:2] / ".new-abc").write_bytes(b"half")
    again = make(tmp_path, max_bytes=500)
    assert (again.total_bytes, again.get(kept)) == (400, None)
    assert [name for name in files(tmp_path) if name.startswith(".new-")] == []


def test_corrupt_file_is_never_served(tmp_path: Path) -> None:
    """Bytes that do not have the digest any more are removed and reported as absent."""
    store = make(tmp_path)
    digest = store.put(b"truth")
    (tmp_path / digest[:2] / digest).write_bytes(b"lies!")
    assert store.get(digest) is None
    assert (files(tmp_path), store.total_bytes) == ([], 0)
    assert store.get(store.put(b"truth")) == b"truth"


@pytest.mark.parametrize("name", ["", "abc", "../../etc/passwd", "Z" * 64, "a" * 63, "A" * 64, "a" * 64])
def test_unknown_or_malformed_digest_is_absent(tmp_path: Path, name: str) -> None:
    """Anything that is no digest of a kept output is absent; nothing outside the folder is looked at."""
    assert make(tmp_path).get(name) is None


def test_full_disk_is_logged_and_the_digest_still_returned(tmp_path: Path) -> None:
    """When the folder cannot be written the log names reason and fix; the caller gets its digest."""
    store = make(tmp_path)
    digest = hashlib.sha256(b"data").hexdigest()
    (tmp_path / digest[:2]).write_bytes(b"a file where the folder must be")
    with capture_logs() as logs:
        assert store.put(b"data") == digest
    assert [e["event"] for e in logs] == ["output_not_stored"]
    assert str(tmp_path) in logs[0]["fix"]
    assert (store.get(digest), store.total_bytes) == (None, 0)


def test_threads_keep_the_count_right(tmp_path: Path) -> None:
    """Concurrent puts and gets leave a total that equals the bytes on disk, under the cap."""
    store = make(tmp_path)

    def work(seed: int) -> None:
        for n in range(40):
            data = bytes([seed, n]) * 50
            assert store.get(store.put(data)) in (data, None)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert store.total_bytes == on_disk <= 1000
