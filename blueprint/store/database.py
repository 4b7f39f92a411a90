"""One SQLite file in WAL mode, held by one process; every failure is a ``JournalError`` that says what to do.

Invariant: a transaction is committed whole or not at all, and what was committed outlives the process.
A power cut may undo the newest commits (``synchronous=NORMAL``), never half of one.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, Self

from blueprint.errors import JournalError
from blueprint.store.schema import SCHEMA, SCHEMA_VERSION

__all__ = ["Database", "translated"]

_BUSY_TIMEOUT_S: Final = 5.0
_LARGEST_LOG_BYTES: Final = 64 * 1024 * 1024
_PRIMARY_CODE: Final = 0xFF  # the low byte of an extended result code (SQLite, "Result and Error Codes")

_ADVICE: Final[dict[int, str]] = {
    sqlite3.SQLITE_FULL: "the disk is full: free space and start again; nothing that was recorded is lost",
    sqlite3.SQLITE_IOERR: "the disk failed: check it and its free space, then start again",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: move it aside and start again; the node reads the "
    "calls from the chain anew, and calls that were answered are not answered twice",
    sqlite3.SQLITE_NOTADB: "the file is not a journal: give another path, or move it aside and start again",
    sqlite3.SQLITE_BUSY: "another process holds the file for too long: end it, then start again",
    sqlite3.SQLITE_READONLY: "the file cannot be written: check its owner and mode, and those of its folder",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: check that its folder exists and is writable",
    sqlite3.SQLITE_PERM: "the file cannot be opened: check its owner and mode",
}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise ``JournalError`` for whatever SQLite or the file system raises inside.

    Raises:
        JournalError: with the file, the cause and what to do.
    """
    try:
        yield
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorcode", 0) & _PRIMARY_CODE
        advice = _ADVICE.get(code, "unexpected: report it with the journal's file")
        raise JournalError(f"journal {path}: {exc}; {advice}") from exc
    except OSError as exc:
        raise JournalError(
            f"journal {path}: {exc.strerror or exc}; check the folder, its owner and its free space"
        ) from exc


class Database:
    """The connection of the one process that writes the journal.

    The process holds an exclusive lock on ``<path>.lock`` from construction to ``close``; the kernel drops
    it when the process dies, so that no stale lock can remain.

    Args:
        path: the file.
        schema: statements that make its tables; the node's own journal if not given.
        version: of the schema.
    """

    def __init__(self, path: Path, *, schema: str = SCHEMA, version: int = SCHEMA_VERSION) -> None:
        self.path = path
        self._schema = schema
        self._version = version
        self._lock = _acquire_lock(path)
        try:
            with translated(path):
                self.connection = connect(path)
        except BaseException:
            os.close(self._lock)
            raise
        try:
            with translated(path):
                self._prepare()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what happens inside as a whole; on any exception, nothing of it.

        Raises:
            JournalError: SQLite could not write; nothing was recorded.
        """
        connection = self.connection
        with translated(self.path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # A full disk may already have rolled back; then there is nothing left to undo.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read outside a transaction.

        Raises:
            JournalError: SQLite could not read.
        """
        with translated(self.path):
            yield self.connection

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file; takes milliseconds and may be called from a thread."""
        with translated(self.path), closing(connect(self.path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            log = self.path.with_name(f"{self.path.name}-wal")
            if log.exists() and log.stat().st_size > _LARGEST_LOG_BYTES:
                # Under steady writing the log never runs empty by itself. This keeps writers waiting, but
                # only for what was written since the line above.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file and give up the lock; a second call does nothing."""
        if self._lock < 0:
            return
        try:
            with translated(self.path):
                self.connection.close()
        finally:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self) -> None:
        """Create the tables in a new file; refuse a file of another version, or a damaged one."""
        connection = self.connection
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version == 0 and tables == 0:
            connection.executescript(
                f"BEGIN IMMEDIATE; {self._schema} PRAGMA user_version = {self._version}; COMMIT;"
            )
        elif version != self._version:
            raise JournalError(
                f"journal {self.path}: its schema has version {version}, this node reads version "
                f"{self._version}; give another path, or run the version of the node that wrote it"
            )
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise JournalError(f"journal {self.path}: {verdict}; {_ADVICE[sqlite3.SQLITE_CORRUPT]}")


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a connection with the journal's pragmas and without implicit transactions."""
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=_BUSY_TIMEOUT_S
    )
    try:
        if not read_only:
            connection.execute("PRAGMA journal_mode = WAL")
            # A killed process loses nothing under NORMAL. FULL adds a flush of the disk (about 1 ms) to each
            # commit, for records that the chain can give back after a power cut.
            connection.execute("PRAGMA synchronous = NORMAL")
            # `checkpoint` does this in a thread: inside a commit it would stall the event loop.
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _acquire_lock(path: Path) -> int:
    """Lock ``<path>.lock`` for this process and write its pid there for whoever finds it locked."""
    with translated(path):
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    except BlockingIOError as exc:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise JournalError(
            f"journal {path}: in use by the process with pid {holder}; two nodes cannot share a journal: "
            "end that node, or give another path"
        ) from exc
    except OSError as exc:
        os.close(lock)
        raise JournalError(f"journal {path}: cannot lock it: {exc.strerror}; check the disk") from exc
    return lock
