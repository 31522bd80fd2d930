"""One SQLite file, one thread that reads and writes it, and migrations by `user_version`."""

import asyncio
import fcntl
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from ita_ag_oase.errors import Reason, StoreDamaged, StoreUnavailable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Connect = Callable[..., sqlite3.Connection]

_JOBS_PER_TRANSACTION = 100
_LOCK_TIMEOUT_SECONDS = 10


class StoreLock:
    """The right to use a store, held by one process at a time and given back by the kernel when that one ends."""

    def __init__(self, store_path: Path) -> None:
        self._path = store_path.with_name(store_path.name + ".lock")
        self._file: Any = None

    def try_acquire(self) -> bool:
        """Return whether the right is ours now. Raises StoreUnavailable where the folder cannot be written."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._file or self._path.open("a")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as err:
            raise StoreUnavailable(
                f"{self._path} cannot be locked ({err.strerror}): make {self._path.parent} writable for this user, "
                "on a file system with working locks",
                reason=Reason.STORE_FAILED,
            ) from err
        return True

    def release(self) -> None:
        """Give the right back; harmless where it was never had."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Database:
    """A thread that owns the connection and commits jobs that wait at the same time together.

    A job that fails is rolled back alone. Nothing is acknowledged before its transaction is on disk. `connect` is
    called as sqlite3.connect would be.
    """

    def __init__(self, path: Path, *, connect: Connect = sqlite3.connect) -> None:
        self._path = path
        self._connect = connect
        self._jobs: queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="store")
        self._opened: Future[None] = Future()

    async def open(self) -> None:
        """Open the file and bring its schema up to date.

        Raises StoreDamaged for a file that is no store or that a newer version wrote, StoreUnavailable where it cannot
        be opened or written.
        """
        self._thread.start()
        await asyncio.wrap_future(self._opened)

    async def run(self, work: Work[T]) -> T:
        """Return what `work` returns, once its transaction is committed. Raises StoreUnavailable or StoreDamaged."""
        future: Future[T] = Future()
        self._jobs.put((work, future))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the thread after the jobs that wait."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        if not self._opened.set_running_or_notify_cancel():
            return
        try:
            with _translated(self._path):
                connection = _prepared(self._path, self._connect)
        except BaseException as err:  # noqa: BLE001 - handed to the caller of open()
            self._opened.set_exception(err)
            return
        self._opened.set_result(None)
        with closing(connection):
            while (jobs := self._next_jobs()) is not None:
                self._commit_together(connection, jobs)

    def _next_jobs(self) -> list[tuple[Work[Any], Future[Any]]] | None:
        jobs = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == _JOBS_PER_TRANSACTION or self._jobs.empty():
                return jobs
            job = self._jobs.get()
        # The end is near: put it back behind what was taken before it.
        if jobs:
            self._jobs.put(None)
        return jobs or None

    def _commit_together(self, connection: sqlite3.Connection, jobs: list[tuple[Work[Any], Future[Any]]]) -> None:
        jobs = [(work, future) for work, future in jobs if future.set_running_or_notify_cancel()]
        done: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            with _translated(self._path), _transaction(connection):
                done.extend((future, *self._attempt(connection, work)) for work, future in jobs)
        except BaseException as err:  # noqa: BLE001 - handed to everyone who waits
            done = [(future, None, err) for _, future in jobs]
        for future, result, error in done:
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _attempt(self, connection: sqlite3.Connection, work: Work[T]) -> tuple[T | None, BaseException | None]:
        connection.execute("SAVEPOINT job")
        try:
            with _translated(self._path):
                result = work(connection)
        except BaseException as err:
            if not connection.in_transaction:
                # SQLite rolls the whole transaction back by itself where the disk is full or fails.
                raise
            connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
            return None, err
        connection.execute("RELEASE job")
        return result, None


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _prepared(path: Path, connect: Connect) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = connect(path, timeout=_LOCK_TIMEOUT_SECONDS, isolation_level=None)
    try:
        # Works only before the first table exists; later it is harmless.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        connection.execute("PRAGMA temp_store = MEMORY")
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    folder = resources.files("ita_ag_oase.store") / "migrations"
    scripts = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(scripts):
        raise StoreDamaged(
            f"{path} was written by a newer version of the agent (schema {version}, this one knows {len(scripts)}): "
            "run that version, or move the file away",
            reason=Reason.STORE_DAMAGED,
        )
    for number, name in enumerate(scripts[version:], version + 1):
        with _transaction(connection):
            for statement in _statements((folder / name).read_text(encoding="utf-8")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as err:
        raise _as_ours(err, path) from err
    except OSError as err:
        raise StoreUnavailable(
            f"{path} cannot be used ({err.strerror}): make its folder writable for this user",
            reason=Reason.STORE_FAILED,
        ) from err


def _as_ours(err: sqlite3.Error, path: Path) -> StoreUnavailable | StoreDamaged:
    code = getattr(err, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StoreUnavailable(
            f"no space is left for {path}: free some, or enlarge the volume", reason=Reason.STORE_FULL
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreUnavailable(f"{path} is locked by another program: end it", reason=Reason.STORE_LOCKED)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreDamaged(f"{path} is damaged ({err}): move it away and start again", reason=Reason.STORE_DAMAGED)
    return StoreUnavailable(f"{path} failed ({err}): check the volume it lies on", reason=Reason.STORE_FAILED)
