"""
Clients that use STARTTLS, and those that misuse it, on real sockets.
"""

from __future__ import annotations

import contextlib
import signal
import smtplib
import socket
import ssl
import subprocess

from tests.peers import program
from tests.service import LIMIT, Service, scratch, until
from tests.system.injection import letter
from tests.system.test_clients import ENVELOPE, read
from tests.system.test_start import started
from tests.system.world import SystemTestCase
from tests.tls.identities import AUTHORITY, ECDSA, RSA, certificates_of, chain_of, key_of


def trusting(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client's context that trusts the authority, and speaks this version alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class EncryptedCase(SystemTestCase):
    """A service that offers TLS to its clients."""

    def encrypted(self, level: str = "may", **parameters: str) -> Service:
        """It runs, with two chains."""
        parameters = {"smtpd_tls_loglevel": "1", **parameters}
        running = self.service(
            self.destination(), smtpd_tls_security_level=level, smtpd_tls_chain_files="rsa.pem ecdsa.pem", **parameters
        )
        for name, leaf in (("rsa.pem", RSA), ("ecdsa.pem", ECDSA)):
            (running.directory / name).write_bytes(chain_of(leaf))
        running.start()
        return running

    def asked(self, running: Service) -> socket.socket:
        """A connection that said EHLO."""
        connection = socket.create_connection(running.address, LIMIT)
        self.addCleanup(connection.close)
        read(connection, b"220 ")
        connection.sendall(b"EHLO x\r\n")
        self.assertIn(b"250-STARTTLS\r\n", read(connection, b"250 HELP\r\n"))
        return connection

    def ready(self, running: Service) -> socket.socket:
        """One that was told to begin its handshake."""
        connection = self.asked(running)
        connection.sendall(b"STARTTLS\r\n")
        self.assertEqual(read(connection, b"\r\n"), b"220 2.0.0 Ready to start TLS\r\n")
        return connection

    def secured(self, running: Service) -> ssl.SSLSocket:
        """One whose handshake is over."""
        wrapped = trusting().wrap_socket(self.ready(running), server_hostname="mx.example.com")
        self.addCleanup(wrapped.close)
        return wrapped

    def logged(self, running: Service, words: str) -> str:
        """The line with this in it, when it is there."""
        until(lambda: bool(running.maillog(words)), running.log)
        (line,) = running.maillog(words)
        return line


class ClientsTests(EncryptedCase):
    """Whoever speaks STARTTLS hands in mail over it."""

    def test_smtplib(self) -> None:
        """At TLS 1.2 and 1.3, several messages on each connection, large ones among them; all arrive as they were."""
        sink = self.destination()
        running = self.service(
            sink, smtpd_tls_security_level="may", smtpd_tls_cert_file="cert.pem", smtpd_tls_key_file="key.pem",
            smtpd_tls_loglevel="1",
        )  # fmt: skip
        (running.directory / "cert.pem").write_bytes(certificates_of(RSA))
        (running.directory / "key.pem").write_bytes(key_of(RSA))
        running.start()
        mail = {}
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with smtplib.SMTP(*running.address, timeout=LIMIT) as client:
                client.starttls(context=trusting(version))
                self.assertFalse(client.has_extn("starttls"))
                client.ehlo("client.test")
                self.assertFalse(client.has_extn("starttls"))
                for size in (2000, 5_000_000):
                    each = letter(f"{version.name}-{size}", size)
                    mail[each.identity] = each
                    client.sendmail("a@example.com", each.recipients, each.content)
        self.arrived(sink, mail)
        self.check_whole(sink, mail.values())
        self.check_single(sink)
        lines = running.maillog("TLS connection established from")
        for line, version_name in zip(lines, ("TLSv1.2", "TLSv1.3"), strict=True):
            self.assertRegex(line, (
                r" smtpreuse/smtpd\[\d+\]: Anonymous TLS connection established from localhost\[127\.0\.0\.1\]:"
                rf" {version_name} with cipher \S+ \((128/128|256/256) bits\)$"
            ))  # fmt: skip

    def test_openssl(self) -> None:
        """C{openssl s_client}, which takes lines with a capital Q for its own."""
        running = self.encrypted()
        authority = scratch(self) / "ca.pem"
        AUTHORITY.cert_pem.write_to_path(str(authority))
        command = [
            program("openssl"), "s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{running.port}", "-crlf",
            "-ign_eof", "-CAfile", str(authority), "-verify_return_error", "-verify_hostname", "mx.example.com",
        ]  # fmt: skip
        ended = subprocess.run(
            command, input="NOOP\nquit\n", capture_output=True, text=True, timeout=LIMIT
        )
        self.assertIn("221 2.0.0 Bye", ended.stdout, ended.stderr)
        self.assertIn("Verify return code: 0 (ok)", ended.stdout)

    def test_unix_socket(self) -> None:
        """Over a UNIX socket too."""
        running = self.service(self.destination(), smtpd_tls_security_level="encrypt", smtpd_tls_cert_file="chain.pem")
        (running.directory / "chain.pem").write_bytes(chain_of(ECDSA))
        path = running.directory / "socket"
        running.start("--listen", f"unix:{path}")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LIMIT)
            connection.connect(str(path))
            read(connection, b"220 ")
            connection.sendall(b"STARTTLS\r\n")
            read(connection, b"220 2.0.0 Ready to start TLS\r\n")
            with trusting().wrap_socket(connection, server_hostname="mx.example.com") as wrapped:
                wrapped.sendall(b"EHLO x\r\n")
                read(wrapped, b"250 HELP\r\n")
                wrapped.sendall(ENVELOPE)
                read(wrapped, b"354 ")
                wrapped.sendall(b"Subject: x\r\n\r\nx\r\n.\r\nQUIT\r\n")
                self.assertIn(b"250 2.0.0 Ok: queued as ", read(wrapped, b"221 2.0.0 Bye\r\n"))

    def test_pipelined(self) -> None:
        """A client that sends far ahead, and reads its replies late, gets all of them."""
        running = self.encrypted()
        wrapped = self.secured(running)
        wrapped.sendall(b"EHLO x\r\n")
        read(wrapped, b"250 HELP\r\n")
        messages = 300
        for _ in range(messages):
            wrapped.sendall(ENVELOPE[:-6])
            wrapped.sendall(b"DATA\r\n")
            read(wrapped, b"354 ")
            wrapped.sendall(b"Subject: x\r\n\r\nx\r\n.\r\n")
        wrapped.sendall(b"QUIT\r\n")
        read(wrapped, b"221 2.0.0 Bye\r\n")
        self.assertEqual(len(running.maillog("smtpd[")), messages + 1)

    def test_encrypt(self) -> None:
        """Where TLS must come first nothing is taken in plaintext, and everything behind it."""
        running = self.encrypted("encrypt")
        connection = self.asked(running)
        connection.sendall(b"MAIL FROM:<a@example.com>\r\n")
        self.assertEqual(read(connection, b"\r\n"), b"530 5.7.0 Must issue a STARTTLS command first\r\n")
        with smtplib.SMTP(*running.address, timeout=LIMIT) as client:
            client.starttls(context=trusting())
            client.sendmail("a@example.com", ["b@example.test"], b"Subject: x\r\n\r\nx\r\n")


