"""
Tests of the breaking of long lines in L{smtpreuse.smtp.content}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.smtp.content import LineBreaker
from tests.smtp.test_content import CUTS, cut

LINES = st.lists(st.integers(0, 25), max_size=6).map(
    lambda sizes: b"".join(b"abcdefghijklmnopqrstuvwxyz"[:size] + b"\r\n" for size in sizes)
)


def by_line(content: bytes, limit: int) -> bytes:
    """The same, line by line, as the loop of Postfix's smtp_text_out() has it."""
    wire = b""
    for line in content.split(b"\r\n")[:-1]:
        left = limit
        while len(line) >= left:
            wire += line[:left] + b"\r\n"
            line, left = line[left:], limit
            if not line:
                break
            wire += b" "
            left -= 1
        else:
            wire += line + b"\r\n"
    return wire


class LineBreakerTests(SynchronousTestCase):
    """No line leaves that is longer than the limit; shorter ones leave as they are."""

    def test_long(self) -> None:
        """CRLF and a space behind each so many octets; the space counts."""
        self.assertEqual(
            LineBreaker(5).whole(b"abcdefghijkl\r\nx\r\n"), b"abcde\r\n fghi\r\n jkl\r\nx\r\n"
        )

    def test_exact(self) -> None:
        """A line of just that length is not broken, nor is what is left of one."""
        self.assertEqual(LineBreaker(5).whole(b"abcde\r\nabcdefghi\r\n"), b"abcde\r\nabcde\r\n fghi\r\n")

    def test_cut_at_the_limit(self) -> None:
        """Whether a line is over when a part ends, the next part says."""
        for parts, expected in (
            ((b"abcde", b"\r\nx"), b"abcde\r\nx"),
            ((b"abcde\r", b"\nx"), b"abcde\r\nx"),
            ((b"abcde", b"f\r\n"), b"abcde\r\n f\r\n"),
            ((b"abc", b"", b"def\r\n"), b"abcde\r\n f\r\n"),
        ):
            breaker = LineBreaker(5)
            self.assertEqual(b"".join(map(breaker.feed, parts)) + breaker.finish(), expected)

    def test_held_back(self) -> None:
        """A carriage return at the end is not lost."""
        breaker = LineBreaker(5)
        self.assertEqual((breaker.feed(b"a\r"), breaker.finish(), breaker.finish()), (b"a", b"\r", b""))

    @given(LINES, st.integers(2, 12), CUTS)
    def test_as_postfix(self, content: bytes, limit: int, cuts: list[int]) -> None:
        """Cut anywhere, it does what Postfix does."""
        breaker = LineBreaker(limit)
        wire = b"".join(breaker.feed(part) for part in cut(content, cuts)) + breaker.finish()
        self.assertEqual(wire, by_line(content, limit))
        self.assertTrue(all(len(line) <= limit for line in wire.split(b"\r\n")))
