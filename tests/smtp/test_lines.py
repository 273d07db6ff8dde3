"""
Tests of L{smtpreuse.smtp.lines}.
"""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.smtp.lines import BARE_LF, LINE_LIMIT, TOO_LONG, Lines


def cut(*parts: bytes) -> list[bytes | str]:
    """The lines in these parts."""
    lines, found = Lines(), []
    for part in parts:
        lines.feed(part)
        while (line := lines.next()) is not None:
            found.append(line)
    return found


class LinesTests(SynchronousTestCase):
    """
    A line is what CRLF ends; what is none is named, and splits nothing.
    """

    def test_lines(self) -> None:
        """Each of them, as it stands."""
        self.assertEqual(cut(b"a\r\n\r\n b \r\nc"), [b"a", b"", b" b "])

    def test_what_is_none(self) -> None:
        """Each offence has its name, and what follows is understood."""
        for line, name in (
            (b"a\n", BARE_LF), (b"\n", "bare <LF> received"), (b"a\0\r\n", "NUL received"),
            (b"a\rb\r\n", "bare <CR> received"), (b"a\r\r\n", "bare <CR> received"),
            (b"x" * (LINE_LIMIT + 1) + b"\r\n", "line too long"),
        ):
            self.assertEqual(cut(line + b"b\r\n"), [name, b"b"])
        self.assertEqual(LINE_LIMIT, 2048)

    @given(st.lists(st.integers(0, 60), max_size=6))
    def test_every_cut(self, cuts: list[int]) -> None:
        """Cuts make no difference."""
        stream = b"a\r\nb\nc\0\r\n\rd\r\n\r\ne f\r\n"
        places = [0, *sorted(min(place, len(stream)) for place in cuts), len(stream)]
        self.assertEqual(cut(*(stream[a:b] for a, b in itertools.pairwise(places))), cut(stream))

    def test_long_line(self) -> None:
        """So much of a line is taken; a longer one is not kept, whole or in parts, and is one line."""
        line = b"x" * LINE_LIMIT + b"\r\n"
        self.assertEqual(cut(line), [line[:-2]])
        self.assertEqual(cut(line[:-2], b"\r", b"\n"), [line[:-2]])
        lines = Lines()
        self.assertEqual(len(lines), 0)
        for _ in range(10):
            lines.feed(b"x" * 1000)
            self.assertIsNone(lines.next())
            self.assertLessEqual(len(lines), LINE_LIMIT + 1)
        self.assertEqual(len(lines), 0)
        lines.feed(b"\r\na\r\n")
        self.assertEqual((lines.next(), lines.next(), lines.next()), (TOO_LONG, b"a", None))

    def test_rest(self) -> None:
        """Content is taken as it is, from the end of the last line on; what was not wanted comes next."""
        lines = Lines()
        lines.feed(b"a\r\nb\nc\r\n")
        self.assertEqual((lines.next(), len(lines), lines.rest()), (b"a", 5, b"b\nc\r\n"))
        self.assertEqual((len(lines), lines.rest()), (0, b""))
        lines.feed(b"c\r\n")
        lines.feed(b"d\r\n")
        self.assertEqual((lines.next(), lines.next()), (b"c", b"d"))
