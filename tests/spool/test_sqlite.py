"""
Tests of L{smtpreuse.spool.sqlite} and its parts, with real threads and real files.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Callable
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent, globalLogPublisher

from smtpreuse.errors import SpoolError, SpoolFull, SpoolInUse, SpoolSchemaError, TableError
from smtpreuse.model.content import FileContent, MemoryContent
from smtpreuse.spool import reader
from smtpreuse.spool.batch import Batch
from smtpreuse.spool.directory import QueueDirectory
from smtpreuse.spool.sqlite import LARGEST_ROW, RESERVE, SQLiteSpool
from tests import conformance
from tests.conformance import FOREVER, START, deferred, done, message, octets


def by_domain(address: str) -> str:
    """A router that relays nothing."""
    return "smtp:" + address.rpartition("@")[2]


class SQLiteSpoolTests(conformance.SpoolContract):
    """The body on a local disk keeps the contract, and its files."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.directory = os.path.join(self.mktemp(), "queue")
        self.spool = self.new()
        self.spool.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.spool.close()))

    def new(
        self, reroute: Callable[[str], str] = by_domain, fingerprint: str = "one", queue_minfree: int = 0,
        message_size_limit: int = 1000,
    ) -> SQLiteSpool:  # fmt: skip
        """A spool on the directory of this test."""
        return SQLiteSpool(
            self.directory, reactor, self.clock, queue_minfree=queue_minfree, message_size_limit=message_size_limit,
            reroute=reroute, fingerprint=fingerprint,
        )  # fmt: skip

    async def reopened(self) -> None:
        await self.reopened_as(self.new())

    async def reopened_as(self, spool: SQLiteSpool) -> None:
        """Open the queue in another manner."""
        await self.spool.close()
        self.spool = spool
        self.spool.open()

    def tampered(self, statement: str, *values: object) -> None:
        """Change the queue behind its back, as an operator or a broken disk would."""
        connection = sqlite3.connect(os.path.join(self.directory, "queue.db"))
        with connection:
            connection.execute(statement, values)
        connection.close()

    def files(self) -> list[str]:
        """What is in C{content/}."""
        return sorted(os.listdir(os.path.join(self.directory, "content")))

    # The directory

    def test_modes(self) -> None:
        """Nobody else can read mail; our group gets into the directory, for the control socket."""
        for name, expected in (
            ("", 0o750), ("content", 0o700), ("queue.db", 0o600), ("queue.db-wal", 0o600), ("lock", 0o600)
        ):  # fmt: skip
            mode = stat.S_IMODE(os.stat(os.path.join(self.directory, name)).st_mode)
            self.assertEqual(mode, expected, name)

    async def test_open_directory(self) -> None:
        """One that was there stays as it was, as it may be anybody's; what is in it is closed to others."""
        os.chmod(self.directory, 0o755)
        os.chmod(os.path.join(self.directory, "queue.db"), 0o644)
        os.chmod(os.path.join(self.directory, "content"), 0o755)
        told: list[LogEvent] = []
        globalLogPublisher.addObserver(told.append)
        self.addCleanup(globalLogPublisher.removeObserver, told.append)
        await self.reopened()
        self.assertIn(f"everybody may look into {self.directory}", "\n".join(formatEvent(event) for event in told))
        for name, expected in (("", 0o755), ("queue.db", 0o640), ("content", 0o750)):
            mode = stat.S_IMODE(os.stat(os.path.join(self.directory, name)).st_mode)
            self.assertEqual(mode, expected, name)

    async def test_everybodys_directory(self) -> None:
        """One that everybody may write to holds no queue, with or without the bit that /tmp has; it stays as it was."""
        for mode in (0o777, 0o1777):
            shared = self.mktemp()
            os.mkdir(shared)
            os.chmod(shared, mode)
            with self.assertRaises(SpoolError) as caught:
                QueueDirectory(shared).open()
            self.assertIn("can be written to by everybody", str(caught.exception))
            self.assertEqual((os.listdir(shared), stat.S_IMODE(os.stat(shared).st_mode)), ([], mode))

    def test_in_use(self) -> None:
        """A second service ends at once, and names the first one; it does no harm to it."""
        with self.assertRaises(SpoolInUse) as caught:
            self.new().open()
        self.assertIn(f"process {os.getpid()}:", str(caught.exception))
        with self.assertRaises(SpoolInUse):
            self.new().open()

    async def test_lock_goes(self) -> None:
        """The directory is free after the end."""
        await self.spool.close()
        await self.spool.close()
        self.spool = self.new()
        self.spool.open()

    async def test_unusable(self) -> None:
        """A directory that cannot be made is an error of the spool."""
        await self.spool.close()
        with open(self.directory + "-file", "w"):
            pass
        with self.assertRaisesRegex(SpoolError, "cannot be used"):
            SQLiteSpool(
                self.directory + "-file", reactor, self.clock, queue_minfree=0, message_size_limit=0,
                reroute=by_domain, fingerprint="",
            ).open()  # fmt: skip

    async def test_closed(self) -> None:
        """After the end every call says so."""
        await self.spool.close()
        spool = self.spool
        for call in (self.put("Q1", "a@example.org"), spool.record([], []), spool.counts(), spool.flush(None)):
            with self.assertRaisesRegex(SpoolError, "closed"):
                await call

    async def test_close_writes(self) -> None:
        """What was given before the end is written before it."""
        waiting = [Deferred.fromCoroutine(self.put(f"Q{i}", "a@example.org")) for i in range(30)]
        await self.reopened()
        await gatherResults(waiting)
        self.assertEqual((await self.spool.counts())["incoming"], 30)

    async def test_other_schema(self) -> None:
        """A queue of another version is not touched, and the error says what to do."""
        await self.spool.close()
        self.tampered("PRAGMA user_version = 7")
        spool = self.new()
        for _ in range(2):
            with self.assertRaisesRegex(SpoolSchemaError, "schema version 7, this program uses 1: start the version"):
                spool.open()
        self.tampered("PRAGMA user_version = 1")
        spool.open()
        self.spool = spool

    async def test_no_database(self) -> None:
        """A file that is no queue is an error of the spool."""
        await self.spool.close()
        for name in os.listdir(self.directory):
            if name.startswith("queue.db"):
                os.unlink(os.path.join(self.directory, name))
        with open(os.path.join(self.directory, "queue.db"), "wb") as file:
            file.write(b"not a database" * 1000)
        with self.assertRaisesRegex(SpoolError, "cannot be read"):
            self.new().open()

    async def test_sweep(self) -> None:
        """What a crash left in C{content/} goes at the start; files of messages and strangers stay."""
        large = octets("x" * 300_000)
        await self.spool.append(message("Q1", "a@example.org", size=len(large)), MemoryContent(large))
        await self.put("Q2", "a@example.org")
        for name in ("scratch-9", "Q2", "Q9", "note.txt"):
            with open(os.path.join(self.directory, "content", name), "w"):
                pass
        await self.reopened()
        self.assertEqual(self.files(), ["Q1", "note.txt"])

    async def test_file_removed(self) -> None:
        """A content file goes after its message, also when an operator deletes it."""
        large = octets("x" * 300_000)
        for queue_id in ("Q1", "Q2", "Q3"):
            await self.spool.append(message(queue_id, "a@example.org", size=len(large)), MemoryContent(large))
        self.assertEqual(self.files(), ["Q1", "Q2", "Q3"])
        (one, *_) = await self.spool.due("smtp:example.org", 1, FOREVER, set())
        await self.spool.record(done(one), [])
        await self.delete(["Q2"], set())
        await self.spool.close()
        self.assertEqual(self.files(), ["Q3"])
        self.spool = self.new()
        self.spool.open()

    async def test_file_of_failed(self) -> None:
        """Content whose message could not be stored leaves no file; the file of its twin stays."""
        large = octets("x" * 300_000)
        await self.put("Q1", "a@example.org")
        for queue_id in ("Q1", "Q2", "Q2"):
            with_file = message(queue_id, "a@example.org", size=len(large))
            try:
                await self.spool.append(with_file, MemoryContent(large))
            except SpoolError:
                continue
        await self.reopened()
        self.assertEqual(self.files(), ["Q2"])
        self.assertIsInstance(await self.spool.content("Q2"), FileContent)

    def test_names_from_outside(self) -> None:
        """A name that is no queue id never reaches the file system."""
        path = os.path.join(self.directory, "content", "..", "precious")
        with open(path, "w"):
            pass
        QueueDirectory(self.directory).remove(["../precious", "missing"])
        self.assertTrue(os.path.exists(path))

    # Failures

    async def test_unwritable_address(self) -> None:
        """An address that no table can hold fails alone."""
        waiting = [
            Deferred.fromCoroutine(self.put(queue_id, address))
            for queue_id, address in (("Q1", "a@example.org"), ("Q2", "\udc80@example.org"), ("Q3", "a@example.org"))
        ]
        await waiting[0]
        await self.assertFailure(waiting[1], SpoolError)
        await waiting[2]
        self.assertEqual(await self.ids("smtp:example.org"), ["Q1", "Q3"])

    async def test_locked(self) -> None:
        """An error of the disk fails what was under way; later calls work."""
        stored = await self.put("Q1", "a@example.org")
        with patch.object(Batch, "write", side_effect=sqlite3.OperationalError("disk I/O error")):
            with self.assertRaisesRegex(SpoolError, "disk I/O error"):
                await self.spool.record(done(stored), [])
            with self.assertRaisesRegex(SpoolError, "disk I/O error"):
                await self.put("Q2", "a@example.org")
        self.assertEqual(await self.ids("smtp:example.org"), ["Q1"])
        self.assertEqual((await self.spool.record(done(stored), [])).removed, ("Q1",))

    async def test_fails_together(self) -> None:
        """What a lock or the disk fails is not tried again one by one: each would wait for as long."""
        tried: list[int] = []

        def busy(batch: Batch, connection: sqlite3.Connection) -> None:
            tried.append(len(batch.messages))
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error

        with patch.object(Batch, "write", busy):
            waiting = [Deferred.fromCoroutine(self.put(f"Q{i}", "a@example.org")) for i in range(20)]
            for each in waiting:
                await self.assertFailure(each, SpoolError)
        self.assertEqual(sum(tried), 20)

    async def test_place_fails(self) -> None:
        """What could not be given its file leaves nothing behind, and can be stored when it is tried again."""
        octets = b"x" * (LARGEST_ROW + 1)
        envelope = message("Q1", "a@example.org", size=len(octets))
        for name in ("os.rename", "os.fsync"):
            with patch(f"smtpreuse.spool.directory.{name}", side_effect=OSError(errno.EIO, "input/output error")):
                await self.assertFailure(
                    Deferred.fromCoroutine(self.spool.append(envelope, MemoryContent(octets))), SpoolError
                )
            self.assertEqual(os.listdir(os.path.join(self.directory, "content")), [])
        real = os.fsync

        def folders_fail(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(errno.ENOSPC, "no space left")
            real(descriptor)

        with patch("smtpreuse.spool.directory.os.fsync", folders_fail):
            await self.assertFailure(
                Deferred.fromCoroutine(self.spool.append(envelope, MemoryContent(octets))), SpoolFull
            )
        self.assertEqual(os.listdir(os.path.join(self.directory, "content")), [])
        await self.spool.append(envelope, MemoryContent(octets))
        self.assertEqual((await self.spool.content("Q1")).size, len(octets))

    async def test_passing_error(self) -> None:
        """Content that cannot be read for a moment does not put its message into corrupt."""
        octets = b"x" * (LARGEST_ROW + 1)
        await self.spool.append(message("Q1", "a@example.org", size=len(octets)), MemoryContent(octets))
        with patch("smtpreuse.spool.reader.os.stat", side_effect=OSError(errno.EIO, "input/output error")):
            await self.assertFailure(Deferred.fromCoroutine(self.spool.content("Q1")), SpoolError)
        self.assertEqual((await self.spool.counts())["corrupt"], 0)
        self.assertEqual((await self.spool.content("Q1")).size, len(octets))

    async def test_space(self) -> None:
        """Too little free space refuses mail, but not outcomes, and only as long as it lasts."""
        stored = await self.put("Q1", "a@example.org")
        await self.reopened_as(self.new(queue_minfree=2000, message_size_limit=1000))
        free = RESERVE + 2000 + len(octets())
        with patch.object(QueueDirectory, "free", lambda _: free):
            await self.put("Q2", "a@example.org")
            free -= 1
            with self.assertRaisesRegex(SpoolFull, f"{free} octets are free for the queue, {free + 1} are needed"):
                await self.put("Q3", "a@example.org")
            await self.spool.record(done(stored), [])
            free += 1
            await self.put("Q4", "a@example.org")

    async def test_space_for_a_message(self) -> None:
        """Room for the largest message and a half is needed."""
        await self.reopened_as(self.new(queue_minfree=0, message_size_limit=1000))
        with patch.object(QueueDirectory, "free", lambda _: RESERVE + 1499):
            self.assertFalse(self.spool.room(0))
            with self.assertRaises(SpoolFull):
                await self.put("Q1", "a@example.org")

    async def test_room_less_what_is_coming(self) -> None:
        """What is being stored has its space already, as far as room goes; once stored it counts no more."""
        await self.reopened_as(self.new(queue_minfree=0, message_size_limit=0))
        with patch.object(QueueDirectory, "free", lambda _: RESERVE + 1000):
            self.assertEqual([self.spool.room(1000), self.spool.room(1001)], [True, False])
            storing = Deferred.fromCoroutine(self.put("Q1", "a@example.org", text="x" * 600))
            self.assertEqual([self.spool.room(300), self.spool.room(500)], [True, False])
            with self.assertRaises(SpoolFull):
                await self.put("Q2", "a@example.org", text="x" * 600)
            await storing
            self.assertTrue(self.spool.room(1000))

    async def test_room_for_a_file(self) -> None:
        """Content in a file needs no more than it has."""
        await self.reopened_as(self.new(queue_minfree=0, message_size_limit=0))
        path = self.spool.scratch()
        with open(path, "wb") as file:
            file.write(b"x" * 5000)
        content = FileContent(path, 5000)
        with patch.object(QueueDirectory, "free", lambda _: RESERVE):
            await self.spool.append(message("Q1", "a@example.org", size=5000), content)

    async def test_shortage_told(self) -> None:
        """The operator is told of a shortage, how much there is and how much is needed, once a minute."""
        await self.reopened_as(self.new(queue_minfree=0, message_size_limit=0))
        with capturedLogs() as events, patch.object(QueueDirectory, "free", lambda _: RESERVE - 1):
            for _ in range(5):
                self.assertFalse(self.spool.room(0))
                self.clock.advance(20)
        reasons = [str(event["reason"]) for event in events if "want of space" in str(event["log_format"])]
        reason = f"{RESERVE - 1} octets are free for the queue, {RESERVE} are needed to take mail"
        self.assertEqual(reasons, [reason, reason])

    async def test_free_space_not_known(self) -> None:
        """While it cannot be said how much is free no mail is taken."""
        with patch.object(QueueDirectory, "free", side_effect=OSError("gone")):
            self.assertFalse(self.spool.room(0))
            with self.assertRaisesRegex(SpoolFull, "not known: gone"):
                await self.put("Q1", "a@example.org")

    async def test_large_batches(self) -> None:
        """More content than one transaction takes is stored in several."""
        content = octets("x" * 200_000)
        await gatherResults([
            Deferred.fromCoroutine(
                self.spool.append(message(f"Q{i}", "a@example.org", size=len(content)), MemoryContent(content))
            )
            for i in range(100)
        ])
        self.assertEqual(len(await self.ids("smtp:example.org", limit=1000)), 100)

    # Corrupt rows

    async def test_bad_rows(self) -> None:
        """One bad row goes to corrupt, is told once, and never stops the rest."""
        bad = {
            "body": "UPDATE messages SET body = 'NINEBIT' WHERE queue_id = 'Qbody'",
            "size": "UPDATE messages SET size = 'large' WHERE queue_id = 'Qsize'",
            "blob": "UPDATE messages SET sender = x'61' WHERE queue_id = 'Qblob'",
            "utf8": "UPDATE recipients SET address = CAST(x'ff' AS TEXT) WHERE address = 'utf8@example.org'",
            "lost": "DELETE FROM messages WHERE queue_id = 'Qlost'",
        }
        for name, statement in bad.items():
            await self.put(f"Q{name}", f"{name}@example.org")
            self.tampered(statement)
        await self.put("Qgood", "a@example.org")
        told: list[LogEvent] = []
        globalLogPublisher.addObserver(told.append)
        self.addCleanup(globalLogPublisher.removeObserver, told.append)
        self.assertEqual(await self.ids("smtp:example.org", limit=1), ["Qgood"])
        for _ in range(2):
            self.assertEqual(await self.ids("smtp:example.org"), ["Qgood"])
        self.assertEqual(len([event for event in told if "put into corrupt" in formatEvent(event)]), len(bad))
        counts = await self.spool.counts()
        self.assertEqual((counts["corrupt"], counts["incoming"]), (4, 1))
        states = {row.queue_id: row.state for row in (await self.spool.page("", 10)).rows}
        self.assertEqual(states, dict.fromkeys(("Qblob", "Qbody", "Qsize", "Qutf8"), "corrupt") | {"Qgood": "incoming"})
        self.assertEqual(len(await self.delete(None, set())), 5)

    async def test_bad_recipient_alone(self) -> None:
        """The other recipients of the message are still delivered to."""
        await self.put("Q1", "a@example.org", "b@example.org")
        self.tampered("UPDATE recipients SET address = x'61' WHERE address = 'a@example.org'")
        (found,) = await self.spool.due("smtp:example.org", 10, FOREVER, set())
        self.assertEqual([r.address for r in found.recipients], ["b@example.org"])

    async def test_bad_hops(self) -> None:
        """A hop that is no text does not hide the others."""
        for name in ("a", "b", "c"):
            await self.put(f"Q{name}", f"x@{name}.example.org")
        self.tampered("UPDATE recipients SET hop = x'ff' WHERE address = 'x@a.example.org'")
        self.tampered("UPDATE recipients SET hop = CAST(x'73ff' AS TEXT) WHERE address = 'x@b.example.org'")
        self.assertEqual(await self.spool.nexthops(START, FOREVER, "", 10), ["smtp:c.example.org"])
        self.assertEqual((await self.spool.counts())["corrupt"], 2)

    async def test_bad_row_stays(self) -> None:
        """While a bad row cannot be put aside, the good ones are given nevertheless."""
        await self.put("Q1", "a@example.org")
        await self.put("Q2", "a@example.org")
        self.tampered("UPDATE messages SET body = 'NINEBIT' WHERE queue_id = 'Q1'")
        with patch("smtpreuse.spool.edits.spoil_rows", side_effect=sqlite3.OperationalError("disk I/O error")):
            self.assertEqual(await self.ids("smtp:example.org"), ["Q2"])
        self.assertEqual((await self.spool.counts())["corrupt"], 0)

    async def test_bad_content(self) -> None:
        """Content that is missing or cut short puts its message into corrupt."""
        large = octets("x" * 300_000)
        for queue_id in ("Q1", "Q2"):
            await self.put(queue_id, "a@example.org")
        for queue_id in ("Q3", "Q4"):
            await self.spool.append(message(queue_id, "a@example.org", size=len(large)), MemoryContent(large))
        await self.put("Q5", "a@example.org")
        self.tampered("DELETE FROM contents WHERE id = (SELECT id FROM messages WHERE queue_id = 'Q1')")
        self.tampered("UPDATE contents SET octets = x'61' WHERE id = (SELECT id FROM messages WHERE queue_id = 'Q2')")
        os.unlink(os.path.join(self.directory, "content", "Q3"))
        os.truncate(os.path.join(self.directory, "content", "Q4"), 5)
        for _ in range(2):
            for queue_id in ("Q1", "Q2", "Q3", "Q4"):
                with self.assertRaises(reader.BadContent):
                    await self.spool.content(queue_id)
        self.assertEqual(await self.ids("smtp:example.org"), ["Q5"])
        self.assertEqual((await self.spool.counts())["corrupt"], 4)
        for queue_id in ("Q1", "Q3"):
            row = await self.spool.show(queue_id)
            assert row is not None
            self.assertEqual(row.header, "")

    async def test_corrupt_stays(self) -> None:
        """A late outcome does not bring a corrupt message back."""
        stored = await self.put("Q1", "a@example.org")
        self.tampered("DELETE FROM contents")
        with self.assertRaises(SpoolError):
            await self.spool.content("Q1")
        await self.spool.record(deferred(stored, 5.0), [])
        self.assertEqual(await self.ids("smtp:example.org"), [])
        self.assertEqual((await self.spool.counts())["corrupt"], 1)

    async def test_no_tables(self) -> None:
        """Tables that cannot be read are an error of the spool."""
        self.tampered("DROP TABLE contents")
        with self.assertRaisesRegex(SpoolError, "cannot be read"):
            await self.spool.content("Q1")
        self.tampered("DROP TABLE recipients")
        with self.assertRaisesRegex(SpoolError, "cannot be read"):
            await self.spool.nexthops(START, FOREVER, "", 1)

    # Routing

    async def test_reroute(self) -> None:
        """Another routing gives every recipient its new hop; the same one asks nothing."""
        for i in range(3):
            await self.put(f"Q{i}", "a@example.org", "b@example.com")
        asked: list[str] = []

        def relay(address: str) -> str:
            asked.append(address)
            return "smtp:[relay.example.com]" if address.endswith(".org") else by_domain(address)

        await self.reopened_as(self.new(relay))
        self.assertEqual(asked, [])
        await self.reopened_as(self.new(relay, "two"))
        self.assertEqual(len(asked), 6)
        hops = await self.spool.nexthops(START, FOREVER, "", 10)
        self.assertEqual(hops, ["smtp:[relay.example.com]", "smtp:example.com"])
        await self.reopened_as(self.new(relay, "two"))
        self.assertEqual(len(asked), 6)

    async def test_reroute_fails(self) -> None:
        """When a table cannot be asked, hops stay as they were, and the next start tries again."""
        await self.put("Q1", "a@example.org")

        def broken(address: str) -> str:
            raise TableError("no")

        await self.reopened_as(self.new(broken, "two"))
        self.assertEqual(await self.ids("smtp:example.org"), ["Q1"])
        await self.reopened_as(self.new(lambda _: "discard:", "two"))
        self.assertEqual(await self.ids("discard:"), ["Q1"])

    async def test_reroute_corrupt(self) -> None:
        """An address that cannot be read does not stop the start."""
        await self.put("Q1", "a@example.org", "b@example.org")
        self.tampered("UPDATE recipients SET address = CAST(x'ff' AS TEXT) WHERE address = 'a@example.org'")
        await self.reopened_as(self.new(lambda _: "discard:", "two"))
        self.assertEqual(await self.ids("discard:"), ["Q1"])

    async def test_reroute_while_open(self) -> None:
        """Those that wait get their new hops; so do those that are stored later under old ones, as is told."""
        await self.put("Q1", "a@example.org", "b@example.com")

        def relay(address: str) -> str:
            return "smtp:[relay.example.com]" if address.endswith(".org") else by_domain(address)

        self.assertEqual(await self.spool.reroute(relay, "two"), 1)
        stored = await self.put("Q2", "a@example.org")
        self.assertEqual([each.hop for each in stored.recipients], ["smtp:[relay.example.com]"])
        self.assertEqual(await self.ids("smtp:[relay.example.com]"), ["Q1", "Q2"])
        self.assertEqual(await self.ids("smtp:example.com"), ["Q1"])
        self.assertEqual(await self.spool.reroute(relay, "two"), 0)
        asked: list[str] = []
        await self.reopened_as(self.new(asked.append, "two"))  # type: ignore[arg-type]  # it is not called
        self.assertEqual(asked, [])

    async def test_reroute_on_the_way(self) -> None:
        """A message that is being written when hops change has its new one, in a row and in a file."""
        running = [
            Deferred.fromCoroutine(self.put("Q1", "a@example.org")),
            Deferred.fromCoroutine(self.put("Q2", "a@example.org", text="x" * 300_000)),
        ]
        changed = Deferred.fromCoroutine(self.spool.reroute(lambda _: "smtp:[relay.example.com]", "two"))
        stored = await gatherResults(running)
        await changed
        self.assertEqual(await self.ids("smtp:[relay.example.com]"), ["Q1", "Q2"])
        self.assertEqual([each.hop for each in stored[1].recipients], ["smtp:[relay.example.com]"])

    async def test_reroute_of_notices(self) -> None:
        """What is recorded with an outcome has its new hop too."""
        stored = await self.put("Q1", "a@example.org")
        await self.spool.reroute(lambda _: "smtp:[relay.example.com]", "two")
        content = MemoryContent(octets("no"))
        notice = message("B1", "a@example.org", size=content.size)
        committed = await self.spool.record(deferred(stored, 1e9), [(notice, content)])
        self.assertEqual(committed.stored[0].recipients[0].hop, "smtp:[relay.example.com]")
        self.assertEqual(await self.ids("smtp:[relay.example.com]"), ["B1", "Q1"])

    async def test_reroute_while_open_fails(self) -> None:
        """When a table cannot be asked, hops stay, mail is stored all the same, and the next start tries again."""
        await self.put("Q1", "a@example.org")

        def broken(address: str) -> str:
            raise TableError("no")

        with self.assertRaisesRegex(SpoolError, "TableError: no"):
            await self.spool.reroute(broken, "two")
        await self.put("Q2", "a@example.org")
        self.assertEqual(await self.ids("smtp:example.org"), ["Q1", "Q2"])
        await self.reopened_as(self.new(lambda _: "discard:", "two"))
        self.assertEqual(await self.ids("discard:"), ["Q1", "Q2"])

    async def test_adopt(self) -> None:
        """How much space is to stay free."""
        self.assertTrue(self.spool.room(0))
        self.spool.adopt(queue_minfree=2**62, message_size_limit=0)
        self.assertFalse(self.spool.room(0))
        self.spool.adopt(queue_minfree=0, message_size_limit=2**62)
        self.assertFalse(self.spool.room(0))
        self.spool.adopt(queue_minfree=0, message_size_limit=1000)
        self.assertTrue(self.spool.room(0))

    # Size

    async def test_crowded_time(self) -> None:
        """Hops are found in order also where very many recipients are due."""
        with patch.object(reader, "_NARROW", 3):
            for name in ("c", "a", "b"):
                stored = await self.put(f"Q{name}", f"x@{name}.example.org", f"y@{name}.example.org")
            await self.spool.record(deferred(stored, 1e9), [])
            await self.put("Qd", "x@d.example.org")
            now = self.clock.seconds()
            hops = [f"smtp:{name}.example.org" for name in "acd"]
            self.assertEqual(await self.spool.nexthops(START, now, "", 10), hops)
            self.assertEqual(await self.spool.nexthops(START, now, "", 2), hops[:2])
            self.assertEqual(await self.spool.nexthops(START, now, hops[0], 10), hops[1:])

    async def test_pages_of_recipients(self) -> None:
        """Messages with very many recipients make shorter pages, of at least one message."""
        with patch("smtpreuse.spool.desk._MOST_RECIPIENTS", 3):
            for i in range(4):
                await self.put(f"Q{i}", *(f"{n}@example.org" for n in range(2 if i else 5)))
            first = await self.spool.page("", 10)
            self.assertEqual(([row.queue_id for row in first.rows], first.after), (["Q0"], "Q0"))
            second = await self.spool.page("Q0", 10)
            self.assertEqual(([row.queue_id for row in second.rows], second.after), (["Q1"], "Q1"))

    async def test_pieces(self) -> None:
        """Long changes are made in pieces, and nothing is left out between them."""
        with patch("smtpreuse.spool.desk._PIECE", 2):
            for i in range(5):
                stored = await self.put(f"Q{i}", "a@example.org", "b@example.org")
                await self.spool.record(deferred(stored, 1e9), [])
            self.assertEqual(await self.spool.flush(None), 5)
            self.assertEqual(len(await self.ids("smtp:example.org", self.clock.seconds())), 5)
            self.assertEqual(len(await self.delete([f"Q{i}" for i in range(3)], set())), 3)
            self.assertEqual(await self.delete(None, {"Q3"}), ["Q4"])

    async def test_checkpoint(self) -> None:
        """The write-ahead log does not grow with the mail that passes."""
        log = os.path.join(self.directory, "queue.db-wal")
        with patch("smtpreuse.spool.writer._CHECKPOINT_PAGES", 20):
            for i in range(60):
                await self.put(f"Q{i}", "a@example.org", text="x" * 8000)
        self.assertLess(os.path.getsize(log), 60 * 8000)
