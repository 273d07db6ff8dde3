"""
Tests of L{smtpreuse.tlsproxy.service}.
"""

from __future__ import annotations

import socket

from twisted.internet import reactor

from smtpreuse.interfaces import ITLSProxy
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.tls.context import Contexts
from smtpreuse.tlsproxy.service import TLSProxyService
from tests import conformance_tlsproxy
from tests.tls.identities import ECDSA, identity_of


class TLSProxyServiceTests(conformance_tlsproxy.TLSProxyServerContract):
    """
    The local body keeps the promises of its seam.
    """

    def proxy(self) -> ITLSProxy:
        return TLSProxyService(reactor, Contexts(identity_of(ECDSA)))

    async def test_no_identity(self) -> None:
        """Without an identity there is no server's side: a fault of our own, and the connection is closed."""
        ours, theirs = socket.socketpair()
        proxy = TLSProxyService(reactor, Contexts())
        result, end = await proxy.start(Descriptor.of(ours), conformance_tlsproxy.SERVER, 30.0)
        self.assertEqual((result.local, end), (True, None))
        self.assertIn("without a certificate", result.error)
        with theirs:
            self.assertEqual(theirs.recv(1), b"")
