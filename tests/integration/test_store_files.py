"""The journal as a file: damaged, foreign, locked, read from outside, and on a disk that is full."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blueprint.errors import ConfigError, JournalError
from blueprint.keccak import keccak256
from blueprint.store.journal import Journal
from blueprint.store.reader import count_calls, find_calls, list_calls, retry_call
from blueprint.types import Address, BlockRef, CallKey, CallOutcome, CallState, ChainUpdate, JobCall

CONTRACT = Address(b"\xcc" * 20)
OPERATOR = Address(b"\x0a" * 20)
HOLDER = """
import sys, time
from pathlib import Path
from blueprint.store.journal import Journal
journal = Journal(Path(sys.argv[1]), chain_id=1, contract=b"\\xcc" * 20, operator=b"\\x0a" * 20)
print("open", flush=True)
time.sleep(60)
"""


def open_journal(path: Path) -> Journal:
    """Open the journal of a test."""
    return Journal(path, chain_id=1, contract=CONTRACT, operator=OPERATOR)


def key(call_id: int) -> CallKey:
    """The name of a call."""
    return CallKey(chain_id=1, contract=CONTRACT, service_id=3, call_id=call_id)


def update(number: int, *inputs: bytes) -> ChainUpdate:
    """One block with one call for each input, numbered from 0."""
    name = keccak256(b"%d" % number)
    calls = [
        JobCall(
            key=key(call_id),
            job_index=1,
            caller=Address(b"\xca" * 20),
            inputs=data,
            inputs_hash=keccak256(data),
            block_number=number,
            block_hash=name,
            transaction_hash=name,
            log_index=call_id,
        )
        for call_id, data in enumerate(inputs)
    ]
    parent = keccak256(b"%d" % (number - 1))
    return ChainUpdate(
        blocks=[BlockRef(number=number, hash=name, parent_hash=parent)], calls=calls, head_number=number
    )


async def run_all(journal: Journal) -> None:
    """Answer everything that waits with an echo."""
    await asyncio.gather(*(journal.record_output(call, call.inputs) for call in journal.claim(100)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal.db"


def test_a_damaged_file_is_refused_with_the_remedy(path: Path) -> None:
    """A journal with overwritten pages does not open, and the message says what to do."""
    with open_journal(path) as journal:
        journal.apply(update(1, *(os.urandom(2000) for _ in range(100))))
    content = bytearray(path.read_bytes())
    content[4096 : len(content) - 4096] = os.urandom(len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(JournalError, match=r"move it aside and start again"):
        open_journal(path)


def test_a_foreign_file_is_refused(path: Path) -> None:
    """A file that is no database is left as it is."""
    path.write_text("this is a diary, not a journal" * 100)
    with pytest.raises(JournalError, match=r"not a journal"):
        open_journal(path)
    assert path.read_text().startswith("this is a diary")


def test_another_programs_database_is_refused(path: Path) -> None:
    """A database without our schema is not touched."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE other (x)")
    connection.commit()
    connection.close()
    with pytest.raises(JournalError, match=r"schema has version 0, this node reads version"):
        open_journal(path)


