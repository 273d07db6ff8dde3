"""
Tests of L{smtpreuse.intake.smtpd}.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, INegotiated, IPushProducer, ISystemHandle
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from smtpreuse.config.load import settings_of
from smtpreuse.intake.smtpd import READ_AHEAD, SMTPD, SMTPDFactory
from smtpreuse.model.queueid import QueueIds
from tests.intake.fakes import FakeMailLog, FakeRouter, FakeSpool

ENVELOPE = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
LOCAL = IPv4Address("TCP", "127.0.0.1", 40000)
STRANGER = IPv4Address("TCP", "192.0.2.1", 40000)


class Wire(StringTransport):
    """Keeps each write by itself."""

    def __init__(self, peer: IAddress) -> None:
        super().__init__(peerAddress=peer)
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        super().write(data)


class SMTPDTests(SynchronousTestCase):
    """
    Connections are counted, timed, and ended politely; replies go out in one piece.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.spool = FakeSpool()
        self.maillog = FakeMailLog()
        self.stored = 0

    def factory(self, **values: str) -> SMTPDFactory:
        """One with these parameters."""

        def accepted(message: object, content: object) -> None:
            self.stored += 1

        return SMTPDFactory(
            settings_of(myhostname="mx.example.com", **values), self.spool, FakeRouter(), accepted, self.maillog,
            self.clock, QueueIds(self.clock.seconds, 7),
        )

    def connected(self, factory: SMTPDFactory, peer: IAddress = LOCAL) -> tuple[SMTPD, Wire]:
        """A client that connected."""
        protocol, wire = factory.buildProtocol(peer), Wire(peer)
        protocol.makeConnection(wire)
        return protocol, wire

    def sent(self, protocol: SMTPD, *parts: bytes) -> None:
        """Each of these is read by itself."""
        for part in parts:
            protocol.dataReceived(part)

    def lost(self, protocol: SMTPD) -> None:
        """The connection is gone."""
        protocol.connectionLost(Failure(ConnectionDone()))

    def test_session(self) -> None:
        """A whole session; a pipelined group is answered with one write, and nothing is left when it is over."""
        factory = self.factory()
        protocol, wire = self.connected(factory)
        self.assertEqual(wire.writes, [b"220 mx.example.com ESMTP smtpreuse\r\n"])
        protocol.dataReceived(b"EHLO x\r\n")
        protocol.dataReceived(ENVELOPE)
        self.assertEqual(wire.writes[2], b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n")
        protocol.dataReceived(b"x\r\n.\r\n")
        self.assertEqual((wire.writes[3][:30], self.stored), (b"250 2.0.0 Ok: queued as 000000", 1))
        protocol.dataReceived(b"QUIT\r\nNOOP\r\n")
        self.assertEqual(wire.writes[4:], [b"221 2.0.0 Bye\r\n"])
        self.assertTrue(wire.disconnecting)
        self.assertIsNone(wire.producer)
        self.lost(protocol)
        self.assertEqual((factory.connections, self.clock.getDelayedCalls()), (0, []))

    def test_adopt(self) -> None:
        """Other settings are for clients that connect from then on; those there keep theirs."""
        factory = self.factory(smtpd_client_event_limit_exceptions="")
        old, old_wire = self.connected(factory)
        factory.adopt(settings_of(
            myhostname="new.example.com", message_size_limit="1000", smtpd_client_event_limit_exceptions="",
            smtpd_client_connection_count_limit="2",
        ))  # fmt: skip
        new, new_wire = self.connected(factory)
        self.sent(old, b"EHLO x\r\n")
        self.sent(new, b"EHLO x\r\n")
        self.assertIn(b"250-mx.example.com\r\n", old_wire.writes[1])
        self.assertNotIn(b"250-SIZE 1000\r\n", old_wire.writes[1])
        self.assertEqual(new_wire.writes[0], b"220 new.example.com ESMTP smtpreuse\r\n")
        self.assertIn(b"250-SIZE 1000\r\n", new_wire.writes[1])
        _, third = self.connected(factory)
        self.assertTrue(third.writes[0].startswith(b"421 4.7.0 new.example.com Error: too many connections"))

    def test_handle_that_is_no_socket(self) -> None:
        """A client that cannot be looked at before the greeting is greeted; so is one that begins with TLS, unseen."""

        @implementer(ISystemHandle)
        class Handled(Wire):
            def getHandle(self) -> object:
                return None

        @implementer(INegotiated)
        class Secured(Handled):
            def getHandle(self) -> object:
                raise AssertionError("its octets are not SMTP")

        for wire in (Handled(LOCAL), Secured(LOCAL)):
            self.factory().buildProtocol(LOCAL).makeConnection(wire)
            self.assertEqual(wire.writes, [b"220 mx.example.com ESMTP smtpreuse\r\n"])

    def test_nothing_to_say(self) -> None:
        """Half a command is answered with nothing, not with an empty write."""
        protocol, wire = self.connected(self.factory())
        protocol.dataReceived(b"NO")
        self.assertEqual(len(wire.writes), 1)

    def test_producer(self) -> None:
        """It takes the part of a producer, so that a client that does not read is not read from."""
        protocol, wire = self.connected(self.factory())
        verifyObject(IPushProducer, protocol)
        self.assertIs(wire.producer, protocol)
        protocol.pauseProducing()
        self.assertEqual(wire.producerState, "paused")
        protocol.resumeProducing()
        self.assertEqual(wire.producerState, "producing")
        protocol.stopProducing()
        self.assertEqual(wire.producerState, "producing")

    def test_slow_spool(self) -> None:
        """While a message is being stored input is taken up to a bound, then not read; afterwards all is done."""
        self.spool.slow = True
        protocol, wire = self.connected(self.factory())
        self.sent(protocol, ENVELOPE, b"x\r\n.\r\n")
        line = b"NOOP " + b"y" * 993 + b"\r\n"
        written = len(wire.writes)
        for _ in range(READ_AHEAD // 1000 + 1):
            self.assertEqual(wire.producerState, "producing")
            protocol.dataReceived(line)
        protocol.dataReceived(line + ENVELOPE)
        self.assertEqual((wire.producerState, len(wire.writes)), ("paused", written))
        protocol.resumeProducing()
        self.assertEqual(wire.producerState, "paused")
        self.spool.finish()
        self.assertEqual((wire.producerState, len(wire.writes)), ("producing", written + 1))
        self.assertEqual(wire.writes[-1].count(b"\r\n"), 1 + READ_AHEAD // 1000 + 2 + 3)
        protocol.dataReceived(b".\r\n")
        self.spool.finish()
        self.assertEqual(self.stored, 2)

    def test_gone_while_storing(self) -> None:
        """A client that is gone before its message is stored: the queue has it, and nothing is written."""
        self.spool.slow = True
        protocol, wire = self.connected(self.factory())
        self.sent(protocol, ENVELOPE, b"x\r\n.\r\n" + ENVELOPE)
        self.lost(protocol)
        written = len(wire.writes)
        self.spool.finish()
        self.assertEqual((self.stored, len(wire.writes)), (1, written))

    def test_timeout(self) -> None:
        """A silent client is told so; one that speaks now and then is not; one that does not even leave is cut."""
        protocol, wire = self.connected(self.factory(smtpd_timeout="100s"))
        self.clock.advance(60)
        protocol.dataReceived(b"NOOP\r\n")
        self.clock.advance(99)
        self.assertFalse(wire.disconnecting)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(1)
        self.assertEqual(wire.writes[-1], b"421 4.4.2 mx.example.com Error: timeout exceeded\r\n")
        self.assertTrue(wire.disconnecting)
        self.assertFalse(wire.disconnected)
        self.clock.advance(99)
        self.assertFalse(wire.disconnected)
        self.clock.advance(1)
        self.assertTrue(wire.disconnected)
        self.lost(protocol)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.maillog.lines, ["smtpd: timeout after NOOP from localhost[127.0.0.1]"])

    def test_timeout_in_content(self) -> None:
        """The log says how much had come."""
        protocol, _ = self.connected(self.factory(smtpd_timeout="100s"), STRANGER)
        self.sent(protocol, b"HELO x\r\n")
        protocol, wire = self.connected(self.factory(smtpd_timeout="100s"))
        self.sent(protocol, ENVELOPE, b"abc\r\n")
        self.clock.advance(100)
        self.assertTrue(wire.disconnecting)
        self.lost(protocol)
        self.assertEqual(self.maillog.lines[1:], ["smtpd: timeout after DATA (3 bytes) from localhost[127.0.0.1]"])

    def test_no_timeout_while_storing(self) -> None:
        """A slow disk is not the client's fault; its time begins when it was answered."""
        self.spool.slow = True
        protocol, wire = self.connected(self.factory(smtpd_timeout="100s"))
        self.sent(protocol, ENVELOPE, b".\r\n")
        self.clock.pump([60, 60, 60, 60, 50])
        self.assertFalse(wire.disconnecting)
        self.spool.finish()
        self.clock.pump([50, 49])
        self.assertFalse(wire.disconnecting)
        self.clock.advance(1)
        self.assertTrue(wire.disconnecting)

    def test_connection_limit(self) -> None:
        """One client may have so many connections; others are not bound by that, and those that end make room."""
        factory = self.factory(smtpd_client_connection_count_limit="2")
        first, _ = self.connected(factory, STRANGER)
        self.connected(factory, STRANGER)
        third, wire = self.connected(factory, STRANGER)
        self.assertEqual(wire.writes, [b"421 4.7.0 mx.example.com Error: too many connections from 192.0.2.1\r\n"])
        limit = "warning: Connection concurrency limit exceeded: 3 from unknown[192.0.2.1] for service smtpd"
        self.assertEqual(self.maillog.lines, [f"smtpd: {limit}"])
        self.assertTrue(wire.disconnecting)
        self.lost(third)
        other, wire = self.connected(factory, IPv4Address("TCP", "192.0.2.2", 5))
        self.assertEqual(wire.writes[0][:3], b"220")
        self.lost(first)
        _, wire = self.connected(factory, STRANGER)
        self.assertEqual(wire.writes[0][:3], b"220")
        self.lost(other)
        self.assertEqual(factory.connections, 2)

    def test_connection_limit_exceptions(self) -> None:
        """The excepted and UNIX sockets are not bound; nor is anybody without a limit."""
        factory = self.factory(smtpd_client_connection_count_limit="1")
        for peer in (LOCAL, UNIXAddress("/run/x")):
            for _ in range(3):
                self.assertEqual(self.connected(factory, peer)[1].writes[0][:3], b"220")
        factory = self.factory(smtpd_client_connection_count_limit="0")
        for _ in range(3):
            self.assertEqual(self.connected(factory, STRANGER)[1].writes[0][:3], b"220")

    def test_new_settings(self) -> None:
        """New settings are for connections to come."""
        factory = self.factory()
        protocol, wire = self.connected(factory)
        factory.settings = settings_of(myhostname="new.example.com")
        protocol.dataReceived(b"HELO x\r\n")
        self.assertEqual(wire.writes[1], b"250 mx.example.com\r\n")
        self.assertEqual(self.connected(factory)[1].writes, [b"220 new.example.com ESMTP smtpreuse\r\n"])

    def test_drain(self) -> None:
        """Idle clients are told at once, transactions end first, new clients are turned away; then it is done."""
        self.spool.slow = True
        factory = self.factory()
        idle, idle_wire = self.connected(factory)
        busy, busy_wire = self.connected(factory)
        storing, storing_wire = self.connected(factory)
        busy.dataReceived(ENVELOPE)
        self.sent(storing, ENVELOPE, b".\r\n")
        drained = Deferred.fromCoroutine(factory.drain(30.0))
        self.assertEqual(idle_wire.writes[-1], b"421 4.3.2 mx.example.com Service is shutting down\r\n")
        self.assertTrue(idle_wire.disconnecting)
        self.assertEqual((busy_wire.disconnecting, storing_wire.disconnecting), (False, False))
        late, late_wire = self.connected(factory)
        self.assertEqual(late_wire.writes, [b"421 4.3.2 mx.example.com Service is shutting down\r\n"])
        busy.dataReceived(b"x\r\n.\r\n")
        self.spool.finish()
        self.spool.finish()
        for wire in (busy_wire, storing_wire):
            self.assertIn(b"250 2.0.0 Ok: queued", wire.writes[-1])
            self.assertIn(b"\r\n421 4.3.2 ", wire.writes[-1])
            self.assertTrue(wire.disconnecting)
        for protocol in (idle, busy, storing, late):
            self.assertNoResult(drained)
            self.lost(protocol)
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_drain_without_clients(self) -> None:
        """With nobody there it is done at once."""
        self.successResultOf(Deferred.fromCoroutine(self.factory().drain(30.0)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_drain_is_cut(self) -> None:
        """Those that do not end within the limit are cut."""
        factory = self.factory()
        protocol, wire = self.connected(factory)
        protocol.dataReceived(ENVELOPE)
        drained = Deferred.fromCoroutine(factory.drain(30.0))
        self.clock.advance(29)
        self.assertNoResult(drained)
        self.clock.advance(1)
        self.successResultOf(drained)
        self.assertTrue(wire.disconnected)
        self.lost(protocol)
        self.assertEqual(self.maillog.lines, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_half_closed(self) -> None:
        """A client that has said its last word gets all its replies before the connection ends."""
        self.spool.slow = True
        protocol, wire = self.connected(self.factory())
        verifyObject(IHalfCloseableProtocol, protocol)
        self.sent(protocol, ENVELOPE, b"x\r\n.\r\nNOOP\r\nQUIT\r\n")
        protocol.readConnectionLost()
        self.assertFalse(wire.disconnecting)
        self.spool.finish()
        self.assertEqual([line[:3] for line in wire.writes[-1].splitlines()], [b"250", b"250", b"221"])
        self.assertTrue(wire.disconnecting)
        protocol.writeConnectionLost()
        self.lost(protocol)
        self.assertEqual((self.stored, self.clock.getDelayedCalls()), (1, []))

    def test_half_closed_without_quit(self) -> None:
        """Without QUIT too, and what is not whole is dropped."""
        for last in (b"", b"x\r\n", b"x\r\n.\r\nMAIL FROM:<a@example.com>\r\nNO"):
            protocol, wire = self.connected(self.factory())
            self.sent(protocol, ENVELOPE, last)
            protocol.readConnectionLost()
            self.assertTrue(wire.disconnecting)
            self.assertIsNone(wire.producer)
            self.lost(protocol)
        self.assertEqual((self.stored, self.clock.getDelayedCalls()), (1, []))

    def test_half_closed_is_not_read(self) -> None:
        """After its end a client is not read from again, whatever becomes of what we write."""
        self.spool.slow = True
        protocol, wire = self.connected(self.factory())
        self.sent(protocol, ENVELOPE, b".\r\n")
        protocol.readConnectionLost()
        protocol.pauseProducing()
        protocol.resumeProducing()
        self.assertEqual(wire.producerState, "paused")

    def test_lost_in_content(self) -> None:
        """A client that is gone in the middle of content leaves nothing."""
        protocol, _ = self.connected(self.factory())
        self.sent(protocol, ENVELOPE, b"x\r\n")
        self.lost(protocol)
        self.assertEqual((self.stored, self.spool.kept), (0, []))
        self.assertEqual(self.maillog.lines, ["smtpd: lost connection after DATA (1 bytes) from localhost[127.0.0.1]"])

    def test_lost_elsewhere(self) -> None:
        """A client that vanishes in a transaction leaves one line, one outside of it none."""
        for parts, where in (
            ((ENVELOPE[:29],), "MAIL"), ((ENVELOPE[:-6],), "RCPT"), ((ENVELOPE[:-6] + b"FOO\r\n",), "UNKNOWN"),
            ((), ""), ((b"NOOP\r\n",), ""), ((ENVELOPE, b".\r\n"), ""), ((b"QUIT\r\n",), ""),
        ):
            for end in (self.lost, SMTPD.readConnectionLost):
                self.maillog.lines.clear()
                protocol, _ = self.connected(self.factory())
                self.sent(protocol, *parts)
                end(protocol)
                self.lost(protocol)
                lines = [line for line in self.maillog.lines if "lost" in line]
                expected = [f"smtpd: lost connection after {where} from localhost[127.0.0.1]"] if where else []
                self.assertEqual(lines, expected)

    def test_lost_while_storing(self) -> None:
        """One that does not wait for the final reply may send the message again: the log says so."""
        self.spool.slow = True
        protocol, _ = self.connected(self.factory())
        self.sent(protocol, ENVELOPE, b".\r\n")
        self.lost(protocol)
        self.assertEqual(
            self.maillog.lines, ["smtpd: lost connection after END-OF-MESSAGE from localhost[127.0.0.1]"]
        )
