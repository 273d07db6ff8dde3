"""
Tests of L{smtpreuse.smtp.content}.
"""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.smtp.content import ContentDecoder, Stuffer, stuffed

# Octets that matter to this grammar, and one that does not.
OCTETS = st.lists(st.sampled_from([b"\r\n", b".", b"x", b"\r", b"\n", b"\0"]), max_size=12).map(b"".join)
CLEAN = st.lists(st.sampled_from([b"\r\n", b".", b"x"]), max_size=12).map(lambda parts: b"".join(parts) + b"\r\n")
CUTS = st.lists(st.integers(0, 40), max_size=6)


def cut(octets: bytes, cuts: list[int]) -> list[bytes]:
    """These octets in parts."""
    places = [0, *sorted(min(place, len(octets)) for place in cuts), len(octets)]
    return [octets[a:b] for a, b in itertools.pairwise(places)]


def decoded(parts: list[bytes]) -> tuple[bytes, bytes | None, str | None]:
    """What comes of these parts: content, what follows it (L{None} when it did not end), offence."""
    decoder = ContentDecoder()
    content = b""
    for place, part in enumerate(parts):
        some, rest = decoder.feed(part)
        content += some
        if rest is not None:
            return content, rest + b"".join(parts[place + 1 :]), decoder.offence
    return content, None, decoder.offence


class ContentDecoderTests(SynchronousTestCase):
    """
    Content comes out as it was before it was stuffed; it ends at CRLF dot CRLF and nowhere else.
    """

    def test_plain(self) -> None:
        """Content without dots, and what follows it."""
        self.assertEqual(decoded([b"a\r\nb\r\n.\r\nQUIT\r\n"]), (b"a\r\nb\r\n", b"QUIT\r\n", None))

    def test_empty(self) -> None:
        """A final dot at once is empty content, cut anywhere."""
        for place in range(4):
            self.assertEqual(decoded([b".\r\n"[:place], b".\r\n"[place:], b"X"]), (b"", b"X", None))

    def test_dots(self) -> None:
        """One dot is taken off where a line begins with one, also on the first line; dots elsewhere stay."""
        self.assertEqual(decoded([b"..\r\n...a\r\nb.\r\n.c\r\n.\r\n"]), (b".\r\n..a\r\nb.\r\nc\r\n", b"", None))

    def test_empty_lines(self) -> None:
        """Empty lines stay, at both ends too."""
        self.assertEqual(decoded([b"\r\n\r\n.\r\n"]), (b"\r\n\r\n", b"", None))

    def test_long_lines(self) -> None:
        """Lines of any length pass."""
        line = b"x" * 100_000 + b"\r\n"
        self.assertEqual(decoded([line + b".\r\n"]), (line, b"", None))

    def test_nothing_fed(self) -> None:
        """No octets say nothing, at the beginning too."""
        self.assertEqual(decoded([b"", b"..x\r\n", b"", b".\r\n"]), (b".x\r\n", b"", None))

    def test_one_part_is_not_copied(self) -> None:
        """Content that comes whole, without the end and without dots, is handed on as it is."""
        decoder = ContentDecoder()
        data = b"x" * 100
        self.assertIs(decoder.feed(data)[0], data)

    def test_smuggling(self) -> None:
        """No other line ends around a dot end the content; it is marked and goes on to its true end."""
        for end, offence in (
            (b"\n.\n", "bare <LF>"), (b"\n.\r\n", "bare <LF>"), (b"\r\n.\n", "bare <LF>"), (b"\r.\r\n", "bare <CR>"),
            (b"\r\n.\r", "bare <CR>"), (b"\r.\r", "bare <CR>"), (b"\n.\r", "bare <LF>"), (b"\r\n.\r\r\n", "bare <CR>"),
            (b"\r\n\0.\r\n", "NUL"), (b"\r\n.\0\r\n", "NUL"), (b"\r\n.\0", "NUL"),
        ):
            smuggled = b"a" + end + b"MAIL FROM:<x@example.com>\r\n.\r\nrest"
            content, rest, found = decoded([smuggled])
            self.assertEqual((rest, found), (b"rest", offence), end)
            self.assertTrue(content.endswith(b"MAIL FROM:<x@example.com>\r\n"), end)

    def test_first_offence(self) -> None:
        """The first of several offences is told, also over several parts."""
        self.assertEqual(decoded([b"a\0b\nc\rd\r\n.\r\n"])[2], "NUL")
        self.assertEqual(decoded([b"a\nb", b"\0c\r\n.\r\n"])[2], "bare <LF>")

    def test_line_end_cut(self) -> None:
        """A CRLF cut in two is no offence; a CR at a cut that no LF follows is."""
        self.assertEqual(decoded([b"a\r", b"\nb\r\n.\r\n"]), (b"a\r\nb\r\n", b"", None))
        self.assertEqual(decoded([b"a\r", b"b\r\n.\r\n"])[2], "bare <CR>")

    def test_lone_cr_and_lf(self) -> None:
        """As many bare CRs as bare LFs are still offences."""
        self.assertEqual(decoded([b"a\rb\nc\r\n.\r\n"])[2], "bare <CR>")

    @given(OCTETS, OCTETS, CUTS)
    def test_every_cut(self, octets: bytes, behind: bytes, cuts: list[int]) -> None:
        """Whatever it is, the cuts make no difference."""
        wire = octets + b"\r\n.\r\n" + behind
        self.assertEqual(decoded(cut(wire, cuts)), decoded([wire]))
        self.assertEqual(decoded([wire[place : place + 1] for place in range(len(wire))]), decoded([wire]))

    @given(OCTETS)
    def test_against_lines(self, octets: bytes) -> None:
        """The decoder agrees with one that reads line by line."""
        wire = octets + b"\r\n.\r\n"
        lines = wire.split(b"\r\n")
        end = lines.index(b".")
        clean = [line[1:] if line.startswith(b".") else line for line in lines[:end]]
        content, rest, offence = decoded([wire])
        self.assertEqual(content, b"".join(line + b"\r\n" for line in clean))
        self.assertEqual(rest, b"\r\n".join(lines[end + 1 :]))
        bad = any(octet in b"".join(lines[: end]) for octet in (b"\r", b"\n", b"\0"))
        self.assertEqual(offence is not None, bad)


