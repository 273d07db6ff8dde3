"""
Tests of L{smtpreuse.agent.connect}.
"""

from __future__ import annotations

import errno
import socket

from attrs import evolve
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectBindError, ConnectionDone, ConnectionRefusedError, TimeoutError
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from smtpreuse.agent.connect import Connector, OpenFailed, OpeningRules
from smtpreuse.agent.session import OpenSession
from smtpreuse.ipc.stream import StreamEnd
from smtpreuse.model.delivery import Blame
from smtpreuse.model.nexthop import Candidate
from smtpreuse.model.policy import Level
from smtpreuse.model.reuse import Plaintext
from smtpreuse.model.tlsfacts import TLSResult, TLSSettings
from tests.agent.world import PROFILE, RELAY, TLS, limits, started
from tests.fakes import FakeEnd, FakeLog, FakeProxy, candidate

RULES = OpeningRules(
    profile=PROFILE, limits=limits(), connect_timeout=30.0, starttls_timeout=25.0, lifetime=300.0,
    skip_5xx_greeting=True, discard=frozenset(),
)  # fmt: skip
FAILED = TLSResult(error="handshake_failure")
NO_PROXY = TLSResult(error="no proxy", local=True)


@implementer(ITCPTransport)
class WireTransport(StringTransport):
    """A transport with a socket that can be taken."""

    dataBuffer = b""  # noqa: N815  # Twisted's name

    def __init__(self) -> None:
        super().__init__()
        self.no_delay = False
        self.socket, self._other = socket.socketpair()
        self._other.close()

    def doWrite(self) -> None:
        """All is written."""

    def stopReading(self) -> None:
        """It is not read any more."""

    def stopWriting(self) -> None:
        """Nor written."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Remember it."""
        self.no_delay = enabled


class Wire:
    """The server's side of one connection."""

    def __init__(self, reactor: MemoryReactorClock, index: int) -> None:
        self.transport = WireTransport()
        self.end = reactor.tcpClients[index][2].buildProtocol(IPv4Address("TCP", "192.0.2.1", 25))
        self.end.makeConnection(self.transport)

    def say(self, *lines: str) -> None:
        """The server replies."""
        self.end.dataReceived("".join(f"{line}\r\n" for line in lines).encode())

    def taken(self) -> bytes:
        """What was sent since the last look."""
        written: bytes = self.transport.value()
        self.transport.clear()
        return written

    def hang_up(self) -> None:
        """The server closes."""
        self.end.connectionLost(Failure(ConnectionDone()))

    def close(self) -> None:
        """Leave no socket behind."""
        self.transport.socket.close()