class MisuseTests(EncryptedCase):
    """Nothing that came in plaintext counts behind STARTTLS, and who does not get through the handshake is let go."""

    def test_injected_in_one_segment(self) -> None:
        """Commands behind STARTTLS end the session before its handshake."""
        running = self.encrypted()
        connection = self.asked(running)
        connection.sendall(b"STARTTLS\r\nRSET\r\nMAIL FROM:<evil@example.com>\r\n")
        self.assertEqual(read(connection), b"554 5.5.0 Error: SMTP protocol synchronization\r\n")
        line = self.logged(running, "improper command pipelining")
        offence = "improper command pipelining after STARTTLS from localhost[127.0.0.1]: RSET"
        self.assertTrue(line.endswith(offence), line)

    def test_injected_in_two_segments(self) -> None:
        """Commands that come when the handshake is due are no part of it, and no part of what follows."""
        running = self.encrypted()
        connection = self.asked(running)
        # So that both are there before either is read.
        running.send_signal(signal.SIGSTOP)
        self.addCleanup(running.send_signal, signal.SIGCONT)
        connection.sendall(b"STARTTLS\r\n")
        connection.sendall(b"RSET\r\nMAIL FROM:<evil@example.com>\r\n")
        running.send_signal(signal.SIGCONT)
        self.assertNotIn(b"250 ", self.rest(connection))
        connection = self.ready(running)
        connection.sendall(b"RSET\r\nMAIL FROM:<evil@example.com>\r\n")
        self.assertNotIn(b"250 ", self.rest(connection))
        failed = "SSL_accept error from localhost[127.0.0.1]: TLS error: "
        until(lambda: bool(running.maillog(failed)), running.log)
        self.works(running)

    def test_garbage(self) -> None:
        """Octets that are no TLS, or only look like it."""
        running = self.encrypted()
        like_tls = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"
        for number, octets in enumerate((b"\0" * 100, like_tls * 9, b"\x80" * 70000), 1):
            connection = self.ready(running)
            with contextlib.suppress(ConnectionError):
                connection.sendall(octets)
            self.rest(connection)
            until(lambda number=number: len(running.maillog("SSL_accept error")) == number, running.log)
        self.works(running)

    def test_stalled(self) -> None:
        """A client that does not begin is let go when its time is over; others are served meanwhile."""
        running = self.encrypted(smtpd_starttls_timeout="1s")
        connection = self.ready(running)
        self.works(running)
        self.assertEqual(self.rest(connection), b"")
        line = self.logged(running, "SSL_accept error")
        self.assertTrue(line.endswith(" from localhost[127.0.0.1]: handshake timed out after 1 seconds"), line)

    def test_closed(self) -> None:
        """A client that closes in its handshake."""
        running = self.encrypted()
        self.ready(running).close()
        self.assertIn("lost connection", self.logged(running, "SSL_accept error"))
        self.works(running)

    def test_not_trusted(self) -> None:
        """A client that does not trust us says so, and we tell the operator what it said."""
        running = self.encrypted()
        connection = self.ready(running)
        with self.assertRaises(ssl.SSLError):
            ssl.create_default_context().wrap_socket(connection, server_hostname="mx.example.com")
        self.assertIn("unknown ca", self.logged(running, "SSL_accept error"))

    def test_not_resumed(self) -> None:
        """Nothing of one client's session is there for its next."""
        running = self.encrypted()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context, session = trusting(version), None
            for _ in range(2):
                connection = self.ready(running)
                with context.wrap_socket(connection, server_hostname="mx.example.com", session=session) as wrapped:
                    wrapped.sendall(b"NOOP\r\n")
                    read(wrapped, b"250 ")
                    self.assertFalse(wrapped.session_reused)
                    session = wrapped.session

    def test_stopped(self) -> None:
        """A service that ends tells a client behind its handshake, and does not wait for one within it."""
        running = self.encrypted(shutdown_timeout="2s")
        wrapped = self.secured(running)
        wrapped.sendall(b"NOOP\r\n")
        read(wrapped, b"250 ")
        connection = self.ready(running)
        running.send_signal(signal.SIGTERM)
        self.assertIn(b"421 4.3.2 mta.test Service is shutting down\r\n", read(wrapped))
        self.assertEqual(self.rest(connection), b"")
        self.assertEqual(running.wait(), 0)

    def rest(self, connection: socket.socket) -> bytes:
        """What comes before the end."""
        got = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(4096):
                got += piece
        return got

    def works(self, running: Service) -> None:
        """The next client is served."""
        wrapped = self.secured(running)
        wrapped.sendall(b"EHLO x\r\n")
        read(wrapped, b"250 HELP\r\n")
        wrapped.sendall(b"QUIT\r\n")
        read(wrapped, b"221 ")


