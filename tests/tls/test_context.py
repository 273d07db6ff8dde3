"""
Tests of L{smtpreuse.tls.context}.
"""

from __future__ import annotations

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.tlsfacts import TLSRole, TLSSettings
from smtpreuse.tls.context import Contexts, client_context, server_name


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
        contexts = Contexts(2)
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
        """A server's context needs a certificate."""
        self.assertRaises(ValueError, Contexts().context, TLSSettings(role=TLSRole.SERVER))


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