def test_another_version_is_refused(path: Path) -> None:
    """A journal of another version of the node is named as such."""
    open_journal(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalError, match=r"version 99"):
        open_journal(path)
    with pytest.raises(JournalError, match=r"version 99"):
        list_calls(path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The journal makes its file, not its folder."""
    with pytest.raises(JournalError, match=r"absent/journal.db: No such file"):
        open_journal(tmp_path / "absent/journal.db")


def test_a_refused_journal_leaves_no_lock(path: Path) -> None:
    """After a refusal the remedy works in the same process."""
    path.write_text("not a database at all" * 100)
    with pytest.raises(JournalError):
        open_journal(path)
    path.unlink()
    open_journal(path).close()


def test_the_lock_names_its_holder_and_dies_with_it(path: Path) -> None:
    """A second node is refused with the pid of the first; after kill -9 of the first it may start."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(JournalError, match=rf"in use by the process with pid {holder.pid};"):
            open_journal(path)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    open_journal(path).close()


def test_a_database_that_stays_locked_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that holds the file for too long is named as the cause."""
    monkeypatch.setattr("blueprint.store.database._BUSY_TIMEOUT_S", 0.05)
    with open_journal(path) as journal:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match=r"another process holds the file"):
            journal.apply(update(1, b"x"))
        other.execute("ROLLBACK")
        other.close()
        journal.apply(update(1, b"x"))
        assert journal.counts()[CallState.SEEN] == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def make_room(disk: Path) -> None:
    """Let the disk grow."""
    subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)


def fill(journal: Journal) -> None:
    """Write blocks until the journal fails."""
    for number in range(2, 100):
        journal.apply(update(number, *(os.urandom(20_000) for _ in range(3))))


@pytest.mark.root
async def test_a_full_disk_loses_nothing_that_was_recorded(small_disk: Path) -> None:
    """The write that does not fit fails as a whole; with space again, everything before it is there."""
    path = small_disk / "journal.db"
    with open_journal(path) as journal:
        journal.apply(update(1, b"first"))
        await run_all(journal)
        with pytest.raises(JournalError, match=r"disk is full"):
            fill(journal)
        written = journal.cursor()
        assert written is not None
    make_room(small_disk)
    with open_journal(path) as journal:
        assert journal.cursor() == written > 1
        journal.apply(update(written + 1, b"second"))


@pytest.mark.root
async def test_a_full_disk_fails_the_output_that_it_cannot_keep(small_disk: Path) -> None:
    """The handler's task learns that its output was not recorded; the call runs again later."""
    path = small_disk / "journal.db"
    with open_journal(path) as journal:
        journal.apply(update(1, b"first"))
        (call,) = journal.claim(1)
        with pytest.raises(JournalError, match=r"disk is full"):
            await journal.record_output(call, bytes(2_000_000))
    make_room(small_disk)
    with open_journal(path) as journal:
        assert [again.inputs for again in journal.claim(1)] == [b"first"]


async def test_the_write_ahead_log_is_folded_in(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maintenance keeps the log from growing without end, and nothing is lost by it."""
    monkeypatch.setattr("blueprint.store.database._LARGEST_LOG_BYTES", 100_000)
    with open_journal(path) as journal:
        for number in range(1, 30):
            journal.apply(update(number, *(os.urandom(2_000) for _ in range(20))))
        log = path.with_name("journal.db-wal")
        before = log.stat().st_size
        await journal.maintain()
        assert before > 100_000 > log.stat().st_size
        assert journal.counts()[CallState.SEEN] == 20


async def test_the_command_line_reads_beside_the_node(path: Path) -> None:
    """Lists, counts and single calls are read while the journal is open elsewhere."""
    with open_journal(path) as journal:
        journal.apply(update(1, b"a", b"bb"))
        (first, *_) = journal.claim(1)
        await journal.record_output(first, b"out")
        newest, oldest = list_calls(path)
        assert (newest.key, newest.state, newest.inputs_bytes) == (key(1), CallState.SEEN, 2)
        assert (oldest.key, oldest.state, oldest.output_bytes) == (key(0), CallState.READY, 3)
        assert [record.key for record in list_calls(path, state=CallState.READY)] == [key(0)]
        assert [record.key for record in list_calls(path, limit=1)] == [key(1)]
        (found,) = find_calls(path, service_id=3, call_id=0)
        assert (found.inputs, found.output) == (b"a", b"out")
        assert count_calls(path)[CallState.READY] == 1


async def test_a_closed_call_can_be_retried(path: Path) -> None:
    """With an output it is sent again, without one it runs again; what is done is refused."""
    with open_journal(path) as journal:
        journal.apply(update(1, b"a", b"b", b"c"))
        await run_all(journal)
        closed = CallOutcome(key=key(0), state=CallState.CLOSED, reason="x")
        journal.record_outcomes([closed])
        assert retry_call(path, key(0)) is CallState.READY
        assert len(journal.ready(9, 1)) == 3
    with pytest.raises(ConfigError, match=r"call 9 of service 3 is not in the journal"):
        retry_call(path, key(9))


def test_a_running_call_cannot_be_retried(path: Path) -> None:
    """The message says in which state the call is."""
    with open_journal(path) as journal:
        journal.apply(update(1, b"a"))
        journal.claim(1)
        with pytest.raises(ConfigError, match=r"call 0 of service 3 is running"):
            retry_call(path, key(0))


def test_reading_without_a_journal_says_so(path: Path) -> None:
    """Nothing is created by looking."""
    with pytest.raises(JournalError, match=r"there is no such file"):
        list_calls(path)
    assert not path.exists()
