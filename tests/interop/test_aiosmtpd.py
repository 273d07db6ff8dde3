"""
aiosmtpd as destination. It keeps what it gets, so that here, and only here, all of the corpus is compared: Postfix puts
an empty line into a message that has no header.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.corpus import corpus
from tests.interop.sending import address, compare, hand_over, without_received
from tests.peers.keeper import Keeper
from tests.service import scratch, service, until


class AiosmtpdTests(SynchronousTestCase):
    """The corpus arrives whole, once, over few TLS connections."""

    def setUp(self) -> None:
        self.keeper = Keeper(scratch(self))
        self.addCleanup(self.keeper.stop)
        self.service = service(
            self,
            relayhost=self.keeper.relayhost,
            smtp_tls_security_level="encrypt",
            message_size_limit="60000000",
        )
        self.service.start()

    def test_corpus(self) -> None:
        """
        Every one of sixty messages is what it was but for one Received field on top, it comes once, and each that is
        not its session's first has its line of reuse and its conn_use.
        """
        messages = corpus()
        self.assertEqual(len(messages), 60)
        hand_over(self.service.address, messages)
        until(lambda: len(self.service.maillog("status=sent (250 2.0.0 kept)")) == 60, self.service.log)
        compare(
            self,
            {name: without_received(content) for name, content in self.keeper.kept().items()},
            {address(name): content for name, content in messages.items()},
        )
        counts = self.keeper.counts()
        self.assertEqual((counts["message"], counts["connection"]), (60, counts["handshake"]))
        self.assertEqual(len(self.service.maillog("TLS connection reused to")), 60 - counts["handshake"])
        self.assertEqual(len(self.service.maillog(", conn_use=")), 60 - counts["handshake"])
        self.assertLessEqual(counts["handshake"], 20)
