"""
Tests of L{smtpreuse.cli.destination}. STARTTLS over real sockets is tested in C{tests.system.test_sink}.
"""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import ITLSTransport
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from smtpreuse.cli.destination import COMMAND_LIMIT, Destination, DestinationProtocol
from smtpreuse.cli.habits import Demand, Habits

ENVELOPE = b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n"
PLAIN = Habits(demand=Demand.OFF)


@implementer(ITLSTransport)
class TLSTransport(StringTransport):
    """Records where TLS began."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing is delayed here."""

    def startTLS(self, options: CertificateOptions) -> None:
        """TLS begins."""
        self.write(b"[TLS]")


class Talk:
    """A connection to a destination, from the client's side."""

    def __init__(self, destination: Destination) -> None:
        self.transport = TLSTransport()
        self.protocol = destination.buildProtocol(None)
        assert isinstance(self.protocol, DestinationProtocol)
        self.protocol.makeConnection(self.transport)

    def say(self, octets: bytes) -> list[str]:
        """Send octets; the codes of the replies."""
        self.transport.clear()
        self.protocol.dataReceived(octets)
        return self.codes()

    def codes(self) -> list[str]:
        """The codes of the replies since the last command."""
        return [line[:4].strip().decode() for line in self.transport.value().splitlines()]

    @property
    def over(self) -> bool:
        """Whether the server closed."""
        return self.transport.disconnecting


