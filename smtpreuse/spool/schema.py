"""
The tables of the queue, and how a connection to them is set up. C{docs/queue.md} explains them to operators.

A message's id is the row number of its first recipient, and its recipients' rows follow each other: so a message's
recipients are found by a range of rows, without an index of their own. Row numbers are given out by the writer alone.
"""

from __future__ import annotations

import os
import sqlite3

from smtpreuse.errors import SpoolError, SpoolSchemaError

VERSION = 1

_TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    last_row INTEGER NOT NULL,
    queue_id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    arrived REAL NOT NULL,
    sender TEXT NOT NULL,
    size INTEGER NOT NULL,
    body TEXT NOT NULL,
    client TEXT NOT NULL,
    file TEXT
);
CREATE TABLE contents (id INTEGER PRIMARY KEY, octets BLOB NOT NULL);
CREATE TABLE recipients (
    row INTEGER PRIMARY KEY,
    message INTEGER NOT NULL,
    address TEXT NOT NULL,
    original TEXT NOT NULL,
    hop TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    next_attempt REAL,
    reason TEXT NOT NULL
);
CREATE INDEX recipients_by_hop ON recipients (hop, attempts > 0, next_attempt) WHERE next_attempt IS NOT NULL;
CREATE INDEX recipients_by_time ON recipients (next_attempt, hop) WHERE next_attempt IS NOT NULL;
CREATE TABLE counts (state TEXT PRIMARY KEY, messages INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counts VALUES ('incoming', 0), ('deferred', 0), ('hold', 0), ('corrupt', 0);
CREATE TRIGGER message_added AFTER INSERT ON messages BEGIN
    UPDATE counts SET messages = messages + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER message_removed AFTER DELETE ON messages BEGIN
    UPDATE counts SET messages = messages - 1 WHERE state = OLD.state;
END;
CREATE TRIGGER message_changed AFTER UPDATE OF state ON messages WHEN NEW.state <> OLD.state BEGIN
    UPDATE counts SET messages = messages - 1 WHERE state = OLD.state;
    UPDATE counts SET messages = messages + 1 WHERE state = NEW.state;
END;
PRAGMA user_version = {VERSION};
COMMIT;
"""

# secure_delete: Debian's SQLite has it on, and overwrites every page of content that is deleted.
# wal_autocheckpoint: a last resort; the writer does it after it has answered those who wait for the commit.
# journal_size_limit: the write-ahead log shrinks to this again after a long transaction.
_WRITER = """
PRAGMA synchronous = FULL;
PRAGMA secure_delete = OFF;
PRAGMA temp_store = MEMORY;
PRAGMA cache_size = -16384;
PRAGMA wal_autocheckpoint = 32768;
PRAGMA journal_size_limit = 67108864;
"""
_READER = """
PRAGMA query_only = ON;
PRAGMA temp_store = MEMORY;
PRAGMA cache_size = -8192;
"""


def open_writer(path: str) -> sqlite3.Connection:
    """
    The one connection that writes; makes the tables where there are none.

    @raise SpoolSchemaError: when the file is no queue, or one of another version.
    @raise SpoolError: when it cannot be opened.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = _connect(path)
    except (OSError, sqlite3.Error) as problem:
        raise SpoolError(f"the queue {path} cannot be opened: {problem}") from problem
    try:
        _check(connection, path)
        connection.executescript(_WRITER)
    except sqlite3.DatabaseError as problem:
        connection.close()
        raise SpoolError(f"the queue {path} cannot be read: {problem}") from problem
    except SpoolError:
        connection.close()
        raise
    return connection


def open_reader(path: str) -> sqlite3.Connection:
    """A connection that reads only, and gives text as bytes, so that one undecodable value does not hide the others."""
    connection = _connect(path)
    connection.executescript(_READER)
    connection.text_factory = bytes
    return connection


def _connect(path: str) -> sqlite3.Connection:
    # Autocommit: transactions are begun and ended by us. Each connection is used by one thread at a time, but opened
    # and closed by another. Nobody else may write: who does all the same is waited for, in seconds, not for long.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=128, timeout=5)


def _check(connection: sqlite3.Connection, path: str) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == 0 and tables == 0:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_TABLES)
    elif version != VERSION:
        raise SpoolSchemaError(
            f"the queue {path} has schema version {version}, this program uses {VERSION}: start the version that wrote"
            " it and let it deliver what it holds, or move the queue directory away and start with an empty one"
        )
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise SpoolError(f"the queue {path} cannot have a write-ahead log here (journal mode {mode}): use a local disk")
