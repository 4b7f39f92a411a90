"""The store of layers on disk: finds one, takes in a new one, removes what was not used for longest.

``<key>/root`` is a layer's content, ``<key>/manifest.json`` its record and ``<key>/pin`` the file whose lock
says that it is in use; its time is that of the last use. ``.build-*`` is a layer being made, ``.gone-*`` one
that was taken away; ``.key-*`` is the lock of whoever makes the layer of that key.

Invariant: a folder named by a key is complete: it got its name by one rename, after everything in it was
written. Whoever uses a folder holds a lock on its pin, and only who gets the exclusive lock removes it: this
holds between threads, tasks and services that share a store, and a killed service holds nothing.
"""

import asyncio
import contextlib
import errno
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sandbox.dependencies.filelock import FileLock, try_lock
from sandbox.dependencies.layer import Layer, LayerManifest
from sandbox.errors import SystemFailureError
from sandbox.rootfs.seal import measure
from sandbox.rootfs.trim import remove_tree

__all__ = ["FULL", "LayerStore", "StoredLayer"]

POLL_S = 0.05
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The disk under the store has no room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLayer:
    """A layer as a list shows it."""

    manifest: LayerManifest
    used_at_s: float
    """Seconds since 1970."""
    is_in_use: bool


class LayerStore:
    """Layers in a folder that several services may share.

    Args:
        folder: where they lie; it is made when it is missing.
        cap_bytes: what all layers together may take; those that are in use may exceed it.
        max_age_s: a layer that was made longer ago is made anew, so that a range finds new versions.
        now_s: the time since 1970.
    """

    def __init__(
        self, folder: Path, *, cap_bytes: int, max_age_s: float, now_s: Callable[[], float] = time.time
    ) -> None:
        self.folder = folder
        self._cap_bytes = cap_bytes
        self._max_age_s = max_age_s
        self._now_s = now_s
        self._verified: set[tuple[str, int, int]] = set()

    def open(self) -> None:
        """Make the folder, and remove what killed services have left.

        Raises:
            SystemFailureError: the folder cannot be made or written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():  # every folder of a living builder has its pin
                left = [*self.folder.glob(".build-*"), *self.folder.glob(".gone-*")]
            for path in left:
                _remove_unused(path)
            for path in self.folder.glob(".key-*"):
                with contextlib.suppress(FileNotFoundError):
                    if (lock := try_lock(path)) is not None:
                        path.unlink(missing_ok=True)
                        lock.close()
        except OSError as exc:
            raise SystemFailureError(
                f"layer store: cannot write to {self.folder}: {exc.strerror or exc}"
            ) from exc

    def holds(self, key: str) -> bool:
        """Say whether there is a layer of this key; whether it is good, `find` says."""
        return (self.folder / key / "manifest.json").exists()

    async def find(self, key: str) -> Layer | None:
        """Return the layer of a key, pinned; None when there is none, or it is too old or corrupt."""
        while (pin := await self._pinned(key)) is not None:
            try:
                manifest = await asyncio.to_thread(self._checked, key)
            except BaseException:
                pin.close()
                raise
            if not pin.is_at(self.folder / key / "pin"):  # another took its place meanwhile
                pin.close()
                continue
            if manifest is None:
                await asyncio.to_thread(self._take_away, key, pin)
                return None
            if self._now_s() - manifest.made_at_s > self._max_age_s:
                pin.close()
                return None
            pin.touch()
            return Layer(root=self.folder / key / "root", manifest=manifest, pin=pin)
        return None

    @asynccontextmanager
    async def building(self, key: str) -> AsyncIterator[None]:
        """Hold the lock of whoever makes the layer of ``key``, waiting for another service that does."""
        path = self.folder / f".key-{key}"
        # Polled: a thread that waits in flock could not be interrupted.
        while (lock := try_lock(path, may_make=True)) is None:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            lock.close()

    @contextlib.contextmanager
    def build_folder(self) -> Iterator[Path]:
        """Yield an empty folder to make a layer's ``root`` in; what `publish` did not take is removed.

        Raises:
            SystemFailureError: it cannot be made.
        """
        try:
            with self._locked():
                folder = Path(tempfile.mkdtemp(prefix=".build-", dir=self.folder))
                pin = try_lock(folder / "pin", is_shared=True, may_make=True)
        except OSError as exc:
            raise self.failure(exc) from exc
        try:
            yield folder
        finally:
            if pin is not None:
                pin.close()
            if folder.exists():
                remove_tree(folder)

    def publish(self, folder: Path, manifest: LayerManifest) -> Layer:
        """Take a finished build in under its key, in place of an older one; then keep to the cap.

        Nothing is flushed to disk: what a crash of the machine tears is found by its digest at the next use.

        Args:
            folder: of `build_folder`; its ``root`` holds the content.
            manifest: its digest, size and count are measured here.

        Returns:
            The layer, pinned.

        Raises:
            SystemFailureError: the disk under the store is full, or refuses.
        """
        key = manifest.key
        try:
            content = measure(folder / "root")
            manifest = replace(
                manifest,
                digest=content.digest,
                size_bytes=content.size_bytes,
                files=content.files,
                made_at_s=self._now_s(),
            )
            (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
            pin = try_lock(folder / "pin", is_shared=True)
            assert pin is not None, "only shared locks are held on what is being built"
            while not _renamed(folder, self.folder / key):
                old = self._pin(key)
                if old is not None:
                    self._take_away(key, old)
        except OSError as exc:
            raise self.failure(exc) from exc
        self._verified.add(self._identity(key))
        self.evict()
        return Layer(root=self.folder / key / "root", manifest=manifest, pin=pin)

    def evict(self, cap_bytes: int | None = None) -> list[LayerManifest]:
        """Remove the layers that were not used for longest until the rest fits; never one that is in use.

        Args:
            cap_bytes: what may stay; None for the store's cap.

        Returns:
            What was removed.
        """
        cap = self._cap_bytes if cap_bytes is None else cap_bytes
        found = sorted(self.layers(), key=lambda layer: layer.used_at_s)
        total = sum(layer.manifest.size_bytes for layer in found)
        removed = []
        for layer in found:
            if total <= cap:
                break
            if self._remove(layer.manifest.key):
                total -= layer.manifest.size_bytes
                removed.append(layer.manifest)
        return removed

    def layers(self) -> list[StoredLayer]:
        """List every layer; one whose record cannot be read is left out."""
        found = []
        for path in self.folder.glob("[0-9a-f]*/manifest.json"):
            with contextlib.suppress(OSError, ValueError):
                manifest = LayerManifest.from_json(path.read_text(encoding="utf-8"))
                pin = path.parent / "pin"
                lock = try_lock(pin)
                if lock is not None:
                    lock.close()
                found.append(
                    StoredLayer(manifest=manifest, used_at_s=pin.stat().st_mtime, is_in_use=lock is None)
                )
        return found

    def verify(self) -> list[str]:
        """Measure every layer anew, take the corrupt ones away, and return their keys."""
        corrupt = []
        for path in self.folder.glob("[0-9a-f]*"):
            key = path.name
            self._verified.discard(self._identity(key))
            pin = self._pin(key)
            if pin is None:
                continue
            if self._checked(key) is None:
                self._take_away(key, pin)
                corrupt.append(key)
            pin.close()
        return corrupt

    def failure(self, error: OSError) -> SystemFailureError:
        """Say what went wrong with the store, and what to do."""
        if error.errno not in FULL:
            return SystemFailureError(f"layer store: {error}")
        space = os.statvfs(self.folder)
        free = space.f_bavail * space.f_frsize
        held = sum(layer.manifest.size_bytes for layer in self.layers())
        return SystemFailureError(
            f"layer store: the disk under {self.folder} is full ({free} bytes free, {held} held by layers); "
            "free some, lower the store's cap, or: blueprint runtimes layers --prune"
        )

    async def _pinned(self, key: str) -> FileLock | None:
        """Pin the folder of a key as `_pin` does; here, so that a cancelled thread cannot keep a pin."""
        with contextlib.suppress(FileNotFoundError):
            while (pin := try_lock(self.folder / key / "pin", is_shared=True)) is None:  # noqa: ASYNC110
                await asyncio.sleep(POLL_S / 10)
            return pin
        return None

    def _pin(self, key: str) -> FileLock | None:
        """Pin the folder of a key; None when there is none."""
        with contextlib.suppress(FileNotFoundError):
            while (pin := try_lock(self.folder / key / "pin", is_shared=True)) is None:
                time.sleep(POLL_S / 10)  # who holds it alone removes it, or only looks
            return pin
        return None

    def _checked(self, key: str) -> LayerManifest | None:
        """Return the record of a layer whose content agrees with it; its content is read once a process."""
        folder = self.folder / key
        try:
            identity = self._identity(key)
            manifest = LayerManifest.from_json((folder / "manifest.json").read_text(encoding="utf-8"))
            if manifest.key == key and identity not in self._verified:
                content = measure(folder / "root")
                if (content.digest, content.files) != (manifest.digest, manifest.files):
                    return None
        except (OSError, ValueError):
            return None
        self._verified.add(identity)
        return manifest if manifest.key == key else None

    def _identity(self, key: str) -> tuple[str, int, int]:
        """Return what differs between two layers that bear the same key one after the other."""
        with contextlib.suppress(OSError):
            state = (self.folder / key / "manifest.json").stat()
            return key, state.st_ino, state.st_mtime_ns
        return key, 0, 0

    def _take_away(self, key: str, pin: FileLock) -> None:
        """Take the name from a layer that the caller pins, and remove it unless somebody else uses it too."""
        gone = self.folder / f".gone-{key}-{time.monotonic_ns()}"
        with self._locked():  # so that the name is not another layer's by now
            if pin.is_at(self.folder / key / "pin"):
                (self.folder / key).rename(gone)
        pin.close()
        _remove_unused(gone)

    def _remove(self, key: str) -> bool:
        """Remove a layer that nobody uses; False when somebody does."""
        gone = self.folder / f".gone-{key}-{time.monotonic_ns()}"
        with self._locked():
            lock = None
            with contextlib.suppress(FileNotFoundError):
                lock = try_lock(self.folder / key / "pin")
            if lock is None:
                return False
            (self.folder / key).rename(gone)
            lock.close()
        _remove_unused(gone)
        return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the store's own lock for the moment in which a name changes hands."""
        path = self.folder / ".lock"
        while (lock := try_lock(path, may_make=True)) is None:
            time.sleep(POLL_S / 10)
        try:
            yield
        finally:
            lock.close()


def _renamed(folder: Path, place: Path) -> bool:
    """Rename a folder to a name that is free; False where it is not."""
    try:
        folder.rename(place)
    except OSError as exc:
        if exc.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        return False
    return True


def _remove_unused(folder: Path) -> None:
    """Remove a folder whose pin nobody holds."""
    lock = None
    with contextlib.suppress(FileNotFoundError):
        lock = try_lock(folder / "pin")
        if lock is None:
            return
    with contextlib.suppress(FileNotFoundError):  # another service may be removing it too
        remove_tree(folder)
    if lock is not None:
        lock.close()
