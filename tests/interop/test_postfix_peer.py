"""
The foreign Postfix that other tests speak with, tried alone: that it keeps messages as they come, so that what another
test sees in its mailbox is what was sent.
"""

from __future__ import annotations

import smtplib
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.peers.postfix import LIMIT, Postfix, without_trace


class PostfixTests(SynchronousTestCase):
    """A private Postfix keeps what it takes, octet for octet but for trace fields."""

    def test_keeps(self) -> None:
        """Content comes out as it went in."""
        postfix = Postfix()
        self.addCleanup(postfix.stop)
        postfix.start()
        content = b"From: <a@x.test>\r\nMessage-ID: <1@x>\r\n\r\n.\r\n..\xe4\r\n" + b"x" * 100000 + b"\r\n"
        with smtplib.SMTP(*postfix.address, timeout=LIMIT) as client:
            client.sendmail("a@x.test", ["b@sink.test"], content)
        end = time.monotonic() + LIMIT
        while not postfix.delivered() and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual([without_trace(kept) for kept in postfix.delivered()], [content])
        self.assertIn("status=sent", postfix.log())


class WithoutTraceTests(SynchronousTestCase):
    """The trace fields at the top go, all others stay."""

    def test_top_only(self) -> None:
        """A field of the same name further down belongs to the message."""
        kept = b"Return-Path: <a>\nReceived: from x\n\tby y\nSubject: x\nReceived: z\n\nbody\n"
        self.assertEqual(without_trace(kept), b"Subject: x\r\nReceived: z\r\n\r\nbody\r\n")
