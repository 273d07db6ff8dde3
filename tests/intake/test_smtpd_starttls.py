"""
Tests of L{smtpreuse.intake.smtpd}: a client's connection before, in and behind its handshake. The proxy is the test;
real handshakes are in C{tests.system.test_starttls}.
"""

from __future__ import annotations

import re
import socket

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionFdescWentAway
from twisted.internet.interfaces import IAddress, INegotiated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from smtpreuse.config.load import settings_of
from smtpreuse.intake.smtpd import READ_AHEAD, SMTPD, SMTPDFactory
from smtpreuse.intake.starttls import PAUSE
from smtpreuse.interfaces import ITLSProxy
from smtpreuse.model.queueid import QueueIds
from smtpreuse.model.tlsfacts import TLSResult
from tests.fakes import FakeEnd
from tests.intake.fakes import FakeMailLog, FakeRouter, FakeSpool, SlowProxy
from tests.intake.test_smtpd import ENVELOPE, LOCAL, Wire

GOOD = TLSResult(protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", bits=256)
READY = b"220 2.0.0 Ready to start TLS\r\n"


class SocketWire(Wire):
    """
    A transport with a socket that can be taken out of it.

    @ivar stuck: what the client does not read.
    """

    def __init__(self) -> None:
        super().__init__(LOCAL)
        self.socket, self.client = socket.socketpair()
        self.dataBuffer = b""
        self.stuck = b""
        self.stopped: list[str] = []

    def getHost(self) -> IAddress:
        if self.socket.fileno() < 0:
            raise OSError("the socket is gone")
        return super().getHost()

    def doWrite(self) -> None:
        self.dataBuffer = self.stuck

    def stopReading(self) -> None:
        self.stopped.append("reading")

    def stopWriting(self) -> None:
        self.stopped.append("writing")


class STARTTLSTests(SynchronousTestCase):
    """
    A client that asks for TLS gets it from the proxy, and its session goes on there as if nothing had been before.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.spool = FakeSpool()
        self.maillog = FakeMailLog()
        self.proxy = SlowProxy()

    def factory(self, proxy: ITLSProxy | None = None, **values: str) -> SMTPDFactory:
        """One that offers TLS, with these parameters."""
        parameters = {"smtpd_tls_security_level": "may", "smtpd_tls_cert_file": "/nowhere", **values}
        return SMTPDFactory(
            settings_of(myhostname="mx.example.com", **parameters), self.spool, FakeRouter(),
            lambda message, content: None, self.maillog, self.clock, QueueIds(self.clock.seconds, 7),
            proxy=proxy or self.proxy,
        )  # fmt: skip

    def connected(self, factory: SMTPDFactory, wire: SocketWire | None = None) -> tuple[SMTPD, SocketWire]:
        """A client that connected."""
        wire = wire or SocketWire()
        self.addCleanup(wire.client.close)
        self.addCleanup(wire.socket.close)
        protocol = factory.buildProtocol(LOCAL)
        protocol.makeConnection(wire)
        return protocol, wire

    def shaking(self, factory: SMTPDFactory) -> tuple[SMTPD, SocketWire]:
        """One in its handshake."""
        protocol, wire = self.connected(factory)
        protocol.dataReceived(b"EHLO x\r\n")
        protocol.dataReceived(b"STARTTLS\r\n")
        self.assertEqual(wire.writes[-1], READY)
        there = factory.connections
        # As the reactor does when it finds the socket gone.
        protocol.connectionLost(Failure(ConnectionFdescWentAway("gone")))
        self.assertEqual(factory.connections, there)
        return protocol, wire

    def secured(self, factory: SMTPDFactory) -> tuple[SMTPD, FakeEnd]:
        """One behind it."""
        protocol, _ = self.shaking(factory)
        self.proxy.finish(GOOD)
        return protocol, self.proxy.ends[-1]

    def test_session(self) -> None:
        """A whole session: the plaintext side is left as it was, all else happens on the other one."""
        factory = self.factory(smtpd_tls_loglevel="1", smtpd_starttls_timeout="77s")
        _, wire = self.shaking(factory)
        self.assertEqual((wire.stopped, wire.producer, wire.disconnecting), (["reading", "writing"], None, False))
        self.assertEqual((self.proxy.timeouts, wire.socket.fileno()), ([77.0], -1))
        self.proxy.finish(GOOD)
        (end,) = self.proxy.ends
        self.assertEqual(end.taken(), b"")
        end.say("EHLO client.example.com")
        self.assertNotIn(b"STARTTLS", end.taken())
        end.say(*ENVELOPE.decode().splitlines())
        end.say("Subject: x", "", "x", ".")
        self.assertIn(b"354 ", end.taken())
        [(message, content)] = self.spool.kept
        self.assertIn(b" with ESMTPS id ", content)
        self.assertEqual(message.client, "localhost[127.0.0.1]")
        end.say("QUIT")
        self.assertTrue(end.taken().endswith(b"221 2.0.0 Bye\r\n"))
        self.assertTrue(end.closed)
        end.hang_up()
        self.assertEqual((factory.connections, self.clock.getDelayedCalls()), (0, []))
        cipher = "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)"
        self.assertEqual(
            self.maillog.lines[0], f"smtpd: Anonymous TLS connection established from localhost[127.0.0.1]: {cipher}"
        )
        self.assertEqual(len(self.maillog.lines), 3)

    def test_loglevel(self) -> None:
        """At level 0 nothing is logged of a handshake that went through."""
        self.secured(self.factory())
        self.assertEqual(self.maillog.lines, [])

    def test_forgotten(self) -> None:
        """Of what was said in plaintext nothing is left: no name, no sender, no recipient."""
        factory = self.factory()
        protocol, _ = self.connected(factory)
        protocol.dataReceived(b"EHLO plain.example.com\r\n")
        protocol.dataReceived(ENVELOPE[:-6] + b"STARTTLS\r\n")
        self.proxy.finish(GOOD)
        (end,) = self.proxy.ends
        end.say("MAIL FROM:<a@example.com>")
        self.assertEqual(end.taken(), b"503 5.5.1 Error: send HELO/EHLO first\r\n")
        end.say("HELO other.example.com")
        end.say(*ENVELOPE.decode().splitlines())
        end.say("x", ".")
        [(message, content)] = self.spool.kept
        self.assertEqual(len(message.recipients), 1)
        self.assertTrue(content.startswith(b"Received: from other.example.com "))
        self.assertIn(b" with SMTP id ", content)

    def test_injected(self) -> None:
        """What comes in plaintext behind STARTTLS ends the session; the proxy never sees it."""
        protocol, wire = self.connected(self.factory())
        protocol.dataReceived(b"STARTTLS\r\nMAIL FROM:<evil@example.com>\r\n")
        self.assertEqual(wire.writes[1:], [b"554 5.5.0 Error: SMTP protocol synchronization\r\n"])
        self.assertEqual((wire.disconnecting, self.proxy.network_ends), (True, []))
        self.assertEqual(
            self.maillog.lines, ["smtpd: improper command pipelining after STARTTLS from localhost[127.0.0.1]: MAIL"]
        )

    def test_failed(self) -> None:
        """A handshake that fails is the end, with its reason in the log."""
        factory = self.factory()
        self.shaking(factory)
        self.proxy.finish(TLSResult(error="TLS error: no shared cipher\r\n"))
        self.assertEqual((factory.connections, self.clock.getDelayedCalls()), (0, []))
        self.assertEqual(
            self.maillog.lines, ["smtpd: SSL_accept error from localhost[127.0.0.1]: TLS error: no shared cipher??"]
        )

    def test_fault_of_ours(self) -> None:
        """It costs one client its connection; the next are told, and go on in plaintext unless TLS must come first."""
        for level, reply in (
            ("may", b"250 2.1.0 Ok\r\n"), ("encrypt", b"530 5.7.0 Must issue a STARTTLS command first\r\n")
        ):
            factory = self.factory(smtpd_tls_security_level=level)
            self.shaking(factory)
            self.proxy.finish(TLSResult(error="no certificate", local=True))
            protocol, wire = self.connected(factory)
            protocol.dataReceived(b"STARTTLS\r\n")
            protocol.dataReceived(b"MAIL FROM:<a@example.com>\r\n")
            self.assertEqual(wire.writes[1:], [b"454 4.7.0 TLS not available due to local problem\r\n", reply])
            self.clock.advance(PAUSE)
            protocol.dataReceived(b"STARTTLS\r\n")
            self.assertEqual(wire.writes[-1], READY)
            self.proxy.finish(GOOD)

    def test_no_proxy(self) -> None:
        """Without a proxy, or without a socket to give away, there is none to be had now."""
        factory = self.factory()
        protocol, wire = factory.buildProtocol(LOCAL), Wire(LOCAL)
        protocol.makeConnection(wire)
        protocol.dataReceived(b"STARTTLS\r\n")
        self.assertEqual(wire.writes[-1], b"454 4.7.0 TLS not available due to local problem\r\n")
        factory = SMTPDFactory(
            factory.settings, self.spool, FakeRouter(), lambda message, content: None, self.maillog, self.clock,
            QueueIds(self.clock.seconds, 7),
        )  # fmt: skip
        protocol, wire = self.connected(factory)
        protocol.dataReceived(b"STARTTLS\r\n")
        self.assertEqual(wire.writes[-1], b"454 4.7.0 TLS not available due to local problem\r\n")

    def test_not_offered(self) -> None:
        """At level none there is no STARTTLS."""
        protocol, wire = self.connected(self.factory(smtpd_tls_security_level="none"))
        protocol.dataReceived(b"EHLO x\r\n")
        self.assertNotIn(b"STARTTLS", wire.writes[-1])
        protocol.dataReceived(b"STARTTLS\r\n")
        self.assertEqual(wire.writes[-1], b"502 5.5.1 Error: command not implemented\r\n")

    def test_encrypted_from_the_start(self) -> None:
        """A client of an endpoint that begins with TLS has what level encrypt asks for, and is offered no more."""
        wire = SocketWire()
        directlyProvides(wire, INegotiated)
        protocol, _ = self.connected(self.factory(smtpd_tls_security_level="encrypt"), wire)
        protocol.dataReceived(b"EHLO x\r\n")
        self.assertNotIn(b"STARTTLS", wire.writes[-1])
        protocol.dataReceived(ENVELOPE)
        self.assertIn(b"354 ", wire.writes[-1])
        protocol.dataReceived(b".\r\n")
        self.assertIn(b" with ESMTPS id ", self.spool.kept[0][1])

    def test_reply_not_read(self) -> None:
        """A client that does not take the reply gets no handshake."""
        wire = SocketWire()
        wire.stuck = READY
        factory = self.factory()
        protocol, _ = self.connected(factory, wire)
        protocol.dataReceived(b"STARTTLS\r\n")
        self.assertEqual((wire.disconnected, self.proxy.network_ends), (True, []))
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((factory.connections, self.clock.getDelayedCalls()), (0, []))
        self.assertEqual(len(self.maillog.lines), 1)
        self.assertIn("SSL_accept error from localhost[127.0.0.1]: ", self.maillog.lines[0])

    def test_said_its_last(self) -> None:
        """A client that ends its side behind STARTTLS will do no handshake."""
        protocol, wire = self.connected(self.factory())
        protocol.dataReceived(b"STARTT")
        protocol._ended = True
        protocol.dataReceived(b"LS\r\n")
        self.assertEqual((wire.disconnecting, self.proxy.network_ends), (True, []))

    def test_limits_of_time(self) -> None:
        """The handshake has a limit of its own; behind it the client's time begins anew."""
        factory = self.factory(smtpd_timeout="100s")
        self.shaking(factory)
        self.clock.pump([90, 90, 90])
        self.assertEqual(factory.connections, 1)
        self.proxy.finish(GOOD)
        (end,) = self.proxy.ends
        self.clock.pump([60, 39])
        self.assertEqual(end.taken(), b"")
        self.clock.advance(1)
        self.assertEqual(end.taken(), b"421 4.4.2 mx.example.com Error: timeout exceeded\r\n")
        self.assertTrue(end.closed)
        self.assertEqual(self.maillog.lines, ["smtpd: timeout after STARTTLS from localhost[127.0.0.1]"])
        self.clock.advance(100)
        self.assertTrue(end.aborted)
        end.hang_up()
        self.assertEqual((factory.connections, self.clock.getDelayedCalls()), (0, []))

    def test_connection_limit(self) -> None:
        """A client counts while it is in its handshake, and behind it."""
        factory = self.factory(smtpd_client_connection_count_limit="1", smtpd_client_event_limit_exceptions="")
        _, _ = self.shaking(factory)
        for _ in range(2):
            _, wire = self.connected(factory)
            self.assertEqual(wire.writes[0][:3], b"421")
            if not self.proxy.ends:
                self.proxy.finish(GOOD)

    def test_slow_spool(self) -> None:
        """While a message is being stored the plaintext end is read up to a bound only."""
        self.spool.slow = True
        _, end = self.secured(self.factory())
        end.say("EHLO x")
        end.say(*ENVELOPE.decode().splitlines())
        end.say("x", ".")
        for _ in range(READ_AHEAD // 1007 + 1):
            self.assertFalse(end.paused)
            end.say("NOOP " + "y" * 1000)
        self.assertTrue(end.paused)
        self.spool.finish()
        self.assertFalse(end.paused)

    def test_client_does_not_read(self) -> None:
        """A client that does not read its replies is not read from."""
        _, end = self.secured(self.factory())
        end.fills = True
        end.say("NOOP")
        self.assertTrue(end.paused)
        end.drain()
        self.assertFalse(end.paused)

    def test_lost_behind_tls(self) -> None:
        """A client that vanishes in a transaction leaves its line, as ever."""
        factory = self.factory()
        _, end = self.secured(factory)
        end.say("EHLO x")
        end.say("MAIL FROM:<a@example.com>")
        end.hang_up()
        self.assertEqual(self.maillog.lines, ["smtpd: lost connection after MAIL from localhost[127.0.0.1]"])
        self.assertEqual((factory.connections, self.clock.getDelayedCalls()), (0, []))

    def test_drain(self) -> None:
        """A handshake in progress ends first; its client is told right behind it, one that is idle at once."""
        factory = self.factory()
        _, idle = self.secured(factory)
        self.shaking(factory)
        drained = Deferred.fromCoroutine(factory.drain(30.0))
        parting = b"421 4.3.2 mx.example.com Service is shutting down\r\n"
        self.assertEqual((idle.taken(), idle.closed), (parting, True))
        self.proxy.finish(GOOD)
        late = self.proxy.ends[-1]
        self.assertEqual((late.taken(), late.closed), (parting, True))
        for end in (idle, late):
            self.assertNoResult(drained)
            end.hang_up()
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_drain_is_cut(self) -> None:
        """A handshake that does not end within the limit is given up."""
        factory = self.factory()
        self.shaking(factory)
        drained = Deferred.fromCoroutine(factory.drain(30.0))
        self.clock.advance(30)
        self.successResultOf(drained)
        self.assertEqual((factory.connections, self.clock.getDelayedCalls(), self.maillog.lines), (0, [], []))
        self.proxy.network_ends[0].close()

    def test_fault_behind_tls(self) -> None:
        """A fault of ours ends the connection, and does not count it for ever."""
        factory = self.factory(smtpd_tls_loglevel="1")
        self.shaking(factory)
        self.patch(self.maillog, "write", lambda program, text: 1 / 0)
        self.proxy.finish(GOOD)
        self.assertTrue(self.proxy.ends[0].aborted)
        self.assertEqual((factory.connections, self.clock.getDelayedCalls()), (0, []))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_no_secret(self) -> None:
        """What the log has of TLS is protocol and cipher."""
        self.secured(self.factory(smtpd_tls_loglevel="4"))
        (line,) = self.maillog.lines
        self.assertTrue(re.fullmatch(r"smtpd: Anonymous TLS connection established from [^:]+: TLSv1\.3 with .*", line))
