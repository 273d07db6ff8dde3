"""
Tests of L{smtpreuse.queue.bounce}, read back with the email package.
"""

from __future__ import annotations

from email import message_from_bytes
from email.message import EmailMessage, Message
from email.policy import SMTP, default
from email.utils import parsedate_to_datetime

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.content import FileContent, MemoryContent
from smtpreuse.model.delivery import Ending, Outcome
from smtpreuse.model.message import Body, Recipient
from smtpreuse.model.reply import Reply
from smtpreuse.queue.bounce import RETURNED_OCTETS, Notice, compose, excerpt

ANN = Recipient(row=1, address="ann@example.com", original="Ann@EXAMPLE.com", hop="smtp:example.com")
BOB = Recipient(row=2, address="bob@example.com", hop="smtp:example.com")
ORIGINAL = b"From: me@example.test\r\nSubject: hello\r\n\r\nhello\r\n"
NO_ANN = Outcome(
    recipient=ANN, ending=Ending.REFUSED, status="5.1.1",
    text="host mx.example.com[192.0.2.1] said: 550 5.1.1 no such user (in reply to RCPT TO command)",
    reply=Reply(550, ("5.1.1 no such user",)),
)  # fmt: skip
NO_BOB = Outcome(
    recipient=BOB, ending=Ending.REFUSED, status="4.4.1", text="connect to mx.example.com[192.0.2.1]:25: refused"
)
NOTICE = Notice(
    queue_id="B1", original_id="Q1", sender="me@example.test", arrived=1_000_000.0, now=1_000_060.0,
    reporter="mail.example.com", relay="mx.example.com[192.0.2.1]:25", body=Body.UNKNOWN, failed=(NO_ANN, NO_BOB),
)  # fmt: skip


def parsed(notice: Notice = NOTICE, returned: bytes = ORIGINAL, *, whole: bool = True) -> EmailMessage:
    """The notification as a mail program reads it."""
    content = compose(notice, returned, whole=whole)
    assert content.octets.endswith(b"\r\n")
    read = message_from_bytes(content.octets, policy=default)
    assert isinstance(read, EmailMessage)
    return read