class StuffingTests(SynchronousTestCase):
    """
    Content on the wire: dots doubled where a line begins with one, its end said once.
    """

    def test_stuffed(self) -> None:
        """Each case by itself."""
        for content, wire in (
            (b"", b".\r\n"), (b".", b"..\r\n.\r\n"), (b"a", b"a\r\n.\r\n"), (b"a\r\n", b"a\r\n.\r\n"),
            (b".\r\n.\r\n", b"..\r\n..\r\n.\r\n"), (b"..", b"...\r\n.\r\n"), (b"a.\r\n", b"a.\r\n.\r\n"),
            (b"\r\n", b"\r\n.\r\n"), (b"\r\n.", b"\r\n..\r\n.\r\n"), (b"a\n.b\r\n", b"a\n.b\r\n.\r\n"),
        ):
            self.assertEqual(stuffed(content), wire)

    def test_streamed(self) -> None:
        """A dot behind a cut is doubled when the cut is at a line's beginning, and only then."""
        for parts, wire in (
            ([b"a\r\n", b".b"], b"a\r\n..b\r\n.\r\n"), ([b"a\r", b"\n.b"], b"a\r\n..b\r\n.\r\n"),
            ([b"a\r", b"\n", b".b"], b"a\r\n..b\r\n.\r\n"), ([b"a", b".b"], b"a.b\r\n.\r\n"),
            ([b"a\n", b".b"], b"a\n.b\r\n.\r\n"), ([b"a", b"\n.b"], b"a\n.b\r\n.\r\n"),
            ([b".", b"."], b"...\r\n.\r\n"), ([b"", b".", b""], b"..\r\n.\r\n"), ([], b".\r\n"),
        ):
            stuffer = Stuffer()
            self.assertEqual(b"".join([*map(stuffer.feed, parts), stuffer.finish()]), wire, parts)

    @given(OCTETS, CUTS)
    def test_every_cut(self, content: bytes, cuts: list[int]) -> None:
        """Cuts make no difference."""
        stuffer = Stuffer()
        wire = b"".join(map(stuffer.feed, cut(content, cuts))) + stuffer.finish()
        self.assertEqual(wire, stuffed(content))

    @given(CLEAN, CUTS)
    def test_there_and_back(self, content: bytes, cuts: list[int]) -> None:
        """What is stuffed is decoded to what it was."""
        self.assertEqual(decoded(cut(stuffed(content), cuts)), (content, b"", None))
