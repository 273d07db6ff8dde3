"""
Postfix as destination with STARTTLS, and Postfix as client that relays through us.

Postfix is told to keep long lines and headers; it puts an empty line into a message that has no header, so those few of
the corpus are compared at aiosmtpd alone.
"""

from __future__ import annotations

import re
import smtplib
import subprocess
import time
from collections import Counter
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.corpus import corpus
from tests.interop.sending import address, compare, hand_over, without_received
from tests.interop.towards_postfix import DestinationTestCase, numbered
from tests.peers import program
from tests.peers.keeper import Keeper
from tests.peers.postfix import Postfix, without_trace
from tests.service import LIMIT, scratch, service, until

_HEADERLESS = {"empty", "only-a-newline", "only-a-dot", "only-two-dots", "only-newlines-and-dots", "no-header"}
_DELIVERED_TO = re.compile(rb"^Delivered-To: (.*)$", re.MULTILINE)
_CONN_USE = re.compile(r", conn_use=(\d+), ")


def with_header() -> dict[str, bytes]:
    """What of the corpus passes through Postfix unchanged."""
    return {name: content for name, content in corpus().items() if name not in _HEADERLESS}


def mailbox(postfix: Postfix) -> dict[str, bytes]:
    """What Postfix keeps, by recipient, without trace fields."""
    came = {}
    for content in postfix.delivered():
        found = _DELIVERED_TO.search(content)
        assert found is not None
        recipient = found[1].decode()
        assert recipient not in came, f"the message to {recipient} came twice"
        came[recipient] = without_trace(content)
    return came


class DestinationTests(DestinationTestCase):
    """The service delivers to Postfix over few connections, whole and once, and says so."""

    def test_corpus(self) -> None:
        """Every message that has a header comes once, and is what it was but for trace fields."""
        messages = with_header()
        self.service.start()
        self.deliver(messages, len(messages))
        compare(self, mailbox(self.postfix), {address(name): content for name, content in messages.items()})
        connections, handshakes = self.seen()
        self.assertEqual(connections, handshakes)
        self.assertEqual(len(self.service.maillog("TLS connection reused to")), len(messages) - handshakes)

    def test_reuse(self) -> None:
        """
        Each transaction that is not its session's first has its line of reuse and its conn_use, as many as there are
        messages less handshakes at the destination: of a hundred that come at once, and of thirty more after three
        seconds in which nothing comes. Then a session that rested carries on.
        """
        self.service.start("-o", "smtp_connection_cache_time_limit=1h")
        smtp_source = [program("smtp-source"), "-s", "10", "-m", "100", "-t", "many@sink.test"]
        subprocess.run([*smtp_source, f"127.0.0.1:{self.service.port}"], check=True, timeout=LIMIT)
        self.sent(100)
        before, ended = self.seen(), time.monotonic() + 3
        until(lambda: time.monotonic() > ended, self.logs)
        self.assertEqual(self.seen(), before)
        self.deliver(numbered("late", 30), 130)
        connections, handshakes = self.seen()
        self.assertEqual(connections, handshakes)
        self.assertEqual(len(self.service.maillog("TLS connection established to")), handshakes)
        self.assertEqual(len(self.service.maillog("TLS connection reused to")), 130 - handshakes)
        uses = Counter(int(found[1]) for found in _CONN_USE.finditer(self.service.log()))
        self.assertEqual(uses.total(), 130 - handshakes)
        # A session has a second use before it has a third.
        self.assertEqual(min(uses), 2)
        self.assertTrue(all(uses[use] >= uses[use + 1] for use in range(2, max(uses))), uses)
        self.assertLessEqual(connections, 20)
        late = [line for line in self.service.maillog("to=<late-") if "status=" in line]
        self.assertIn("conn_use=", late[0], "the sessions that rested were not used")

    def test_without_reuse(self) -> None:
        """With smtp_tls_connection_reuse = no every message has a connection, and no line tells of reuse."""
        self.service.start("-o", "smtp_tls_connection_reuse=no")
        self.deliver(numbered("alone", 10), 10)
        self.assertEqual(self.seen(), (10, 10))
        self.assertEqual(self.service.maillog("TLS connection reused to") + self.service.maillog("conn_use="), [])


