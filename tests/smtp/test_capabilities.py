"""
Tests of L{smtpreuse.smtp.capabilities}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.capabilities import Capabilities
from smtpreuse.model.reply import Reply
from smtpreuse.smtp.capabilities import parse_ehlo

NOTHING: frozenset[str] = frozenset()


class ParseEhloTests(SynchronousTestCase):
    """
    What the reply to EHLO announces is known, and only that.
    """

    def test_all(self) -> None:
        """Every extension we use, in any case, with unknown ones beside them."""
        lines = ("PIPELINING", "size 10240000", "8bitmime", "StartTLS", "X-THING a b", "AUTH=LOGIN", "AUTH PLAIN")
        self.assertEqual(
            parse_ehlo(Reply(250, ("mx.example.com", *lines)), NOTHING),
            Capabilities(
                esmtp=True,
                pipelining=True,
                eight_bit=True,
                starttls=True,
                size=10240000,
                keywords=frozenset({"PIPELINING", "SIZE", "8BITMIME", "STARTTLS", "X-THING", "AUTH"}),
            ),
        )

    def test_nothing(self) -> None:
        """The first line is a greeting, whatever it says; blank lines say nothing."""
        self.assertEqual(parse_ehlo(Reply(250, ("PIPELINING", "", "  ")), NOTHING), Capabilities(esmtp=True))

    def test_refused(self) -> None:
        """A refusal announces nothing."""
        self.assertEqual(parse_ehlo(Reply(502, ("no", "PIPELINING")), NOTHING), Capabilities())

    def test_discard(self) -> None:
        """What the configuration says not to believe is not there, whatever its case."""
        reply = Reply(250, ("mx", "PIPELINING", "SIZE 5", "8BITMIME", "STARTTLS"))
        found = parse_ehlo(reply, frozenset({"pipelining", "Size", "STARTTLS", "silent-discard"}))
        self.assertEqual(found, Capabilities(esmtp=True, eight_bit=True, keywords=frozenset({"8BITMIME"})))

    def test_size(self) -> None:
        """Without a number, or with one that is none, there is no known limit; a huge one stays within 64 bits."""
        for words, size in (
            ("SIZE", 0), ("SIZE 0", 0), ("SIZE x", 0), ("SIZE -1", 0), ("SIZE \u0663", 0), ("SIZE \u00b2", 0),
            ("SIZE 7 8", 7), ("SIZE " + "9" * 40, 2**63 - 1),
        ):
            self.assertEqual(parse_ehlo(Reply(250, ("mx", words)), NOTHING).size, size, words)
