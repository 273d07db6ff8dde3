"""
Tests of L{smtpreuse.ipc.stream}.
"""

from __future__ import annotations

import os
import socket

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from smtpreuse.errors import SessionLost
from smtpreuse.interfaces import IStreamEnd
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.ipc.stream import StreamEnd, adopt_plaintext
from tests.tlsproxy.peer import Receiver, bounded, reset, reset_came


class StreamEndTests(SynchronousTestCase):
    """
    A stream end has one receiver at a time, and nothing falls between two.
    """

    def setUp(self) -> None:
        self.end = StreamEnd()
        self.transport = StringTransport()
        self.end.makeConnection(self.transport)

    def lose(self) -> None:
        """The connection ends."""
        self.end.connectionLost(Failure(ConnectionDone()))

    def test_interface(self) -> None:
        """It provides the seam."""
        self.assertTrue(verifyObject(IStreamEnd, self.end))

    def test_early_octets(self) -> None:
        """What comes before a receiver waits for it, and its end does as well."""
        self.end.dataReceived(b"220 ")
        self.end.dataReceived(b"ok")
        self.lose()
        receiver = Receiver(self.end)
        self.assertEqual(receiver.data, b"220 ok")
        self.assertEqual(receiver.endings, ["Connection was closed cleanly."])

    def test_early_octets_are_bounded(self) -> None:
        """When too much comes before a receiver, the transport is not read until there is one."""
        self.end.dataReceived(b"x" * 65536)
        self.assertEqual(self.transport.producerState, "producing")
        self.end.dataReceived(b"x")
        self.assertEqual(self.transport.producerState, "paused")
        receiver = Receiver(self.end)
        self.assertEqual(self.transport.producerState, "producing")
        self.assertEqual(len(receiver.data), 65537)

    def test_pause(self) -> None:
        """The transport is not read from until C{resume}; after the end both do nothing."""
        self.end.pause()
        self.assertEqual(self.transport.producerState, "paused")
        self.end.resume()
        self.assertEqual(self.transport.producerState, "producing")
        self.lose()
        self.end.pause()
        self.end.resume()
        self.assertEqual(self.transport.producerState, "producing")

    def test_next_receiver(self) -> None:
        """The receiver before hears nothing any more."""
        first = Receiver(self.end)
        self.end.dataReceived(b"1")
        second = Receiver(self.end)
        self.end.dataReceived(b"2")
        self.lose()
        self.assertEqual((first.data, first.endings), (b"1", []))
        self.assertEqual((second.data, len(second.endings)), (b"2", 1))

    def test_full(self) -> None:
        """C{full} says whether the transport is, and C{drained} when it is not any more."""
        receiver = Receiver(self.end)
        self.assertFalse(self.end.full)
        self.transport.producer.pauseProducing()
        self.assertTrue(self.end.full)
        self.transport.producer.resumeProducing()
        self.assertFalse(self.end.full)
        self.assertEqual(receiver.drains, 1)

    def test_full_without_receiver(self) -> None:
        """A transport that drains while nobody listens tells nobody."""
        self.transport.producer.pauseProducing()
        self.transport.producer.resumeProducing()
        self.assertFalse(self.end.full)
        self.transport.producer.pauseProducing()
        self.transport.producer.stopProducing()
        self.assertFalse(self.end.full)

    def test_close(self) -> None:
        """After C{close} nothing is written and nothing is heard but the end."""
        receiver = Receiver(self.end)
        self.end.write(b"QUIT\r\n")
        self.end.close()
        self.end.close()
        self.end.write(b"NOOP\r\n")
        self.end.dataReceived(b"221 bye\r\n")
        self.assertEqual(self.transport.value(), b"QUIT\r\n")
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual((receiver.data, receiver.endings), (b"", []))
        self.assertRaises(SessionLost, self.end.detach)
        self.lose()
        self.assertEqual(len(receiver.endings), 1)

    def test_abort(self) -> None:
        """C{abort} ends the connection at once; nothing is heard but the end."""
        receiver = Receiver(self.end)
        self.end.abort()
        self.end.dataReceived(b"x")
        self.assertTrue(self.transport.disconnected)
        self.assertEqual(receiver.data, b"")
        self.assertRaises(SessionLost, self.end.detach)

    def test_after_end(self) -> None:
        """Nothing can be done with what has ended, and nothing breaks."""
        receiver = Receiver(self.end)
        self.lose()
        self.end.connectionLost(None)
        self.end.write(b"x")
        self.end.close()
        self.end.abort()
        self.assertEqual(self.transport.value(), b"")
        self.assertFalse(self.transport.disconnecting)
        self.assertRaises(SessionLost, self.end.detach)
        self.assertEqual(len(receiver.endings), 1)

    def test_detach_with_octets(self) -> None:
        """What arrived and was not asked for is not carried over: a reply injected behind STARTTLS is one case."""
        self.end.dataReceived(b"250 injected\r\n")
        error = self.assertRaises(SessionLost, self.end.detach)
        self.assertIn("nobody asked for", str(error))

    def test_transport_without_producers(self) -> None:
        """A transport that can do no more than it must will do."""
        end = StreamEnd()
        transport = BareTransport()
        end.makeConnection(transport)
        end.dataReceived(b"x" * 70000)
        Receiver(end)
        end.write(b"y")
        end.close()
        self.assertEqual(transport.calls, [b"y", "lost"])


