"""
The threads of the open spool and their connections: one that writes, one that reads, and one that syncs and removes
content files, so that a large message does not hold up the commits of others. What they do is said by those who call.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from threading import Thread
from typing import TypeVar

from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from smtpreuse.errors import SpoolError
from smtpreuse.model.content import Content, FileContent
from smtpreuse.spool.batch import Batch
from smtpreuse.spool.directory import QueueDirectory
from smtpreuse.spool.schema import open_reader
from smtpreuse.spool.writer import Edit, Job, Writer

T = TypeVar("T")


class _Daemon(Thread):
    # A process that ends without closing the spool does not wait for its threads: what was promised is on disk.
    def start(self) -> None:
        self.daemon = True
        super().start()


class _Pool(ThreadPool):
    threadFactory = _Daemon  # noqa: N815 (Twisted's name)


class SpoolThreads:
    """Runs work where it belongs, and brings the results back to the reactor's thread."""

    def __init__(self, directory: QueueDirectory, connection: sqlite3.Connection, reactor: IReactorFromThreads) -> None:
        """
        @param connection: to write; it belongs to the threads from now on.
        """
        self._reactor = reactor
        self._directory = directory
        self._reading = open_reader(directory.database)
        self._readers = _Pool(1, 1, "queue reader")
        self._files = _Pool(0, 1, "queue files")
        self._writer = Writer(connection, reactor, self.remove)

    def start(self) -> None:
        """Begin."""
        self._writer.start()
        self._readers.start()
        self._files.start()

    async def stop(self) -> None:
        """Finish what was asked for, then end all threads."""
        await self._writer.stop()
        await deferToThreadPool(self._reactor, self._files, int)
        await deferToThreadPool(self._reactor, self._readers, self._reading.close)
        self._files.stop()
        self._readers.stop()

    def submit(self, job: Job) -> None:
        """
        Write this with the next commit.

        @raise SpoolError: when the spool is being closed.
        """
        self._writer.submit(job)

    async def edit(self, function: Callable[[sqlite3.Connection, Batch], T]) -> T:
        """
        Call this within a transaction of the writer; what it returns is returned once that has committed.

        @raise SpoolError: when it failed; nothing was changed then.
        """
        job = Edit(function)
        self._writer.submit(job)
        return await job.result

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """
        Call this with the connection that reads.

        @raise SpoolError: when the tables cannot be read.
        """
        try:
            return await deferToThreadPool(self._reactor, self._readers, function, self._reading)
        except sqlite3.Error as problem:
            raise SpoolError(f"the queue cannot be read: {problem}") from problem

    async def place(self, queue_id: str, content: Content) -> FileContent:
        """See L{QueueDirectory.place}."""
        return await deferToThreadPool(self._reactor, self._files, self._directory.place, queue_id, content)

    def remove(self, names: list[str]) -> None:
        """See L{QueueDirectory.remove}."""
        self._files.callInThread(self._directory.remove, names)
