"""
Tests of L{smtpreuse.tlsproxy.service}.
"""

from __future__ import annotations

from twisted.internet import reactor

from smtpreuse.interfaces import ITLSProxy
from smtpreuse.tls.context import Contexts
from smtpreuse.tlsproxy.service import TLSProxyService
from tests import conformance_tlsproxy


class TLSProxyServiceTests(conformance_tlsproxy.TLSProxyContract):
    """
    The local body keeps the promises of its seam.
    """

    def proxy(self) -> ITLSProxy:
        return TLSProxyService(reactor, Contexts())
