"""The store of layers: found, pinned, evicted, verified, rebuilt, shared between services."""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.dependencies.filelock import try_lock
from sandbox.dependencies.layer import Layer, LayerManifest
from sandbox.dependencies.store import LayerStore
from sandbox.errors import SystemFailureError

KEY_A, KEY_B, KEY_C = ("a" * 64, "b" * 64, "c" * 64)


class Clock:
    """Seconds since 1970 as the test wants them."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def a_store(
    folder: Path, *, cap_bytes: int = 10_000, now_s: Callable[[], float] = lambda: 1_000_000.0
) -> LayerStore:
    """Open a store whose layers are good for a minute."""
    store = LayerStore(folder, cap_bytes=cap_bytes, max_age_s=60.0, now_s=now_s)
    store.open()
    return store


def put(store: LayerStore, key: str, size_bytes: int = 1000, *, used_at_s: float = 0.0) -> Layer:
    """Publish a layer with one file."""
    with store.build_folder() as folder:
        (folder / "root/lib").mkdir(parents=True)
        (folder / "root/lib/part.py").write_bytes(b"x" * size_bytes)
        (folder / "root/lib").chmod(0o555)
        manifest = LayerManifest(key=key, language="python", version="3", requested=("x",), lock="x==1\n")
        layer = store.publish(folder, manifest)
    os.utime(store.folder / key / "pin", (used_at_s, used_at_s))
    return layer


def names(store: LayerStore) -> set[str]:
    """Return what lies in the folder, but the store's own lock."""
    return {path.name for path in store.folder.iterdir()} - {".lock"}


async def test_published_layer_is_found_with_its_record(tmp_path: Path) -> None:
    """What was published is found by its key, by another service too, with size, count and lock."""
    put(a_store(tmp_path), KEY_A).close()
    layer = await a_store(tmp_path).find(KEY_A)
    assert layer is not None
    assert (layer.root / "lib/part.py").stat().st_size == 1000
    assert (layer.manifest.size_bytes, layer.manifest.files, layer.manifest.lock) == (1000, 1, "x==1\n")
    assert await a_store(tmp_path).find(KEY_B) is None
    layer.close()
    assert names(a_store(tmp_path)) == {KEY_A}


async def test_build_that_is_not_published_is_removed(tmp_path: Path) -> None:
    """A folder of a build goes with everything in it, also without write permission."""
    store = a_store(tmp_path)
    with store.build_folder() as folder:
        (folder / "root").mkdir()
        (folder / "root/file").write_bytes(b"")
        (folder / "root").chmod(0o555)
    assert names(store) == set()


async def test_least_recently_used_layer_goes_first(tmp_path: Path) -> None:
    """Over the cap, the layer that was used longest ago is removed, and no more than needed."""
    store = a_store(tmp_path, cap_bytes=2500)
    put(store, KEY_A, used_at_s=200.0).close()
    put(store, KEY_B, used_at_s=100.0).close()
    found = await store.find(KEY_A)
    assert found is not None
    found.close()
    put(store, KEY_C).close()
    assert names(store) == {KEY_A, KEY_C}


async def test_layer_in_use_is_never_removed(tmp_path: Path) -> None:
    """A pinned layer stays whatever the cap is, its own or another service's; unpinned, it goes."""
    store, other = a_store(tmp_path, cap_bytes=0), a_store(tmp_path, cap_bytes=0)
    layer = put(store, KEY_A)
    put(store, KEY_B).close()
    assert other.evict() != []
    assert names(store) == {KEY_A}
    assert [each.is_in_use for each in store.layers()] == [True]
    assert (layer.root / "lib/part.py").exists()
    layer.close()
    assert [each.key for each in other.evict()] == [KEY_A]
    assert names(store) == set()


async def test_layer_that_is_too_old_is_made_anew_beside_its_users(tmp_path: Path) -> None:
    """An old layer is not found; a new one takes its name, and who uses the old one keeps its files."""
    clock = Clock()
    store = a_store(tmp_path, now_s=clock)
    old = put(store, KEY_A)
    clock.now_s += 61
    assert await store.find(KEY_A) is None
    new = put(store, KEY_A, 1001)
    found = await store.find(KEY_A)
    assert found is not None
    assert found.manifest.size_bytes == 1001
    for layer in (old, new, found):
        layer.close()
    a_store(tmp_path)
    assert names(store) == {KEY_A}