class ComposeTests(SynchronousTestCase):
    """A notification is a multipart/report that programs and people can read."""

    def test_header(self) -> None:
        """From the mail system, to the sender, marked as made by a machine."""
        read = parsed()
        self.assertEqual(read["To"], "me@example.test")
        self.assertIn("MAILER-DAEMON@mail.example.com", read["From"])
        self.assertEqual((read["Auto-Submitted"], read["Message-Id"]), ("auto-replied", "<B1@mail.example.com>"))
        self.assertEqual(parsedate_to_datetime(read["Date"]).timestamp(), 1_000_060.0)
        self.assertEqual(read.get_content_type(), "multipart/report")
        self.assertEqual(read.get_param("report-type"), "delivery-status")
        self.assertEqual(read.defects, [])

    def parts(self, read: EmailMessage) -> list[Message]:
        """Its three parts."""
        parts = list(read.iter_parts())
        self.assertEqual(len(parts), 3)
        for part in parts:
            self.assertEqual(part.defects, [])
        return parts

    def test_parts(self) -> None:
        """For people, for programs, and the message."""
        kinds = [part.get_content_type() for part in self.parts(parsed())]
        self.assertEqual(kinds, ["text/plain", "message/delivery-status", "message/rfc822"])
        kinds = [part.get_content_type() for part in self.parts(parsed(whole=False))]
        self.assertEqual(kinds, ["text/plain", "message/delivery-status", "text/rfc822-headers"])

    def test_for_people(self) -> None:
        """Each recipient with its reason, in lines that fit a screen."""
        text = str(self.parts(parsed())[0].get_payload())
        told = " ".join(text.split())
        self.assertIn("This is the mail system at host mail.example.com.", told)
        self.assertIn(f"<ann@example.com>: {NO_ANN.text}", told)
        self.assertIn(f"<bob@example.com>: {NO_BOB.text}", told)
        self.assertLessEqual(max(len(line) for line in text.splitlines()), 76)

    def test_for_programs(self) -> None:
        """The fields of RFC 3464: one group of the message, one of each recipient."""
        groups = self.parts(parsed())[1].get_payload()
        assert isinstance(groups, list)
        whole, ann, bob = groups
        assert isinstance(whole, Message) and isinstance(ann, Message) and isinstance(bob, Message)
        self.assertEqual(whole["Reporting-MTA"], "dns; mail.example.com")
        self.assertEqual(parsedate_to_datetime(whole["Arrival-Date"]).timestamp(), 1_000_000.0)
        self.assertEqual(whole["X-Smtpreuse-Queue-ID"], "Q1")
        self.assertEqual(whole["X-Smtpreuse-Sender"], "rfc822; me@example.test")
        self.assertEqual(dict(ann.items()), {
            "Final-Recipient": "rfc822; ann@example.com", "Original-Recipient": "rfc822; Ann@EXAMPLE.com",
            "Action": "failed", "Status": "5.1.1", "Remote-MTA": "dns; mx.example.com",
            "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
        })  # fmt: skip
        self.assertEqual(dict(bob.items()), {
            "Final-Recipient": "rfc822; bob@example.com", "Action": "failed", "Status": "4.4.1",
            "Diagnostic-Code": "X-Smtpreuse; connect to mx.example.com[192.0.2.1]:25: refused",
        })  # fmt: skip

    def test_the_message(self) -> None:
        """It comes back as it was."""
        part = self.parts(parsed())[2]
        (original,) = part.get_payload()
        assert isinstance(original, Message)
        self.assertEqual(original.as_bytes(policy=SMTP), ORIGINAL)

    def test_eight_bit(self) -> None:
        """Octets over 127 make it 8bit, and stay what they are."""
        octets = "Subject: grüße\r\n\r\ngrüße\r\n".encode()
        content = compose(NOTICE, octets, whole=True)
        self.assertIn(octets, content.octets)
        read = message_from_bytes(content.octets, policy=default)
        self.assertEqual(read["Content-Transfer-Encoding"], "8bit")
        self.assertEqual(parsed()["Content-Transfer-Encoding"], "7bit")

    def test_hostile_reply(self) -> None:
        """What a server says can neither begin a field nor hold control characters, nor make endless lines."""
        evil = evolve(
            NO_ANN, text="550 a\r\nTo: x@example.com\x1b[2J" + "y" * 3000,
            reply=Reply(550, ("a\r\nStatus: 2.0.0\x1b[2J", "ä" * 3000)),
        )  # fmt: skip
        content = compose(evolve(NOTICE, failed=(evil,)), ORIGINAL, whole=True)
        self.assertNotIn(b"\r\nStatus: 2.0.0", content.octets)
        self.assertNotIn(b"\x1b", content.octets)
        self.assertTrue(content.octets.isascii())
        self.assertLessEqual(max(len(line) for line in content.octets.split(b"\r\n")), 998)

    def test_line_ends(self) -> None:
        """No bare CR or LF: it could be relayed nowhere."""
        octets = compose(NOTICE, ORIGINAL, whole=True).octets
        self.assertEqual(octets.count(b"\r"), octets.count(b"\r\n"))
        self.assertEqual(octets.count(b"\n"), octets.count(b"\r\n"))


class ExcerptTests(SynchronousTestCase):
    """Small messages come back whole, of large ones the header."""

    def file(self, octets: bytes) -> FileContent:
        """The same in a file."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(octets)
        return FileContent(path, len(octets))

    def test_small(self) -> None:
        """Up to the limit: whole."""
        for octets in (ORIGINAL, b"x" * (RETURNED_OCTETS - 2) + b"\r\n"):
            self.assertEqual(excerpt(MemoryContent(octets)), (octets, True))
            self.assertEqual(excerpt(self.file(octets)), (octets, True))

    def test_large(self) -> None:
        """Beyond it: the header alone, every line whole."""
        octets = ORIGINAL + b"x" * RETURNED_OCTETS
        header = b"From: me@example.test\r\nSubject: hello\r\n"
        self.assertEqual(excerpt(MemoryContent(octets)), (header, False))
        self.assertEqual(excerpt(self.file(octets)), (header, False))

    def test_large_header(self) -> None:
        """A header without end is cut behind a whole line."""
        octets = b"X-A: 1\r\n" * 10000
        returned, whole = excerpt(MemoryContent(octets))
        self.assertFalse(whole)
        self.assertLessEqual(len(returned), RETURNED_OCTETS)
        self.assertTrue(returned.endswith(b"X-A: 1\r\n"))
