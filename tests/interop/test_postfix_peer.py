"""
The foreign Postfix that other tests speak with, tried alone: that it keeps messages as they come, so that what another
test sees in its mailbox is what was sent.
"""

from __future__ import annotations

import smtplib

from twisted.trial.unittest import SynchronousTestCase

from tests.peers.postfix import LIMIT, Postfix, without_trace
from tests.service import until


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
        until(lambda: postfix.count() == 1, postfix.log)
        self.assertEqual([without_trace(kept) for kept in postfix.delivered()], [content])
        until(lambda: "status=sent" in postfix.log(), postfix.log)


class WithoutTraceTests(SynchronousTestCase):
    """The trace fields at the top go, all others stay."""

    def test_top_only(self) -> None:
        """A field of the same name further down belongs to the message."""
        kept = b"Return-Path: <a>\nReceived: from x\n\tby y\nSubject: x\nReceived: z\n\nbody\n"
        self.assertEqual(without_trace(kept), b"Subject: x\r\nReceived: z\r\n\r\nbody\r\n")
