"""
Tests of L{smtpreuse.model.logline}.
"""

from __future__ import annotations

import re

from attrs import evolve
from hypothesis import given
from hypothesis.strategies import floats, integers, text
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model import logline
from smtpreuse.model.delivery import DeliveryReport, Ending, Outcome
from smtpreuse.model.message import Recipient
from smtpreuse.model.tlsfacts import TLSResult

RECIPIENT = Recipient(row=1, address="user@example.com", hop="smtp:example.com")
SENT = Outcome(recipient=RECIPIENT, ending=Ending.DELIVERED, status="2.0.0", text="250 2.0.0 ok queued")
REPORT = DeliveryReport(
    ticket=1, outcomes=(SENT,), relay="mx.example.com[192.0.2.1]:25", uses=1,
    started=102.3, ready=102.31, finished=103.5,
)  # fmt: skip
TLS = TLSResult(protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", bits=256)
# What pflogsumm and its like look for.
TOOL = re.compile(
    r"([0-9A-Za-z]+): to=<([^>]*)>, (?:orig_to=<([^>]*)>, )?relay=([^,]+), (?:conn_use=([0-9]+), )?"
    r"delay=([0-9.]+), delays=([0-9.]+)/([0-9.]+)/([0-9.]+)/([0-9.]+), dsn=([245]\.[0-9]+\.[0-9]+), "
    r"status=(sent|deferred|bounced) \((.*)\)"
)


def attempt(outcome: Outcome = SENT, report: DeliveryReport = REPORT) -> str:
    """The line of one attempt."""
    return logline.attempt("4ZabcdQ12z", 100.0, 100.25, report, outcome)


class AttemptTests(SynchronousTestCase):
    """What became of a recipient is one line of Postfix's form."""

    def test_sent(self) -> None:
        """The first delivery of a session has no C{conn_use}."""
        self.assertEqual(
            attempt(),
            "4ZabcdQ12z: to=<user@example.com>, relay=mx.example.com[192.0.2.1]:25, delay=3.5,"
            " delays=0.25/2/0.01/1.2, dsn=2.0.0, status=sent (250 2.0.0 ok queued)",
        )

    def test_reused(self) -> None:
        """From the second on C{conn_use} counts."""
        self.assertEqual(
            attempt(report=evolve(REPORT, uses=2)),
            "4ZabcdQ12z: to=<user@example.com>, relay=mx.example.com[192.0.2.1]:25, conn_use=2, delay=3.5,"
            " delays=0.25/2/0.01/1.2, dsn=2.0.0, status=sent (250 2.0.0 ok queued)",
        )

    def test_original(self) -> None:
        """An address that was another one before is shown with it, unless only its case changed."""
        self.assertIn(
            ": to=<user@example.com>, orig_to=<user>, relay=",
            attempt(evolve(SENT, recipient=evolve(RECIPIENT, original="user"))),
        )
        self.assertNotIn("orig_to", attempt(evolve(SENT, recipient=evolve(RECIPIENT, original="User@Example.COM"))))

    def test_deferred(self) -> None:
        """Without a session there is no relay."""
        outcome = Outcome(
            recipient=RECIPIENT, ending=Ending.REFUSED, status="4.4.1",
            text="connect to mx.example.com[192.0.2.1]:25: Connection refused",
        )  # fmt: skip
        report = DeliveryReport(ticket=1, outcomes=(outcome,), started=100.25, ready=100.25, finished=100.25)
        self.assertEqual(
            attempt(outcome, report),
            "4ZabcdQ12z: to=<user@example.com>, relay=none, delay=0.25, delays=0.25/0/0/0, dsn=4.4.1, status=deferred"
            " (connect to mx.example.com[192.0.2.1]:25: Connection refused)",
        )

    def test_bounced(self) -> None:
        """The class of the status decides the word."""
        outcome = Outcome(
            recipient=RECIPIENT, ending=Ending.REFUSED, status="5.1.1",
            text="host mx.example.com[192.0.2.1] said: 550 5.1.1 unknown (in reply to RCPT TO command)",
        )  # fmt: skip
        self.assertTrue(
            attempt(outcome).endswith(
                ", dsn=5.1.1, status=bounced (host mx.example.com[192.0.2.1] said: 550 5.1.1 unknown"
                " (in reply to RCPT TO command))"
            )
        )

    @given(integers(1, 1000), floats(0, 1e6), floats(0, 1e6), floats(0, 1e6))
    def test_tools(self, uses: int, started: float, ready: float, finished: float) -> None:
        """Whatever the facts are, log tools find them all."""
        report = evolve(REPORT, uses=uses, started=started, ready=ready, finished=finished)
        match = TOOL.fullmatch(attempt(report=report))
        assert match is not None
        self.assertEqual(match[1], "4ZabcdQ12z")
        self.assertEqual(match[2], "user@example.com")
        self.assertEqual(match[5], str(uses) if uses > 1 else None)
        self.assertEqual(match[12], "sent")


class SecondsTests(SynchronousTestCase):
    """Delays have Postfix's number format."""

    def test_forms(self) -> None:
        """Two significant digits, at most two decimals, no zeros behind, whole from 100 on."""
        for duration, written in (
            (0.0, "0"), (0.004, "0"), (0.0051, "0.01"), (0.014, "0.01"), (0.0151, "0.02"), (0.04, "0.04"),
            (0.094, "0.09"), (0.0951, "0.1"), (0.0999, "0.1"), (0.1, "0.1"), (0.137, "0.14"), (0.5, "0.5"),
            (0.72, "0.72"), (0.996, "1"), (1.0, "1"), (1.04, "1"), (1.34, "1.3"), (9.94, "9.9"), (9.97, "10"),
            (10.4, "10"), (17.3, "17"), (20.0, "20"), (99.4, "99"), (99.6, "100"), (100.0, "100"), (123.4, "123"),
            (86400.0, "86400"), (1234567.8, "1234568"),
        ):  # fmt: skip
            self.assertEqual(logline.seconds(duration), written, duration)

    def test_clock_set_back(self) -> None:
        """Time never runs backwards in the log."""
        self.assertEqual(logline.seconds(-0.001), "0")
        self.assertEqual(logline.seconds(-3600.0), "0")

    @given(floats(0, 1e7))
    def test_near(self, duration: float) -> None:
        """What is written is not far from what was."""
        written = logline.seconds(duration)
        self.assertRegex(written, r"\A(0|[1-9][0-9]*|[0-9]\.[0-9]?[1-9])\Z")
        allowed = 0.00501 if duration < 1 else 0.0501 if duration < 10 else 0.501
        self.assertLessEqual(abs(float(written) - duration), allowed)


class TLSTests(SynchronousTestCase):
    """What TLS a session has is told at its beginning and at every reuse."""

    def test_established(self) -> None:
        """A new session."""
        self.assertEqual(
            logline.established("Untrusted", "mx.example.com[192.0.2.1]:25", TLS),
            "Untrusted TLS connection established to mx.example.com[192.0.2.1]:25: TLSv1.3 with cipher"
            " TLS_AES_256_GCM_SHA384 (256/256 bits)",
        )

    def test_established_from(self) -> None:
        """A client's; it was asked for no certificate."""
        self.assertEqual(
            logline.established_from("unknown[192.0.2.1]", TLS),
            "Anonymous TLS connection established from unknown[192.0.2.1]: TLSv1.3 with cipher"
            f" {TLS.cipher} ({TLS.bits}/{TLS.bits} bits)",
        )

    def test_reused(self) -> None:
        """Another transaction of a session."""
        self.assertEqual(
            logline.reused("Anonymous", "mx.example.com[2001:db8::1]:25", evolve(TLS, protocol="TLSv1.2", bits=128)),
            "Anonymous TLS connection reused to mx.example.com[2001:db8::1]:25: TLSv1.2 with cipher"
            " TLS_AES_256_GCM_SHA384 (128/128 bits)",
        )


class QueueTests(SynchronousTestCase):
    """The life of a message."""

    def test_lines(self) -> None:
        """Each step is a line of Postfix's form."""
        self.assertEqual(logline.client("4Aa", "a.example.com[192.0.2.9]"), "4Aa: client=a.example.com[192.0.2.9]")
        self.assertEqual(logline.message_id("4Aa", "<1@example.com>"), "4Aa: message-id=<1@example.com>")
        self.assertEqual(logline.message_id("4Aa", ""), "4Aa: message-id=<>")
        self.assertEqual(
            logline.active("4Aa", "sender@example.com", 4096, 3),
            "4Aa: from=<sender@example.com>, size=4096, nrcpt=3 (queue active)",
        )
        self.assertEqual(
            logline.expired("4Aa", "sender@example.com"),
            "4Aa: from=<sender@example.com>, status=expired, returned to sender",
        )
        self.assertEqual(logline.bounced("4Aa", "4Ab"), "4Aa: sender non-delivery notification: 4Ab")
        self.assertEqual(logline.removed("4Aa"), "4Aa: removed")

    def test_null_sender(self) -> None:
        """The null sender is empty between its brackets."""
        self.assertEqual(logline.active("4Aa", "", 1, 1), "4Aa: from=<>, size=1, nrcpt=1 (queue active)")


class CleanTests(SynchronousTestCase):
    """What does not print becomes a question mark."""

    def test_clean(self) -> None:
        """Line ends, controls of both sets, text direction and lone surrogates; letters of any script stay."""
        self.assertEqual(
            logline.clean("a\r\nb\tc\x00\x1b[2J\x7f\x9b\u202e\udcff\u2028 grün 名"), "a??b?c??[2J????? grün 名"
        )

    @given(text())
    def test_always(self, anything: str) -> None:
        """The result prints, has the same length, and stays when it is cleaned again."""
        cleaned = logline.clean(anything)
        self.assertTrue(cleaned.isprintable())
        self.assertEqual(len(cleaned), len(anything))
        self.assertEqual(logline.clean(cleaned), cleaned)
