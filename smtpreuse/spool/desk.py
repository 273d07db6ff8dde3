"""
The operator's view of the queue. It reads leniently, so that what is corrupt can be seen, and changes the queue in
pieces, so that mail does not wait for a long change.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence, Set
from typing import Protocol, TypeVar

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from smtpreuse.interfaces import IQueueDesk
from smtpreuse.model.queueview import QueuePage, QueueRecipient, QueueRow
from smtpreuse.spool import edits
from smtpreuse.spool.batch import Batch

T = TypeVar("T")

# A page ends early when its messages have more recipients than this.
_MOST_RECIPIENTS = 10000
# Messages changed in one transaction.
_PIECE = 500
_MOST_HEADER = 256 * 1024

_SIZES = """
SELECT CAST(queue_id AS BLOB), max(1, last_row - id + 1) FROM messages WHERE queue_id > ? ORDER BY queue_id LIMIT ?
"""
_ROWS = """
SELECT json_group_array(json_array(CAST(queue_id AS TEXT), CAST(state AS TEXT), CAST(arrived AS REAL),
    CAST(size AS INTEGER), CAST(sender AS TEXT), (
        SELECT json_group_array(json_array(CAST(r.address AS TEXT), CAST(r.reason AS TEXT), CAST(r.hop AS TEXT),
            CAST(r.attempts AS INTEGER), CAST(r.next_attempt AS REAL)))
        FROM recipients AS r WHERE r.row BETWEEN m.id AND m.last_row AND r.message = m.id)))
FROM (SELECT * FROM messages WHERE queue_id {which}) AS m
"""
_PAGE = _ROWS.format(which="> ? ORDER BY queue_id LIMIT ?")
_ONE = _ROWS.format(which="= ?")
_HEAD = """
SELECT m.file, CAST(substr(c.octets, 1, ?) AS BLOB) FROM messages AS m LEFT JOIN contents AS c ON c.id = m.id
WHERE m.queue_id = ?
"""


class _Store(Protocol):
    """What the desk needs of the spool's threads."""

    def read(self, function: Callable[[sqlite3.Connection], T]) -> Awaitable[T]: ...

    def edit(self, function: Callable[[sqlite3.Connection, Batch], T]) -> Awaitable[T]: ...


@implementer(IQueueDesk)
class Desk:
    """Lists, shows and changes what the spool holds."""

    def __init__(self, store: _Store, clock: IReactorTime, folder: str) -> None:
        """
        @param folder: where content files are.
        """
        self._store = store
        self._clock = clock
        self._folder = folder

    async def page(self, after: str, limit: int) -> QueuePage:
        """See L{IQueueDesk}; a page is shorter where messages have very many recipients."""
        return await self._store.read(lambda connection: _page(connection, after, limit))

    async def show(self, queue_id: str) -> QueueRow | None:
        """See L{IQueueDesk}."""
        return await self._store.read(lambda connection: _show(connection, queue_id, self._folder))

    async def flush(self, site: str | None) -> int:
        """See L{IQueueDesk}."""
        now, changed, after = self._clock.seconds(), 0, 0
        last = await self._store.read(_last)

        def piece(connection: sqlite3.Connection, _: Batch) -> edits.Piece:
            return edits.flush(connection, site, now, after, last, _PIECE)

        while (done := await self._store.edit(piece)).next is not None:
            changed += done.changed
            after = done.next
        return changed

    async def delete(
        self, queue_ids: Sequence[str] | None, skip: Callable[[], Set[str]], gone: Callable[[Sequence[str]], None]
    ) -> int:
        """See L{IQueueDesk}."""
        deleted = 0
        async for those in self._delete_all(skip) if queue_ids is None else self._delete_named(queue_ids, skip):
            deleted += len(those)
            gone(those)
        return deleted

    async def counts(self) -> dict[str, int]:
        """See L{IQueueDesk}."""
        return await self._store.read(_counts)

    async def _delete_named(self, queue_ids: Sequence[str], skip: Callable[[], Set[str]]) -> AsyncIterator[list[str]]:
        for at in range(0, len(queue_ids), _PIECE):
            left = skip()
            those = [queue_id for queue_id in queue_ids[at : at + _PIECE] if queue_id not in left]

            def piece(connection: sqlite3.Connection, batch: Batch, those: list[str] = those) -> list[str]:
                return edits.delete_named(connection, batch, those)

            yield await self._store.edit(piece)

    async def _delete_all(self, skip: Callable[[], Set[str]]) -> AsyncIterator[list[str]]:
        # What comes in meanwhile was not meant, and has higher numbers.
        last = await self._store.read(_last)
        after: int | None = 0
        while after is not None:
            left = frozenset(skip())

            def piece(
                connection: sqlite3.Connection, batch: Batch, at: int = after, left: Set[str] = left
            ) -> tuple[list[str], int | None]:
                return edits.delete_next(connection, batch, left, at, last, _PIECE)

            those, after = await self._store.edit(piece)
            yield those


def _last(connection: sqlite3.Connection) -> int:
    """The id of the newest message, 0 for none."""
    (last,) = connection.execute("SELECT ifnull(max(id), 0) FROM messages").fetchone()
    assert isinstance(last, int), "an id is a number"
    return last


def _page(connection: sqlite3.Connection, after: str, limit: int) -> QueuePage:
    sizes = connection.execute(_SIZES, (after, limit + 1)).fetchall()
    count, recipients = 0, 0
    for _, size in sizes[:limit]:
        recipients += size
        if count and recipients > _MOST_RECIPIENTS:
            break
        count += 1
    (text,) = connection.execute(_PAGE, (after, count)).fetchone()
    last = sizes[count - 1][0].decode("utf-8", "replace") if count < len(sizes) and count else None
    return QueuePage(rows=_rows(text), after=last)


def _show(connection: sqlite3.Connection, queue_id: str, folder: str) -> QueueRow | None:
    (text,) = connection.execute(_ONE, (queue_id,)).fetchone()
    rows = _rows(text)
    if not rows:
        return None
    name, start = connection.execute(_HEAD, (_MOST_HEADER, queue_id)).fetchone()
    if name is not None:
        try:
            with open(os.path.join(folder, queue_id), "rb") as file:
                start = file.read(_MOST_HEADER)
        except OSError:
            start = None
    return _with_header(rows[0], start or b"")


def _with_header(row: QueueRow, start: bytes) -> QueueRow:
    header = b"" if start.startswith(b"\r\n") else start.partition(b"\r\n\r\n")[0]
    return QueueRow(
        queue_id=row.queue_id, state=row.state, arrived=row.arrived, size=row.size, sender=row.sender,
        recipients=row.recipients, header=header.decode("utf-8", "replace"),
    )  # fmt: skip


def _counts(connection: sqlite3.Connection) -> dict[str, int]:
    return {state.decode(): count for state, count in connection.execute("SELECT state, messages FROM counts")}


def _rows(text: bytes) -> tuple[QueueRow, ...]:
    return tuple(
        QueueRow(
            queue_id=queue_id, state=state, arrived=arrived, size=size, sender=sender,
            recipients=tuple(
                QueueRecipient(address=address, delay_reason=reason, hop=hop, attempts=attempts, next_attempt=time)
                for address, reason, hop, attempts, time in recipients
            ),
        )
        for queue_id, state, arrived, size, sender, recipients in json.loads(text.decode("utf-8", "replace"))
    )  # fmt: skip
