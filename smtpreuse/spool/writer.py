"""
The one thread that writes to the queue. What waits is committed together (group commit): one fsync for all, and one
call into the reactor with all results.

A job that fails alone fails alone: when a transaction fails by what is in it, or for want of room, its jobs are done
again one by one. When the disk or a lock fails it, they would all meet that again, each with its own wait. The thread
knows rows and transactions; what they mean is said by the jobs.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from smtpreuse.errors import SpoolError, SpoolFull
from smtpreuse.model.content import Content
from smtpreuse.model.message import Message
from smtpreuse.model.queueview import Recorded
from smtpreuse.spool.batch import Batch

T = TypeVar("T")

# More than so many jobs waiting: they come faster than commits, so a moment's wait saves more than it costs.
_CROWD = 8
_LINGER = 0.0005
# Bounds of one transaction: what waits for its end, and its dirty pages in memory.
_MOST_JOBS = 400
_MOST_OCTETS = 8 * 2**20
# A checkpoint copies the pages of the write-ahead log into the tables, with two fsyncs. At 16 MiB its cost is shared by
# some 3,000 messages of 4 KiB.
_CHECKPOINT_PAGES = 4096
_PAGE = 4096


class Job(Protocol):
    """Something to write."""

    def gather(self, batch: Batch) -> None:
        """Add its rows to a batch."""

    def edit(self, connection: sqlite3.Connection, batch: Batch) -> None:
        """Do within the transaction what cannot be put together with others; after the rows of the batch."""

    def settle(self, error: SpoolError | None) -> None:
        """It is on disk, or failed; in the reactor's thread."""


class Store:
    """New messages, and what became of recipients, in one piece."""

    __slots__ = ("_done", "_due", "_finished", "_new", "result")

    def __init__(self, new: list[tuple[Message, Content]], done: list[Recorded], due: float) -> None:
        """
        @param new: messages whose recipients have their rows.
        @param due: UNIX time of their first attempt.
        """
        self._new = new
        self._done = done
        self._due = due
        self._finished: list[str] = []
        self.result: Deferred[list[str]] = Deferred()

    def gather(self, batch: Batch) -> None:
        """See L{Job}."""
        for message, content in self._new:
            batch.add(message, content, self._due)
        batch.done += self._done

    def edit(self, connection: sqlite3.Connection, batch: Batch) -> None:
        """See L{Job}; of two jobs that end a message together the first tells it."""
        self._finished = []
        if batch.finished:
            mine = batch.finished.intersection([recorded.queue_id for recorded in self._done])
            batch.finished -= mine
            self._finished = sorted(mine)

    def settle(self, error: SpoolError | None) -> None:
        """See L{Job}; the result is the queue ids of the messages that left the queue."""
        if error is None:
            self.result.callback(self._finished)
        else:
            self.result.errback(error)


class Edit(Generic[T]):
    """A change that is a function of its own, such as an operator asks for."""

    __slots__ = ("_found", "_function", "result")

    def __init__(self, function: Callable[[sqlite3.Connection, Batch], T]) -> None:
        self._function = function
        self._found: list[T] = []
        self.result: Deferred[T] = Deferred()

    def gather(self, batch: Batch) -> None:
        """See L{Job}."""

    def edit(self, connection: sqlite3.Connection, batch: Batch) -> None:
        """See L{Job}."""
        self._found = [self._function(connection, batch)]

    def settle(self, error: SpoolError | None) -> None:
        """See L{Job}."""
        if error is None:
            self.result.callback(self._found[0])
        else:
            self.result.errback(error)


class Writer:
    """The thread and its queue."""

    log = Logger()

    def __init__(
        self, connection: sqlite3.Connection, reactor: IReactorFromThreads, remove: Callable[[list[str]], None]
    ) -> None:
        """
        @param connection: the thread's own from the start on.
        @param remove: called in the reactor's thread with names of content files whose messages are gone.
        """
        self._connection = connection
        self._reactor = reactor
        self._remove = remove
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="queue writer", daemon=True)
        self._pages = 0
        self._stopping = False
        self._ended: Deferred[None] = Deferred()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """
        Write this with the next commit.

        @raise SpoolError: when the writer was told to stop.
        """
        if self._stopping:
            raise SpoolError("the queue is closed")
        self._jobs.put(job)

    async def stop(self) -> None:
        """Write what waits, then end the thread and close the connection."""
        self._stopping = True
        self._jobs.put(None)
        await self._ended
        self._thread.join()

    # In the thread

    def _run(self) -> None:
        running = True
        while running:
            jobs = [self._jobs.get()]
            self._take(jobs)
            if len(jobs) > _CROWD:
                time.sleep(_LINGER)
                self._take(jobs)
            running = None not in jobs
            self._commit([job for job in jobs if job is not None])
        self._connection.close()
        self._reactor.callFromThread(self._ended.callback, None)

    def _take(self, jobs: list[Job | None]) -> None:
        with suppress(Empty):
            while len(jobs) < _MOST_JOBS:
                jobs.append(self._jobs.get_nowait())

    def _commit(self, jobs: list[Job]) -> None:
        at = 0
        while at < len(jobs):
            batch, end = Batch(), at
            while end < len(jobs) and batch.octets < _MOST_OCTETS:
                jobs[end].gather(batch)
                end += 1
            self._commit_piece(jobs[at:end], batch)
            at = end

    def _commit_piece(self, jobs: list[Job], batch: Batch) -> None:
        settled: list[tuple[Job, SpoolError | None]]
        error = self._transaction(jobs, batch)
        dropped = batch.dropped
        if error is None or len(jobs) == 1 or _meets_all(error):
            settled = [(job, error) for job in jobs]
        else:
            settled, dropped = [], []
            for job in jobs:
                alone = Batch()
                job.gather(alone)
                settled.append((job, self._transaction([job], alone)))
                dropped += alone.dropped
        self._reactor.callFromThread(self._settle, settled, dropped)
        self._checkpoint(batch.octets // _PAGE + 2 * len(jobs) + 8)

    def _transaction(self, jobs: list[Job], batch: Batch) -> SpoolError | None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            batch.write(connection)
            for job in jobs:
                job.edit(connection, batch)
            connection.execute("COMMIT")
        except Exception as problem:  # whatever it is, the thread goes on and those who wait hear of it
            batch.dropped.clear()
            self._roll_back()
            return _explained(problem)
        return None

    def _roll_back(self) -> None:
        # SQLite has done it itself after some errors.
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error as problem:
                self.log.error("queue transaction not rolled back: {reason}", reason=str(problem))

    def _checkpoint(self, pages: int) -> None:
        # Behind the answer, so that nobody waits for it but the next commit.
        self._pages += pages
        if self._pages < _CHECKPOINT_PAGES:
            return
        self._pages = 0
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as problem:
            self.log.warn("queue checkpoint put off: {reason}", reason=str(problem))

    # In the reactor's thread

    def _settle(self, settled: list[tuple[Job, SpoolError | None]], dropped: list[str]) -> None:
        if dropped:
            self._remove(dropped)
        for job, error in settled:
            job.settle(error)


def _meets_all(error: SpoolError) -> bool:
    """Whether it is no fault of a single job's: SQLite's locks, and input and output."""
    code = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


def _explained(problem: Exception) -> SpoolError:
    if isinstance(problem, SpoolError):
        return problem
    error: SpoolError
    if isinstance(problem, sqlite3.Error) and getattr(problem, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
        error = SpoolFull("the queue's file system is full")
    else:
        error = SpoolError(f"the queue cannot be written: {type(problem).__name__}: {problem}")
    error.__cause__ = problem
    return error
