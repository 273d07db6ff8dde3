"""
A service that delivers to a real Postfix over STARTTLS, for all tests that look at either's log.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.sending import hand_over
from tests.peers.postfix import Postfix
from tests.service import service, until

# What Postfix answers to these recipients.
REFUSALS = {
    "gone@sink.test": "550 5.1.1 no such mailbox here",
    "later@sink.test": "450 4.2.1 mailbox busy",
}


def numbered(stem: str, messages: int) -> dict[str, bytes]:
    """Small messages."""
    return {f"{stem}-{number}": b"Subject: x\r\n\r\nbody\r\n" for number in range(messages)}


class DestinationTestCase(SynchronousTestCase):
    """
    A service that delivers to a Postfix.

    @cvar offers_tls: whether Postfix has STARTTLS, and the service asks for it.
    @cvar settings: more of Postfix's main.cf.
    """

    offers_tls = True
    settings: Mapping[str, str] = {}

    def setUp(self) -> None:
        refusals = ", ".join(f"{{ {recipient} = {reply} }}" for recipient, reply in REFUSALS.items())
        self.postfix = Postfix(
            smtpd_recipient_restrictions=f"check_recipient_access inline:{{ {refusals} }}, permit_mynetworks, reject",
            smtpd_tls_security_level="may" if self.offers_tls else "none",
            **self.settings,
        )
        self.addCleanup(self.postfix.stop)
        self.postfix.start()
        host, port = self.postfix.address
        self.service = service(
            self,
            relayhost=f"[{host}]:{port}",
            smtp_tls_security_level="encrypt" if self.offers_tls else "may",
            message_size_limit="60000000",
        )

    def deliver(self, messages: dict[str, bytes], all_so_far: int) -> None:
        """Hand them over, and wait until all that were handed over so far are sent."""
        hand_over(self.service.address, messages)
        self.sent(all_so_far)

    def sent(self, messages: int) -> None:
        """Wait until so many are sent, and in the mailbox."""
        until(lambda: len(self.service.maillog("status=sent")) >= messages, self.logs)
        until(lambda: self.postfix.count() >= messages, self.logs)

    def logs(self) -> str:
        """What both said."""
        return f"{self.service.log()}\n{self.postfix.log()}"

    def seen(self) -> tuple[int, int]:
        """The connections and the TLS handshakes that Postfix saw, but for those that asked whether it was ready."""
        log = self.postfix.settled_log()
        return log.count(": connect from ") - self.postfix.probes, log.count(" TLS connection established from ")
