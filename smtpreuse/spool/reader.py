"""
What the dispatcher reads from the queue: hops, due messages, content. Plain functions over a connection that gives text
as bytes; nothing here writes.

Answers are put together in SQLite as one JSON text: one step of one statement for any number of rows, because each
step gives Python's interpreter lock away (see C{spool.batch}). A value that is not what it should be fails the whole
text; then the rows are read one by one, and the bad ones are named to the caller, who puts them aside.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Set

from attrs import frozen

from smtpreuse.errors import SpoolError
from smtpreuse.model.content import Content, FileContent, MemoryContent
from smtpreuse.model.message import Body, Message, Recipient

# Up to so many recipients in the time asked about are sorted by hop; where there are more, hops are counted off.
_NARROW = 5000

_CROWDED = """
SELECT count(*) FROM (SELECT 1 FROM recipients INDEXED BY recipients_by_time
    WHERE next_attempt > ? AND next_attempt <= ? LIMIT ?)
"""
_HOPS_BY_TIME = """
SELECT json_group_array(hop) FROM (SELECT DISTINCT hop FROM recipients INDEXED BY recipients_by_time
    WHERE next_attempt > ? AND next_attempt <= ? AND hop > ? ORDER BY hop LIMIT ?)
"""
_NEXT_HOP = """
SELECT min(hop) FROM recipients INDEXED BY recipients_by_hop WHERE next_attempt IS NOT NULL AND hop >
"""
_HOPS_BY_HOP = f"""
WITH RECURSIVE every(hop) AS (
    SELECT ({_NEXT_HOP} :after) UNION ALL SELECT ({_NEXT_HOP} every.hop) FROM every WHERE every.hop IS NOT NULL
)
SELECT json_group_array(hop) FROM (SELECT hop FROM every WHERE hop IS NOT NULL AND EXISTS (
    SELECT 1 FROM recipients INDEXED BY recipients_by_hop
    WHERE recipients.hop = every.hop AND (attempts > 0) IN (0, 1) AND next_attempt > :since AND next_attempt <= :until
) LIMIT :limit)
"""
_ALL_HOPS = "SELECT row, typeof(hop), hop FROM recipients WHERE next_attempt IS NOT NULL"

# The oldest of fresh mail and of retries, three to one where there is enough of both: else the retries of a site that
# was down for a day would keep fresh mail waiting until they are all through.
_OLDEST = """
SELECT row, next_attempt FROM recipients INDEXED BY recipients_by_hop
WHERE hop = :hop AND (attempts > 0) = {retries} AND next_attempt <= :until
    AND row NOT IN (SELECT value FROM json_each(:skip))
ORDER BY next_attempt, row LIMIT :limit
"""
_DUE_ROWS = f"""
WITH fresh AS ({_OLDEST.format(retries=0)}), retries AS ({_OLDEST.format(retries=1)})
SELECT row FROM (SELECT * FROM (SELECT * FROM fresh LIMIT max(:limit - :share, :limit - (SELECT count(*) FROM retries)))
    UNION ALL SELECT * FROM (SELECT * FROM retries LIMIT max(:share, :limit - (SELECT count(*) FROM fresh))))
ORDER BY next_attempt, row
"""
# Of what is loaded at once, as of what is given out (C{queue.schedule}).
FRESH_TO_RETRIES = 3
# Times in whole microseconds: SQLite writes a REAL into JSON with 15 digits only.
_MESSAGES = """
SELECT json_group_array(json_array(r.row, r.address, r.original, r.hop, r.attempts,
    m.queue_id, CAST(round(m.arrived * 1000000) AS INTEGER), m.sender, m.size, m.body, m.client))
FROM ({rows}) AS chosen CROSS JOIN recipients AS r ON r.row = chosen.row LEFT JOIN messages AS m ON m.id = r.message
"""
_DUE = _MESSAGES.format(rows=_DUE_ROWS)
# By row: SQLite would rather go through all that is due at the hop.
_DUE_OF_THOSE = _MESSAGES.format(
    rows="""
SELECT r.row FROM messages AS m CROSS JOIN recipients AS r NOT INDEXED
    ON r.row BETWEEN m.id AND m.last_row AND r.message = m.id
WHERE m.queue_id IN (SELECT value FROM json_each(:last)) AND r.hop = :hop AND r.next_attempt <= :until
    AND r.row NOT IN (SELECT value FROM json_each(:skip))
ORDER BY r.next_attempt, r.row
"""
)
_ONE = _MESSAGES.format(rows="SELECT ? AS row")

_CONTENT = """
SELECT m.size, m.file, c.octets, m.state FROM messages AS m LEFT JOIN contents AS c ON c.id = m.id WHERE m.queue_id = ?
"""

_BODIES = {body.value: body for body in Body}


@frozen
class BadRow:
    """A recipient's row that cannot be used, and why."""

    row: int
    problem: str


class BadContent(SpoolError):
    """The content of a message is not what it should be."""


