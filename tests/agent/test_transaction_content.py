"""
Tests of L{smtpreuse.agent.transaction}: the content, and what is known once it was sent.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from smtpreuse.agent.transaction import Result
from smtpreuse.model.content import Content, FileContent, MemoryContent
from smtpreuse.model.delivery import Blame
from tests.agent.transaction_case import DELIVERED, REFUSED, UNKNOWN, TransactionCase
from tests.agent.world import RELAY
from tests.fakes import FakeEnd


class ContentTests(TransactionCase):
    """Content arrives as it is, its dots doubled."""

    def sent(self, content: Content) -> bytes:
        """What goes over the wire between 354 and the final reply."""
        self.end = FakeEnd()
        running = self.begin(content=content)
        self.end.taken()
        self.end.say("250 ok", "250 ok", "354 go on")
        wire = self.end.taken()
        self.end.say("250 done")
        self.ends(running, DELIVERED)
        return wire

    def test_dots(self) -> None:
        """A dot that begins a line is doubled, from memory and from a file."""
        for octets, wire in (
            (b".\r\n", b"..\r\n.\r\n"),
            (b"a\r\n.\r\n..\r\nb.\r\n", b"a\r\n..\r\n...\r\nb.\r\n.\r\n"),
            (b"", b".\r\n"),
            (b"no end", b"no end\r\n.\r\n"),
        ):
            self.assertEqual(self.sent(MemoryContent(octets)), wire)
            path = self.mktemp()
            with open(path, "wb") as file:
                file.write(octets)
            self.assertEqual(self.sent(FileContent(path, len(octets))), wire)

    def test_large_file(self) -> None:
        """A file goes in pieces; one that begins with a dot is no end of data."""
        octets = b"x" * 65534 + b"\r\n.\r\n" + b"y" * 100000 + b"\r\n"
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(octets)
        self.assertEqual(self.sent(FileContent(path, len(octets))), octets.replace(b"\r\n.", b"\r\n..") + b".\r\n")

    def test_full_end(self) -> None:
        """Not more than a piece is written while the end is full: content is not held in memory."""
        octets = b"0123456789abcd\r\n" * 12288
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(octets)
        self.end.fills = True
        running = self.begin(content=FileContent(path, len(octets)))
        self.end.taken()
        self.end.drain()
        self.end.say("250 ok", "250 ok", "354 go on")
        taken = b""
        for _ in range(3):
            piece = self.end.taken()
            self.assertEqual(len(piece), 65536)
            taken += piece
            # Each piece has the time that a piece may take.
            self.clock.advance(39.0)
            self.end.drain()
        self.assertEqual(taken + self.end.taken(), octets + b".\r\n")
        self.end.say("250 done")
        self.ends(running, DELIVERED)

    def test_no_file(self) -> None:
        """A file that is gone: the fault is ours, and no dot follows what was not sent."""
        running = self.begin(content=FileContent(self.mktemp(), 10))
        self.end.taken()
        self.end.say("250 ok", "250 ok", "354 go on")
        self.failureResultOf(running, OSError)
        result = self.transaction.interrupted()
        self.assertEqual((result.outcomes[0].ending, result.outcomes[0].status), (REFUSED, "4.3.0"))
        self.assertIs(result.blame, Blame.OURSELVES)
        self.assertEqual((self.end.taken(), self.open.usable), (b"", False))


class AfterTheDotTests(TransactionCase):
    """Once the dot is sent and no reply seen, nobody knows."""

    def dot(self, uses: int = 0) -> Deferred[Result]:
        """One that waits for the final reply; Bob was refused."""
        running = self.begin("ann", "bob", uses=uses)
        self.end.say("250 ok", "250 ok", "550 5.1.1 no", "354 go on")
        self.assertTrue(self.end.taken().endswith(b"\r\n.\r\n"))
        return running

    def test_closed(self) -> None:
        """Unknown: deferred, at least once; fresh and reused alike."""
        for uses in (0, 7):
            running = self.dot(uses)
            self.end.hang_up()
            result = self.ends(running, UNKNOWN, REFUSED, blame=Blame.SITE)
            self.assertEqual(
                result.outcomes[0].text,
                f"lost connection with {RELAY} while sending end of data -- message may be sent more than once",
            )
            self.assertEqual((result.outcomes[0].status, result.full), ("4.4.2", False))
            self.assertFalse(self.open.usable)

    def test_stalls(self) -> None:
        """The same when the reply does not come in time."""
        running = self.dot()
        self.clock.pump([1.0] * 37)
        self.assertNoResult(running)
        self.clock.advance(1.0)
        result = self.ends(running, UNKNOWN, REFUSED, blame=Blame.SITE)
        self.assertIn(f"conversation with {RELAY} timed out while sending end of data", result.outcomes[0].text)

    def test_file(self) -> None:
        """Content from a file is no different."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"hello\r\n")
        running = self.begin(content=FileContent(path, 7), uses=3)
        self.end.say("250 ok", "250 ok", "354 go on")
        self.end.hang_up()
        self.ends(running, UNKNOWN, blame=Blame.SITE)

    def test_garbage(self) -> None:
        """And when what comes is no reply."""
        running = self.dot()
        self.end.say("hello there")
        self.ends(running, UNKNOWN, REFUSED, blame=Blame.SITE)

    def test_354_again(self) -> None:
        """Or a reply that cannot be one to the dot."""
        running = self.dot()
        self.end.say("354 go on")
        self.ends(running, UNKNOWN, REFUSED, blame=Blame.SITE)


class InterruptedTests(TransactionCase):
    """A fault of our own leaves no recipient without outcome."""

    def test_before_the_dot(self) -> None:
        """Deferred, the fault is ours; who had an outcome keeps it."""
        running = self.begin("ann", "bob", content=FileContent(self.mktemp(), 10))
        self.end.say("250 ok", "550 5.1.1 no", "250 ok", "354 go on")
        self.failureResultOf(running, OSError)
        result = self.transaction.interrupted()
        self.assertEqual([each.status for each in result.outcomes], ["5.1.1", "4.3.0"])
        self.assertEqual([each.ending for each in result.outcomes], [REFUSED, REFUSED])

    def test_after_the_dot(self) -> None:
        """Unknown."""
        self.begin("ann")
        self.end.say("250 ok", "250 ok", "354 go on")
        self.assertEqual(self.transaction.interrupted().outcomes[0].ending, UNKNOWN)

    def test_address_that_cannot_be_sent(self) -> None:
        """An address with a line end in it never reaches the wire."""
        running = self.begin(sender="a\r\nRCPT TO:<x@example.com>")
        self.failureResultOf(running)
        self.assertEqual(self.end.taken(), b"")
