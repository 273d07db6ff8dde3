"""
Tests of L{smtpreuse.dns.transport} and L{smtpreuse.dns.backend}, over loopback.
"""

from __future__ import annotations

import socket

import dns.exception
import dns.message
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IReactorFDSet, IReactorTCP, IReactorTime
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from smtpreuse.dns.backend import DatagramEnd, TwistedBackend
from smtpreuse.dns.transport import Exchange, TcpDnsClient, UdpDnsClient
from smtpreuse.model.nexthop import Endpoint
from tests.dns.nameserver import NameServer, answered, truncated

REACTOR = IReactorTCP(reactor)
RECORD = "mail.example.com. 300 IN A 192.0.2.1"
# For answers that come at once over loopback; only a test that fails waits for it.
PATIENCE = 20.0


def question() -> dns.message.QueryMessage:
    """A question for an address."""
    return dns.message.make_query("mail.example.com", "A")


def framed(wire: bytes) -> bytes:
    """As it goes over TCP."""
    return len(wire).to_bytes(2, "big") + wire


class _Served(TestCase):
    interface = "127.0.0.1"

    def setUp(self) -> None:
        self.server = NameServer(REACTOR, self.interface)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.server.stop()))


class UdpDnsClientTests(_Served):
    """Over UDP only the answer to the question is believed, and every query comes from a port of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.client = UdpDnsClient(REACTOR, self.server.address, self.server.port)

    async def test_answer(self) -> None:
        """The answer is given as it came."""
        self.server.udp = lambda query: [answered(query, RECORD).to_wire()]
        answer = await self.client.send_query(question(), PATIENCE)
        self.assertEqual(answer.answer[0].to_text(), RECORD)

    async def test_forever(self) -> None:
        """Without a time limit an answer is waited for all the same."""
        self.server.udp = lambda query: [answered(query, RECORD).to_wire()]
        self.assertEqual(len((await self.client.send_query(question())).answer), 1)

    async def test_others_ignored(self) -> None:
        """Octets that are no message, another id and another question do not hide the answer behind them."""

        def answers(query: dns.message.Message) -> list[bytes]:
            wrong_id = answered(query, "mail.example.com. 300 IN A 192.0.2.66")
            wrong_id.id ^= 1
            other = dns.message.make_query("other.example.com", "A", id=query.id)
            return [b"", b"junk", wrong_id.to_wire(), answered(other).to_wire(), answered(query, RECORD).to_wire()]

        self.server.udp = answers
        answer = await self.client.send_query(question(), PATIENCE)
        self.assertEqual(answer.answer[0].to_text(), RECORD)

    async def test_spoofed_source(self) -> None:
        """What another port sends is never seen, even with the right id and question."""
        forger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(forger.close)

        def answers(query: dns.message.Message) -> list[bytes]:
            forged = answered(query, "mail.example.com. 300 IN A 192.0.2.66").to_wire()
            forger.sendto(forged, self.server.sources[-1])
            return [answered(query, RECORD).to_wire()]

        self.server.udp = answers
        answer = await self.client.send_query(question(), PATIENCE)
        self.assertEqual(answer.answer[0].to_text(), RECORD)

    async def test_spoofed_alone(self) -> None:
        """A forged answer alone is no answer."""
        forger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(forger.close)

        def answers(query: dns.message.Message) -> list[bytes]:
            forger.sendto(answered(query, RECORD).to_wire(), self.server.sources[-1])
            return []

        self.server.udp = answers
        with self.assertRaises(dns.exception.Timeout):
            await self.client.send_query(question(), 0.05)

    async def test_ports_differ(self) -> None:
        """Two queries under way come from two ports."""
        self.server.udp = lambda query: [answered(query, RECORD).to_wire()]
        first, second = self.client.send_query(question(), PATIENCE), self.client.send_query(question(), PATIENCE)
        await first
        await second
        self.assertEqual(len(set(self.server.sources)), 2)

    async def test_timeout(self) -> None:
        """Silence ends with dnspython's time-out."""
        with self.assertRaises(dns.exception.Timeout):
            await self.client.send_query(question(), 0.01)

    async def test_truncated(self) -> None:
        """A truncated answer is reported as such."""
        self.server.udp = lambda query: [truncated(query)]
        with self.assertRaises(dns.message.Truncated):
            await self.client.send_query(question(), PATIENCE)

    async def test_refused(self) -> None:
        """A port where nobody listens is known at once."""
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        probe.bind(("127.0.0.1", 0))
        # Connected to where no query comes from, it keeps the port and takes nothing.
        probe.connect(("127.0.0.1", 1))
        self.addCleanup(probe.close)
        client = UdpDnsClient(REACTOR, "127.0.0.1", probe.getsockname()[1])
        with self.assertRaises(OSError):
            await client.send_query(question(), PATIENCE)

    async def test_close(self) -> None:
        """Closing cancels what is under way, and nothing can be asked afterwards."""
        waiting = self.client.send_query(question(), PATIENCE)
        self.client.close()
        with self.assertRaises(CancelledError):
            await waiting
        with self.assertRaises(CancelledError):
            await self.client.send_query(question(), PATIENCE)

    async def test_source(self) -> None:
        """The source asked for is used."""
        self.server.udp = lambda query: [answered(query, RECORD).to_wire()]
        client = UdpDnsClient(REACTOR, self.server.address, self.server.port, source="127.0.0.1")
        await client.send_query(question(), PATIENCE)
        self.assertEqual(self.server.sources[0][0], "127.0.0.1")

    async def test_no_such_source(self) -> None:
        """A source that is not ours is an error of the operating system."""
        client = UdpDnsClient(REACTOR, self.server.address, self.server.port, source="192.0.2.77")
        with self.assertRaises(OSError):
            await client.send_query(question(), PATIENCE)

    async def test_separate_records(self) -> None:
        """With one_rr_per_rrset each record stands alone."""
        self.server.udp = lambda query: [answered(query, RECORD, RECORD[:-1] + "2").to_wire()]
        client = UdpDnsClient(REACTOR, self.server.address, self.server.port, one_rr_per_rrset=True)
        self.assertEqual(len((await client.send_query(question(), PATIENCE)).answer), 2)


