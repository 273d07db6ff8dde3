"""
Tests of L{smtpreuse.intake.arrival}.
"""

from __future__ import annotations

import errno
import os

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.intake.arrival import FULL, HOPS_LIMIT, MEMORY_LIMIT, NOT_STORED, ROOM_STEP, Arrival
from smtpreuse.model.content import FileContent, MemoryContent
from smtpreuse.model.message import Body, Message, Recipient
from smtpreuse.smtp.command import MailFrom
from tests.intake.fakes import FakeSpool, octets_of


class ArrivalTests(SynchronousTestCase):
    """
    A message is collected whole, in bounded memory, and leaves nothing behind when it comes to nothing.
    """

    def setUp(self) -> None:
        directory = self.mktemp()
        os.mkdir(directory)
        self.spool = FakeSpool(directory)

    def arrival(self, limit: int = 0) -> Arrival:
        """One that has begun, with a trace of 10 octets."""
        arrival = Arrival(MailFrom("a@example.com", 5, Body.EIGHT_BIT), 7.5, limit, self.spool)
        arrival.begin("4SVLCh0sf8z1000y", b"Trace: x\r\n")
        return arrival

    def test_memory(self) -> None:
        """Small content is held in memory, its trace first."""
        arrival = self.arrival()
        arrival.take(b"a")
        arrival.take(b"b\r\n")
        self.assertEqual(arrival.finish(), MemoryContent(b"Trace: x\r\nab\r\n"))
        self.assertEqual(self.spool.scratches, [])

    def test_bound_of_memory(self) -> None:
        """At the limit content is in memory; one octet more and it is in a file."""
        arrival = self.arrival()
        arrival.take(b"x" * (MEMORY_LIMIT - 10))
        self.assertIsInstance(arrival.finish(), MemoryContent)
        arrival = self.arrival()
        arrival.take(b"x" * (MEMORY_LIMIT - 10))
        arrival.take(b"y")
        content = arrival.finish()
        assert isinstance(content, FileContent)
        self.assertEqual(content, FileContent(self.spool.scratches[0], MEMORY_LIMIT + 1))
        self.assertEqual(octets_of(content), b"Trace: x\r\n" + b"x" * (MEMORY_LIMIT - 10) + b"y")

    def test_file(self) -> None:
        """Large content goes to its file as it streams, all of it, in order."""
        arrival = self.arrival()
        parts = [bytes([65 + number]) * 65536 for number in range(10)]
        for part in parts:
            arrival.take(part)
            self.assertLessEqual(sum(map(len, arrival._parts)), MEMORY_LIMIT)
        content = arrival.finish()
        assert isinstance(content, FileContent)
        self.assertEqual(octets_of(content), b"Trace: x\r\n" + b"".join(parts))
        self.assertEqual(content.size, 10 + 10 * 65536)
        arrival.discard()
        self.assertFalse(os.path.exists(content.path))

    def test_discard(self) -> None:
        """Discarded in the middle, the file is gone; twice, or before there is one, does no harm."""
        arrival = self.arrival()
        arrival.discard()
        arrival.take(b"x" * (MEMORY_LIMIT + 1))
        self.assertTrue(os.path.exists(self.spool.scratches[0]))
        arrival.discard()
        arrival.discard()
        self.assertFalse(os.path.exists(self.spool.scratches[0]))

    def test_discard_after_the_spool_took_it(self) -> None:
        """A file that is gone already is no error."""
        arrival = self.arrival()
        arrival.take(b"x" * (MEMORY_LIMIT + 1))
        arrival.finish()
        os.unlink(self.spool.scratches[0])
        arrival.discard()

    def test_too_large(self) -> None:
        """Content over the limit is refused; the trace does not count, and nothing more is kept."""
        arrival = self.arrival(limit=100)
        arrival.take(b"x" * 100)
        self.assertIsInstance(arrival.finish(), MemoryContent)
        arrival.take(b"x")
        self.assertEqual(arrival.finish(), "552 5.3.4 Error: message too big")
        arrival.take(b"x" * 1000)
        self.assertEqual(arrival._parts, [])

    def test_too_large_in_a_file(self) -> None:
        """The file goes as soon as the limit is passed."""
        arrival = self.arrival(limit=MEMORY_LIMIT + 100)
        arrival.take(b"x" * (MEMORY_LIMIT + 1))
        arrival.take(b"x" * 100)
        self.assertFalse(os.path.exists(self.spool.scratches[0]))
        self.assertEqual(arrival.finish(), "552 5.3.4 Error: message too big")

    def test_hops(self) -> None:
        """So many hops are taken, one more is a loop."""
        for hops, expected in ((HOPS_LIMIT, False), (HOPS_LIMIT + 1, True)):
            arrival = self.arrival()
            arrival.take(b"Received: x\r\n" * hops + b"\r\nReceived: in the body\r\n")
            found = arrival.finish()
            self.assertEqual(found == "554 5.4.6 Error: too many hops", expected)

    def test_no_file(self) -> None:
        """A file that cannot be made is no full disk: the client is told of a failure, the operator of its reason."""
        self.spool.directory += "/missing"
        arrival = self.arrival()
        with capturedLogs() as events:
            arrival.take(b"x" * (MEMORY_LIMIT + 1))
            arrival.take(b"y")
        self.assertEqual(arrival.finish(), NOT_STORED)
        self.assertEqual(arrival.finish(), "451 4.3.0 Error: queue file write error")
        (event,) = events
        self.assertIn("No such file or directory", str(event["why"]))
        self.assertEqual(event["id"], "4SVLCh0sf8z1000y")
        arrival.discard()

    def test_kinds_of_failure(self) -> None:
        """No space, no quota and too large a file are a full disk; no descriptor, or a broken disk, is not."""
        for number, reply in (
            (errno.ENOSPC, FULL), (errno.EDQUOT, FULL), (errno.EFBIG, FULL), (errno.EMFILE, NOT_STORED),
            (errno.ENFILE, NOT_STORED), (errno.EIO, NOT_STORED), (errno.EROFS, NOT_STORED),
        ):
            def scratch(number: int = number) -> str:
                raise OSError(number, os.strerror(number))

            self.patch(self.spool, "scratch", scratch)
            arrival = self.arrival()
            arrival.take(b"x" * (MEMORY_LIMIT + 1))
            self.assertEqual(arrival.finish(), reply, os.strerror(number))

    def test_full_disk(self) -> None:
        """A file that cannot be written, at once or at its end, is a full disk; nothing of it stays."""
        arrival = self.arrival()
        self.patch(self.spool, "scratch", lambda: "/dev/full")
        arrival.discard = lambda: None  # type: ignore[method-assign]  # it would unlink the device
        arrival.take(b"x" * (MEMORY_LIMIT + 1))
        self.assertEqual(arrival.finish(), FULL)

    def test_failure_at_the_end(self) -> None:
        """What shows only when the file is closed counts too."""
        arrival = self.arrival()
        arrival.take(b"x" * (MEMORY_LIMIT + 1))
        assert arrival._file is not None
        os.close(arrival._file.fileno())
        self.assertEqual(arrival.finish(), NOT_STORED)
        self.assertFalse(os.path.exists(self.spool.scratches[0]))

    def test_discard_with_a_broken_file(self) -> None:
        """A file that cannot be closed is unlinked all the same."""
        arrival = self.arrival()
        arrival.take(b"x" * (MEMORY_LIMIT + 1))
        assert arrival._file is not None
        os.close(arrival._file.fileno())
        arrival.discard()
        self.assertFalse(os.path.exists(self.spool.scratches[0]))

    def test_room(self) -> None:
        """A file is begun, and goes on to grow, only where the spool has room; what was written of it goes at once."""
        self.spool.free = MEMORY_LIMIT
        arrival = self.arrival()
        arrival.take(b"x" * (MEMORY_LIMIT - 10))
        self.assertEqual(self.spool.asked, [])
        arrival.take(b"y")
        self.assertEqual((self.spool.asked, self.spool.scratches), ([MEMORY_LIMIT + 1], []))
        self.assertEqual(arrival.finish(), FULL)
        self.spool.free = MEMORY_LIMIT + ROOM_STEP * 2
        arrival = self.arrival()
        for _ in range(100):
            arrival.take(b"x" * 65536)
        self.assertFalse(os.path.exists(self.spool.scratches[0]))
        self.assertEqual(arrival.finish(), FULL)
        self.assertEqual(FULL, "452 4.3.1 Insufficient system storage")

    def test_room_of_several(self) -> None:
        """Contents that come in at the same time do not together grow beyond the room there is, but by a step each."""
        self.spool.free = 8 * 2**20
        arrivals = [self.arrival() for _ in range(8)]
        used = 0
        for _ in range(64):
            for arrival in arrivals:
                arrival.take(b"x" * 65536)
            used = max(used, sum(os.path.getsize(path) for path in self.spool.scratches if os.path.exists(path)))
        self.assertGreater(used, 4 * 2**20)
        self.assertLess(used, 8 * 2**20 + len(arrivals) * ROOM_STEP)
        self.assertLess(len(self.spool.asked), len(arrivals) * (4 * 2**20 // ROOM_STEP + 2))

    def test_recipients(self) -> None:
        """A recipient is known by its address; quotes, and the case of the domain, do not matter."""
        arrival = self.arrival()
        arrival.add(Recipient(address="b@Example.com", hop="smtp:example.com"))
        for address, known in (
            ("b@Example.com", True), ("b@example.COM", True), ("B@example.com", False), ("b@example.org", False),
            ("b", False), ('"b"@example.com', True), ('"\\b"@example.com', True), ('"B"@example.com', False),
            ('"b "@example.com', False), ('"b@example.com"', False),
        ):
            self.assertEqual(arrival.knows(address), known, address)
        arrival.add(Recipient(address='"c d\\"@x"@example.com', hop="smtp:example.com"))
        self.assertEqual(arrival.recipients[-1].address, '"c d\\"@x"@example.com')
        self.assertTrue(arrival.knows('"c\\ d\\"\\@x"@EXAMPLE.com'))
        self.assertFalse(arrival.knows('"c d\\\\"@x"@example.com'))

    def test_message(self) -> None:
        """The message is what was said of it."""
        arrival = self.arrival()
        recipient = Recipient(address="b@example.com", hop="smtp:example.com")
        arrival.add(recipient)
        self.assertEqual(
            arrival.message(12, "unknown[192.0.2.1]"),
            Message(
                queue_id="4SVLCh0sf8z1000y",
                arrived=7.5,
                sender="a@example.com",
                size=12,
                body=Body.EIGHT_BIT,
                client="unknown[192.0.2.1]",
                recipients=(recipient,),
            ),
        )
