"""
C{smtpreuse sink} and C{smtpreuse source} as processes, over real sockets.
"""

from __future__ import annotations

import json
import os
import signal
import smtplib
import socket
import ssl
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

LIMIT = 30


def smtpreuse(*words: str) -> list[str]:
    """A command line."""
    return [sys.executable, "-m", "smtpreuse.cli.main", *words]


class SinkTestCase(SynchronousTestCase):
    """Starts sinks, and ends them."""

    def sink(self, *words: str) -> subprocess.Popen[str]:
        """A running sink; it is ended with the test, if it is running then."""
        process = subprocess.Popen(smtpreuse("sink", *words), stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen[str]) -> dict[str, float]:
        """End a sink; what it counted."""
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        lines = [] if process.stdout.closed else process.stdout.readlines()
        process.stdout.close()
        self.assertEqual(process.wait(LIMIT), 0)
        return self.counts(lines[-1]) if lines else {}

    def counts(self, line: str) -> dict[str, float]:
        """A line of counts."""
        counts: dict[str, float] = json.loads(line)
        return counts

    def address(self, process: subprocess.Popen[str]) -> str:
        """Where it listens."""
        assert process.stdout is not None
        address: str = json.loads(process.stdout.readline())["listening"]
        return address


class SinkTests(SinkTestCase):
    """A sink takes mail of any client, and counts it."""

    def test_counts_at_signals(self) -> None:
        """Counts are printed at SIGUSR1 and at SIGTERM."""
        sink = self.sink("--tls", "off")
        host, _, port = self.address(sink).rpartition(":")
        with smtplib.SMTP(host, int(port), timeout=LIMIT) as client:
            client.sendmail("a@x.test", ["b@y.test", "c@y.test"], b"Message-ID: <1@x>\r\n\r\n.\r\n")
            sink.send_signal(signal.SIGUSR1)
            assert sink.stdout is not None
            first = self.counts(sink.stdout.readline())
            client.sendmail("a@x.test", ["b@y.test"], b"Message-ID: <1@x>\r\n\r\n.\r\n")
        self.assertEqual((first["messages"], first["recipients"], first["doubled"]), (1, 2, 0))
        last = self.end(sink)
        self.assertEqual((last["messages"], last["recipients"], last["doubled"]), (2, 3, 1))
        self.assertEqual((last["connections"], last["tls_handshakes"], last["octets"]), (1, 0, 48))

    def test_tls(self) -> None:
        """STARTTLS works with the certificate made for the run; resumed sessions are told from new ones."""
        sink = self.sink("--tls", "required")
        host, _, port = self.address(sink).rpartition(":")
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        session: ssl.SSLSession | None = None
        for _ in range(2):
            with smtplib.SMTP(host, int(port), timeout=LIMIT) as client:
                client.ehlo()
                self.assertEqual(client.docmd("STARTTLS")[0], 220)
                client.sock = context.wrap_socket(client.sock, session=session)
                session = client.sock.session
                client.file = None
                client.ehlo()
                client.sendmail("a@x.test", ["b@y.test"], b"Subject: x\r\n\r\n")
        last = self.end(sink)
        self.assertEqual((last["messages"], last["tls_handshakes"], last["tls_resumed"]), (2, 2, 1))

    def test_tls_1_3(self) -> None:
        """A handshake of TLS 1.3 is counted once, the tickets behind it are not."""
        sink = self.sink("--tls", "required")
        host, _, port = self.address(sink).rpartition(":")
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with smtplib.SMTP(host, int(port), timeout=LIMIT) as client:
            client.starttls(context=context)
            client.sendmail("a@x.test", ["b@y.test"], b"Subject: x\r\n\r\n")
        last = self.end(sink)
        self.assertEqual((last["messages"], last["tls_handshakes"], last["tls_resumed"]), (1, 1, 0))

    def test_unix_socket(self) -> None:
        """It listens on any endpoint of Twisted."""
        path = os.path.join(os.path.relpath(self.mktemp()))
        self.assertEqual(self.address(self.sink("--listen", f"unix:{path}")), path)

    def test_cannot_listen(self) -> None:
        """An address that cannot be had is an error."""
        words = smtpreuse("sink", "--listen", "tcp:25:interface=192.0.2.1")
        ended = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT)
        self.assertEqual((ended.returncode, ended.stdout), (1, ""))
        self.assertTrue(ended.stderr.startswith("sink: "), ended.stderr)

    def test_cannot_be(self) -> None:
        """So is one that there cannot be, and a certificate that is none: each in one line."""
        garbage = self.mktemp()
        with open(garbage, "w") as file:
            file.write("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        for words in (("--listen", "tcp:99999"), ("--listen", "nowhere:1"), ("--cert", garbage)):
            ended = subprocess.run(smtpreuse("sink", *words), capture_output=True, text=True, timeout=LIMIT)
            self.assertEqual((ended.returncode, ended.stdout), (1, ""))
            self.assertRegex(ended.stderr, r"^sink: .*\n$")

    def test_reader_gone(self) -> None:
        """When nobody reads where it listens there is no use in it."""
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer) as output:
            ended = subprocess.run(smtpreuse("sink"), stdout=output, stderr=subprocess.PIPE, text=True, timeout=LIMIT)
        self.assertEqual((ended.returncode, ended.stderr), (1, ""))


