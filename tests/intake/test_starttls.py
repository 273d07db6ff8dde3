"""
Tests of L{smtpreuse.intake.starttls}.
"""

from __future__ import annotations

import socket

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.intake.starttls import PAUSE, Securing
from smtpreuse.interfaces import IStreamEnd
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.model.tlsfacts import TLSResult, TLSRole, TLSSettings
from tests.fakes import FakeProxy
from tests.intake.fakes import SlowProxy

FAULT = TLSResult(error="no certificate", local=True)


class SecuringTests(SynchronousTestCase):
    """
    Clients get TLS where there is some; when a fault of ours has cost one its connection the next are told in time.
    """

    def setUp(self) -> None:
        self.clock = Clock()

    def started(self, securing: Securing) -> Deferred[tuple[TLSResult, IStreamEnd | None]]:
        """A handshake that has begun."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        return Deferred.fromCoroutine(securing.start(Descriptor.of(ours), 30.0))

    def test_none(self) -> None:
        """Without a proxy there is none."""
        self.assertFalse(Securing(None, self.clock).available())

    def test_success(self) -> None:
        """The proxy is asked for the server's side, within the time that is given."""
        proxy = FakeProxy(TLSResult(protocol="TLSv1.3"))
        securing = Securing(proxy, self.clock)
        self.assertTrue(securing.available())
        result, end = self.successResultOf(self.started(securing))
        self.assertEqual((result.protocol, end), ("TLSv1.3", proxy.ends[0]))
        self.assertEqual(proxy.started, [(TLSSettings(role=TLSRole.SERVER), 30.0)])

    def test_failure(self) -> None:
        """A handshake that failed because of the client says nothing of the next one's."""
        securing = Securing(FakeProxy(TLSResult(error="no shared cipher")), self.clock)
        self.successResultOf(self.started(securing))
        self.assertTrue(securing.available())

    def test_fault(self) -> None:
        """After a fault of ours there is none for a while."""
        securing = Securing(FakeProxy(FAULT, FAULT), self.clock)
        for _ in range(2):
            self.assertEqual(self.successResultOf(self.started(securing)), (FAULT, None))
            self.clock.advance(PAUSE - 0.1)
            self.assertFalse(securing.available())
            self.clock.advance(0.1)
            self.assertTrue(securing.available())

    def test_broken_proxy(self) -> None:
        """A proxy that breaks is a fault of ours; the network end does not stay open."""
        proxy = SlowProxy()
        securing = Securing(proxy, self.clock)
        d = self.started(securing)
        proxy.fail(RuntimeError("gone"))
        result, end = self.successResultOf(d)
        self.assertEqual((result.local, result.error, end), (True, "TLS proxy failed: gone", None))
        self.assertFalse(proxy.network_ends[0].open)
        self.assertFalse(securing.available())
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_given_up(self) -> None:
        """Who gives up a handshake learns of that, and nobody is at fault."""
        proxy = SlowProxy()
        securing = Securing(proxy, self.clock)
        d = self.started(securing)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertTrue(securing.available())
        proxy.network_ends[0].close()
