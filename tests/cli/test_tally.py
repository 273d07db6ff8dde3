"""
Tests of L{smtpreuse.cli.tally}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.cli.tally import Tally, identity_of


class IdentityTests(SynchronousTestCase):
    """A message is recognised by what its sender put into its header."""

    def test_own_field_first(self) -> None:
        """C{X-Smtpreuse-Id} counts more than C{Message-ID}, wherever it stands and however it is written."""
        self.assertEqual(identity_of(b"Message-ID: <a@b>\r\nx-SMTPREUSE-id:  seven \r\n\r\nbody\r\n"), b"seven")

    def test_message_id(self) -> None:
        """Without it C{Message-ID} is taken."""
        self.assertEqual(identity_of(b"Subject: x\r\nMESSAGE-ID:<a@b>\r\n\r\n"), b"<a@b>")

    def test_header_only(self) -> None:
        """What looks like a field in the body is none, and so is the end of another field's name."""
        self.assertEqual(identity_of(b"Old-Message-ID: <a@b>\r\n\r\nMessage-ID: <c@d>\r\n"), b"")

    def test_header_without_body(self) -> None:
        """A message may end with its header."""
        self.assertEqual(identity_of(b"Subject: x\r\nMessage-ID: <a@b>\r\n"), b"<a@b>")


class TallyTests(SynchronousTestCase):
    """Counts what came, and what came twice."""

    def test_counts(self) -> None:
        """Messages, recipients and octets are counted."""
        tally = Tally()
        tally.count([b"a@x.test", b"b@x.test"], b"Subject: x\r\n\r\n", 7.0)
        tally.count([b"a@x.test"], b"1234", 7.0)
        self.assertEqual(
            tally.counts(),
            {
                "messages": 2,
                "recipients": 3,
                "connections": 0,
                "tls_handshakes": 0,
                "tls_resumed": 0,
                "doubled": 0,
                "octets": 18,
                "last": 7.0,
            },
        )

    def test_nothing_came(self) -> None:
        """Before the first message there is no last one."""
        self.assertIsNone(Tally().counts()["last"])

    def test_doubled(self) -> None:
        """The same message for the same recipient is doubled, every time it comes again."""
        tally = Tally()
        for _ in range(3):
            tally.count([b"a@x.test"], b"Message-ID: <1@x>\r\n\r\n", 7.0)
        self.assertEqual(tally.doubled, 2)

    def test_one_recipient_suffices(self) -> None:
        """A message is doubled when one of its recipients had it before, in any case of letters."""
        tally = Tally()
        tally.count([b"A@x.test"], b"Message-ID: <1@x>\r\n\r\n", 7.0)
        tally.count([b"b@x.test", b"a@X.test"], b"Message-ID: <1@x>\r\n\r\n", 7.0)
        self.assertEqual(tally.doubled, 1)

    def test_other_recipients(self) -> None:
        """The same message for others is not doubled: recipients may come in several transactions."""
        tally = Tally()
        tally.count([b"a@x.test"], b"Message-ID: <1@x>\r\n\r\n", 7.0)
        tally.count([b"b@x.test"], b"Message-ID: <1@x>\r\n\r\n", 7.0)
        self.assertEqual(tally.doubled, 0)

    def test_no_identity(self) -> None:
        """A message that nothing names is never doubled."""
        tally = Tally()
        tally.count([b"a@x.test"], b"Subject: x\r\n\r\n", 7.0)
        tally.count([b"a@x.test"], b"Subject: x\r\n\r\n", 7.0)
        self.assertEqual(tally.doubled, 0)