class UdpDnsClientIPv6Tests(_Served):
    """IPv6 servers are asked just the same."""

    interface = "::1"

    async def test_answer(self) -> None:
        """The answer is given as it came."""
        self.server.udp = lambda query: [answered(query, RECORD).to_wire()]
        answer = await UdpDnsClient(REACTOR, "::1", self.server.port).send_query(question(), PATIENCE)
        self.assertEqual(len(answer.answer), 1)

    async def test_tcp(self) -> None:
        """Over TCP as well."""
        self.server.tcp = lambda query: [framed(answered(query, RECORD).to_wire())]
        answer = await TcpDnsClient(REACTOR, "::1", self.server.port).send_query(question(), PATIENCE)
        self.assertEqual(len(answer.answer), 1)


class TcpDnsClientTests(_Served):
    """Over TCP an answer may come in any pieces, and whatever goes wrong ends the query."""

    def setUp(self) -> None:
        super().setUp()
        self.client = TcpDnsClient(REACTOR, self.server.address, self.server.port)

    async def test_answer(self) -> None:
        """The answer is given as it came."""
        self.server.tcp = lambda query: [framed(answered(query, RECORD).to_wire())]
        answer = await self.client.send_query(question(), PATIENCE)
        self.assertEqual(answer.answer[0].to_text(), RECORD)

    async def test_pieces(self) -> None:
        """An answer of several reads is put together."""
        texts = [f"mail.example.com. 300 IN TXT {'x' * 200}{number}" for number in range(200)]
        self.server.tcp = lambda query: [framed(answered(query, *texts).to_wire(max_size=65535))]
        query = dns.message.make_query("mail.example.com", "TXT")
        answer = await self.client.send_query(query, PATIENCE)
        self.assertEqual(len(answer.answer[0]), 200)

    async def test_early_end(self) -> None:
        """A connection closed within the answer is an end of file."""
        self.server.tcp = lambda query: [framed(answered(query, RECORD).to_wire())[:-1], b""]
        with self.assertRaises(EOFError):
            await self.client.send_query(question(), PATIENCE)

    async def test_garbage(self) -> None:
        """Octets that are no message are dnspython's error."""
        self.server.tcp = lambda query: [framed(b"junk")]
        with self.assertRaises(dns.exception.DNSException):
            await self.client.send_query(question(), PATIENCE)

    async def test_flood(self) -> None:
        """More than the longest answer ends the connection."""
        self.server.tcp = lambda query: [framed(b"\0" * 65535) + b"\0" * 200_000]
        with self.assertRaises((EOFError, dns.exception.DNSException)):
            await self.client.send_query(question(), PATIENCE)

    async def test_refused(self) -> None:
        """A server without TCP is an error of the operating system."""
        probe = socket.socket()
        probe.bind(("127.0.0.1", 0))
        self.addCleanup(probe.close)
        with self.assertRaises(OSError):
            await TcpDnsClient(REACTOR, "127.0.0.1", probe.getsockname()[1]).send_query(question(), PATIENCE)

    async def test_silence(self) -> None:
        """A server that accepts and says nothing ends with the time-out."""
        with self.assertRaises(dns.exception.Timeout):
            await self.client.send_query(question(), 0.05)


