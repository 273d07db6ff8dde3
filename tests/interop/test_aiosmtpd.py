"""
aiosmtpd as destination: it shares no code with us, and keeps what it gets octet for octet.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.cli.certificate import self_made
from tests.interop.corpus import corpus
from tests.interop.sending import address, compare, hand_over, without_received
from tests.peers.ours import Service, until

ROOT = Path(__file__).resolve().parents[2]


class AiosmtpdTests(SynchronousTestCase):
    """The corpus arrives whole, once, over TLS."""

    def setUp(self) -> None:
        self.kept = Path(self.mktemp()).absolute()
        self.kept.mkdir()
        certificate = Path(self.mktemp()).absolute()
        certificate.write_bytes(self_made("aiosmtpd.test", datetime.now(UTC)))
        command = [sys.executable, "-m", "tests.peers.aiosmtpd_server", str(self.kept), str(certificate)]
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        assert server.stdout is not None
        self.addCleanup(server.stdout.close)
        port = int(server.stdout.readline())
        self.service = Service(
            {
                "relayhost": f"[127.0.0.1]:{port}",
                "smtp_tls_security_level": "encrypt",
                "message_size_limit": "60000000",
            }
        )
        self.addCleanup(self.service.remove)

    def test_corpus(self) -> None:
        """Every message is what it was, but for one Received field on top."""
        messages = corpus()
        hand_over(self.service.start(), messages)
        until(lambda: self.service.log().count("status=sent (250 2.0.0 kept)") == len(messages), self.service.log)
        came = {name: without_received((self.kept / address(name)).read_bytes()) for name in messages}
        compare(self, came, messages)
        self.assertEqual(len(list(self.kept.iterdir())), len(messages))
