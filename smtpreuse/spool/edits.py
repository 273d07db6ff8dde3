"""
Changes of the queue that are neither mail nor outcomes: what an operator asks for, what turned out to be corrupt, and
new hops after a change of the routing. Plain functions that run inside the writer's transactions, in small pieces, so
that mail does not wait for them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence, Set

from attrs import frozen

from smtpreuse.spool.batch import Batch

_PIECE = """
SELECT max(id), max(last_row) FROM (SELECT id, last_row FROM messages WHERE id > ? AND id <= ? ORDER BY id LIMIT ?)
"""
_DEFERRED = """
FROM recipients WHERE row > :above AND row <= :upto AND next_attempt > :now AND (:site IS NULL
    OR substr(hop, instr(hop, ':') + 1) = :site OR lower(substr(address, -length(:domain))) = :domain)
"""
_FLUSHED = f"SELECT count(DISTINCT message) {_DEFERRED}"
_FLUSH = f"UPDATE recipients SET next_attempt = :now WHERE row IN (SELECT row {_DEFERRED})"

_NAMED = "SELECT id, CAST(queue_id AS BLOB), file FROM messages WHERE queue_id IN (SELECT value FROM json_each(?))"
_ALL = "SELECT id, CAST(queue_id AS BLOB), file FROM messages WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
_DELETE = (
    """
    DELETE FROM recipients WHERE row IN (
        SELECT r.row FROM json_each(?) AS j CROSS JOIN messages AS m ON m.id = j.value
        CROSS JOIN recipients AS r ON r.row BETWEEN m.id AND m.last_row AND r.message = m.id)
    """,
    "DELETE FROM contents WHERE id IN (SELECT value FROM json_each(?))",
    "DELETE FROM messages WHERE id IN (SELECT value FROM json_each(?))",
)

_BAD_ROWS = "UPDATE recipients SET next_attempt = NULL WHERE row IN (SELECT value FROM json_each(?))"
_BAD_MESSAGES = """
UPDATE messages SET state = 'corrupt' WHERE id IN (
    SELECT message FROM recipients WHERE row IN (SELECT value FROM json_each(?)))
"""
_BAD_CONTENT = "UPDATE messages SET state = 'corrupt' WHERE queue_id = ? AND state <> 'corrupt'"
_HALT = """
UPDATE recipients SET next_attempt = NULL WHERE row IN (
    SELECT r.row FROM messages AS m CROSS JOIN recipients AS r ON r.row BETWEEN m.id AND m.last_row AND r.message = m.id
    WHERE m.queue_id = ?)
"""


@frozen
class Piece:
    """
    What a change in pieces did this time.

    @ivar changed: how many messages it changed.
    @ivar next: the message behind which to go on, or L{None} at the end.
    """

    changed: int
    next: int | None


def flush(connection: sqlite3.Connection, site: str | None, now: float, after: int, last: int, most: int) -> Piece:
    """
    Make deferred recipients due, in the next C{most} messages behind the id C{after}, up to the id C{last}.

    @param site: a recipient domain or a nexthop; L{None} for all.
    """
    found, upto = connection.execute(_PIECE, (after, last, most)).fetchone()
    if found is None:
        return Piece(0, None)
    site = None if site is None else site.lower()
    # A message's rows begin with its id.
    values = {"above": after, "upto": upto, "now": now, "site": site, "domain": f"@{site}"}
    (changed,) = connection.execute(_FLUSHED, values).fetchone()
    if changed:
        connection.execute(_FLUSH, values)
    return Piece(changed, upto)


def delete_named(connection: sqlite3.Connection, batch: Batch, queue_ids: Sequence[str]) -> list[str]:
    """Delete these messages, and give the queue ids of those that were there."""
    return _delete(connection, batch, connection.execute(_NAMED, (json.dumps(queue_ids),)).fetchall())


def delete_next(
    connection: sqlite3.Connection, batch: Batch, skip: Set[str], after: int, last: int, most: int
) -> tuple[list[str], int | None]:
    """
    Delete the next C{most} messages behind the id C{after}, up to the id C{last}, but those to skip.

    @return: the queue ids deleted, and the id to go on behind, L{None} at the end.
    """
    found = connection.execute(_ALL, (after, last, most)).fetchall()
    if not found:
        return [], None
    chosen = [row for row in found if row[1].decode("utf-8", "replace") not in skip]
    return _delete(connection, batch, chosen), found[-1][0]


def _delete(connection: sqlite3.Connection, batch: Batch, found: list[tuple[int, bytes, str | None]]) -> list[str]:
    ids = json.dumps([number for number, _, _ in found])
    for statement in _DELETE:
        connection.execute(statement, (ids,))
    batch.dropped += [name for _, _, name in found if name is not None]
    return [queue_id.decode("utf-8", "replace") for _, queue_id, _ in found]


def spoil_rows(connection: sqlite3.Connection, rows: Sequence[int]) -> None:
    """These recipients cannot be used: they are not tried any more, and their messages are shown as corrupt."""
    text = json.dumps(rows)
    connection.execute(_BAD_MESSAGES, (text,))
    connection.execute(_BAD_ROWS, (text,))


def spoil_message(connection: sqlite3.Connection, queue_id: str) -> bool:
    """
    The content of this message cannot be used: none of its recipients is tried any more.

    @return: whether that is news.
    """
    changed = connection.execute(_BAD_CONTENT, (queue_id,)).rowcount
    if changed:
        connection.execute(_HALT, (queue_id,))
    return changed > 0


def reroute(connection: sqlite3.Connection, hop: Callable[[str], str], fingerprint: str, page: int = 10000) -> int:
    """
    Compute the hops of all recipients anew, unless they were computed with this routing; one transaction.

    @param hop: from a recipient's address; what it raises ends the change, and the hops stay as they were.
    @return: how many changed.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        changed = rehop(connection, hop, fingerprint, page)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return changed


def rehop(connection: sqlite3.Connection, hop: Callable[[str], str], fingerprint: str, page: int = 10000) -> int:
    """The same within a transaction."""
    known = connection.execute("SELECT value FROM about WHERE name = 'routing'").fetchone()
    if known == (fingerprint,):
        return 0
    changed, after = 0, 0
    while rows := _addresses(connection, after, page):
        after = rows[-1][0]
        news = [(new, row) for row, new in _anew(rows, hop)]
        connection.executemany("UPDATE recipients SET hop = ? WHERE row = ?", news)
        changed += len(news)
    connection.execute("INSERT OR REPLACE INTO about VALUES ('routing', ?)", (fingerprint,))
    return changed


def _addresses(connection: sqlite3.Connection, after: int, page: int) -> list[tuple[int, object, object]]:
    return connection.execute(
        "SELECT row, CAST(address AS BLOB), CAST(hop AS BLOB) FROM recipients WHERE row > ? ORDER BY row LIMIT ?",
        (after, page),
    ).fetchall()


def _anew(rows: list[tuple[int, object, object]], hop: Callable[[str], str]) -> Iterable[tuple[int, str]]:
    for row, address, old in rows:
        try:
            text = address.decode() if isinstance(address, bytes) else ""
        except UnicodeDecodeError:
            continue  # it is found to be corrupt when it is due
        if text and (new := hop(text)).encode() != old:
            yield row, new
