"""
Tests of L{smtpreuse.ipc.descriptor}.
"""

from __future__ import annotations

import os
import socket
import warnings

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from smtpreuse.errors import DescriptorError, SessionLost
from smtpreuse.ipc.descriptor import Descriptor, taken_from
from tests.tlsproxy.peer import bounded, reset_came


class DescriptorTests(SynchronousTestCase):
    """
    A descriptor has one owner at a time.
    """

    def setUp(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.theirs.close)
        self.number = self.ours.fileno()
        self.descriptor = Descriptor.of(self.ours)
        self.addCleanup(self.descriptor.close)

    def closed(self) -> bool:
        """Whether the number leads nowhere any more."""
        try:
            os.fstat(self.number)
        except OSError:
            return True
        return False

    def test_taken_over(self) -> None:
        """The socket it was made of owns nothing any more."""
        self.assertEqual(self.ours.fileno(), -1)
        self.assertEqual(self.descriptor.fileno(), self.number)
        self.assertEqual(self.descriptor.family, socket.AF_UNIX)
        self.assertTrue(self.descriptor.open)

    def test_taken(self) -> None:
        """What was taken is not ours to use, to take or to close."""
        self.assertEqual(self.descriptor.take(), self.number)
        self.assertFalse(self.descriptor.open)
        self.assertRaises(DescriptorError, self.descriptor.take)
        self.assertRaises(DescriptorError, self.descriptor.fileno)
        self.descriptor.close()
        self.assertFalse(self.closed())
        os.close(self.number)

    def test_closed(self) -> None:
        """It is closed once, even when the number belongs to somebody else by then."""
        self.descriptor.close()
        self.assertTrue(self.closed())
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        self.assertIn(self.number, (reading, writing))
        self.descriptor.close()
        self.assertFalse(self.closed())
        self.assertRaises(DescriptorError, self.descriptor.take)

    def test_with(self) -> None:
        """It is closed at the end of C{with}, unless it was taken."""
        with self.descriptor as same:
            self.assertIs(same, self.descriptor)
        self.assertTrue(self.closed())
        number = self.theirs.fileno()
        with Descriptor.of(self.theirs) as other:
            other.take()
        os.fstat(number)
        os.close(number)

    def test_forgotten(self) -> None:
        """One that nobody took or closed is closed with a warning."""
        number = self.theirs.fileno()
        forgotten = Descriptor.of(self.theirs)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del forgotten
        self.assertEqual([warning.category for warning in caught], [ResourceWarning])
        self.assertRaises(OSError, os.fstat, number)

    def test_repr(self) -> None:
        """It shows its number while it owns it."""
        self.assertEqual(repr(self.descriptor), f"<Descriptor {self.number}>")
        self.descriptor.close()
        self.assertEqual(repr(self.descriptor), "<Descriptor gone>")


class Lost(Protocol):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True


class TakenFromTests(TestCase):
    """
    A socket leaves its transport alive and with nothing lost.
    """

    def setUp(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        bounded(listening)
        self.theirs = socket.create_connection(listening.getsockname(), 10)
        ours, _ = listening.accept()
        listening.close()
        self.addCleanup(self.theirs.close)
        ours.setblocking(False)
        self.protocol = Lost()
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda addr: self.protocol
        reactor.adoptStreamConnection(ours.fileno(), ours.family, factory)
        ours.close()

    async def test_alive(self) -> None:
        """The connection stays open, both ways, and the protocol hears nothing more of it."""
        with taken_from(self.protocol.transport) as descriptor:
            for _ in range(3):
                await deferLater(reactor, 0)
            with socket.socket(fileno=descriptor.take()) as sock:
                sock.settimeout(10)
                self.theirs.sendall(b"there")
                self.assertEqual(sock.recv(10), b"there")
                sock.sendall(b"back")
                self.assertEqual(self.theirs.recv(10), b"back")
        self.assertEqual((self.protocol.data, self.protocol.lost), (b"", False))

    async def test_written_octets(self) -> None:
        """What was written in the same turn of the reactor has left by then."""
        self.protocol.transport.write(b"STARTTLS\r\n")
        with taken_from(self.protocol.transport):
            self.assertEqual(self.theirs.recv(100), b"STARTTLS\r\n")

    async def test_unsent_octets(self) -> None:
        """While something that was written has not left, the socket is not given away."""
        self.protocol.transport.write(b"x" * 20_000_000)
        self.assertRaises(SessionLost, taken_from, self.protocol.transport)
        self.protocol.transport.abortConnection()
        await deferLater(reactor, 0)
        self.assertTrue(self.protocol.lost)

    async def test_lost(self) -> None:
        """A connection that turns out to be lost is not given away."""
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.theirs.close()
        reset_came(self.protocol.transport.getHandle())
        self.protocol.transport.write(b"x")
        self.assertRaises(SessionLost, taken_from, self.protocol.transport)
        while not self.protocol.lost:
            await deferLater(reactor, 0)
