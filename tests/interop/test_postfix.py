"""
Postfix as destination with STARTTLS, and Postfix as client that relays through us.
"""

from __future__ import annotations

import re
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.corpus import corpus
from tests.interop.sending import compare, hand_over
from tests.peers.ours import LIMIT, Service, until
from tests.peers.postfix import Postfix, without_trace
from tests.peers.sinks import Sink

# Postfix puts an empty line between its own fields and content that has no header.
_HEADERLESS = {"empty", "only-a-newline", "only-a-dot", "only-two-dots", "only-newlines-and-dots", "no-header"}
_DELIVERED_TO = re.compile(rb"^Delivered-To: (.*)@sink\.test$", re.MULTILINE)


def mailbox(postfix: Postfix) -> dict[str, bytes]:
    """What Postfix keeps, by name of the message, without trace fields."""
    came = {}
    for content in postfix.delivered():
        found = _DELIVERED_TO.search(content)
        assert found is not None
        name = found[1].decode()
        assert name not in came, f"{name} came twice"
        came[name] = without_trace(content)
    return came


class DestinationTests(SynchronousTestCase):
    """The service delivers to Postfix over few connections, whole and once."""

    def setUp(self) -> None:
        self.postfix = Postfix()
        self.addCleanup(self.postfix.stop)
        self.postfix.start()
        host, port = self.postfix.address
        self.service = Service(
            {
                "relayhost": f"[{host}]:{port}",
                "smtp_tls_security_level": "encrypt",
                "message_size_limit": "60000000",
            }
        )
        self.addCleanup(self.service.remove)

    def lines(self, pattern: str) -> int:
        """How many lines of the service's log have this in them."""
        return self.service.log().count(pattern)

    def deliver(self, server: tuple[str, int], messages: dict[str, bytes], all_so_far: int) -> None:
        """Hand them over, and wait until all that were handed over so far are in the mailbox."""
        hand_over(server, messages)
        until(lambda: len(self.postfix.delivered()) >= all_so_far, lambda: self.service.log() + self.postfix.log())
        until(lambda: self.lines("status=sent") >= all_so_far, self.service.log)

    def test_corpus(self) -> None:
        """Every message with a header is what it was, but for trace fields."""
        messages = {name: content for name, content in corpus().items() if name not in _HEADERLESS}
        self.deliver(self.service.start(), messages, len(messages))
        compare(self, mailbox(self.postfix), messages)

    def test_reuse(self) -> None:
        """
        Each transaction that is not its session's first has its line of reuse: as many as there are messages less
        connections, also when nothing came for three seconds in the middle.
        """
        server = self.service.start()
        first = {f"first-{number}": b"Subject: x\r\n\r\nbody\r\n" for number in range(30)}
        second = {f"second-{number}": b"Subject: x\r\n\r\nbody\r\n" for number in range(30)}
        self.deliver(server, first, 30)
        time.sleep(3)
        self.deliver(server, second, 60)
        connections = self.postfix.log().count(": connect from ") - 1  # that which asked whether it was ready
        self.assertEqual(self.lines("TLS connection established to"), connections)
        self.assertEqual(self.lines("TLS connection reused to"), 60 - connections)
        self.assertLess(connections, 20)


class ClientTests(SynchronousTestCase):
    """Postfix relays through the service, as in the README's recipe."""

    def test_relays_through_us(self) -> None:
        """The corpus passes through Postfix and the service; what Postfix sent is what arrives."""
        sink = Sink("--tls", "required", capture=True)
        self.addCleanup(sink.remove)
        service = Service(
            {
                "relayhost": sink.relayhost,
                "smtp_tls_security_level": "encrypt",
                "message_size_limit": "60000000",
                "smtpd_recipient_limit": "100",
            }
        )
        self.addCleanup(service.remove)
        host, port = service.start()
        postfix = Postfix(relayhost=f"[{host}]:{port}", virtual_mailbox_domains="", smtp_line_length_limit="0")
        self.addCleanup(postfix.stop)
        postfix.start()
        messages = {name: content for name, content in corpus().items() if name not in _HEADERLESS}
        hand_over(postfix.address, messages)
        until(
            lambda: sink.counts()["messages"] >= len(messages), lambda: postfix.log() + service.log(), limit=2 * LIMIT
        )
        self.assertEqual(sink.counts()["doubled"], 0)
        came = {name: without_trace(content.replace(b"\r\n", b"\n")) for name, content in sink.by_recipient().items()}
        compare(self, {name.partition("@")[0]: content for name, content in came.items()}, messages)
