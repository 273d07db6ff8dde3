"""
What one transaction writes: rows of several jobs put together, so that each table is touched by few statements however
many messages there are.

Every step of a statement in Python gives the interpreter lock away and has to win it back from the reactor's thread,
which costs more than the row itself; so rows go in by up to 64 at a time, and out by lists in JSON. It knows no threads
and no files, and commits nothing itself.
"""

from __future__ import annotations

import json
import sqlite3
from itertools import chain

from attrs import define, field

from smtpreuse.model.content import FileContent, MemoryContent
from smtpreuse.model.message import Message
from smtpreuse.model.queueview import Recorded

Value = int | float | str | bytes | None
Row = tuple[Value, ...]

_COLUMNS = {"messages": 10, "contents": 2, "recipients": 8}
_MOST_ROWS = 64

_LATER = """
UPDATE recipients SET next_attempt = later.time, attempts = later.attempts, reason = later.reason FROM (
    SELECT json_extract(value, '$[0]') AS row, json_extract(value, '$[1]') AS time,
        json_extract(value, '$[2]') AS attempts, json_extract(value, '$[3]') AS reason FROM json_each(?)
) AS later WHERE recipients.row = later.row AND recipients.next_attempt IS NOT NULL
"""
_DEFERRED = """
UPDATE messages SET state = 'deferred' WHERE state = 'incoming' AND queue_id IN (SELECT value FROM json_each(?))
"""
_DONE = "DELETE FROM recipients WHERE row IN (SELECT value FROM json_each(?))"
_FINISHED = """
SELECT json_group_array(id), json_group_array(file), json_group_array(queue_id) FROM messages
WHERE queue_id IN (SELECT value FROM json_each(?))
    AND NOT EXISTS (SELECT 1 FROM recipients WHERE row BETWEEN messages.id AND messages.last_row)
"""
_DROP_CONTENTS = "DELETE FROM contents WHERE id IN (SELECT value FROM json_each(?))"
_DROP_MESSAGES = "DELETE FROM messages WHERE id IN (SELECT value FROM json_each(?))"


@define(eq=False)
class Batch:
    """
    @ivar dropped: names of content files that may go when this transaction has committed.
    @ivar finished: queue ids of messages that leave the queue because their last recipient is done.
    @ivar octets: of content that it writes.
    """

    messages: list[Row] = field(factory=list)
    contents: list[Row] = field(factory=list)
    recipients: list[Row] = field(factory=list)
    done: list[Recorded] = field(factory=list)
    dropped: list[str] = field(factory=list)
    finished: set[str] = field(factory=set)
    octets: int = 0

    def add(self, message: Message, content: MemoryContent | FileContent, due: float) -> None:
        """
        A new message; its recipients have rows already, one after the other.

        @param due: UNIX time of its first attempt.
        """
        recipients = message.recipients
        first = recipients[0].row
        name = None
        if isinstance(content, MemoryContent):
            self.contents.append((first, content.octets))
            self.octets += len(content.octets)
        else:
            name = message.queue_id
        self.messages.append((
            first, recipients[-1].row, message.queue_id, "hold" if message.held else "incoming", message.arrived,
            message.sender, message.size, message.body.value, message.client, name,
        ))  # fmt: skip
        time = None if message.held else due
        for r in recipients:
            self.recipients.append((r.row, first, r.address, r.original, r.hop, r.attempts, time, ""))

    def write(self, connection: sqlite3.Connection) -> None:
        """Write all of it, within the transaction that the caller has begun."""
        _insert(connection, "messages", self.messages)
        _insert(connection, "contents", self.contents)
        _insert(connection, "recipients", self.recipients)
        later = [r for r in self.done if r.next_attempt is not None]
        if later:
            rows = [(r.row, r.next_attempt, r.attempts, _plain(r.reason)) for r in later]
            connection.execute(_LATER, (json.dumps(rows),))
            connection.execute(_DEFERRED, (json.dumps([r.queue_id for r in later if r.attempts]),))
        done = [r for r in self.done if r.next_attempt is None]
        if done:
            connection.execute(_DONE, (json.dumps([r.row for r in done]),))
            self._drop_finished(connection, [r.queue_id for r in done])

    def _drop_finished(self, connection: sqlite3.Connection, queue_ids: list[str]) -> None:
        ids, files, deleted = connection.execute(_FINISHED, (json.dumps(queue_ids),)).fetchone()
        if ids == "[]":
            return
        connection.execute(_DROP_CONTENTS, (ids,))
        connection.execute(_DROP_MESSAGES, (ids,))
        self.dropped += [name for name in json.loads(files) if name is not None]
        self.finished.update(json.loads(deleted))


def _statements(table: str, columns: int) -> dict[int, str]:
    row = "(" + ", ".join("?" * columns) + ")"
    sizes = [1 << power for power in range(_MOST_ROWS.bit_length())]
    return {size: f"INSERT INTO {table} VALUES {', '.join([row] * size)}" for size in sizes}


_INSERTS = {table: _statements(table, columns) for table, columns in _COLUMNS.items()}


def _insert(connection: sqlite3.Connection, table: str, rows: list[Row]) -> None:
    # In powers of two, so that few statements are prepared, and stay prepared.
    statements = _INSERTS[table]
    at, size = 0, _MOST_ROWS
    while at < len(rows):
        while size > len(rows) - at:
            size >>= 1
        connection.execute(statements[size], tuple(chain.from_iterable(rows[at : at + size])))
        at += size


def _plain(reason: str) -> str:
    # What a server said is no ground for failing to record it.
    if reason.isascii() and "\0" not in reason:
        return reason
    return reason.replace("\0", "?").encode("utf-8", "replace").decode("utf-8")