class IdentityTests(SystemTestCase):
    """A service that could not show a certificate does not start, and says which file is at fault."""

    def test_refused(self) -> None:
        """At the start and with C{--check}, in one line each."""
        for names, content, expected in (
            ({}, b"", r"smtpd_tls_security_level: without a certificate in .*: may \(allowed: none\)"),
            ({"smtpd_tls_cert_file": "none"}, b"", r"smtpd_tls_cert_file: cannot be read \(No such file .*/none "),
            ({"smtpd_tls_cert_file": "pem"}, certificates_of(RSA), r"smtpd_tls_cert_file: no private key: \S+/pem "),
            ({"smtpd_tls_chain_files": "pem"}, key_of(RSA) + certificates_of(ECDSA),
             r"smtpd_tls_chain_files: a private key that is not that of the certificate in \S+/pem: \S+/pem "),
        ):  # fmt: skip
            running = self.service(smtpd_tls_security_level="may", **names)
            (running.directory / "pem").write_bytes(content)
            for options in ((), ("--check",)):
                ended = started(running, *options)
                self.assertEqual(len(ended.stderr.splitlines()), 1, ended.stderr)
                line = ended.stderr
                self.assertRegex(line, rf"(\S*main\.cf:\d+|default): {expected}")
                self.assertEqual(ended.returncode, 1)
                self.assertNotIn("Traceback", ended.stdout)
                self.assertNotIn("PRIVATE", ended.stdout + ended.stderr)

    def test_check(self) -> None:
        """A good one is found good, by C{smtpreuse conf} as well; where TLS is not offered no file is looked for."""
        for level, content in (("may", chain_of(RSA)), ("none", b"")):
            running = self.service(smtpd_tls_security_level=level, smtpd_tls_cert_file="pem")
            (running.directory / "pem").write_bytes(content)
            self.assertEqual(started(running, "--check").returncode, 0)
            self.assertEqual(self.run_command(running, "conf", "--check").returncode, 0)
        running = self.service(smtpd_tls_security_level="may", smtpd_tls_cert_file="pem")
        ended = self.run_command(running, "conf", "--check")
        self.assertEqual(ended.returncode, 78)
        self.assertIn("smtpd_tls_cert_file: cannot be read", ended.stderr)
