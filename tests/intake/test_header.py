"""
Tests of L{smtpreuse.intake.header}.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.intake.header import Dates, HeaderReader, Trace, printable

HEADER = (
    b"Received: from a\r\n\tby b; Received: not a field\r\nRECEIVED \t: from c\r\nDelivered-To: d@example.com\r\n"
    b"Received-By: no\r\nX-Received: no\r\nMessage-Id:  <1@example.com> \r\nSubject: x\r\n"
)
BODY = b"\r\nReceived: in the body\r\nMessage-ID: <2@example.com>\r\n"


def read(*parts: bytes) -> tuple[int, str]:
    """What is found in these parts."""
    reader = HeaderReader()
    for part in parts:
        reader.feed(part)
    return reader.hops, reader.message_id


class HeaderReaderTests(SynchronousTestCase):
    """
    Hops and the message-id of the header are found, nothing of the body is.
    """

    def test_whole(self) -> None:
        """Received counts at the beginning of a line, in any case, with a blank before its colon too."""
        self.assertEqual(read(HEADER + BODY), (2, "<1@example.com>"))

    @given(st.integers(0, len(HEADER)), st.integers(0, len(HEADER + BODY)))
    def test_cut(self, one: int, other: int) -> None:
        """Cuts make no difference, as long as no CRLF is cut (the decoder cuts none)."""
        content = (HEADER + BODY).replace(b"\r\n", b"\n")
        parts = [content[: min(one, other)], content[min(one, other) : other], content[max(one, other) :]]
        parts[1] = content[min(one, other) : max(one, other)]
        self.assertEqual(read(*(part.replace(b"\n", b"\r\n") for part in parts)), (2, "<1@example.com>"))

    def test_no_header(self) -> None:
        """Content that begins with an empty line has none, and empty content neither."""
        self.assertEqual(read(BODY), (0, ""))
        self.assertEqual(read(b""), (0, ""))

    def test_message_id(self) -> None:
        """Folded, absent, empty, or with what does not print."""
        self.assertEqual(read(b"Message-ID:\r\n <a@b>\r\n\r\n")[1], "<a@b>")
        self.assertEqual(read(b"Message-ID:<a@b>\r\nMessage-ID:<c@d>\r\n\r\n")[1], "<a@b>")
        self.assertEqual(read(b"Message-ID:<a@b>\r\n", b"Message-ID:<c@d>\r\n\r\n")[1], "<a@b>")
        self.assertEqual(read(b"Message-ID:")[1], "")
        self.assertEqual(read(b"Message-ID:   \r\n\r\nbody\r\n")[1], "")
        self.assertEqual(read(b"Message-ID: <\xe4\x01>\r\n\r\n")[1], "<??>")

    def test_endless_line(self) -> None:
        """A header line without end is not kept whole."""
        reader = HeaderReader()
        reader.feed(b"Message-ID: <a@b> ")
        for _ in range(100):
            reader.feed(b"x" * 1000)
        self.assertLess(len(reader._carry), 5000)
        reader.feed(b"\r\nReceived: x\r\n\r\nReceived: y\r\n")
        self.assertEqual((reader.hops, reader.message_id), (1, "<a@b>"))


class TraceTests(SynchronousTestCase):
    """
    The trace field is Postfix's, and names a recipient only where there is one.
    """

    def trace(self, **changes: str | bool) -> bytes:
        """A field with these changes."""
        return Trace(
            helo=str(changes.get("helo", "client.example.com")),
            host="unknown",
            address=str(changes.get("address", "192.0.2.1")),
            by="mx.example.com",
            esmtp=bool(changes.get("esmtp", True)),
            tls=bool(changes.get("tls", False)),
            queue_id="4SVLCh0sf8z1000y",
            recipient=str(changes.get("recipient", "b@example.com")),
            date="Fri, 21 Nov 2025 22:20:18 +0100",
        ).field()

    def test_one_recipient(self) -> None:
        """The whole field."""
        self.assertEqual(
            self.trace(),
            b"Received: from client.example.com (unknown [192.0.2.1])\r\n"
            b"\tby mx.example.com (smtpreuse) with ESMTP id 4SVLCh0sf8z1000y\r\n"
            b"\tfor <b@example.com>; Fri, 21 Nov 2025 22:20:18 +0100\r\n",
        )

    def test_others(self) -> None:
        """Several recipients, a recipient too long to show, HELO, TLS, no name given, IPv6."""
        self.assertNotIn(b"for <", self.trace(recipient=""))
        self.assertIn(b" id 4SVLCh0sf8z1000y; Fri", self.trace(recipient=""))
        self.assertIn(b"for <", self.trace(recipient="x" * 256))
        self.assertNotIn(b"for <", self.trace(recipient="x" * 257))
        self.assertIn(b" with SMTP id ", self.trace(esmtp=False))
        self.assertIn(b" with SMTP id ", self.trace(esmtp=False, tls=True))
        self.assertIn(b" with ESMTPS id ", self.trace(tls=True))
        self.assertTrue(self.trace(helo="").startswith(b"Received: from unknown (unknown [192.0.2.1])\r\n"))
        self.assertIn(b"(unknown [IPv6:2001:db8::1])\r\n", self.trace(address="2001:db8::1"))


class DatesTests(SynchronousTestCase):
    """
    Dates are those of the second.
    """

    def test_text(self) -> None:
        """Each second has its own, and says the right time."""
        now = 0.0
        dates = Dates(lambda: now)
        for now in (1700000000.9, 1700000000.1, 1700000001.0, 0.0):
            self.assertEqual(parsedate_to_datetime(dates.text()).timestamp(), int(now))


class PrintableTests(SynchronousTestCase):
    """
    The operator's log has only what prints.
    """

    def test_printable(self) -> None:
        """All else becomes a question mark."""
        self.assertEqual(printable("a <b>~"), "a <b>~")
        self.assertEqual(printable("a\r\n\u00e4\x7f\0b"), "a?????b")
