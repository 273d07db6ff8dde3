"""
Tests of L{smtpreuse.roles.tether}. That it ends a service is tested in C{tests.system.test_demo}.
"""

from __future__ import annotations

import os

from twisted.internet.interfaces import IReadDescriptor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpreuse.roles import tether
from smtpreuse.roles.tether import Tether


class Readers:
    """A reactor that knows who reads."""

    def __init__(self) -> None:
        self.reading: list[Tether] = []

    def addReader(self, reader: Tether) -> None:
        self.reading.append(reader)

    def removeReader(self, reader: Tether) -> None:
        self.reading.remove(reader)


class TetherTests(SynchronousTestCase):
    """The end of standard input is told, once."""

    def setUp(self) -> None:
        self.given: list[bytes | OSError] = []
        self.patch(tether, "os", self)
        self.readers = Readers()
        self.told = 0
        self.tether = Tether(self.readers, self.tell)  # type: ignore[arg-type]  # a fake
        self.tether.watch()

    def tell(self) -> None:
        """It is the end."""
        self.told += 1

    def read(self, number: int, most: int) -> bytes:
        """In place of os.read."""
        self.assertEqual(number, self.tether.fileno())
        given = self.given.pop(0)
        if isinstance(given, OSError):
            raise given
        return given

    def test_interface(self) -> None:
        """It is what a reactor watches."""
        verifyObject(IReadDescriptor, self.tether)

    def test_octets(self) -> None:
        """What comes means nothing."""
        self.given = [b"x" * 4096, BlockingIOError(), b"y"]
        for _ in range(3):
            self.tether.doRead()
        self.assertEqual((self.told, self.readers.reading), (0, [self.tether]))

    def test_end(self) -> None:
        """The end, an error and a reactor that found it out by itself are one and the same."""
        for given in (b"", OSError(5, os.strerror(5))):
            self.setUp()
            self.given = [given]
            self.tether.doRead()
            self.tether.connectionLost(None)
            self.assertEqual((self.told, self.readers.reading), (1, []))