class BareTransport:
    """Less than Twisted's."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def loseConnection(self) -> None:
        self.calls.append("lost")


class SocketTests(TestCase):
    """
    The same over real sockets.
    """

    def setUp(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.settimeout(10)
        bounded(self.listening)
        self.addCleanup(self.listening.close)

    async def connected(self) -> tuple[StreamEnd, socket.socket]:
        """An end over TCP, and its peer."""
        endpoint = TCP4ClientEndpoint(reactor, *self.listening.getsockname())
        end = await endpoint.connect(Factory.forProtocol(StreamEnd))
        bounded(end.transport.getHandle())
        theirs, _ = self.listening.accept()
        theirs.settimeout(10)
        self.addCleanup(theirs.close)
        return end, theirs

    async def test_no_delay(self) -> None:
        """What is written does not wait for an acknowledgement."""
        end, _ = await self.connected()
        self.assertTrue(end.transport.getTcpNoDelay())
        end.abort()
        await Receiver(end).end()

    async def test_carried_on(self) -> None:
        """A stream that was detached is carried on by another end, over TCP and over UNIX sockets."""
        end, theirs = await self.connected()
        for _ in range(3):
            old = Receiver(end)
            end.write(b"ping")
            descriptor = end.detach()
            self.assertRaises(SessionLost, end.detach)
            end.write(b"lost")
            end.close()
            end.abort()
            end = adopt_plaintext(reactor, descriptor)
            self.assertFalse(descriptor.open)
            receiver = Receiver(end)
            theirs.sendall(b"pong")
            self.assertEqual(await receiver.octets(4), b"pong")
            self.assertEqual((old.data, old.endings), (b"", []))
        theirs.close()
        await receiver.end()
        self.assertEqual(len(receiver.endings), 1)

    async def test_unix(self) -> None:
        """An end of a socketpair can be adopted, and given away again."""
        ours, theirs = socket.socketpair()
        theirs.settimeout(10)
        end = adopt_plaintext(reactor, Descriptor.of(ours))
        end.write(b"one")
        end = adopt_plaintext(reactor, end.detach())
        self.assertEqual(theirs.recv(10), b"one")
        theirs.close()
        await Receiver(end).end()

    async def test_unsent(self) -> None:
        """While something has not left the stream is not given away, and its receiver stays."""
        end, theirs = await self.connected()
        receiver = Receiver(end)
        end.write(b"x" * 20_000_000)
        self.assertTrue(end.full)
        self.assertRaises(SessionLost, end.detach)
        theirs.sendall(b"heard")
        self.assertEqual(await receiver.octets(5), b"heard")
        end.abort()
        await receiver.end()

    async def test_gone(self) -> None:
        """A descriptor whose peer has gone raises, and is closed."""
        theirs = socket.create_connection(self.listening.getsockname(), 10)
        ours, _ = self.listening.accept()
        reset(theirs)
        reset_came(ours)
        number = ours.fileno()
        self.assertRaises(SessionLost, adopt_plaintext, reactor, Descriptor.of(ours))
        self.assertRaises(OSError, os.fstat, number)

    async def test_no_descriptor_left(self) -> None:
        """A fault of our own is not mistaken for one of the peer."""

        class Full:
            def adoptStreamConnection(self, *args: object) -> None:
                raise OSError(24, "Too many open files")

        ours, theirs = socket.socketpair()
        with theirs:
            number = ours.fileno()
            error = self.assertRaises(OSError, adopt_plaintext, Full(), Descriptor.of(ours))
            self.assertNotIsInstance(error, ConnectionError)
            self.assertRaises(OSError, os.fstat, number)

    async def test_reset_while_adopting(self) -> None:
        """An error of the connection is the session's end."""

        class Gone:
            def adoptStreamConnection(self, *args: object) -> None:
                raise ConnectionResetError(104, "Connection reset by peer")

        ours, theirs = socket.socketpair()
        with theirs:
            self.assertRaises(SessionLost, adopt_plaintext, Gone(), Descriptor.of(ours))