def nexthops(
    connection: sqlite3.Connection, since: float, until: float, after: str, limit: int
) -> tuple[list[str], list[BadRow]]:
    """
    See L{ISpool<smtpreuse.interfaces.ISpool>}.

    @return: the hops, or none and the rows whose hop cannot be read.
    """
    try:
        (some,) = connection.execute(_CROWDED, (since, until, _NARROW + 1)).fetchone()
        if some <= _NARROW:
            (text,) = connection.execute(_HOPS_BY_TIME, (since, until, after, limit)).fetchone()
        else:
            values = {"after": after, "since": since, "until": until, "limit": limit}
            (text,) = connection.execute(_HOPS_BY_HOP, values).fetchone()
        return _strings(text), []
    except (TypeError, ValueError, sqlite3.OperationalError) as problem:
        bad = [BadRow(row, "its hop cannot be read") for row in _unreadable(connection)]
        if not bad:
            raise SpoolError(f"the queue cannot be read: {problem}") from problem
        return [], bad


def due(
    connection: sqlite3.Connection, hop: str, limit: int, until: float, skip: Set[int]
) -> tuple[list[Message], list[BadRow]]:
    """
    See L{ISpool<smtpreuse.interfaces.ISpool>}.

    @return: the messages, and the rows that were passed over because they cannot be used.
    """
    share = max(1, limit // (FRESH_TO_RETRIES + 1)) if limit > 1 else 0
    values = {"hop": hop, "until": until, "skip": json.dumps(list(skip)), "limit": limit, "share": share}
    try:
        (text,) = connection.execute(_DUE, values).fetchone()
        messages = _messages(json.loads(text.decode()))
        if sum(len(message.recipients) for message in messages) >= limit > 0:
            # The limits may have cut the last fresh one, and the last that is tried again.
            cut = {message.recipients[-1].attempts > 0: message.queue_id for message in messages}
            values["last"] = json.dumps(list(cut.values()))
            (text,) = connection.execute(_DUE_OF_THOSE, values).fetchone()
            whole = _messages(json.loads(text.decode()))
            messages = [message for message in messages if message.queue_id not in cut.values()] + whole
        return messages, []
    except (TypeError, ValueError, KeyError, sqlite3.OperationalError):
        return _one_by_one(connection, [row for (row,) in connection.execute(_DUE_ROWS, values)])


def content(connection: sqlite3.Connection, queue_id: str, folder: str) -> Content:
    """
    @param folder: where content files are.
    @raise BadContent: when it is not as it should be.
    @raise SpoolError: when there is no such message.
    """
    found = connection.execute(_CONTENT, (queue_id,)).fetchone()
    if found is None:
        raise SpoolError(f"{queue_id}: there is no such message")
    size, name, octets, _ = found
    if name is None:
        if not isinstance(octets, bytes) or len(octets) != size:
            raise BadContent(f"{queue_id}: its content is missing or not {size!r} octets long")
        return MemoryContent(octets)
    path = os.path.join(folder, queue_id)
    try:
        there = os.stat(path).st_size
    except FileNotFoundError as problem:
        raise BadContent(f"{queue_id}: its content file is missing: {problem}") from problem
    except OSError as problem:
        # It may pass: what is put into corrupt comes back by an operator's hand only.
        raise SpoolError(f"{queue_id}: its content file cannot be read: {problem}") from problem
    if there != size:
        raise BadContent(f"{queue_id}: its content file {path} has {there} octets instead of {size!r}")
    return FileContent(path=path, size=there)


def _strings(text: bytes) -> list[str]:
    return [_text(value) for value in json.loads(text.decode())]


def _unreadable(connection: sqlite3.Connection) -> Iterable[int]:
    for row, kind, hop in connection.execute(_ALL_HOPS).fetchall():
        try:
            if kind != b"text":
                raise ValueError
            hop.decode()
        except ValueError:
            yield row


def _one_by_one(connection: sqlite3.Connection, rows: list[int]) -> tuple[list[Message], list[BadRow]]:
    good: list[list[object]] = []
    bad: list[BadRow] = []
    for row in rows:
        try:
            (text,) = connection.execute(_ONE, (row,)).fetchone()
            fields = json.loads(text.decode())
            _messages(fields)
            good += fields
        except (TypeError, ValueError, KeyError, sqlite3.OperationalError) as problem:
            bad.append(BadRow(row, f"it cannot be read: {problem}"))
    return _messages(good), bad


def _messages(rows: list[list[object]]) -> list[Message]:
    """
    Rows of recipients, the oldest first, to messages.

    @raise TypeError: when a value is of the wrong type.
    @raise ValueError: when there is no such body.
    """
    envelopes: dict[str, list[object]] = {}
    recipients: dict[str, list[Recipient]] = {}
    for row, address, original, hop, attempts, queue_id, *envelope in rows:
        recipient = Recipient(
            row=_number(row), address=_text(address), original=_text(original), hop=_text(hop),
            attempts=_number(attempts),
        )  # fmt: skip
        name = _text(queue_id)
        if name in recipients:
            recipients[name].append(recipient)
        else:
            envelopes[name] = envelope
            recipients[name] = [recipient]
    return [_message(name, envelopes[name], tuple(those)) for name, those in recipients.items()]


def _message(queue_id: str, envelope: list[object], recipients: tuple[Recipient, ...]) -> Message:
    arrived, sender, size, body, client = envelope
    return Message(
        queue_id=queue_id, arrived=_number(arrived) / 1e6, sender=_text(sender), size=_number(size),
        body=_BODIES[_text(body)], client=_text(client), recipients=recipients,
    )  # fmt: skip


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError(f"{value!r} is not text")
    return value


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value
