"""
The durable queue on a local disk: L{ISpool} and L{IQueueDesk} over SQLite. What is written is in C{spool.batch} and
C{spool.edits}, what is read in C{spool.reader} and C{spool.desk}, and how it stands on the disk in C{spool.schema} and
C{spool.directory}. Nothing here decides when mail is tried.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence, Set
from typing import TypeVar

from attrs import evolve
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from smtpreuse.errors import SpoolError, SpoolFull, TableError
from smtpreuse.interfaces import IQueueDesk, ISpool
from smtpreuse.model.content import Content, FileContent
from smtpreuse.model.message import Message, Recipient
from smtpreuse.model.queueview import Committed, QueuePage, QueueRow, Recorded
from smtpreuse.spool import edits, reader
from smtpreuse.spool.batch import Batch
from smtpreuse.spool.desk import Desk
from smtpreuse.spool.directory import QueueDirectory, check_queue_id
from smtpreuse.spool.schema import open_writer
from smtpreuse.spool.threads import SpoolThreads
from smtpreuse.spool.writer import Store

T = TypeVar("T")

# Larger content has a file of its own: written once, where the tables would have it twice (log and page).
LARGEST_ROW = 256 * 1024
# Beyond what a message may need: so that outcomes and deletes still fit when no mail is taken any more.
RESERVE = 64 * 2**20
# Of one shortage, so often in seconds.
_SHORTAGE_TOLD_EVERY = 60.0

_LAST_ROW = """
SELECT max(ifnull((SELECT max(row) FROM recipients), 0),
    ifnull((SELECT last_row FROM messages ORDER BY id DESC LIMIT 1), 0))
