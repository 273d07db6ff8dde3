"""
Tests of L{smtpreuse.roles.doors}. Who is served when is in C{tests.system.test_rights}.
"""

from __future__ import annotations

import os
import shutil
import tempfile

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from smtpreuse.errors import BadValue
from smtpreuse.roles.doors import Doors, _Gate, place


class GateTests(SynchronousTestCase):
    """Who comes before there is somebody to serve is turned away, and nobody afterwards."""

    def test_opens(self) -> None:
        """Before, and after."""
        gate, address = _Gate(), UNIXAddress(None)
        gate.doStart()
        self.assertIsNone(gate.buildProtocol(address))
        gate.behind = Factory.forProtocol(Protocol)
        self.assertIsInstance(gate.buildProtocol(address), Protocol)
        gate.doStop()


class DoorsTests(TestCase):
    """Ports of any kind, in their order."""

    def setUp(self) -> None:
        self.doors = Doors()
        self.directory = tempfile.mkdtemp(prefix="smtpreuse-test-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = os.path.join(self.directory, "mail")
        self.addCleanup(lambda: Deferred.fromCoroutine(self.doors.close()))

    def bind(self, text: str) -> None:
        """Bind one."""
        self.successResultOf(Deferred.fromCoroutine(self.doors.bind(text)))

    def test_addresses(self) -> None:
        """The real port, where any would do."""
        self.bind("tcp:0:interface=127.0.0.1")
        self.bind(f"unix:{self.path}")
        number, path = self.doors.addresses()
        assert isinstance(number, IPv4Address)
        self.assertGreater(number.port, 0)
        self.assertEqual(place(path), self.path)

    def test_refused(self) -> None:
        """What is no endpoint, and what somebody else has."""
        self.failureResultOf(Deferred.fromCoroutine(self.doors.bind("nowhere:1")), BadValue)
        self.bind("tcp:0:interface=127.0.0.1")
        (taken,) = self.doors.addresses()
        assert isinstance(taken, IPv4Address)
        again = Deferred.fromCoroutine(self.doors.bind(f"tcp:{taken.port}:interface=127.0.0.1"))
        self.failureResultOf(again, CannotListenError)

    def test_forget(self) -> None:
        """Nothing is left in the file system, also without an orderly end."""
        self.bind(f"unix:{self.path}")
        self.assertTrue(os.path.exists(self.path))
        self.doors.forget()
        self.assertFalse(os.path.exists(self.path))
        # An orderly end of the port, after the test, would miss it.
        open(self.path, "w").close()


class PlaceTests(SynchronousTestCase):
    """Addresses as people write them."""

    def test_place(self) -> None:
        """Of each kind."""
        self.assertEqual(place(IPv4Address("TCP", "192.0.2.1", 25)), "192.0.2.1:25")
        self.assertEqual(place(IPv6Address("TCP", "2001:db8::1", 25)), "[2001:db8::1]:25")
        self.assertEqual(place(UNIXAddress(b"/run/mail")), "/run/mail")
        self.assertEqual(place(UNIXAddress(None)), "")
