"""
Foreign clients that hand mail to the service, and a foreign reader of its log.
"""

from __future__ import annotations

import re
import smtplib
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from tests.peers import program
from tests.peers.ours import LIMIT, Service, until
from tests.peers.sinks import Sink


class ClientTestCase(SynchronousTestCase):
    """A service between a client and a sink."""

    def setUp(self) -> None:
        self.sink = Sink("--tls", "required", capture=True)
        self.addCleanup(self.sink.remove)
        self.service = Service({"relayhost": self.sink.relayhost, "smtp_tls_security_level": "encrypt"})
        self.addCleanup(self.service.remove)
        self.host, self.port = self.service.start()

    def run_client(self, name: str, *words: str) -> str:
        """Run a foreign program; what it printed."""
        command = [program(name), *words]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        return ended.stdout

    def arrive(self, messages: int) -> None:
        """Wait until so many messages are recorded as sent."""
        until(lambda: self.service.log().count("status=sent") >= messages, self.service.log)
        self.assertEqual((self.sink.counts()["messages"], self.sink.counts()["doubled"]), (messages, 0))


class ClientTests(ClientTestCase):
    """Whatever speaks SMTP can hand mail to the service."""

    def test_swaks(self) -> None:
        """swaks, as in the README: the operator finds the message in the log."""
        self.run_client(
            "swaks", "--server", f"{self.host}:{self.port}", "--from", "a@example.com", "--to", "b@example.com",
            "--header", "Subject: hello", "--body", "first line\n.second line",
        )  # fmt: skip
        self.arrive(1)
        (content,) = self.sink.captured()
        self.assertIn(b"\r\nSubject: hello\r\n", content)
        self.assertIn(b"\r\nfirst line\r\n.second line\r\n", content)
        self.assertRegex(self.service.log(), r"smtpreuse/smtp\[\d+\]: \w+: to=<b@example\.com>, relay=.*status=sent")

    def test_smtplib(self) -> None:
        """smtplib: several recipients, several messages over one connection."""
        with smtplib.SMTP(self.host, self.port, timeout=LIMIT) as client:
            for number in range(3):
                refused = client.sendmail(
                    "a@example.com", ["b@example.com", "c@example.com"], f"Subject: {number}\r\n\r\nbody\r\n"
                )
                self.assertEqual(refused, {})
        until(lambda: self.service.log().count("status=sent") >= 6, self.service.log)
        self.assertEqual(self.sink.counts()["recipients"], 6)

    def test_smtp_source(self) -> None:
        """Postfix's load generator, ten connections at a time."""
        self.run_client(
            "smtp-source", "-s", "10", "-m", "300", "-l", "2000", "-f", "a@example.com", "-t", "b@example.com",
            f"{self.host}:{self.port}",
        )  # fmt: skip
        self.arrive(300)
        self.assertLessEqual(self.sink.counts()["connections"], 20)


class LogReaderTests(ClientTestCase):
    """Tools that read Postfix's log read ours."""

    def test_pflogsumm(self) -> None:
        """pflogsumm counts what was taken and what was sent."""
        with smtplib.SMTP(self.host, self.port, timeout=LIMIT) as client:
            for number in range(7):
                client.sendmail("a@example.com", ["b@example.com"], f"Subject: {number}\r\n\r\nbody\r\n")
        self.arrive(7)
        until(lambda: self.service.log().count(": removed") >= 7, self.service.log)
        shown = self.run_client("pflogsumm", "--syslog-name=smtpreuse", str(self.service.directory / "maillog"))
        counted = {name: int(number) for number, name in re.findall(r"^ +(\d+) +([a-z ]+?)(?: +\(.*)?$", shown, re.M)}
        self.assertEqual((counted["received"], counted["delivered"]), (7, 7), shown)
        self.assertEqual((counted["deferred"], counted["bounced"], counted["rejected"]), (0, 0, 0), shown)
