"""
Tests of L{smtpreuse.tls.verify}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.policy import Level, Policy
from smtpreuse.tls.verify import Trust, verify


class VerifyTests(SynchronousTestCase):
    """
    At levels that ask nobody who he is, no certificate costs a delivery.
    """

    def test_anonymous(self) -> None:
        """A peer without certificate is anonymous, and good enough."""
        for level in Level:
            verdict = verify((), Policy(level=level), ("mx.example.com",), 0.0)
            self.assertEqual((verdict.trust, verdict.matched, verdict.reason), (Trust.ANONYMOUS, True, ""))

    def test_untrusted(self) -> None:
        """A peer with certificates is untrusted, and good enough; they need not even be certificates."""
        for chain in ((b"",), (b"\x30\x80 no certificate",), (b"leaf", b"ca")):
            for level in Level:
                verdict = verify(chain, Policy(level=level), (), 4e9)
                self.assertEqual((verdict.trust, verdict.matched, verdict.reason), (Trust.UNTRUSTED, True, ""))

    def test_words(self) -> None:
        """The words are those of Postfix's log."""
        self.assertEqual([trust.value for trust in Trust], ["Anonymous", "Untrusted", "Trusted", "Verified"])
        self.assertEqual(verify((), Policy(level=Level.MAY), (), 0.0).word, "Anonymous")