class SourceTests(SinkTestCase):
    """A source sends what it was asked to send."""

    def source(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Send."""
        return subprocess.run(smtpreuse("source", *words), capture_output=True, text=True, timeout=LIMIT)

    def test_sends(self) -> None:
        """All messages arrive, over at most so many connections, each with all its recipients."""
        sink = self.sink("--tls", "off", "--messages-per-connection", "30")
        address = self.address(sink)
        ended = self.source(address, "--messages", "100", "--connections", "3", "--recipients", "2", "--json")
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        shown = json.loads(ended.stdout)
        self.assertEqual(list(shown), ["sent", "accepted", "rejected", "seconds", "messages_per_second", "began"])
        self.assertEqual((shown["sent"], shown["accepted"], shown["rejected"]), (100, 100, 0))
        last = self.end(sink)
        self.assertEqual((last["messages"], last["recipients"], last["doubled"]), (100, 200, 0))
        self.assertGreaterEqual(last["last"], shown["began"])

    def test_for_people(self) -> None:
        """Without C{--json} it is one sentence."""
        ended = self.source(self.address(self.sink("--tls", "off")), "--messages", "2")
        self.assertTrue(ended.stdout.startswith("2 sent, 2 accepted, 0 rejected in "), ended.stdout)

    def test_refused(self) -> None:
        """When a message is refused the status says so."""
        ended = self.source(self.address(self.sink("--tls", "required")), "--messages", "2", "--json")
        self.assertEqual(ended.returncode, 1)
        self.assertEqual(json.loads(ended.stdout)["rejected"], 2)

    def test_interrupted(self) -> None:
        """A signal ends it: it tells what it did so far, and that was not all."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            words = smtpreuse("source", f"127.0.0.1:{silent.getsockname()[1]}", "--json")
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGTERM)
                out, err = process.communicate(timeout=LIMIT)
        self.assertEqual((process.returncode, err), (1, ""))
        shown = json.loads(out)
        self.assertEqual((shown["sent"], shown["accepted"], shown["rejected"]), (0, 0, 0))

    def test_no_such_host(self) -> None:
        """A host that there is not is told in one line."""
        ended = self.source("nowhere.invalid:25", "--json")
        self.assertEqual(ended.returncode, 1)
        self.assertRegex(ended.stderr, r"^source: .*\n$")

    def test_nobody_there(self) -> None:
        """When nobody listens the reason is said."""
        sink = self.sink()
        address = self.address(sink)
        self.end(sink)
        ended = self.source(address, "--json")
        self.assertEqual(ended.returncode, 1)
        self.assertTrue(ended.stderr.startswith("source: "), ended.stderr)