class ExchangeTests(_Served):
    """One question, over TCP where UDP is too small for its answer."""

    async def test_udp(self) -> None:
        """What fits comes over UDP alone."""
        self.server.udp = lambda query: [answered(query, RECORD).to_wire()]
        await Exchange(REACTOR).ask(question(), Endpoint(self.server.address, self.server.port), PATIENCE)
        self.assertEqual([how for how, _ in self.server.asked], ["udp"])

    async def test_truncated(self) -> None:
        """What was truncated is asked for over TCP."""
        self.server.udp = lambda query: [truncated(query)]
        self.server.tcp = lambda query: [framed(answered(query, RECORD).to_wire())]
        answer = await Exchange(REACTOR).ask(question(), Endpoint(self.server.address, self.server.port), PATIENCE)
        self.assertEqual(answer.answer[0].to_text(), RECORD)
        self.assertEqual([how for how, _ in self.server.asked], ["udp", "tcp"])


class TwistedBackendTests(SynchronousTestCase):
    """The parts of the backend that need no network."""

    def setUp(self) -> None:
        self.memory = MemoryReactorClock()
        self.backend = TwistedBackend(self.memory)

    def test_connect_timeout(self) -> None:
        """A connection that is not made in time is dnspython's time-out."""
        made = Deferred.fromCoroutine(
            self.backend.make_socket(socket.AF_INET, socket.SOCK_STREAM, destination=("192.0.2.1", 53), timeout=5.0)
        )
        self.memory.advance(4.9)
        self.assertNoResult(made)
        self.memory.advance(0.2)
        self.failureResultOf(made, dns.exception.Timeout)

    def test_system_timeout(self) -> None:
        """So is a time-out of the operating system."""
        made = Deferred.fromCoroutine(
            self.backend.make_socket(socket.AF_INET, socket.SOCK_STREAM, destination=("192.0.2.1", 53))
        )
        self.memory.tcpClients[0][2].clientConnectionFailed(None, Failure(ConnectTimeout()))
        self.failureResultOf(made, dns.exception.Timeout)

    def test_only_plain(self) -> None:
        """TLS, and sockets without a destination, are not made."""
        made = Deferred.fromCoroutine(self.backend.make_socket(socket.AF_INET, socket.SOCK_STREAM))
        self.failureResultOf(made, NotImplementedError)

    def test_sleep(self) -> None:
        """Sleeping takes its time on the reactor's clock."""
        slept = Deferred.fromCoroutine(self.backend.sleep(3.0))
        self.memory.advance(2.9)
        self.assertNoResult(slept)
        self.memory.advance(0.2)
        self.assertIsNone(self.successResultOf(slept))

    def test_wait_for(self) -> None:
        """A wait ends with its result, or with the time-out."""

        async def at_once() -> int:
            return 7

        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.backend.wait_for(at_once(), 1.0))), 7)
        never: Deferred[None] = Deferred()
        waiting = Deferred.fromCoroutine(self.backend.wait_for(never, 1.0))
        self.memory.advance(1.1)
        self.failureResultOf(waiting, dns.exception.Timeout)

    def test_name(self) -> None:
        """It names itself, and asks for connected sockets."""
        self.assertEqual(self.backend.name(), "twisted")
        self.assertTrue(self.backend.datagram_connection_required())


class DatagramEndTests(TestCase):
    """A socket of one question."""

    async def test_bounded(self) -> None:
        """A flood of datagrams is not stored."""
        end = DatagramEnd(IReactorFDSet(reactor), IReactorTime(reactor), socket.AF_INET, None, ("127.0.0.1", 9))
        for number in range(100):
            end._inbox.put(b"%d" % number)
        taken = [(await end.recvfrom(1, 0.0))[0] for _ in range(16)]
        self.assertEqual(taken[-1], b"15")
        with self.assertRaises(dns.exception.Timeout):
            await end.recvfrom(1, 0.0)
        await end.close()

    async def test_no_way(self) -> None:
        """A destination that cannot be connected to is an error, and leaves no port open."""
        with self.assertRaises(OSError):
            DatagramEnd(IReactorFDSet(reactor), IReactorTime(reactor), socket.AF_INET, None, ("255.255.255.255", 53))
