"""
Tests of L{smtpreuse.model.reply}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import integers
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.reply import Reply


def status(code: int, *lines: str) -> str:
    """The status of a reply."""
    return Reply(code, lines).status


class TextTests(SynchronousTestCase):
    """A reply can be shown as one line."""

    def test_one_line(self) -> None:
        """Code and text."""
        self.assertEqual(Reply(250, ("2.0.0 ok",)).text, "250 2.0.0 ok")

    def test_lines(self) -> None:
        """Lines are joined by a space."""
        self.assertEqual(Reply(550, ("5.7.1 no", "5.7.1 never")).text, "550 5.7.1 no 5.7.1 never")

    def test_no_text(self) -> None:
        """A code alone has no space behind it."""
        self.assertEqual(Reply(354, ("",)).text, "354")


class StatusTests(SynchronousTestCase):
    """The enhanced status is the server's only where it follows the code and agrees with it."""

    def test_servers(self) -> None:
        """The server's own."""
        self.assertEqual(Reply(550, ("5.1.1 unknown",)).enhanced, "5.1.1")
        self.assertEqual(status(550, "5.1.1 unknown"), "5.1.1")
        self.assertEqual(status(250, "2.123.456"), "2.123.456")
        self.assertEqual(status(450, "4.2.0\tlater"), "4.2.0")

    def test_class_disagrees(self) -> None:
        """A class that is not the code's is not believed."""
        self.assertIsNone(Reply(450, ("5.1.1 unknown",)).enhanced)
        self.assertEqual(status(450, "5.1.1 unknown"), "4.0.0")
        self.assertEqual(status(550, "2.0.0 fine"), "5.0.0")

    def test_not_first(self) -> None:
        """It stands at the beginning of the first line."""
        for lines in (
            (" 5.1.1 x",), ("no 5.1.1",), ("no", "5.1.1 x"), ("5.1.1x",), ("5.1.1.1",), ("5.1",), ("5.1234.1",),
        ):  # fmt: skip
            self.assertEqual(status(550, *lines), "5.0.0", lines)

    def test_other_digits(self) -> None:
        """Its digits are those of ASCII."""
        self.assertEqual(status(550, "5.\u0661.1 x"), "5.0.0")

    @given(integers(200, 599))
    def test_always(self, code: int) -> None:
        """Every reply has a status of its class."""
        self.assertEqual(status(code, "x"), f"{code // 100}.0.0")


class ClassTests(SynchronousTestCase):
    """What the code says."""

    @given(integers(200, 599))
    def test_exactly_one(self, code: int) -> None:
        """It is done, wants more, may help later or is final: never two of these."""
        reply = Reply(code, ("",))
        self.assertEqual(
            (reply.positive, reply.intermediate, reply.temporary), (code < 300, 300 <= code < 400, 400 <= code < 500)
        )

    def test_syntactic(self) -> None:
        """Codes that complain of the grammar: 500 to 509, and 555."""
        complaints = [code for code in range(200, 600) if Reply(code, ("",)).syntactic]
        self.assertEqual(complaints, [*range(500, 510), 555])


class ThrottlingTests(SynchronousTestCase):
    """A server may ask to slow down."""

    def test_throttling(self) -> None:
        """421 with any text, and temporary replies with 4.7.x, 4.3.2 or 4.4.5."""
        for code, text in (
            (421, "closing"), (421, "4.2.1 x"), (450, "4.7.1 slow"), (451, "4.7.28 rate"), (452, "4.3.2 busy"),
            (451, "4.4.5 congested"),
        ):  # fmt: skip
            self.assertTrue(Reply(code, (text,)).throttling, (code, text))

    def test_not_throttling(self) -> None:
        """Anything else is about the message."""
        for code, text in (
            (450, "later"), (450, "4.2.0 mailbox"), (452, "4.3.1 disk"), (452, "4.3.20 x"), (451, "4.70.1 x"),
            (550, "5.7.1 policy"), (550, "4.7.1 x"), (250, "2.7.1 x"), (420, "x"), (422, "x"), (521, "x"),
        ):  # fmt: skip
            self.assertFalse(Reply(code, (text,)).throttling, (code, text))