"""
_HAS_FILE = "SELECT count(*) FROM messages WHERE queue_id = ? AND file IS NOT NULL"


@implementer(ISpool, IQueueDesk)
class SQLiteSpool:
    """One queue directory, held by one service."""

    log = Logger()

    def __init__(
        self, directory: str, reactor: IReactorFromThreads, clock: IReactorTime, *, queue_minfree: int,
        message_size_limit: int, reroute: Callable[[str], str], fingerprint: str,
    ) -> None:  # fmt: skip
        """
        @param queue_minfree: octets that are to stay free.
        @param message_size_limit: octets of the largest message; 0 for no limit.
        @param reroute: the hop of a recipient's address.
        @param fingerprint: of the routing; when it is not the one the queue was written under, all hops are made anew.
        """
        self._directory = QueueDirectory(directory)
        self._reactor = reactor
        self._clock = clock
        self.adopt(queue_minfree=queue_minfree, message_size_limit=message_size_limit)
        self._hop = reroute
        self._fingerprint = fingerprint
        self._rerouted = False
        self._desk = Desk(self, clock, self._directory.file(""))
        self._open: SpoolThreads | None = None
        self._last_row = 0
        self._coming = 0
        self._shortage_told = float("-inf")

    def adopt(self, *, queue_minfree: int, message_size_limit: int) -> None:
        """Ask for so much free space from now on; see L{__init__}."""
        self._least = max(queue_minfree, message_size_limit * 3 // 2) + RESERVE

    def open(self) -> None:
        """
        Take the directory, make what is missing, sweep what a crash left behind, and start the threads.

        @raise SpoolInUse: when another service holds the directory.
        @raise SpoolSchemaError: when another version wrote the queue.
        @raise SpoolError: when it cannot be used.
        """
        self._directory.open()
        try:
            connection = open_writer(self._directory.database)
            try:
                self._prepare(connection)
                threads = SpoolThreads(self._directory, connection, self._reactor)
            except BaseException:
                connection.close()
                raise
        except (OSError, sqlite3.Error) as problem:
            self._directory.close()
            raise SpoolError(f"the queue {self._directory.database} cannot be used: {problem}") from problem
        except BaseException:
            self._directory.close()
            raise
        threads.start()
        self._open = threads

    async def close(self) -> None:
        """Write what waits, end the threads, and let the directory go."""
        threads, self._open = self._open, None
        if threads is not None:
            await threads.stop()
            self._directory.close()

    async def reroute(self, hop: Callable[[str], str], fingerprint: str) -> int:
        """
        Give every recipient the hop that it has by this routing, unless that is the one they were written under. What
        is stored from the call on has it in any case, whatever routing its hops were made by.

        @param hop: from a recipient's address; asked in other threads too.
        @return: how many recipients of those that were stored before changed.
        @raise SpoolError: when it could not be done; these recipients keep their hops.
        """
        self._hop, self._fingerprint, self._rerouted = hop, fingerprint, True
        return await self.edit(lambda connection, _: edits.rehop(connection, hop, fingerprint))

    # ISpool

    def scratch(self) -> str:
        """See L{ISpool}."""
        return self._directory.scratch()

    def room(self, octets: int) -> bool:
        """See L{ISpool}."""
        shortage, now = self._shortage(octets), self._clock.seconds()
        if shortage and now - self._shortage_told >= _SHORTAGE_TOLD_EVERY:
            self._shortage_told = now
            self.log.error("mail refused for want of space: {reason}", reason=shortage)
        return not shortage

    async def append(self, message: Message, content: Content) -> Message:
        """See L{ISpool}."""
        # A file has its space already.
        size = 0 if isinstance(content, FileContent) else content.size
        if shortage := self._shortage(size):
            raise SpoolFull(shortage)
        new = [(self._numbered(message, content), content)]
        self._coming += size
        try:
            await self._store(new, [])
        finally:
            self._coming -= size
        return new[0][0]

    async def record(self, done: Sequence[Recorded], new: Sequence[tuple[Message, Content]]) -> Committed:
        """See L{ISpool}."""
        stored = [(self._numbered(message, content), content) for message, content in new]
        removed = await self._store(stored, list(done))
        return Committed(stored=tuple(message for message, _ in stored), removed=tuple(removed))

    async def nexthops(self, since: float, until: float, after: str, limit: int) -> list[str]:
        """See L{ISpool}."""
        while True:
            hops, bad = await self.read(lambda connection: reader.nexthops(connection, since, until, after, limit))
            if not bad or not await self._spoil(bad):
                return hops

    async def due(self, hop: str, limit: int, until: float, skip: Set[int]) -> list[Message]:
        """See L{ISpool}."""
        skip = frozenset(skip)  # it may change while the thread reads
        while True:
            messages, bad = await self.read(lambda connection: reader.due(connection, hop, limit, until, skip))
            if not bad or not await self._spoil(bad):
                return messages

    async def content(self, queue_id: str) -> Content:
        """See L{ISpool}."""
        try:
            return await self.read(lambda connection: reader.content(connection, queue_id, self._directory.file("")))
        except reader.BadContent as problem:
            if await self.edit(lambda connection, _: edits.spoil_message(connection, queue_id)):
                self.log.error("message put into corrupt: {reason}", queue_id=queue_id, reason=str(problem))
            raise

    # IQueueDesk

    async def page(self, after: str, limit: int) -> QueuePage:
        """See L{IQueueDesk}."""
        return await self._desk.page(after, limit)

    async def show(self, queue_id: str) -> QueueRow | None:
        """See L{IQueueDesk}."""
        return await self._desk.show(queue_id)

    async def flush(self, site: str | None) -> int:
        """See L{IQueueDesk}."""
        return await self._desk.flush(site)

    async def delete(
        self, queue_ids: Sequence[str] | None, skip: Callable[[], Set[str]], gone: Callable[[Sequence[str]], None]
    ) -> int:
        """See L{IQueueDesk}."""
        return await self._desk.delete(queue_ids, skip, gone)

    async def counts(self) -> dict[str, int]:
        """See L{IQueueDesk}."""
        return await self._desk.counts()

    # What the parts need of each other

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """See L{SpoolThreads.read}."""
        return await self._threads().read(function)

    async def edit(self, function: Callable[[sqlite3.Connection, Batch], T]) -> T:
        """See L{SpoolThreads.edit}."""
        return await self._threads().edit(function)

    def _threads(self) -> SpoolThreads:
        if self._open is None:
            raise SpoolError("the queue is closed")
        return self._open

    def _prepare(self, connection: sqlite3.Connection) -> None:
        removed = self._directory.sweep(
            lambda name: connection.execute(_HAS_FILE, (name,)).fetchone() != (0,)
        )
        if removed:
            self.log.info("content files without a message removed: {removed}", removed=removed)
        try:
            changed = edits.reroute(connection, self._hop, self._fingerprint)
        except TableError as problem:
            # The fingerprint stays the old one, so the next start tries again.
            self.log.error("queue not routed anew, recipients keep their hops: {reason}", reason=str(problem))
        else:
            if changed:
                self.log.info("queue routed anew: recipients={changed}", changed=changed)
        (self._last_row,) = connection.execute(_LAST_ROW).fetchone()

    def _numbered(self, message: Message, content: Content) -> Message:
        """The message as it will be stored: times in microseconds, recipients with rows that follow each other."""
        check_queue_id(message.queue_id)
        if not message.recipients or content.size != message.size:
            raise SpoolError(
                f"{message.queue_id}: not a whole message: recipients={len(message.recipients)} size={message.size}"
                f" content={content.size}"
            )
        first = self._last_row + 1
        self._last_row += len(message.recipients)
        recipients = tuple(
            Recipient(row=row, address=r.address, original=r.original, hop=r.hop, attempts=r.attempts)
            for row, r in enumerate(message.recipients, first)
        )
        return Message(
            queue_id=message.queue_id, arrived=round(message.arrived, 6), sender=message.sender, size=message.size,
            body=message.body, client=message.client, held=message.held, recipients=recipients,
        )  # fmt: skip

    def _routed(self, message: Message) -> Message:
        """By the routing that holds now: it may have changed since its hops were made."""
        try:
            return evolve(message, recipients=tuple(
                evolve(each, hop=self._hop(each.address)) for each in message.recipients
            ))  # fmt: skip
        except TableError:
            # Where it cannot be asked the hops are as good as any.
            return message

    async def _store(self, new: list[tuple[Message, Content]], done: list[Recorded]) -> list[str]:
        """
        @param new: becomes what is stored.
        """
        threads = self._threads()
        placed: list[str] = []
        try:
            for at, (message, content) in enumerate(new):
                if content.size > LARGEST_ROW or isinstance(content, FileContent):
                    new[at] = message, await threads.place(message.queue_id, content)
                    placed.append(message.queue_id)
            if self._rerouted:
                new[:] = [(self._routed(message), content) for message, content in new]
            job = Store(new, done, self._clock.seconds())
            threads.submit(job)
            return await job.result
        except SpoolError:
            if placed:
                threads.remove(placed)
            raise

    async def _spoil(self, bad: list[reader.BadRow]) -> bool:
        """
        Put these recipients aside.

        @return: whether that could be done, so that it makes sense to look again.
        """
        rows = [one.row for one in bad]
        try:
            await self.edit(lambda connection, _: edits.spoil_rows(connection, rows))
        except SpoolError as problem:
            self.log.error("corrupt recipients not put aside: rows={rows} {reason}", rows=rows, reason=str(problem))
            return False
        for one in bad:
            self.log.error("recipient put into corrupt: row={row} {reason}", row=one.row, reason=one.problem)
        return True

    def _shortage(self, octets: int) -> str:
        """Why there is no room for so much more content; empty when there is."""
        try:
            free = self._directory.free() - self._coming
        except OSError as problem:
            return f"how much is free for the queue is not known: {problem}"
        needed = self._least + octets
        return "" if free >= needed else f"{free} octets are free for the queue, {needed} are needed to take mail"
