"""
The TLS proxy as others see it: a network end goes in, a result and a plaintext end come out.

What the result is worth is for the caller to judge; no octet was read or written by then.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from OpenSSL import SSL
from zope.interface import implementer

from smtpreuse.errors import DescriptorError
from smtpreuse.interfaces import ITLSProxy
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.model.tlsfacts import TLSResult, TLSSettings
from smtpreuse.tls.context import Contexts
from smtpreuse.tlsproxy.bridges import Bridges
from smtpreuse.tlsproxy.handshake import Handshake
from smtpreuse.tlsproxy.openssl import clear_errors
from smtpreuse.tlsproxy.plaintext import PlaintextEnd, ProxyReactor
from smtpreuse.tlsproxy.wire import Wire


@implementer(ITLSProxy)
class TLSProxyService:
    """
    The local body of the seam.

    @ivar bridges: of the plaintext ends that went to other processes.
    """

    def __init__(self, reactor: ProxyReactor, contexts: Contexts) -> None:
        self.bridges = Bridges(reactor)
        self._reactor = reactor
        self._contexts = contexts

    async def start(
        self, network_end: Descriptor, settings: TLSSettings, timeout: float
    ) -> tuple[TLSResult, PlaintextEnd | None]:
        """See L{ITLSProxy.start}."""
        try:
            sock = adopted(network_end)
        except (DescriptorError, OSError) as error:
            with suppress(OSError):
                network_end.close()
            return TLSResult(error=f"TLS proxy cannot take the connection over: {error}", local=True), None
        try:
            connection = self._contexts.connection(settings)
        except (ValueError, SSL.Error) as error:
            clear_errors()
            sock.close()
            return TLSResult(error=f"TLS settings cannot be used: {error}", local=True), None
        wire = Wire(connection, sock)
        try:
            result = await Handshake(self._reactor, wire).result(timeout)
        except BaseException:
            # The caller gave up.
            sock.close()
            raise
        if result.error:
            sock.close()
            return result, None
        return result, PlaintextEnd(self._reactor, wire, self.bridges.make)


def adopted(descriptor: Descriptor) -> socket.socket:
    """
    Take a descriptor over as a socket that sends at once.

    @raise DescriptorError: when somebody else took it.
    @raise OSError: when it is no socket.
    """
    number = descriptor.fileno()
    sock = socket.socket(descriptor.family, socket.SOCK_STREAM, fileno=number)
    try:
        sock.setblocking(False)
        sock.set_inheritable(False)
        if descriptor.family != socket.AF_UNIX:
            # A record is to leave at once, not when the one before it was acknowledged.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.detach()
        raise
    descriptor.take()
    return sock
