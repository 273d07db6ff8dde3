"""
Tests of L{smtpreuse.queue.hosts}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpreuse.interfaces import IHostMemory
from smtpreuse.queue.hosts import HostMemory
from tests.queue.world import endpoint

ONE, TWO, THREE = endpoint(1), endpoint(2), endpoint(3)


class HostMemoryTests(SynchronousTestCase):
    """An endpoint that failed is tried last by all, then by one probe."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.hosts = HostMemory(self.clock.seconds, 60.0)

    def order(self) -> list[int]:
        """Of three."""
        return self.hosts.order([ONE, TWO, THREE])

    def test_interface(self) -> None:
        """It is what the agent asks for."""
        verifyObject(IHostMemory, self.hosts)

    def test_nothing_failed(self) -> None:
        """In the order given."""
        self.assertEqual(self.order(), [0, 1, 2])

    def test_failed(self) -> None:
        """Last for the pause, for everybody."""
        self.hosts.failed(ONE)
        self.assertEqual(self.order(), [1, 2, 0])
        self.clock.advance(59.9)
        self.assertEqual(self.order(), [1, 2, 0])

    def test_all_failed(self) -> None:
        """Where all failed they go in the order given."""
        for each in (TWO, ONE, THREE):
            self.hosts.failed(each)
        self.assertEqual(self.order(), [0, 1, 2])

    def test_probe(self) -> None:
        """When the pause is over one tries it, the others wait for what becomes of that."""
        self.hosts.failed(ONE)
        self.clock.advance(60.0)
        self.assertEqual(self.order(), [0, 1, 2])
        self.assertEqual(self.order(), [1, 2, 0])
        self.clock.advance(60.0)
        self.assertEqual(self.order(), [0, 1, 2])

    def test_answered(self) -> None:
        """It answered: as if nothing had been."""
        self.hosts.failed(ONE)
        self.hosts.answered(ONE)
        self.hosts.answered(TWO)
        self.assertEqual(self.order(), [0, 1, 2])

    def test_adopt(self) -> None:
        """Another pause is for those that fail from then on."""
        self.hosts.failed(ONE)
        self.hosts.adopt(10.0)
        self.hosts.failed(TWO)
        self.clock.advance(10.0)
        self.assertEqual(self.order(), [1, 2, 0])