@pytest.mark.parametrize("harm", ["changed", "missing", "added", "mode", "manifest", "garbage"])
async def test_corrupt_layer_is_detected_and_removed(tmp_path: Path, harm: str) -> None:
    """A layer that is not what its record says is not found by the next service, and its place is free."""
    put(a_store(tmp_path), KEY_A).close()
    root = tmp_path / KEY_A / "root"
    (root / "lib").chmod(0o755)
    file = root / "lib/part.py"
    if harm == "changed":
        file.write_bytes(b"y" * 1000)
    elif harm == "missing":
        file.unlink()
    elif harm == "added":
        (root / "lib/more.py").write_bytes(b"")
    elif harm == "mode":
        file.chmod(0o4755)
    elif harm == "manifest":
        (tmp_path / KEY_A / "manifest.json").unlink()
    else:
        (tmp_path / KEY_A / "manifest.json").write_text('{"format": 1}')
    store = a_store(tmp_path)
    assert await store.find(KEY_A) is None
    assert names(store) == set()
    put(store, KEY_A).close()
    assert await store.find(KEY_A) is not None


async def test_verify_finds_what_changed_since_the_last_look(tmp_path: Path) -> None:
    """A layer that was good when it was first used is measured again on request."""
    store = a_store(tmp_path)
    put(store, KEY_A).close()
    put(store, KEY_B).close()
    (tmp_path / KEY_A / "root/lib").chmod(0o755)
    (tmp_path / KEY_A / "root/lib/part.py").write_bytes(b"y" * 1000)
    assert store.verify() == [KEY_A]
    assert names(store) == {KEY_B}


async def test_leftovers_of_a_killed_service_are_removed_and_those_of_a_living_one_stay(
    tmp_path: Path,
) -> None:
    """A build whose service died goes at the next start; the build of a living one does not."""
    left = tmp_path / ".build-dead"
    (left / "root").mkdir(parents=True)
    (left / "pin").write_bytes(b"")
    (tmp_path / f".gone-{KEY_A}-1").mkdir()
    (tmp_path / f".key-{KEY_A}").write_bytes(b"")
    store = a_store(tmp_path)
    with store.build_folder() as folder:
        a_store(tmp_path)
        assert names(store) == {folder.name}
    assert names(store) == set()


async def test_only_one_builds_a_key_at_a_time(tmp_path: Path) -> None:
    """Two services that make the same layer wait for each other; another key is not held up."""
    store, other = a_store(tmp_path), a_store(tmp_path)
    async with store.building(KEY_A):
        async with other.building(KEY_B):
            pass
        waiting = asyncio.create_task(other.building(KEY_A).__aenter__())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
    async with asyncio.timeout(5):
        await waiting
    assert names(store) == {f".key-{KEY_A}"}


async def test_waiting_for_another_builder_can_be_cancelled(tmp_path: Path) -> None:
    """Who gives up waiting leaves nothing behind, and the next gets the lock."""
    store, other = a_store(tmp_path), a_store(tmp_path)
    async with store.building(KEY_A):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), other.building(KEY_A):
                raise AssertionError
    async with asyncio.timeout(5), other.building(KEY_A):
        pass
    assert names(store) == set()


def test_lock_is_of_the_file_that_the_path_names(tmp_path: Path) -> None:
    """A lock that was waited for on a file that was replaced meanwhile is not taken for the new one's."""
    path = tmp_path / "lock"
    first = try_lock(path, may_make=True)
    assert first is not None
    path.unlink()
    assert not first.is_at(path)
    second = try_lock(path, may_make=True)
    assert second is not None
    assert second.is_at(path)
    assert try_lock(path, is_shared=True) is None
    second.close()
    second.close()
    assert try_lock(path) is not None


def test_full_disk_is_said_with_the_fix(tmp_path: Path) -> None:
    """The error names the folder, what is free, and what to do; other errors keep their own words."""
    store = a_store(tmp_path)
    error = store.failure(OSError(errno.ENOSPC, "No space left on device"))
    assert str(tmp_path) in str(error)
    assert "is full" in str(error)
    assert "--prune" in str(error)
    assert "Input/output" in str(store.failure(OSError(errno.EIO, "Input/output error")))


def test_store_in_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """A file where the folder should be is named."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SystemFailureError, match="cannot write to"):
        a_store(tmp_path / "file")
