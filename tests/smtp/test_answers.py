"""
Tests of L{smtpreuse.smtp.answers}; in their places they are tested with L{smtpreuse.smtp.server}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.smtp.answers import commands, extensions, line, no_starttls, unknown
from smtpreuse.smtp.order import NOT_IMPLEMENTED, Encryption


class AnswersTests(SynchronousTestCase):
    """
    Replies are what RFC 5321 allows, and offer what there is.
    """

    @given(st.text(max_size=600))
    def test_line(self, text: str) -> None:
        """Whatever the text, a reply is one line of printable ASCII and not too long."""
        reply = line(text)
        self.assertEqual(reply[-2:], b"\r\n")
        self.assertLessEqual(len(reply), 512)
        self.assertTrue(all(0x20 <= octet <= 0x7E for octet in reply[:-2]))
        self.assertEqual(len(reply), min(len(text), 510) + 2)

    def test_extensions(self) -> None:
        """Whole, with and without TLS and a limit."""
        self.assertEqual(
            extensions("mx.example.com", 7, Encryption.MUST),
            b"250-mx.example.com\r\n250-PIPELINING\r\n250-SIZE 7\r\n250-STARTTLS\r\n250-ENHANCEDSTATUSCODES\r\n"
            b"250-8BITMIME\r\n250 HELP\r\n",
        )
        self.assertEqual(
            extensions("mx.example.com", 0, Encryption.ACTIVE),
            b"250-mx.example.com\r\n250-PIPELINING\r\n250-SIZE\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n"
            b"250 HELP\r\n",
        )

    def test_starttls(self) -> None:
        """What HELP and STARTTLS say fits what EHLO offers."""
        for encryption in Encryption:
            offered = b"STARTTLS" in extensions("x", 0, encryption)
            self.assertEqual("STARTTLS" in commands(encryption), offered)
            self.assertEqual(no_starttls(encryption) is None, offered)

    def test_unknown(self) -> None:
        """A command that exists is told from one that does not, and from none."""
        self.assertEqual({unknown(verb) for verb in NOT_IMPLEMENTED}, {"502 5.5.1 Error: command not implemented"})
        self.assertEqual(unknown(b"FOO"), "500 5.5.2 Error: command not recognized")
        self.assertEqual(unknown(b""), "500 5.5.2 Error: bad syntax")
