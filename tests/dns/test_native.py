"""
Tests of L{smtpreuse.dns.native}.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from twisted.internet import reactor
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTCP, IReactorThreads
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from smtpreuse.config.load import settings_of
from smtpreuse.dns.native import NativeResolver, OrderedResolver, resolver_of, threaded
from smtpreuse.errors import DNSError, NoSuchName, NoSuchRecords
from smtpreuse.interfaces import IResolver
from smtpreuse.model.records import AddressAnswer
from tests.routing.fakes import FakeResolver

REACTOR = IReactorTCP(reactor)


class NativeResolverTests(SynchronousTestCase):
    """The system's answers become ours."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.result: Sequence[str] | Exception = ["192.0.2.1"]
        self.asked: list[tuple[str, bool]] = []
        self.resolver = NativeResolver(self.clock.seconds, self.look_up)

    async def look_up(self, host: str, ipv6: bool) -> Sequence[str]:
        """Stands for the system."""
        self.asked.append((host, ipv6))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def addresses(self) -> Deferred[AddressAnswer]:
        """Ask."""
        return Deferred.fromCoroutine(self.resolver.addresses("mail.test", False))

    def test_seam(self) -> None:
        """It stands behind the seam."""
        self.assertTrue(verifyObject(IResolver, self.resolver))

    def test_found(self) -> None:
        """Addresses are good for a minute, and asked for once in it."""
        self.assertEqual(
            self.successResultOf(self.addresses()), AddressAnswer(addresses=("192.0.2.1",), good_until=60.0)
        )
        self.successResultOf(self.addresses())
        self.assertEqual(self.asked, [("mail.test", False)])

    def test_errors(self) -> None:
        """What may pass is temporary, what is not there is final."""
        for error, kind, temporary in (
            (socket.gaierror(socket.EAI_AGAIN, "again"), DNSError, True),
            (socket.gaierror(socket.EAI_NONAME, "none"), NoSuchName, False),
            (socket.gaierror(socket.EAI_NODATA, "no data"), NoSuchRecords, False),
            (TimeoutError(20.0, "Deferred"), DNSError, True),
            (OSError("no descriptors"), DNSError, True),
            (UnicodeError("label too long"), DNSError, False),
        ):
            self.result = error
            failure = self.failureResultOf(self.addresses(), DNSError)
            self.assertIs(failure.type, kind)
            self.assertEqual(failure.value.temporary, temporary)

    def test_empty(self) -> None:
        """No address is NODATA."""
        self.result = []
        self.failureResultOf(self.addresses(), NoSuchRecords)

    def test_mx(self) -> None:
        """There are no MX records."""
        self.failureResultOf(Deferred.fromCoroutine(self.resolver.mx("example.com")), NoSuchRecords)


class ThreadedTests(TestCase):
    """The system is asked in a thread."""

    async def test_localhost(self) -> None:
        """/etc/hosts is known to it."""
        threads = IReactorThreads(reactor)
        look_up = threaded(threads, threads.getThreadPool())
        self.assertEqual(await look_up("localhost", False), ["127.0.0.1"])

    async def test_unknown(self) -> None:
        """What the system does not find is its error."""
        threads = IReactorThreads(reactor)
        with self.assertRaises(OSError):
            await threaded(threads, threads.getThreadPool())("::1", False)


class OrderedResolverTests(SynchronousTestCase):
    """The next look-up is asked when the one before has nothing, and not when it failed."""

    def setUp(self) -> None:
        self.first, self.second = FakeResolver(), FakeResolver()
        self.second.hosts["mail.test"] = ["192.0.2.2"]
        self.resolver = OrderedResolver(self.first, [self.first, self.second])

    def addresses(self) -> Deferred[AddressAnswer]:
        """Ask."""
        return Deferred.fromCoroutine(self.resolver.addresses("mail.test", False))

    def test_seam(self) -> None:
        """It stands behind the seam."""
        self.assertTrue(verifyObject(IResolver, self.resolver))

    def test_first(self) -> None:
        """What the first one has is enough."""
        self.first.hosts["mail.test"] = ["192.0.2.1"]
        self.assertEqual(self.successResultOf(self.addresses()).addresses, ("192.0.2.1",))
        self.assertEqual(self.second.asked, [])

    def test_second(self) -> None:
        """What it has not is looked for in the second."""
        self.assertEqual(self.successResultOf(self.addresses()).addresses, ("192.0.2.2",))
        self.first.hosts["mail.test"] = []
        self.assertEqual(self.successResultOf(self.addresses()).addresses, ("192.0.2.2",))

    def test_failed(self) -> None:
        """What it could not tell now stays open."""
        self.first.hosts["mail.test"] = DNSError("try again", temporary=True)
        self.failureResultOf(self.addresses(), DNSError)
        self.assertEqual(self.second.asked, [])

    def test_mx(self) -> None:
        """MX records are asked of one alone."""
        self.failureResultOf(Deferred.fromCoroutine(self.resolver.mx("example.com")), NoSuchName)
        self.assertEqual(self.second.asked, [])


class ResolverOfTests(TestCase):
    """The settings decide who is asked."""

    def made(self, **values: str) -> IResolver:
        """The resolver of these settings."""
        return resolver_of(settings_of(**values), REACTOR, IReactorThreads(reactor).getThreadPool())

    async def test_disabled(self) -> None:
        """Without DNS the system alone is asked, and there are no MX records."""
        resolver = self.made(smtp_dns_support_level="disabled")
        self.assertIsInstance(resolver, NativeResolver)
        self.assertEqual((await resolver.addresses("localhost", False)).addresses, ("127.0.0.1",))

    async def test_native_hosts(self) -> None:
        """smtp_host_lookup = native finds hosts through the system."""
        resolver = self.made(smtp_host_lookup="native", dns_servers="192.0.2.1")
        self.assertEqual((await resolver.addresses("localhost", False)).addresses, ("127.0.0.1",))