class ConnectCase(SynchronousTestCase):
    """Opening a session to a server that the test plays."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.log = FakeLog()
        self.proxy = FakeProxy()
        self.wires: list[Wire] = []

    def begin(
        self, at: Candidate | None = None, *, rules: OpeningRules = RULES, fall_back: bool = False
    ) -> Deferred[OpenSession]:
        """Begin to open one."""
        connector = Connector(self.reactor, self.reactor, self.proxy, self.log, rules)
        return started(connector.open(at or candidate(), fall_back=fall_back))

    def wire(self) -> Wire:
        """The server accepts the next connection."""
        wire = Wire(self.reactor, len(self.wires))
        self.addCleanup(wire.close)
        self.wires.append(wire)
        return wire

    def fails(self, running: Deferred[OpenSession], status: str, text: str, blame: Blame = Blame.SITE) -> OpenFailed:
        """It failed like this, and nothing is left behind."""
        error: OpenFailed = self.failureResultOf(running, OpenFailed).value
        self.assertEqual((error.status, error.text, error.blame), (status, text, blame))
        self.assertEqual([call for call in self.reactor.getDelayedCalls() if call.active()], [])
        return error

    def hello(self, wire: Wire, *keywords: str) -> None:
        """Greeting and EHLO, with these keywords."""
        wire.say("220 mx.example.com ESMTP")
        self.assertEqual(wire.taken(), b"EHLO client.example.com\r\n")
        lines = ["mx.example.com", *keywords]
        wire.say(*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}")


class AdoptTests(ConnectCase):
    """Other rules are for the next session; the one that is being opened is opened as it was begun."""

    def test_adopt(self) -> None:
        """The name in EHLO, and the key that the session is found under."""
        connector = Connector(self.reactor, self.reactor, self.proxy, self.log, RULES)
        running = started(connector.open(candidate(), fall_back=False))
        other = evolve(PROFILE, helo="other.example.com")
        connector.adopt(evolve(RULES, profile=other, lifetime=7.0))
        wire = self.wire()
        self.hello(wire)
        self.assertEqual(self.successResultOf(running).key, PROFILE.key(candidate()))
        running = started(connector.open(candidate(), fall_back=False))
        wire = self.wire()
        wire.say("220 mx.example.com ESMTP")
        self.assertEqual(wire.taken(), b"EHLO other.example.com\r\n")
        wire.say("250 mx.example.com")
        session = self.successResultOf(running)
        self.assertEqual(session.key, other.key(candidate()))
        self.assertEqual(session.facts.good_until, session.facts.opened + 7.0)


class TCPTests(ConnectCase):
    """Errors of connecting are told apart: theirs and ours."""

    def test_where(self) -> None:
        """To the candidate's endpoint, with the time that main.cf gives."""
        self.begin(candidate(address="192.0.2.7", port=2525))
        host, port, _, timeout, bind = self.reactor.tcpClients[0]
        self.assertEqual((host, port, timeout, bind), ("192.0.2.7", 2525, 30.0, None))

    def test_source(self) -> None:
        """From our own address of the right family."""
        rules = evolve(RULES, profile=evolve(PROFILE, source="192.0.2.99", source6="2001:db8::99"))
        self.begin(rules=rules)
        self.begin(candidate(address="2001:db8::1"), rules=rules)
        self.assertEqual([client[4] for client in self.reactor.tcpClients], [("192.0.2.99", 0), ("2001:db8::99", 0)])

    def fail_with(self, error: Exception) -> Deferred[OpenSession]:
        """Connecting fails."""
        running = self.begin()
        self.reactor.tcpClients[0][2].clientConnectionFailed(self.reactor.connectors[0], Failure(error))
        return running

    def test_refused(self) -> None:
        """Refused: 4.4.1, the site's fault."""
        running = self.fail_with(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
        self.fails(running, "4.4.1", "connect to mx.example.com[192.0.2.1]:25: Connection refused")

    def test_time_out(self) -> None:
        """No answer."""
        running = self.fail_with(TimeoutError())
        self.fails(running, "4.4.1", "connect to mx.example.com[192.0.2.1]:25: Connection timed out")

    def test_our_own_fault(self) -> None:
        """No descriptors, no ports: the site learns nothing from it."""
        for number, text in ((errno.EMFILE, "Too many open files"), (errno.EADDRNOTAVAIL, "Cannot assign")):
            self.setUp()
            running = self.fail_with(ConnectBindError(number, text))
            self.fails(running, "4.3.0", f"connect to mx.example.com[192.0.2.1]:25: {text}", Blame.OURSELVES)

    def test_error_without_text(self) -> None:
        """An error that says nothing is named by what it is."""
        running = self.fail_with(ConnectionRefusedError())
        self.failureResultOf(running, OpenFailed)

    def test_no_delay(self) -> None:
        """What is written is complete: it goes at once."""
        self.begin()
        self.assertTrue(self.wire().transport.no_delay)


class GreetingTests(ConnectCase):
    """A server that does not want to talk is asked again later, or elsewhere."""

    def refused(self, reply: str, status: str, blame: Blame = Blame.SITE, rules: OpeningRules = RULES) -> None:
        """This greeting ends with that status; QUIT is said and nobody waits for its answer."""
        self.setUp()
        running, wire = self.begin(rules=rules), self.wire()
        wire.say(reply)
        self.fails(running, status, f"host {RELAY} refused to talk to me: {reply}", blame)
        self.assertEqual(wire.taken(), b"QUIT\r\n")
        self.assertTrue(wire.transport.disconnecting)

    def test_4xx(self) -> None:
        """Deferred."""
        self.refused("450 4.3.0 not now", "4.3.0")
        self.refused("450 not now", "4.0.0")

    def test_5xx(self) -> None:
        """With C{smtp_skip_5xx_greeting} deferred, without it bounced."""
        self.refused("554 5.7.1 go away", "4.7.1")
        self.refused("554 go away", "4.0.0")
        self.refused("554 5.7.1 go away", "5.7.1", rules=evolve(RULES, skip_5xx_greeting=False))

    def test_421(self) -> None:
        """The wish to slow down."""
        self.refused("421 4.3.2 too many connections", "4.3.2", Blame.THROTTLED)
        self.refused("421 busy", "4.0.0", Blame.THROTTLED)
        self.refused("450 4.7.0 slowly", "4.7.0", Blame.THROTTLED)

    def test_closed(self) -> None:
        """A close instead of a greeting."""
        running = self.begin()
        self.wire().hang_up()
        self.fails(running, "4.4.2", f"lost connection with {RELAY} while receiving the initial server greeting")

    def test_stalls(self) -> None:
        """No greeting."""
        running, wire = self.begin(), self.wire()
        self.reactor.advance(31.0)
        self.fails(running, "4.4.2", f"conversation with {RELAY} timed out while receiving the initial server greeting")
        self.assertTrue(wire.transport.disconnected or wire.transport.disconnecting)

    def test_not_smtp(self) -> None:
        """Something else listens there."""
        running = self.begin()
        self.wire().say("SSH-2.0-OpenSSH_9.6")
        error: OpenFailed = self.failureResultOf(running, OpenFailed).value
        self.assertEqual((error.status, error.blame), ("4.4.2", Blame.SITE))
        self.assertIn("receiving the initial server greeting", error.text)


    def test_reply_too_many(self) -> None:
        """A greeting behind the greeting, whole or not, is theirs to mend; nothing more is said."""
        for more in (b"220 mx.example.com once more\r\n", b"2"):
            running = self.begin()
            wire = self.wire()
            wire.end.dataReceived(b"220 mx.example.com\r\n" + more)
            error: OpenFailed = self.failureResultOf(running, OpenFailed).value
            self.assertEqual((error.status, error.blame), ("4.4.2", Blame.SITE))
            self.assertTrue(error.text.startswith(f"protocol error from {RELAY}: "), error.text)
            self.assertEqual((error.relay, wire.taken()), ("mx.example.com[192.0.2.1]:25", b""))

    def test_relay(self) -> None:
        """Who answered is known, who did not answer is not."""
        running = self.begin()
        self.wire().say("450 4.7.1 later")
        self.assertEqual(self.failureResultOf(running, OpenFailed).value.relay, "mx.example.com[192.0.2.1]:25")
        running = self.begin()
        self.reactor.tcpClients[-1][2].clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.assertEqual(self.failureResultOf(running, OpenFailed).value.relay, "")


class HelloTests(ConnectCase):
    """EHLO, and HELO where EHLO is not known."""

    def test_plain(self) -> None:
        """No STARTTLS: a session in plaintext at C{may}, with what the server announced."""
        running, wire = self.begin(), self.wire()
        self.hello(wire, "PIPELINING", "SIZE 1000", "8BITMIME")
        session = self.successResultOf(running)
        facts = session.facts
        self.assertEqual((facts.plaintext, facts.tls, facts.single), (Plaintext.NOT_OFFERED, None, False))
        self.assertEqual((facts.capabilities.pipelining, facts.capabilities.size), (True, 1000))
        self.assertEqual((facts.uses, facts.opened, facts.good_until, facts.host), (0, 0.0, 300.0, "mx.example.com"))
        self.assertEqual(session.key, PROFILE.key(candidate()))
        self.assertTrue(session.usable)
        self.assertEqual(wire.taken(), b"")

    def test_discard(self) -> None:
        """Keywords that are not to be believed."""
        running, wire = self.begin(rules=evolve(RULES, discard=frozenset({"PIPELINING"}))), self.wire()
        self.hello(wire, "PIPELINING", "8BITMIME")
        capabilities = self.successResultOf(running).facts.capabilities
        self.assertEqual((capabilities.pipelining, capabilities.eight_bit), (False, True))

    def test_helo(self) -> None:
        """EHLO refused: HELO, and no extension."""
        for code in ("500", "502", "550", "450"):
            self.setUp()
            running, wire = self.begin(), self.wire()
            wire.say("220 hello")
            wire.taken()
            wire.say(f"{code} what?")
            self.assertEqual(wire.taken(), b"HELO client.example.com\r\n")
            wire.say("250 mx.example.com")
            session = self.successResultOf(running)
            self.assertFalse(session.facts.capabilities.esmtp)
            self.assertIs(session.facts.plaintext, Plaintext.NOT_OFFERED)

    def test_helo_refused(self) -> None:
        """HELO refused, too: the server's own code decides."""
        for reply, status in (("550 5.7.1 no", "5.7.1"), ("450 4.7.1 later", "4.7.1")):
            self.setUp()
            running, wire = self.begin(), self.wire()
            wire.say("220 hello")
            wire.say("502 what?")
            wire.say(reply)
            blame = Blame.THROTTLED if status[0] == "4" else Blame.SITE
            self.fails(running, status, f"host {RELAY} refused to talk to me: {reply}", blame)

    def test_ehlo_421(self) -> None:
        """421 to EHLO ends it: no HELO."""
        running, wire = self.begin(), self.wire()
        wire.say("220 hello")
        wire.taken()
        wire.say("421 4.3.2 busy")
        self.fails(running, "4.3.2", f"host {RELAY} refused to talk to me: 421 4.3.2 busy", Blame.THROTTLED)
        self.assertEqual(wire.taken(), b"QUIT\r\n")

    def test_closed(self) -> None:
        """A close at EHLO and at HELO."""
        running, wire = self.begin(), self.wire()
        wire.say("220 hello")
        wire.hang_up()
        self.fails(running, "4.4.2", f"lost connection with {RELAY} while performing the EHLO handshake")

    def test_stalls(self) -> None:
        """No answer to EHLO, none to HELO."""
        running, wire = self.begin(), self.wire()
        wire.say("220 hello")
        self.reactor.pump([1.0] * 32)
        self.fails(running, "4.4.2", f"conversation with {RELAY} timed out while performing the EHLO handshake")
        self.setUp()
        running, wire = self.begin(), self.wire()
        wire.say("220 hello")
        wire.say("502 no")
        self.reactor.pump([1.0] * 33)
        self.fails(running, "4.4.2", f"conversation with {RELAY} timed out while performing the HELO handshake")

    def test_reply_too_many(self) -> None:
        """Behind the answer to EHLO: before HELO, before STARTTLS, before the end."""
        for said in ("250 mx.example.com", "500 what?", "250-mx.example.com\r\n250 STARTTLS"):
            running = self.begin()
            wire = self.wire()
            wire.say("220 hello")
            wire.say(said, "250 once more")
            error: OpenFailed = self.failureResultOf(running, OpenFailed).value
            self.assertTrue(error.text.startswith(
                f"protocol error from {RELAY}: a reply that nobody asked for: '250 once more'"
            ))
            self.assertEqual((error.status, error.blame), ("4.4.2", Blame.SITE))
            self.assertEqual(wire.taken(), b"EHLO client.example.com\r\n")

    def test_loop(self) -> None:
        """A server that has our name on the standard port is ourselves: the mail loops."""
        for lines in (("250-Client.Example.Com hello", "250 SIZE"), ("250 CLIENT.example.com",)):
            self.setUp()
            running, wire = self.begin(), self.wire()
            wire.say("220 hello")
            wire.say(*lines)
            self.fails(running, "5.4.6", "mail for mx.example.com loops back to myself", Blame.NOBODY)

    def test_loop_helo(self) -> None:
        """In the answer to HELO, too."""
        running, wire = self.begin(), self.wire()
        wire.say("220 hello")
        wire.say("502 no")
        wire.say("250 client.example.com")
        self.fails(running, "5.4.6", "mail for mx.example.com loops back to myself", Blame.NOBODY)

    def test_no_loop(self) -> None:
        """Another port is another server, and a name that begins like ours is another name."""
        running, wire = self.begin(candidate(port=2525)), self.wire()
        wire.say("220 hello")
        wire.say("250 client.example.com")
        self.successResultOf(running)
        self.setUp()
        running, wire = self.begin(), self.wire()
        wire.say("220 hello")
        wire.say("250 client.example.com.test")
        self.successResultOf(running)


class STARTTLSTests(ConnectCase):
    """TLS is made as the level asks, and never with less than that."""

    def secured(self, running: Deferred[OpenSession], *keywords: str) -> OpenSession:
        """Behind the handshake EHLO comes again."""
        end: FakeEnd = self.proxy.ends[-1]
        self.assertEqual(end.taken(), b"EHLO client.example.com\r\n")
        lines = ["mx.example.com", *keywords]
        end.say(*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}")
        return self.successResultOf(running)

    def test_tls(self) -> None:
        """The session has TLS; what was announced in plaintext is forgotten."""
        self.proxy.results.append(TLS)
        running, wire = self.begin(), self.wire()
        self.hello(wire, "STARTTLS", "PIPELINING", "SIZE 1000")
        self.assertEqual(wire.taken(), b"STARTTLS\r\n")
        wire.say("220 go ahead")
        session = self.secured(running, "8BITMIME")
        facts = session.facts
        self.assertEqual((facts.tls, facts.plaintext, facts.single), (TLS, None, False))
        self.assertEqual((facts.capabilities.pipelining, facts.capabilities.eight_bit), (False, True))
        self.assertIs(session.session.end, self.proxy.ends[0])
        self.assertEqual(self.proxy.started, [(TLSSettings(), 25.0)])

    def test_not_reusable(self) -> None:
        """Where the policy forbids reuse a TLS session serves once; one in plaintext is reused all the same."""
        self.proxy.results.append(TLS)
        at = candidate(connection_reuse=False)
        running, wire = self.begin(at), self.wire()
        self.hello(wire, "STARTTLS")
        wire.say("220 go ahead")
        self.assertTrue(self.secured(running).facts.single)
        running, wire = self.begin(at), self.wire()
        self.hello(wire)
        self.assertFalse(self.successResultOf(running).facts.single)

    def test_not_wanted(self) -> None:
        """At C{none} it is not even asked for."""
        running, wire = self.begin(candidate(level=Level.NONE)), self.wire()
        self.hello(wire, "STARTTLS")
        session = self.successResultOf(running)
        self.assertEqual(wire.taken(), b"")
        self.assertIs(session.facts.plaintext, Plaintext.NOT_WANTED)
        self.assertIsNone(session.key.settings)

    def test_not_offered_required(self) -> None:
        """At C{encrypt} a server without STARTTLS gets QUIT."""
        running, wire = self.begin(candidate(level=Level.ENCRYPT), fall_back=True), self.wire()
        self.hello(wire)
        self.fails(running, "4.7.4", f"TLS is required, but was not offered by host {RELAY}")
        self.assertEqual(wire.taken(), b"QUIT\r\n")

    def test_helo_required(self) -> None:
        """A server that knows only HELO does not offer it."""
        running, wire = self.begin(candidate(level=Level.ENCRYPT)), self.wire()
        wire.say("220 hello")
        wire.say("502 no")
        wire.say("250 mx.example.com")
        self.fails(running, "4.7.4", f"TLS is required, but was not offered by host {RELAY}")

    def test_refused(self) -> None:
        """At C{may} the connection goes on in plaintext, for its one request."""
        for reply in ("454 4.7.0 TLS not available", "502 5.5.1 no"):
            self.setUp()
            running, wire = self.begin(), self.wire()
            self.hello(wire, "STARTTLS")
            wire.taken()
            wire.say(reply)
            session = self.successResultOf(running)
            self.assertEqual(wire.taken(), b"")
            self.assertEqual((session.facts.plaintext, session.facts.single), (Plaintext.REFUSED, True))

    def test_refused_required(self) -> None:
        """At C{encrypt} the server's own code decides."""
        for reply, status in (("454 4.7.0 not available", "4.7.0"), ("502 5.5.1 no", "5.5.1"), ("454 no", "4.0.0")):
            self.setUp()
            running, wire = self.begin(candidate(level=Level.ENCRYPT)), self.wire()
            self.hello(wire, "STARTTLS")
            wire.taken()
            wire.say(reply)
            self.fails(running, status, f"TLS is required, but host {RELAY} refused to start TLS: {reply}")
            self.assertEqual(wire.taken(), b"QUIT\r\n")

    def test_injected(self) -> None:
        """Octets behind the reply to STARTTLS: the connection is not trusted, and there is no fallback."""
        for at in (candidate(), candidate(level=Level.ENCRYPT)):
            for rest in ("250 injected\r\n", "2", "\r\n"):
                self.setUp()
                running, wire = self.begin(at, fall_back=True), self.wire()
                self.hello(wire, "STARTTLS")
                wire.end.dataReceived(b"220 go ahead\r\n" + rest.encode())
                error: OpenFailed = self.failureResultOf(running, OpenFailed).value
                self.assertEqual((error.status, error.handshake), ("4.7.5", False))
                self.assertEqual((self.proxy.started, len(self.reactor.tcpClients)), ([], 1))

    def test_closed(self) -> None:
        """A close instead of an answer to STARTTLS is no reason for plaintext."""
        running, wire = self.begin(fall_back=True), self.wire()
        self.hello(wire, "STARTTLS")
        wire.hang_up()
        self.fails(running, "4.4.2", f"lost connection with {RELAY} while receiving the STARTTLS response")
        self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_stalls(self) -> None:
        """No answer to STARTTLS."""
        running, wire = self.begin(), self.wire()
        self.hello(wire, "STARTTLS")
        self.reactor.pump([1.0] * 34)
        self.fails(running, "4.4.2", f"conversation with {RELAY} timed out while receiving the STARTTLS response")

    def handshake(self, result: TLSResult, at: Candidate, *, fall_back: bool) -> Deferred[OpenSession]:
        """The handshake ends like this."""
        self.proxy.results.append(result)
        running, wire = self.begin(at, fall_back=fall_back), self.wire()
        self.hello(wire, "STARTTLS")
        wire.say("220 go ahead")
        return running

    def test_handshake_failed(self) -> None:
        """At C{may} nobody thinks less of the site; at C{encrypt} it is to blame."""
        text = f"Cannot start TLS with host {RELAY}: handshake failure: handshake_failure"
        for at, blame in ((candidate(), Blame.NOBODY), (candidate(level=Level.ENCRYPT), Blame.SITE)):
            self.setUp()
            error = self.fails(self.handshake(FAILED, at, fall_back=False), "4.7.5", text, blame)
            self.assertTrue(error.handshake)
            self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_fallback(self) -> None:
        """At C{may} and old enough: once more without TLS, which serves its one request; the operator sees why."""
        running = self.handshake(FAILED, candidate(), fall_back=True)
        self.assertNoResult(running)
        wire = self.wire()
        self.hello(wire, "STARTTLS")
        session = self.successResultOf(running)
        self.assertEqual(wire.taken(), b"")
        self.assertEqual((session.facts.plaintext, session.facts.single), (Plaintext.FAILED, True))
        (line,) = self.log.having("trying mx.example.com[192.0.2.1]:25 without TLS")
        self.assertIn("handshake failure: handshake_failure", line)

    def test_no_fallback_where_required(self) -> None:
        """At C{encrypt} never, however old."""
        running = self.handshake(FAILED, candidate(level=Level.ENCRYPT), fall_back=True)
        self.failureResultOf(running, OpenFailed)
        self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_no_proxy(self) -> None:
        """No TLS here: our own fault, no fallback, the site learns nothing."""
        running = self.handshake(NO_PROXY, candidate(), fall_back=True)
        error = self.fails(running, "4.3.0", "TLS is not available here: no proxy", Blame.OURSELVES)
        self.assertFalse(error.handshake)

    def test_closed_behind_tls(self) -> None:
        """A close at the second EHLO is a failure of TLS, and no reason to think less of a site at C{may}."""
        for level, blame in ((Level.MAY, Blame.NOBODY), (Level.ENCRYPT, Blame.SITE)):
            running = self.handshake(TLS, candidate(level=level), fall_back=False)
            self.proxy.ends[-1].hang_up()
            text = f"lost connection with {RELAY} while performing the EHLO handshake"
            error = self.fails(running, "4.4.2", text, blame)
            self.assertEqual((error.handshake, error.relay), (True, "mx.example.com[192.0.2.1]:25"))
            self.assertTrue(self.proxy.ends[-1].aborted)

    def test_fallback_behind_tls(self) -> None:
        """So an old message goes in plaintext then, too."""
        running = self.handshake(TLS, candidate(), fall_back=True)
        self.proxy.ends[0].hang_up("TLS error: sslv3 alert bad certificate")
        wire = self.wire()
        self.hello(wire, "STARTTLS")
        self.assertIs(self.successResultOf(running).facts.plaintext, Plaintext.FAILED)
        (line,) = self.log.having("trying mx.example.com[192.0.2.1]:25 without TLS")
        self.assertIn(f"lost connection with {RELAY} (TLS error: sslv3 alert bad certificate) while", line)

    def test_refused_behind_tls(self) -> None:
        """A server that refuses us once it knows us."""
        running = self.handshake(TLS, candidate(), fall_back=False)
        end = self.proxy.ends[0]
        end.say("421 4.7.0 no")
        self.fails(running, "4.7.0", f"host {RELAY} refused to talk to me: 421 4.7.0 no", Blame.THROTTLED)
        self.assertTrue(end.taken().endswith(b"QUIT\r\n"))
        self.assertEqual((end.closed, end.aborted), (True, False))

    def test_lost_before_the_handshake(self) -> None:
        """The connection is gone when its descriptor is wanted."""
        self.patch(StreamEnd, "detach", FakeEnd().detach)
        running = self.handshake(TLS, candidate(), fall_back=True)
        error: OpenFailed = self.failureResultOf(running, OpenFailed).value
        self.assertEqual((error.status, error.handshake), ("4.4.2", False))
