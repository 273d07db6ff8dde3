"""
Foreign clients that hand mail to the service. The destination is our own sink: what is tried here is the client's side.
"""

from __future__ import annotations

import re
import smtplib
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from tests.peers import missing, program
from tests.peers.sinks import Sink
from tests.service import LIMIT, service, until
from tests.tls.identities import ECDSA, chain_of


class ClientTests(SynchronousTestCase):
    """Whatever speaks SMTP can hand mail to the service."""

    def setUp(self) -> None:
        self.sink = Sink("--tls", "required", capture=True)
        self.addCleanup(self.sink.remove)
        self.service = service(self, relayhost=self.sink.relayhost, smtp_tls_security_level="encrypt")
        self.socket = self.service.directory / "smtp"
        self.service.start("--listen", f"unix:{self.socket}")

    def run_client(self, name: str, *words: str) -> str:
        """Run a foreign program; what it printed."""
        command = [program(name), *words]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        return ended.stdout

    def arrive(self, messages: int) -> None:
        """Wait until so many messages are recorded as sent; they came once, and lines of reuse are the rest."""
        until(lambda: len(self.service.maillog(": removed")) >= messages, self.service.log)
        counts = self.sink.counts()
        self.assertEqual((counts["messages"], counts["doubled"]), (messages, 0))
        self.assertEqual(counts["connections"], counts["tls_handshakes"])
        self.assertEqual(len(self.service.maillog("TLS connection established to")), counts["tls_handshakes"])
        self.assertEqual(
            len(self.service.maillog("TLS connection reused to")), counts["messages"] - counts["tls_handshakes"]
        )

    def swaks(self, *words: str) -> None:
        """Send a small message with swaks."""
        self.run_client(
            "swaks", "--from", "a@example.com", "--to", "b@example.com", "--header", "Subject: hello",
            "--body", "first line\n.second line", *words,
        )  # fmt: skip

    def test_swaks(self) -> None:
        """swaks, as in the README: the message arrives, and the operator finds it in the log."""
        self.swaks("--server", f"127.0.0.1:{self.service.port}")
        self.arrive(1)
        (content,) = self.sink.captured()
        self.assertIn(b"\r\nSubject: hello\r\n", content)
        self.assertIn(b"\r\nfirst line\r\n.second line\r\n", content)
        log = self.service.log()
        found = re.search(r"smtpreuse/smtp\[\d+\]: (\w+): to=<b@example\.com>, relay=.*, status=sent \(", log)
        assert found is not None, log
        for line in (f"smtpd[{self.service.pid}]: {found[1]}: client=", f": {found[1]}: from=<a@example.com>, size="):
            self.assertIn(line, log)

    def test_swaks_pipelining(self) -> None:
        """swaks that sends its commands in groups."""
        self.swaks("--server", f"127.0.0.1:{self.service.port}", "--pipeline")
        self.arrive(1)

    def test_swaks_tls(self) -> None:
        """swaks over STARTTLS, where it may and where it must."""
        if subprocess.run([program("perl"), "-MNet::SSLeay", "-e", "1"], capture_output=True).returncode:
            raise missing("libnet-ssleay-perl (as root, tests/peers/install fetches it)")
        for level in ("may", "encrypt"):
            running = service(
                self, relayhost=self.sink.relayhost, smtpd_tls_security_level=level, smtpd_tls_cert_file="chain.pem"
            )
            (running.directory / "chain.pem").write_bytes(chain_of(ECDSA))
            running.start()
            self.swaks("--server", f"127.0.0.1:{running.port}", "--tls")
            until(lambda running=running: bool(running.maillog(": removed")), running.log)
        for content in self.sink.captured():
            self.assertRegex(content.partition(b"\r\n\r\n")[0], rb"\(smtpreuse\) with ESMTPS id ")

    def test_swaks_unix_socket(self) -> None:
        """swaks over a UNIX socket, which the service names when it is ready."""
        self.assertEqual(self.service.places[1:], [str(self.socket)])
        self.swaks("--socket", str(self.socket))
        self.arrive(1)

    def test_smtplib(self) -> None:
        """smtplib: several messages to several recipients over one connection."""
        with smtplib.SMTP(*self.service.address, timeout=LIMIT) as client:
            for number in range(3):
                content = f"Subject: {number}\r\n\r\nbody\r\n"
                refused = client.sendmail("a@example.com", ["b@example.com", "c@example.com"], content)
                self.assertEqual(refused, {})
        until(lambda: len(self.service.maillog("status=sent")) >= 6, self.service.log)
        self.arrive(3)
        self.assertEqual(self.sink.counts()["recipients"], 6)

    def test_smtp_source(self) -> None:
        """smtp-source: ten connections at a time, far fewer to the destination than messages."""
        self.run_client(
            "smtp-source", "-s", "10", "-m", "300", "-l", "2000", "-f", "a@example.com", "-t", "b@example.com",
            f"127.0.0.1:{self.service.port}",
        )  # fmt: skip
        self.arrive(300)
        self.assertLessEqual(self.sink.counts()["connections"], 20)

    def test_smtp_source_keeps_its_connection(self) -> None:
        """smtp-source that keeps its connections and has several recipients for each message."""
        self.run_client(
            "smtp-source", "-d", "-s", "4", "-m", "100", "-l", "20000", "-r", "5", "-f", "a@example.com",
            "-t", "b@example.com", f"inet:127.0.0.1:{self.service.port}",
        )  # fmt: skip
        self.arrive(100)
        self.assertEqual(self.sink.counts()["recipients"], 500)
