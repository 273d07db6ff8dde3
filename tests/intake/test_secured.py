"""
Tests of L{smtpreuse.intake.secured}.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from smtpreuse.intake.secured import SecuredTransport
from smtpreuse.interfaces import IStreamReceiver
from tests.fakes import FakeEnd


@implementer(IPushProducer)
class Producer:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        raise AssertionError("a transport that ends says so otherwise")


class SecuredTransportTests(SynchronousTestCase):
    """
    It is a transport like another, with a stream end below.
    """

    def setUp(self) -> None:
        self.end = FakeEnd()
        self.addresses = IPv4Address("TCP", "127.0.0.1", 25), IPv4Address("TCP", "192.0.2.1", 40000)
        self.came: list[bytes] = []
        self.ends = 0

        def gone() -> None:
            self.ends += 1

        self.transport = SecuredTransport(self.end, self.addresses, self.came.append, gone)
        self.producer = Producer()
        self.transport.registerProducer(self.producer, True)

    def test_interfaces(self) -> None:
        """It provides what a protocol asks of a transport, and what a stream end asks of a receiver."""
        for interface in (ITransport, IConsumer, IPushProducer, IStreamReceiver):
            self.assertTrue(verifyObject(interface, self.transport))

    def test_addresses(self) -> None:
        """They are those of the connection."""
        self.assertEqual((self.transport.getHost(), self.transport.getPeer()), self.addresses)

    def test_octets(self) -> None:
        """Both ways, from the moment on that it listens; and the end."""
        self.assertIsNone(self.end.receiver)
        self.transport.listen()
        self.end.say("NOOP")
        self.transport.write(b"250 ")
        self.transport.writeSequence([b"2.0.0 ", b"Ok\r\n"])
        self.assertEqual((self.came, self.end.taken()), ([b"NOOP\r\n"], b"250 2.0.0 Ok\r\n"))
        self.end.hang_up()
        self.assertEqual(self.ends, 1)

    def test_full(self) -> None:
        """While the stream end is full the producer is paused, once; then it goes on."""
        self.transport.listen()
        self.end.fills = True
        self.transport.write(b"x")
        self.transport.write(b"x")
        self.assertEqual(self.producer.told, ["pause"])
        self.end.drain()
        self.assertEqual(self.producer.told, ["pause", "resume"])
        self.transport.write(b"x")
        self.transport.unregisterProducer()
        self.end.drain()
        self.transport.write(b"x")
        self.assertEqual(self.producer.told, ["pause", "resume", "pause"])

    def test_reading(self) -> None:
        """It is read from or not, as the protocol has it."""
        self.transport.pauseProducing()
        self.assertTrue(self.end.paused)
        self.transport.resumeProducing()
        self.assertFalse(self.end.paused)

    def test_ways_to_end(self) -> None:
        """In an orderly manner, and at once."""
        self.transport.loseConnection()
        self.assertEqual((self.end.closed, self.end.aborted), (True, False))
        self.transport.abortConnection()
        self.assertTrue(self.end.aborted)
        self.end.closed = False
        self.transport.stopProducing()
        self.assertTrue(self.end.closed)
