"""
Tests of L{smtpreuse.tls.context}.
"""

from __future__ import annotations

import ssl

from attrs import evolve
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.tlsfacts import TLSRole, TLSSettings
from smtpreuse.tls.context import Contexts, client_context, server_name
from smtpreuse.tls.identity import Identity
from tests.tls.identities import AUTHORITY, ECDSA, RSA, identity_of

SERVER = TLSSettings(role=TLSRole.SERVER)


def client_hello(settings: TLSSettings) -> bytes:
    """The first thing that is sent."""
    connection = Contexts().connection(settings)
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return connection.bio_read(65536)
    raise AssertionError("a handshake takes two")


class ContextsTests(SynchronousTestCase):
    """
    Equal settings share a context, different ones never do.
    """

    def test_shared(self) -> None:
        """Settings share a context exactly when they differ in nothing but the server name."""
        contexts = Contexts()
        first = contexts.context(TLSSettings())
        self.assertIs(contexts.context(TLSSettings()), first)
        self.assertIs(contexts.context(TLSSettings(servername="mx.example.com")), first)
        self.assertIsNot(contexts.context(TLSSettings(ciphers="high")), first)
        self.assertIsNot(contexts.context(TLSSettings(protocols=">=TLSv1.2")), first)
        self.assertEqual(len(contexts), 3)

    def test_limit(self) -> None:
        """Over the limit the context goes that was not used for the longest time."""
        contexts = Contexts(limit=2)
        a, b, c = TLSSettings(), TLSSettings(ciphers="high"), TLSSettings(protocols=">=TLSv1.2")
        first, second = contexts.context(a), contexts.context(b)
        contexts.context(a)
        contexts.context(c)
        self.assertEqual(len(contexts), 2)
        self.assertIs(contexts.context(a), first)
        self.assertIsNot(contexts.context(b), second)

    def test_connection(self) -> None:
        """The server name is the connection's own."""
        contexts = Contexts()
        named = contexts.connection(TLSSettings(servername="mx.example.com"))
        plain = contexts.connection(TLSSettings())
        self.assertIs(named.get_context(), plain.get_context())
        self.assertIn(b"mx.example.com", client_hello(TLSSettings(servername="mx.example.com")))
        self.assertNotIn(b"example", client_hello(TLSSettings()))

    def test_server_role(self) -> None:
        """A server's context needs a certificate, and is no client's."""
        self.assertRaises(ValueError, Contexts().context, SERVER)
        contexts = Contexts(identity_of(ECDSA))
        self.assertIsNot(contexts.context(SERVER), contexts.context(TLSSettings()))
        self.assertIs(contexts.context(SERVER), contexts.context(SERVER))


class ClientContextTests(SynchronousTestCase):
    """
    A context allows what its settings say, and reaches old servers.
    """

    def ciphers(self, grade: str) -> list[str]:
        return SSL.Connection(client_context(TLSSettings(ciphers=grade)), None).get_cipher_list()

    def test_grades(self) -> None:
        """Anonymous ciphers are offered, those without encryption are not; high has nothing that medium has not."""
        medium, high = self.ciphers("medium"), self.ciphers("high")
        for ciphers in (medium, high):
            self.assertIn("ADH-AES256-SHA", ciphers)
            self.assertIn("ECDHE-RSA-AES256-SHA", ciphers)
            self.assertFalse([name for name in ciphers if "NULL" in name])
        self.assertLessEqual(set(high), set(medium))
        self.assertRaises(ValueError, client_context, TLSSettings(ciphers="low"))

    def test_protocols(self) -> None:
        """Only what is allowed is offered; where a protocol in between is excluded, what is above it."""
        for text, versions in (
            (">=TLSv1", {0x0304, 0x0303, 0x0302, 0x0301}),
            ("!SSLv2 !SSLv3 !TLSv1 !TLSv1.1", {0x0304, 0x0303}),
            (">=TLSv1 !TLSv1.1", {0x0304, 0x0303}),
            (">=TLSv1.1 !TLSv1.2", {0x0304}),
        ):
            hello = client_hello(TLSSettings(protocols=text))
            # The extension supported_versions: its number, its length, and the length of the list (RFC 8446, 4.2.1).
            size = 2 * len(versions)
            start = hello.index(b"\x00\x2b" + (size + 1).to_bytes(2, "big") + bytes([size])) + 5
            offered = {int.from_bytes(hello[at : at + 2], "big") for at in range(start, start + size, 2)}
            self.assertEqual(offered, versions)
        for text in ("SSLv3", "<=SSLv3", "TLSv7"):
            self.assertRaises(ValueError, client_context, TLSSettings(protocols=text))


