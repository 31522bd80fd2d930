"""One SQLite file, and one thread that reads and writes it."""

import asyncio
import contextlib
import errno
import fcntl
import os
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ita_ag_oase.errors import Reason, StoreDamaged, StoreUnavailable, TermEnded
from ita_ag_oase.model import Claim, Journal, Term
from ita_ag_oase.store import schema, terms
from ita_ag_oase.store.schema import Opener
from ita_ag_oase.store.terms import Fence
from ita_ag_oase.text import Text, verbatim

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_JOBS_PER_TRANSACTION = 100
# No space, or a quota or limit that SQLite takes for a failing disk.
NO_SPACE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


class StoreLock:
    """The right to use a store, held by one process at a time and given back by the kernel when that one ends."""

    def __init__(self, store_path: Path) -> None:
        self._path = store_path.with_name(store_path.name + ".lock")
        self._file: Any = None
        self.is_ours = False

    def try_acquire(self) -> bool:
        """Return whether the right is ours now. Raises StoreUnavailable where the folder cannot be written."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._file or self._path.open("a")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as err:
            raise self._unusable(err) from err
        self.is_ours = True
        return True

    def is_taken(self) -> bool:
        """Whether an agent has the right now. Nothing is made. Raises StoreUnavailable where that cannot be told."""
        try:
            with self._path.open("rb") as file:
                # Shared, and given back at once: an agent that starts at this moment tries again after a second.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        except OSError as err:
            raise self._unusable(err) from err
        return False

    def excludes_others(self) -> bool:
        """Whether the right, which is ours, is refused to a second taker: where not, locks do not work there."""
        with self._path.open("a") as second:
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def is_held(self) -> bool:
        """Whether a process has the right. Where none does, it is taken for an instant."""
        try:
            with self._path.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            # No agent has ever used it, or one of another user: that is told by who opens the store.
            return False
        return False

    def release(self) -> None:
        """Give the right back; harmless where it was never had."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self.is_ours = False

    def discard(self) -> None:
        """Remove the file of a lock that nobody else knows of."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _unusable(self, err: OSError) -> StoreUnavailable:
        return StoreUnavailable(
            Text(
                "{path} cannot be locked ({error}): make {folder} writable for this user, on a file system with "
                "working locks",
                path=self._path,
                error=err.strerror,
                folder=self._path.parent,
            ),
            reason=Reason.STORE_FAILED,
        )


def try_locks(folder: Path) -> bool:
    """Whether locks work in a folder; a file is made there for the purpose, and removed again.

    Raises StoreUnavailable where the folder cannot be written.
    """
    probe = folder / f".probe-{os.getpid()}"
    lock = StoreLock(probe)
    try:
        return lock.try_acquire() and lock.excludes_others()
    finally:
        lock.release()
        lock.discard()


class Database:
    """A thread that owns the connection and commits jobs that wait at the same time together.

    A job that fails is rolled back alone. Nothing is acknowledged before its transaction is on disk. `on_damage` is
    called in the thread where a job meets damage in the file, `on_term_ended` once, where the term that was begun here
    has ended; from then on every job is refused with TermEnded. `journal` is how changes are made safe, and `opener`
    what opens the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        on_damage: Callable[[StoreDamaged], None] = lambda _: None,
        on_term_ended: Callable[[TermEnded], None] = lambda _: None,
        journal: Journal = Journal.WAL,
        opener: Opener = sqlite3.connect,
    ) -> None:
        self._path = path
        self._journal = journal
        self._on_damage = on_damage
        self._on_term_ended = on_term_ended
        self._fence: Fence | None = None
        self._file: terms.Identity | None = None
        self._ended: TermEnded | None = None
        self._opener = opener
        self._jobs: queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="store")
        self._opened: Future[None] = Future()
        self._log_to_be_emptied: deque[Future[None]] = deque()

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

    async def begin_term(self, claim: Claim, now: int) -> Term:
        """Begin a term, and see in each transaction from now on that it goes on.

        Raises TermEnded where terms.begin does.
        """
        try:
            term = await self.run(lambda connection: terms.begin(connection, claim, now))
        except TermEnded as err:
            self._end(err)
            raise
        self._fence = Fence(self._path, term, self._file)
        return term

    async def empty_log(self) -> None:
        """Move what the write-ahead log holds into the file, and give its space back where nobody reads from it now.

        Left to itself, SQLite keeps the log at its size and uses it again. The other journal is empty between two
        transactions, and nothing happens to it. Raises as `run` does, so also where the file has no space to take what
        is in the log.
        """
        emptied: Future[None] = Future()
        self._log_to_be_emptied.append(emptied)
        # No transaction may be open for it, so that it follows that of a job.
        await self.run(lambda _: None)
        await asyncio.wrap_future(emptied)

    def close(self) -> None:
        """End the thread after the jobs that wait."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        if not self._opened.set_running_or_notify_cancel():
            return
        try:
            with translated(self._path):
                connection = schema.connect(self._path, journal_mode=self._journal, opener=self._opener)
                self._file = terms.identity(self._path)
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
            with self._within_term(connection):
                done.extend((future, *self._attempt(connection, work)) for work, future in jobs)
        except BaseException as err:  # noqa: BLE001 - handed to everyone who waits
            if isinstance(err, TermEnded):
                self._end(err)
            done = [(future, None, err) for _, future in jobs]
        self._empty_log(connection)
        for future, result, error in done:
            if error is None:
                future.set_result(result)
                continue
            if isinstance(error, StoreDamaged):
                self._on_damage(error)
            future.set_exception(error)

    @contextmanager
    def _within_term(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Commit what is done inside, where the term has not ended by then: no other can begin meanwhile."""
        if self._ended:
            raise self._ended
        with translated(self._path), schema.transaction(connection):
            if self._fence:
                self._fence.check(connection)
            yield

    def _end(self, err: TermEnded) -> None:
        if self._ended is None:
            self._ended = err
            self._on_term_ended(err)

    def _empty_log(self, connection: sqlite3.Connection) -> None:
        while self._log_to_be_emptied:
            emptied = self._log_to_be_emptied.popleft()
            if not emptied.set_running_or_notify_cancel():
                continue
            try:
                if self._ended:
                    raise self._ended
                with translated(self._path):
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except (StoreUnavailable, StoreDamaged, TermEnded) as err:
                emptied.set_exception(err)
            else:
                emptied.set_result(None)

    def _attempt(self, connection: sqlite3.Connection, work: Work[T]) -> tuple[T | None, BaseException | None]:
        connection.execute("SAVEPOINT job")
        try:
            with translated(self._path):
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
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system raise about a store into our errors."""
    try:
        yield
    except sqlite3.Error as err:
        raise _as_ours(err, path) from err
    except UnicodeDecodeError as err:
        # What the sqlite3 module raises where damage shows in the name of a column or in a message of SQLite.
        raise _damaged(path, Text("its schema is no text")) from err
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(path) from err
        raise StoreUnavailable(
            Text(
                "{path} cannot be used ({error}): make its folder writable for this user", path=path, error=err.strerror
            ),
            reason=Reason.STORE_FAILED,
        ) from err


def corrupt(how: str) -> sqlite3.DatabaseError:
    """Return what SQLite raises for damage, for damage that it passes over."""
    err = sqlite3.DatabaseError(how)
    err.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return err


def no_space(path: Path) -> StoreUnavailable:
    """Return what says that the volume of the store is full."""
    return StoreUnavailable(
        Text(
            "no space is left for {path}: polling pauses until there is; free some, or enlarge the volume",
            path=path,
        ),
        reason=Reason.STORE_FULL,
    )


def _as_ours(err: sqlite3.Error, path: Path) -> StoreUnavailable | StoreDamaged:
    extended_code = getattr(err, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if extended_code in NO_SPACE:
        return no_space(path)
    code = extended_code & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreUnavailable(
            Text("{path} is locked by another program: try again, or end that one", path=path),
            reason=Reason.STORE_LOCKED,
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(path, verbatim(str(err)))
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        # To read takes writing, too: SQLite keeps an index of the WAL beside the file.
        return StoreUnavailable(
            Text(
                "{path} cannot be opened to read and write ({error}): make it and its folder writable for this user",
                path=path,
                error=str(err),
            ),
            reason=Reason.STORE_FAILED,
        )
    return StoreUnavailable(
        Text("{path} failed ({error}): check the volume it lies on", path=path, error=str(err)),
        reason=Reason.STORE_FAILED,
    )


def _damaged(path: Path, how: Text) -> StoreDamaged:
    return StoreDamaged(
        Text(
            "{path} is damaged ({how}): start the agent again, which sets the file aside and saves what can be read",
            path=path,
            how=how,
        ),
        reason=Reason.STORE_DAMAGED,
    )
