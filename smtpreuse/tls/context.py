"""
OpenSSL contexts, made from settings and never changed after their first use.

A context holds nothing that belongs to one connection (Postfix mixed them up until 3.4.1): the server name goes on the
connection. It has no trust store either: whether a chain proves enough is a question for
L{verify<smtpreuse.tls.verify.verify>}. A context with a bundle of CAs costs 6.4 ms and 0.9 MiB, one without 0.1 ms.
"""

from __future__ import annotations

import os
from collections import OrderedDict

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from smtpreuse.model.tlsfacts import TLSRole, TLSSettings
from smtpreuse.tls.identity import Chain, Identity
from smtpreuse.tls.protocols import Protocols

# Postfix's lists of its grades (postconf(5), tls_high_cipherlist and tls_medium_cipherlist). Security level 0, because
# a connection that need not be authenticated is better encrypted badly than not at all.
_CIPHERS = {
    "medium": b"aNULL:-aNULL:HIGH:MEDIUM:+RC4:@STRENGTH:@SECLEVEL=0",
    "high": b"aNULL:-aNULL:HIGH:@STRENGTH:@SECLEVEL=0",
}
_SPOKEN = (SSL.TLS1_3_VERSION, SSL.TLS1_2_VERSION, SSL.TLS1_1_VERSION, SSL.TLS1_VERSION)
# A missing close_notify is no error: SMTP says itself where a reply ends. Renegotiation is nothing we would ever want;
# tickets are of no use without resumption; old servers that know no secure renegotiation are to be reached as well.
_OPTIONS = (
    SSL.OP_IGNORE_UNEXPECTED_EOF
    | SSL.OP_NO_RENEGOTIATION
    | SSL.OP_NO_TICKET
    | SSL.OP_NO_COMPRESSION
    | SSL.OP_LEGACY_SERVER_CONNECT
)


class Contexts:
    """
    The contexts in use, the least recently used one goes first.
    """

    def __init__(self, identity: Identity | None = None, *, limit: int = 32) -> None:
        """
        @param identity: what servers' contexts show; without one there are none.
        @param limit: at most so many are kept; connections that were made from one that went stay as they are.
        """
        self._identity = identity
        self._limit = limit
        self._contexts: OrderedDict[tuple[TLSRole, str, str], SSL.Context] = OrderedDict()

    def __len__(self) -> int:
        return len(self._contexts)

    def context(self, settings: TLSSettings) -> SSL.Context:
        """
        The context for these settings; settings that differ by server name only share one.

        @raise ValueError: when no context can be made of them.
        """
        key = (settings.role, settings.protocols, settings.ciphers)
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = self._made(settings)
            if len(self._contexts) > self._limit:
                self._contexts.popitem(last=False)
        else:
            self._contexts.move_to_end(key)
        return context

    def connection(self, settings: TLSSettings) -> SSL.Connection:
        """
        A connection that is ready to begin its handshake, with memory instead of a socket.

        @raise ValueError: when the settings cannot be used.
        """
        connection = SSL.Connection(self.context(settings), None)
        if settings.servername is not None:
            connection.set_tlsext_host_name(server_name(settings.servername))
        if settings.role is TLSRole.SERVER:
            connection.set_accept_state()
        else:
            connection.set_connect_state()
        return connection

    def _made(self, settings: TLSSettings) -> SSL.Context:
        if settings.role is TLSRole.CLIENT:
            return client_context(settings)
        if self._identity is None:
            raise ValueError("the server's side of a handshake cannot be made without a certificate")
        return server_context(settings, self._identity)


def server_name(name: str) -> bytes:
    """
    A server name as it goes into the handshake (RFC 6066 section 3).

    @raise ValueError: when it cannot go there.
    """
    octets = name.rstrip(".").encode("ascii", "replace")
    if not 1 <= len(octets) <= 255 or not all(octet > 0x20 and octet != 0x3F for octet in octets):
        raise ValueError(f"server name {name!r} is not a host name in ASCII of 1 to 255 octets")
    return octets


def protocol_range(text: str) -> tuple[int, int]:
    """
    The lowest and the highest protocol to be spoken. Nobody can offer a range with a hole in it: OpenSSL would
    stay below the hole, we stay above it.

    @raise ValueError: when the list is wrong, or leaves none that can be spoken.
    """
    protocols = Protocols.parse(text)
    usable: list[int] = []
    for number in _SPOKEN:
        if protocols.allows(number):
            usable.append(number)
        elif usable:
            break
    if not usable:
        raise ValueError(f"protocols {text!r} leave none that can be spoken")
    return usable[-1], usable[0]


def client_context(settings: TLSSettings) -> SSL.Context:
    """
    A new context for the client's side.

    @raise ValueError: when the settings cannot be used.
    """
    return _context(SSL.TLS_CLIENT_METHOD, settings)


def server_context(settings: TLSSettings, identity: Identity) -> SSL.Context:
    """
    A new context for the server's side: no certificate is asked for, and of the ciphers the client's first choice is
    taken (Postfix's C{tls_preempt_cipherlist = no}).

    @raise ValueError: when the settings or the identity cannot be used.
    """
    context = _context(SSL.TLS_SERVER_METHOD, settings)
    for chain in identity.chains:
        # Behind the cipher list: with it comes the security level that keys and certificates are held to.
        try:
            _show(context, chain)
        except SSL.Error as error:
            reason = error.args[0][-1][-1] if error.args and error.args[0] else "unknown reason"
            raise ValueError(f"OpenSSL does not take the {chain.kind} certificate: {reason}") from None
    return context


def _show(context: SSL.Context, chain: Chain) -> None:
    """
    Let a context show this chain as well. Only by the way of a file does OpenSSL give a certificate a chain of its own
    (with SSL_CTX_add_extra_chain_cert all have one); this one is in memory, and has nothing secret.
    """
    number = os.memfd_create("certificates", os.MFD_CLOEXEC)
    with open(number, "wb") as file:
        file.write(b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain.certificates))
        file.flush()
        context.use_certificate_chain_file(f"/proc/self/fd/{number}")
    context.use_privatekey(chain.key)


def _context(method: int, settings: TLSSettings) -> SSL.Context:
    """What both sides have in common."""
    if settings.ciphers not in _CIPHERS:
        raise ValueError(f"cipher grade {settings.ciphers!r} is unknown (allowed: {', '.join(sorted(_CIPHERS))})")
    lowest, highest = protocol_range(settings.protocols)
    context = SSL.Context(method)
    context.set_min_proto_version(lowest)
    context.set_max_proto_version(highest)
    context.set_options(_OPTIONS)
    context.set_cipher_list(_CIPHERS[settings.ciphers])
    context.set_verify(SSL.VERIFY_NONE)
    # No session is resumed: connections are kept instead.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # A resting session is 51 KiB with it, and 74 KiB without.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context
