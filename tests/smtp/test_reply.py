"""
Tests of L{smtpreuse.smtp.reply}.
"""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.reply import Reply
from smtpreuse.smtp.reply import LINE_LIMIT, LINES_LIMIT, REPLY_LIMIT, ReplyParser

STREAM = b"220 mx.example.com ESMTP\r\n250-mx\r\n250-SIZE 10\r\n250 HELP\n354\r\n421 4.7.0 \xc3\xa4 \xff\r\n"
REPLIES = [
    Reply(220, ("mx.example.com ESMTP",)),
    Reply(250, ("mx", "SIZE 10", "HELP")),
    Reply(354, ("",)),
    Reply(421, ("4.7.0 \u00e4 \ufffd",)),
]


class ReplyParserTests(SynchronousTestCase):
    """
    A stream of octets becomes the same replies however it is cut, and nothing is believed after an offence.
    """

    def fed(self, *parts: bytes) -> tuple[ReplyParser, list[Reply]]:
        """A parser that took these parts, and what it gave."""
        parser = ReplyParser()
        return parser, [reply for part in parts for reply in parser.feed(part)]

    def test_whole(self) -> None:
        """Replies of one line and of several, with CRLF and bare LF, with and without text."""
        parser, replies = self.fed(STREAM)
        self.assertEqual(replies, REPLIES)
        self.assertIsNone(parser.broken)
        self.assertEqual(parser.pending, 0)

    def test_byte_by_byte(self) -> None:
        """One octet at a time gives the same."""
        parser, replies = self.fed(*(STREAM[place : place + 1] for place in range(len(STREAM))))
        self.assertEqual(replies, REPLIES)
        self.assertEqual(parser.pending, 0)

    @given(st.lists(st.integers(0, len(STREAM)), max_size=5))
    def test_every_cut(self, cuts: list[int]) -> None:
        """Any cuts give the same."""
        places = [0, *sorted(cuts), len(STREAM)]
        _, replies = self.fed(*(STREAM[a:b] for a, b in itertools.pairwise(places)))
        self.assertEqual(replies, REPLIES)

    def test_pending(self) -> None:
        """Octets that are no reply yet are counted, those of earlier lines of the same reply too."""
        parser, replies = self.fed(b"250-a\r\n25")
        self.assertEqual((replies, parser.pending), ([], 7))
        self.assertEqual(parser.feed(b"0 b\r\n"), [Reply(250, ("a", "b"))])
        self.assertEqual(parser.pending, 0)

    def test_bounds_of_codes(self) -> None:
        """Codes are 200 to 599."""
        _, replies = self.fed(b"200 a\r\n599 b\r\n")
        self.assertEqual([reply.code for reply in replies], [200, 599])
        for code in (b"199", b"600", b"000", b"2 0", b"+20", "\u0662\u0665\u0660".encode()):
            parser, replies = self.fed(code + b" x\r\n")
            self.assertEqual(replies, [], code)
            self.assertIsNotNone(parser.broken, code)

    def test_garbage(self) -> None:
        """A line that is no reply breaks the parser; what was complete before it stands, nothing after it does."""
        for line in (b"", b"25", b"hello", b"250x", b"250_x", b"250?x", b" 250 x", b"250\tx"):
            parser, replies = self.fed(b"250 a\r\n" + line + b"\r\n250 b\r\n", b"250 c\r\n")
            self.assertEqual(replies, [Reply(250, ("a",))], line)
            self.assertIn("not a reply line", parser.broken or "")
            self.assertEqual(parser.pending, 0)

    def test_codes_differ(self) -> None:
        """A reply whose lines have different codes is none."""
        parser, replies = self.fed(b"250-a\r\n251 b\r\n250 c\r\n")
        self.assertEqual(replies, [])
        self.assertEqual(parser.broken, "a reply that begins with 250 goes on with 251")
        self.assertEqual(parser.pending, 0)

    def test_longest_line(self) -> None:
        """A line of the limit is a reply, one octet more is not; its end does not count."""
        for end in (b"\r\n", b"\n"):
            line = b"250 " + b"x" * (LINE_LIMIT - 4)
            self.assertEqual(len(self.fed(line + end)[1]), 1)
            parser, replies = self.fed(line + b"x" + end)
            self.assertEqual(replies, [])
            self.assertIsNotNone(parser.broken)

    def test_line_without_end(self) -> None:
        """A line that never ends is not kept beyond the limit; the CR of a line just within it is."""
        line = b"250 " + b"x" * (LINE_LIMIT - 4)
        parser, _ = self.fed(line, b"\r")
        self.assertIsNone(parser.broken)
        self.assertEqual(len(parser.feed(b"\n")), 1)
        for last in (b"x", b"\rx"):
            parser, _ = self.fed(line, last)
            self.assertIn("over 2048 octets", parser.broken or "")
            self.assertEqual(parser.pending, 0)

    def test_most_lines(self) -> None:
        """A reply has at most so many lines."""
        lines = b"250-x\r\n" * (LINES_LIMIT - 1)
        _, replies = self.fed(lines + b"250 x\r\n")
        self.assertEqual(len(replies[0].lines), LINES_LIMIT)
        parser, replies = self.fed(lines + b"250-x\r\n250 x\r\n")
        self.assertEqual(replies, [])
        self.assertIn("over 100 lines", parser.broken or "")

    def test_most_octets(self) -> None:
        """A reply has at most so many octets."""
        full = b"250-" + b"x" * 2044 + b"\r\n"
        self.assertEqual(REPLY_LIMIT % 2048, 0)
        lines = full * (REPLY_LIMIT // 2048 - 1)
        self.assertEqual(len(self.fed(lines + full.replace(b"-", b" "))[1]), 1)
        parser, replies = self.fed(lines + full + b"250 \r\n")
        self.assertEqual(replies, [])
        self.assertIsNotNone(parser.broken)

    def test_limits_are_for_one_reply(self) -> None:
        """Each reply counts anew."""
        reply = b"250-x\r\n" * (LINES_LIMIT - 1) + b"250 x\r\n"
        self.assertEqual(len(self.fed(reply * 3)[1]), 3)
        long = b"250-" + b"x" * 2040 + b"\r\n"
        reply = long * 20 + b"250 x\r\n"
        self.assertEqual(len(self.fed(reply * 3)[1]), 3)