class DestinationTestCase(SynchronousTestCase):
    """A destination on a clock of its own."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.kept: list[bytes] = []

    def destination(self, habits: Habits = PLAIN, certificate: CertificateOptions | None = None) -> Destination:
        """A new one."""
        return Destination(self.clock, habits, certificate)

    def greeted(self, destination: Destination) -> Talk:
        """A connection behind EHLO."""
        talk = Talk(destination)
        talk.say(b"EHLO client.test\r\n")
        return talk


class DialogueTests(DestinationTestCase):
    """Commands have their replies, in whatever pieces they come."""

    def test_greeting(self) -> None:
        """The server greets first."""
        talk = Talk(self.destination())
        self.assertEqual(talk.codes(), ["220"])

    def test_extensions(self) -> None:
        """EHLO lists what is offered; without a certificate to show no STARTTLS."""
        talk = Talk(self.destination())
        talk.say(b"EHLO client.test\r\n")
        self.assertEqual(
            talk.transport.value().split(b"\r\n"),
            [
                b"250-sink.test",
                b"250-PIPELINING",
                b"250-SIZE 104857600",
                b"250-8BITMIME",
                b"250 ENHANCEDSTATUSCODES",
                b"",
            ],
        )

    def test_transaction(self) -> None:
        """A whole transaction in one group is answered and counted."""
        destination = self.destination()
        talk = self.greeted(destination)
        self.assertEqual(talk.say(ENVELOPE), ["250", "250", "354"])
        self.assertEqual(talk.say(b"Subject: x\r\n\r\nbody\r\n.\r\nQUIT\r\n"), ["250", "221"])
        self.assertTrue(talk.over)
        self.assertEqual((destination.tally.messages, destination.tally.octets), (1, 20))

    def test_next_transaction_behind_the_content(self) -> None:
        """The next MAIL may come with the final dot (RFC 2920 section 3.1)."""
        talk = self.greeted(self.destination())
        talk.say(ENVELOPE)
        self.assertEqual(talk.say(b"x\r\n.\r\n" + ENVELOPE), ["250", "250", "250", "354"])
        self.assertEqual(talk.say(b".\r\n"), ["250"])

    def test_every_verb(self) -> None:
        """Each verb has its reply, in any case of letters."""
        talk = self.greeted(self.destination())
        for command, code in [
            (b"helo client.test", "250"),
            (b"NOOP", "250"),
            (b"HELP", "250"),
            (b"Vrfy <a@x.test>", "252"),
            (b"RSET", "250"),
            (b"STARTTLS", "502"),
            (b"WHAT", "500"),
        ]:
            self.assertEqual(talk.say(command + b"\r\n"), [code], command)

    def test_order(self) -> None:
        """A command at the wrong time is refused."""
        talk = Talk(self.destination())
        self.assertEqual(talk.say(b"MAIL FROM:<a@x.test>\r\n"), ["503"])
        talk.say(b"EHLO client.test\r\n")
        self.assertEqual(talk.say(b"RCPT TO:<b@y.test>\r\nDATA\r\n"), ["503", "503"])
        self.assertEqual(talk.say(b"MAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\n"), ["250", "503", "503"])

    def test_arguments(self) -> None:
        """An address that is none is refused."""
        talk = self.greeted(self.destination())
        self.assertEqual(talk.say(b"MAIL a@x.test\r\n"), ["501"])
        self.assertEqual(talk.say(b"MAIL FROM:<a@x.test> SIZE=3\r\nRCPT TO:<>\r\nRCPT b\r\n"), ["250", "501", "501"])

    def test_rset_forgets(self) -> None:
        """RSET and EHLO end a transaction that has begun."""
        talk = self.greeted(self.destination())
        for command in (b"RSET\r\n", b"EHLO client.test\r\n"):
            talk.say(b"MAIL FROM:<>\r\nRCPT TO:<b@y.test>\r\n" + command)
            self.assertEqual(talk.say(b"DATA\r\n"), ["503"])

    def test_line_without_end(self) -> None:
        """A line that does not end in time ends the connection."""
        talk = self.greeted(self.destination())
        self.assertEqual(talk.say(b"N" * COMMAND_LIMIT), [])
        self.assertEqual(talk.say(b"N"), ["500"])
        self.assertTrue(talk.over)

    def test_nothing_after_quit(self) -> None:
        """What follows QUIT is not obeyed."""
        talk = self.greeted(self.destination())
        self.assertEqual(talk.say(b"QUIT\r\nNOOP\r\n"), ["221"])

    @given(st.lists(st.integers(min_value=0, max_value=200), max_size=5))
    def test_any_cut(self, cuts: list[int]) -> None:
        """Wherever the stream is cut, the same content is taken."""
        taken: list[bytes] = []

        class Recording(Destination):
            def take(self, sender: bytes, recipients: list[bytes], content: bytes, encrypted: bool) -> None:
                taken.append(content)

        stream = b"EHLO c\r\n" + ENVELOPE + b"..one\r\n.\r\n" + ENVELOPE + b"\r\n..\r\n...\r\nx\r\n.\r\nQUIT\r\n"
        places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
        talk = Talk(Recording(Clock(), PLAIN, None))
        for begin, end in pairwise(places):
            talk.protocol.dataReceived(stream[begin:end])
        self.assertEqual(taken, [b".one\r\n", b"\r\n.\r\n..\r\nx\r\n"])
        self.assertTrue(talk.over)


class LimitTests(DestinationTestCase):
    """A destination may be hard on its clients."""

    def test_connections(self) -> None:
        """Beyond the limit a connection is sent away, until one has ended."""
        destination = self.destination(evolve(PLAIN, max_connections=1))
        first, second = Talk(destination), Talk(destination)
        self.assertEqual((first.over, second.over), (False, True))
        self.assertEqual(second.codes(), ["421"])
        for talk in (first, second):
            talk.protocol.connectionLost()
        self.assertFalse(Talk(destination).over)
        self.assertEqual(destination.tally.connections, 3)

    def test_messages_per_connection(self) -> None:
        """After so many messages MAIL is answered 421, and the connection ends."""
        talk = self.greeted(self.destination(evolve(PLAIN, messages_per_connection=2)))
        for _ in range(2):
            talk.say(ENVELOPE)
            self.assertEqual(talk.say(b".\r\n"), ["250"])
        self.assertEqual(talk.say(ENVELOPE), ["421"])
        self.assertTrue(talk.over)

    def test_delay(self) -> None:
        """Each group of replies is held back for the delay, in order."""
        talk = Talk(self.destination(evolve(PLAIN, delay=2.0)))
        self.assertEqual(talk.codes(), [])
        self.clock.advance(1.0)
        talk.protocol.dataReceived(b"NOOP\r\nWHAT\r\n")
        self.assertEqual(talk.codes(), [])
        self.clock.advance(1.0)
        self.assertEqual(talk.codes(), ["220"])
        self.clock.advance(1.0)
        self.assertEqual(talk.codes(), ["220", "250", "500"])

    def test_delay_ends_with_the_connection(self) -> None:
        """A connection that ended leaves no timer behind."""
        talk = Talk(self.destination(evolve(PLAIN, delay=2.0)))
        talk.protocol.connectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_capture(self) -> None:
        """Each message is kept as it was before dot-stuffing, and its envelope beside it."""
        directory = self.mktemp()
        os.makedirs(directory)
        talk = self.greeted(self.destination(evolve(PLAIN, capture=directory)))
        talk.say(ENVELOPE)
        talk.say(b"..\r\n\xe4\r\n.\r\n")
        self.assertEqual(Path(directory, "000001.eml").read_bytes(), b".\r\n\xe4\r\n")
        self.assertEqual(
            json.loads(Path(directory, "000001.json").read_text()),
            {"sender": "a@x.test", "recipients": ["b@y.test"], "tls": False},
        )

    def test_tells_of_each_message(self) -> None:
        """Who wants to know is told after each message was counted."""
        destination = self.destination()
        seen: list[int] = []
        destination.on_message = lambda: seen.append(destination.tally.messages)
        talk = self.greeted(destination)
        talk.say(ENVELOPE)
        talk.say(b".\r\n" + ENVELOPE)
        talk.say(b".\r\n")
        self.assertEqual(seen, [1, 2])


class StarttlsTests(DestinationTestCase):
    """TLS may be offered, or asked for."""

    def setUp(self) -> None:
        super().setUp()
        self.certificate = CertificateOptions()

    def test_offered(self) -> None:
        """STARTTLS is the last line of EHLO, and mail is taken without."""
        talk = self.greeted(self.destination(Habits(demand=Demand.ON), self.certificate))
        self.assertTrue(talk.transport.value().endswith(b"250 STARTTLS\r\n"))
        self.assertEqual(talk.say(ENVELOPE), ["250", "250", "354"])

    def test_required(self) -> None:
        """No mail is taken without TLS."""
        talk = self.greeted(self.destination(Habits(demand=Demand.REQUIRED), self.certificate))
        self.assertEqual(talk.say(ENVELOPE), ["530", "503", "503"])

    def test_begins_behind_the_reply(self) -> None:
        """TLS begins behind the 220, and what was said before is forgotten: EHLO comes again, without STARTTLS."""
        talk = self.greeted(self.destination(Habits(demand=Demand.REQUIRED), self.certificate))
        talk.say(b"STARTTLS\r\n")
        self.assertEqual(talk.transport.value(), b"220 2.0.0 go ahead\r\n[TLS]")
        self.assertEqual(talk.say(b"MAIL FROM:<>\r\n"), ["503"])
        talk.say(b"EHLO client.test\r\n")
        self.assertNotIn(b"STARTTLS", talk.transport.value())
        self.assertEqual(talk.say(b"STARTTLS\r\n"), ["502"])
        self.assertEqual(talk.say(ENVELOPE), ["250", "250", "354"])

    def test_injected_plaintext(self) -> None:
        """Octets behind STARTTLS in the same packet end the connection."""
        talk = self.greeted(self.destination(Habits(demand=Demand.ON), self.certificate))
        self.assertEqual(talk.say(b"STARTTLS\r\nRSET\r\n"), [])
        self.assertTrue(talk.over)

    def test_begins_after_the_delay(self) -> None:
        """The delay holds back the 220 and what follows it."""
        talk = Talk(self.destination(Habits(demand=Demand.ON, delay=1.0), self.certificate))
        talk.protocol.dataReceived(b"STARTTLS\r\n")
        self.clock.advance(1.0)
        self.assertTrue(talk.transport.value().endswith(b"220 2.0.0 go ahead\r\n[TLS]"))