def shaken(server: Contexts, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLObject:
    """A handshake between the two, in memory; the client's side of it, which has read one octet."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(incoming, outgoing, server_hostname="mx.example.com", session=session)
    ours = server.connection(SERVER)
    steps = [theirs.do_handshake, ours.do_handshake, lambda: ours.send(b"!"), lambda: theirs.read(1)]
    for _ in range(20):
        try:
            steps[0]()
            steps.pop(0)
        except ssl.SSLWantReadError:
            steps.append(steps.pop(0))
        except SSL.WantReadError:
            steps.append(steps.pop(0))
        if not steps:
            return theirs
        if data := outgoing.read():
            ours.bio_write(data)
        try:
            incoming.write(ours.bio_read(65536))
        except SSL.WantReadError:
            continue
    raise AssertionError("the handshake does not end")


class ServerContextTests(SynchronousTestCase):
    """
    A server shows the whole of the chain that its client can use, and resumes nothing.
    """

    def setUp(self) -> None:
        self.contexts = Contexts(identity_of(RSA, ECDSA))

    def client(self, version: ssl.TLSVersion, ciphers: str = "") -> ssl.SSLContext:
        """One that trusts the authority alone, so that it needs the certificate in between."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        AUTHORITY.configure_trust(context)
        context.minimum_version = context.maximum_version = version
        if ciphers:
            context.set_ciphers(ciphers)
        return context

    def test_chains(self) -> None:
        """Each algorithm has a chain of its own, at TLS 1.2 and 1.3."""
        for ciphers, leaf in (("ECDHE-RSA-AES128-GCM-SHA256", RSA), ("ECDHE-ECDSA-AES128-GCM-SHA256", ECDSA)):
            client = shaken(self.contexts, self.client(ssl.TLSVersion.TLSv1_2, ciphers))
            expected = ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())
            self.assertEqual(client.getpeercert(binary_form=True), expected)
        client = shaken(self.contexts, self.client(ssl.TLSVersion.TLSv1_3))
        self.assertEqual(client.version(), "TLSv1.3")
        self.assertTrue(client.getpeercert())

    def test_client_chooses(self) -> None:
        """Of the ciphers that both have the client's first one is taken."""
        for ciphers in ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"):
            context = self.client(ssl.TLSVersion.TLSv1_2, f"{ciphers}:ECDHE-RSA-AES128-GCM-SHA256:ECDHE+AESGCM")
            cipher = shaken(self.contexts, context).cipher()
            assert cipher is not None
            self.assertEqual(cipher[0], ciphers)

    def test_not_resumed(self) -> None:
        """A client that wants to resume a session gets a new one."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.client(version)
            first = shaken(self.contexts, context)
            self.assertFalse(shaken(self.contexts, context, first.session).session_reused)

    def test_unusable(self) -> None:
        """What OpenSSL does not take is told in its words, without the key."""
        bare = Identity((evolve(identity_of(ECDSA).chains[0], certificates=()),))
        error = self.assertRaises(ValueError, Contexts(bare).context, SERVER)
        self.assertIn("OpenSSL does not take the ECDSA certificate: ", str(error))
        for settings in (evolve(SERVER, ciphers="low"), evolve(SERVER, protocols="SSLv2")):
            self.assertRaises(ValueError, self.contexts.context, settings)


class ServerNameTests(SynchronousTestCase):
    """
    A server name is a host name in ASCII.
    """

    def test_names(self) -> None:
        """A final dot does not belong to it."""
        self.assertEqual(server_name("MX.example.com."), b"MX.example.com")
        self.assertEqual(server_name("a" * 255), b"a" * 255)

    def test_impossible(self) -> None:
        """What cannot be sent is refused."""
        for name in ("", ".", "a" * 256, "\u2603.example.com", "a b", "a\0b", "a?b"):
            self.assertRaises(ValueError, server_name, name)