class PlaintextTests(DestinationTestCase):
    """Connections to a Postfix without STARTTLS are kept just the same, where TLS is not asked for."""

    offers_tls = False

    def test_reuse(self) -> None:
        """Transactions that are not their session's first have a conn_use, and no line tells of TLS."""
        self.service.start()
        self.deliver(numbered("plain", 30), 30)
        connections, handshakes = self.seen()
        self.assertEqual((handshakes, self.service.maillog("TLS connection")), (0, []))
        self.assertEqual(len(self.service.maillog(", conn_use=")), 30 - connections)
        self.assertLessEqual(connections, 20)


class RefusedCase(DestinationTestCase):
    """What Postfix refuses comes back to its sender."""

    def bounced(self, name: str, content: bytes) -> EmailMessage:
        """Hand a message over, and wait for the bounce in the sender's mailbox at the same Postfix."""
        hand_over(self.service.address, {name: content}, sender="writer@sink.test")
        until(lambda: self.postfix.count() == 1, self.logs)
        (bounce,) = self.postfix.delivered()
        return message_from_bytes(bounce, policy=policy.default)


class SizeTests(RefusedCase):
    """Postfix says at the start of a session how much it takes."""

    settings: ClassVar[dict[str, str]] = {"message_size_limit": "20000"}

    def test_too_large(self) -> None:
        """What is larger than Postfix says it takes is returned without being sent."""
        self.service.start()
        bounce = self.bounced("large", b"Subject: x\r\n\r\n" + b"line\r\n" * 10_000)
        _, status, original = bounce.iter_parts()
        self.assertEqual(status.get_payload()[1]["Status"], "5.3.4")
        self.assertNotIn("line", original.as_string())
        # As the size was said with MAIL, Postfix has seen none of it: all that it queued is the bounce.
        log = self.postfix.settled_log()
        self.assertIn("reject: MAIL from unknown[127.0.0.1]: 552 5.3.4", log)
        self.assertEqual(log.count(": client="), 1)


