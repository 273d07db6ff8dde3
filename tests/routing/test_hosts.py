"""
Tests of L{smtpreuse.routing.hosts}; what a whole nexthop leads to is in C{test_candidates}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.routing.hosts import Host, HostSearch, numeric
from tests.routing.fakes import FakeResolver


class HostSearchTests(SynchronousTestCase):
    """No more hosts are asked for than it takes to have addresses enough."""

    def setUp(self) -> None:
        self.dns = FakeResolver()
        self.clock = Clock()
        self.dns.hosts = {f"h{n}.test": [f"192.0.2.{n}"] for n in range(9)}

    def search(self, limit: int, *, families: tuple[bool, ...] = (True, False)) -> HostSearch:
        """For so many addresses."""
        return HostSearch(self.dns, families, limit, self.clock.seconds)

    def names(self, search: HostSearch, count: int, *, every: bool = False) -> list[str]:
        """Those of so many equals that were looked up."""
        names = [f"h{n}.test" for n in range(count)]
        hosts: list[Host] = self.successResultOf(Deferred.fromCoroutine(search.equals(names, 10, every)))
        return [host.name for host in hosts]

    def test_missing(self) -> None:
        """A host may have an address of each family; where hosts have fewer, more are asked."""
        search = self.search(5)
        self.assertEqual(search.missing(), 3)
        self.assertEqual(len(self.names(search, 3)), 3)
        self.assertEqual(search.missing(), 1)
        self.assertEqual(len(self.names(search, 9)), 2)
        self.assertEqual(search.missing(), 0)
        self.assertEqual(self.names(search, 9), [])
        self.assertEqual(self.search(100).missing(), 5)
        self.assertEqual(self.search(3, families=(False,)).missing(), 3)

    def test_every(self) -> None:
        """All of them are, where each must be known."""
        self.assertEqual(len(self.names(self.search(1), 9, every=True)), 9)

    def test_ipv4(self) -> None:
        """One of IPv4 is looked for where that is spoken."""
        self.dns.hosts["h0.test"] = ["2001:db8::1", "2001:db8::2"]
        search = self.search(2)
        self.assertEqual(self.names(search, 1), ["h0.test"])
        self.assertEqual(search.missing(), 1)
        search = self.search(2, families=(True,))
        self.names(search, 1)
        self.assertEqual(search.missing(), 0)

    def test_time(self) -> None:
        """When the time is over those left count as not found for now, and are not asked for."""
        search = self.search(5)
        self.clock.advance(20.0)
        (host,) = self.successResultOf(Deferred.fromCoroutine(search.equals(["h1.test"], 10, True)))
        assert host.error is not None
        self.assertTrue(host.error.temporary)
        self.assertEqual((host.name, host.preference, self.dns.asked), ("h1.test", 10, []))


class NumericTests(SynchronousTestCase):
    """Addresses that stand for names are seen."""

    def test_forms(self) -> None:
        """Those that mean the same everywhere."""
        self.assertEqual(numeric("192.0.2.7"), "192.0.2.7")
        self.assertEqual(numeric("2001:DB8:0::7"), "2001:db8::7")
        for name in ("fe80::1%eth0", "192.0.2", "mail.example.com", ""):
            self.assertIsNone(numeric(name))
