"""
Servers for one connection, each in a thread with blocking calls, and what stands on our side of the network.
"""

from __future__ import annotations

import datetime
import select
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Callable

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpreuse.interfaces import IStreamEnd, IStreamReceiver
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.tlsproxy.plaintext import ProxyReactor

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("mx.example.com")
PATIENCE = 20.0
# Octets. Linux chooses sizes by itself otherwise, up to limits that differ from host to host (tcp_rmem and tcp_wmem of
# tcp(7)), so that what a test takes for too much may be little.
_BUFFER = 262144


def server_context(certificate: trustme.LeafCert | None = CERTIFICATE) -> ssl.SSLContext:
    """A context of the standard library for the server's side."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


def context_of(certificate: bytes, key: ec.EllipticCurvePrivateKey) -> ssl.SSLContext:
    """The same for a certificate in DER and its key."""
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + ssl.DER_cert_to_PEM_cert(certificate).encode("ascii")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def self_signed(*, days: int = 30) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
    """A certificate signed by itself that ends in so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd.example.com")])
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(end - datetime.timedelta(days=90))
        .not_valid_after(end)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.DER), key


def bounded(sock: socket.socket) -> None:
    """
    Let the kernel hold no more than so much for this socket, whatever the host is set to: less than 1 MB each way.

    @param sock: not connected yet, or one that listens, for those that it accepts.
    """
    for direction in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, direction, _BUFFER)


class Peer:
    """
    Takes one connection and hands it to C{serve} in a thread of its own.
    """

    def __init__(self, test: TestCase, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listening = socket.create_server(("127.0.0.1", 0))
        bounded(self._listening)
        self._listening.settimeout(PATIENCE)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        test.addCleanup(self.finish)

    def connect(self) -> Descriptor:
        """A network end that leads to it."""
        sock = socket.socket()
        bounded(sock)
        sock.settimeout(PATIENCE)
        sock.connect(self._listening.getsockname())
        return Descriptor.of(sock)

    def alive(self) -> bool:
        """Whether it still talks."""
        return self._thread.is_alive()

    def finish(self) -> None:
        """Wait for its end; what it raised is raised."""
        self._thread.join(PATIENCE)
        self._listening.close()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            connected, _ = self._listening.accept()
            with connected:
                connected.settimeout(PATIENCE)
                self._serve(connected)
        except BaseException as error:
            self.error = error


def tls_peer(
    test: TestCase, talk: Callable[[ssl.SSLSocket], None], context: ssl.SSLContext | None = None
) -> Peer:
    """A peer that does a handshake and then talks."""
    context = context or server_context()

    def serve(connected: socket.socket) -> None:
        with context.wrap_socket(connected, server_side=True, suppress_ragged_eofs=False) as wrapped:
            talk(wrapped)

    return Peer(test, serve)


def reset(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def reset_came(sock: socket.socket) -> None:
    """Wait until the kernel knows of the peer's reset; the error stays for whoever uses the socket next."""
    poll = select.poll()
    poll.register(sock, 0)
    if not poll.poll(PATIENCE * 1000):
        raise AssertionError("no reset came")


def read_exactly(sock: socket.socket, octets: int) -> bytes:
    """So many octets."""
    data = bytearray()
    while len(data) < octets:
        more = sock.recv(octets - len(data))
        if not more:
            raise EOFError(f"{len(data)} octets instead of {octets}")
        data += more
    return bytes(data)


@implementer(IStreamReceiver)
class Receiver:
    """
    Keeps what comes, and lets a test wait for it.
    """

    def __init__(self, end: IStreamEnd | None = None) -> None:
        self.data = bytearray()
        self.endings: list[str] = []
        self.drains = 0
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []
        if end is not None:
            end.attach(self)

    def received(self, data: bytes) -> None:
        assert not self.endings, "nothing comes behind the end"
        self.data += data
        self._look()

    def ended(self, reason: str, ours: bool = False) -> None:
        self.endings.append(reason)
        self._look()

    def drained(self) -> None:
        self.drains += 1
        self._look()

    async def octets(self, number: int) -> bytes:
        """All that came, when it is so many octets."""
        await self._until(lambda: len(self.data) >= number)
        return bytes(self.data)

    async def end(self) -> str:
        """The reason for the end, when it has come."""
        await self._until(lambda: bool(self.endings))
        return self.endings[0]

    async def room(self) -> None:
        """Wait until C{drained} was called once more."""
        before = self.drains
        await self._until(lambda: self.drains > before)

    async def _until(self, condition: Callable[[], bool]) -> None:
        if not condition():
            waiting: Deferred[None] = Deferred()
            self._waiting.append((condition, waiting))
            await waiting

    def _look(self) -> None:
        for entry in self._waiting[:]:
            if entry[0]():
                self._waiting.remove(entry)
                entry[1].callback(None)


class Clocked:
    """
    A reactor whose time stands still until a test moves it; calls for "at once" go to the real one.
    """

    def __init__(self, reactor: ProxyReactor, clock: Clock) -> None:
        self._reactor = reactor
        self._clock = clock
        self.addReader = reactor.addReader
        self.addWriter = reactor.addWriter
        self.removeReader = reactor.removeReader
        self.removeWriter = reactor.removeWriter
        self.adoptStreamConnection = reactor.adoptStreamConnection

    def callLater(self, delay: float, call: Callable[..., object], *args: object) -> IDelayedCall:
        """See L{IReactorTime.callLater}."""
        return (self._clock if delay else self._reactor).callLater(delay, call, *args)