class RefusalTests(RefusedCase):
    """What Postfix refuses is told to the sender."""

    def test_bounce(self) -> None:
        """A mailbox that is not there: the bounce is parseable, names the recipient, and has the reply and the mail."""
        self.service.start()
        bounce = self.bounced("gone", b"Subject: lost\r\nMessage-ID: <lost@source.test>\r\n\r\nsecret body\r\n")
        self.assertEqual((bounce["Return-Path"], bounce["Delivered-To"]), ("<>", "writer@sink.test"))
        self.assertEqual(bounce.get_content_type(), "multipart/report")
        self.assertEqual(bounce["Content-Type"].params["report-type"], "delivery-status")
        self.assertEqual(bounce["Auto-Submitted"], "auto-replied")
        self.assertEqual(bounce.defects, [])
        text, status, original = bounce.iter_parts()
        self.assertIn("<gone@sink.test>", text.get_content())
        self.assertEqual(status.get_content_type(), "message/delivery-status")
        _, of_recipient = status.get_payload()
        self.assertEqual(of_recipient["Final-Recipient"], "rfc822; gone@sink.test")
        self.assertEqual((of_recipient["Action"], of_recipient["Status"]), ("failed", "5.1.1"))
        self.assertIn("no such mailbox here", of_recipient["Diagnostic-Code"])
        self.assertTrue(of_recipient["Diagnostic-Code"].startswith("smtp; 550 5.1.1 "), of_recipient.as_string())
        self.assertIn("Message-ID: <lost@source.test>", original.as_string())
        (told,) = self.service.maillog("sender non-delivery notification: ")
        queue_id = told.rpartition(" ")[2]
        until(lambda: len(self.service.maillog(f"{queue_id}: removed")) == 1, self.logs)
        (refused,) = self.service.maillog("status=bounced")
        self.assertIn("dsn=5.1.1, status=bounced (host ", refused)

    def test_some_recipients(self) -> None:
        """
        Of three recipients of one message one gets it, one is told of in a bounce, and one waits in the queue.
        """
        self.service.start()
        with smtplib.SMTP(*self.service.address, timeout=LIMIT) as client:
            recipients = [address(name) for name in ("gone", "good", "later")]
            client.sendmail("writer@sink.test", recipients, b"Subject: x\r\n\r\nbody\r\n")
        until(lambda: self.postfix.count() == 2, self.logs)
        came = mailbox(self.postfix)
        self.assertEqual(came["good@sink.test"], b"Subject: x\r\n\r\nbody\r\n")
        bounce = message_from_bytes(came["writer@sink.test"], policy=policy.default)
        self.assertEqual(set(re.findall(r"[a-z]+@sink\.test", bounce.get_body().get_content())), {"gone@sink.test"})
        until(lambda: len(self.service.maillog("sender non-delivery")) == 1, self.logs)
        (left,) = self.service.ask("queue", "list")
        waiting = [recipient["address"] for recipient in left["recipients"]]
        self.assertEqual((left["queue_name"], waiting), ("deferred", ["later@sink.test"]))

    def test_no_bounce_to_nobody(self) -> None:
        """Mail of the null sender that is refused ends without a bounce."""
        self.service.start()
        hand_over(self.service.address, {"gone": b"Subject: x\r\n\r\nbody\r\n"}, sender="")
        until(lambda: len(self.service.maillog(": removed")) == 1, self.logs)
        self.assertEqual(len(self.service.maillog("status=bounced")), 1)
        self.assertEqual(self.service.maillog("sender non-delivery notification"), [])
        self.assertEqual(self.service.ask("queue", "list"), [])

    def test_session_survives(self) -> None:
        """A recipient that is refused costs its message and not the session: what comes next goes the same way."""
        self.service.start(
            "-o", "smtp_connection_cache_destinations=127.0.0.1", "-o", "smtp_connection_cache_time_limit=1h"
        )
        for done, name in enumerate(("first", "gone", "second", "later", "third", "gone", "last"), 1):
            hand_over(self.service.address, {name: b"Subject: x\r\n\r\nbody\r\n"}, sender="")
            until(lambda done=done: len(self.service.maillog("status=")) == done, self.logs)
        counted = Counter(found[1] for found in re.finditer(r" status=(\w+) ", self.service.log()))
        self.assertEqual(counted, {"sent": 4, "bounced": 2, "deferred": 1})
        self.assertEqual(self.seen(), (1, 1))
        self.assertEqual(len(self.service.maillog("TLS connection reused to")), 6)


class ClientTests(SynchronousTestCase):
    """Postfix relays through the service, as in the README's recipe."""

    def test_relays_through_us(self) -> None:
        """The corpus passes through Postfix and the service: what was sent is what arrives, once."""
        keeper = Keeper(scratch(self))
        self.addCleanup(keeper.stop)
        relay = service(
            self, relayhost=keeper.relayhost, smtp_tls_security_level="encrypt", message_size_limit="60000000"
        )
        postfix = Postfix(
            relayhost=f"[127.0.0.1]:{relay.start()}", virtual_mailbox_domains="", smtp_line_length_limit="0"
        )
        self.addCleanup(postfix.stop)
        postfix.start()
        messages = with_header()
        hand_over(postfix.address, messages)
        until(lambda: keeper.counts()["message"] >= len(messages), lambda: postfix.log() + relay.log())
        # Postfix's own Received field is below ours.
        came = {name: without_received(without_received(content)) for name, content in keeper.kept().items()}
        compare(self, came, {address(name): content for name, content in messages.items()})
        self.assertEqual(keeper.counts()["message"], len(messages))
        self.assertLessEqual(keeper.counts()["handshake"], 20)
