"""
What a TLS handshake is made with, and what it showed.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen


class TLSRole(Enum):
    """Which side of the handshake we are."""

    CLIENT = "client"
    SERVER = "server"


@frozen(kw_only=True)
class TLSSettings:
    """
    Everything that shapes a handshake; two equal values share a context.

    @ivar protocols: Postfix's syntax (C{>=TLSv1}).
    @ivar ciphers: the grade, C{medium} or C{high}.
    @ivar servername: sent as SNI, or L{None} for no SNI.
    """

    role: TLSRole = TLSRole.CLIENT
    protocols: str = ">=TLSv1"
    ciphers: str = "medium"
    servername: str | None = None


@frozen(kw_only=True)
class TLSResult:
    """
    What a handshake showed, or why there is none.

    @ivar protocol: as OpenSSL names it, C{TLSv1.3}.
    @ivar cipher: C{TLS_AES_256_GCM_SHA384}.
    @ivar bits: of the cipher's key.
    @ivar chain: the certificates as the peer sent them, DER, its own first; empty for an anonymous cipher.
    @ivar error: why the handshake failed, with the alert's name where there was one; empty after a success.
    @ivar local: whether that failure was our own (no proxy, no descriptor) and says nothing of the peer.
    """

    protocol: str = ""
    cipher: str = ""
    bits: int = 0
    chain: tuple[bytes, ...] = ()
    error: str = ""
    local: bool = False
