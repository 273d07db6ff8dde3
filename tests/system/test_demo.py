"""
C{smtpreuse demo}: the first thing that a user sees.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

LIMIT = 120


class DemoTests(SynchronousTestCase):
    """The demonstration shows mail on its whole way over few connections, and leaves nothing behind."""

    def setUp(self) -> None:
        self.temporary = Path(self.mktemp()).absolute()
        self.temporary.mkdir()

    def demo(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it, with a directory for temporary files of its own."""
        command = [sys.executable, "-m", "smtpreuse.cli.main", "demo", *words]
        # Short: a UNIX socket lies in it, and trial's own directories are deep.
        short = f"/tmp/demo-{os.getpid()}"
        os.symlink(self.temporary, short)
        self.addCleanup(os.unlink, short)
        environment = {**os.environ, "TMPDIR": short}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT)

    def test_json(self) -> None:
        """All messages arrive once, over fewer connections than messages, each with one handshake."""
        ended = self.demo("--messages", "200", "--size", "2000", "--json")
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        shown = json.loads(ended.stdout)
        self.assertEqual(
            list(shown),
            [
                "messages",
                "delivered",
                "missing",
                "doubled",
                "connections",
                "tls_handshakes",
                "messages_per_connection",
                "seconds",
                "messages_per_second",
            ],
        )
        self.assertEqual((shown["messages"], shown["delivered"]), (200, 200))
        self.assertEqual((shown["missing"], shown["doubled"]), (0, 0))
        self.assertEqual(shown["connections"], shown["tls_handshakes"])
        self.assertLessEqual(shown["connections"], 20)
        self.assertEqual(list(self.temporary.iterdir()), [])

    def test_table(self) -> None:
        """Without C{--json} it is a table; with C{--keep} the directory stays, log and queue in it."""
        ended = self.demo("--messages", "20", "--keep")
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertTrue(ended.stdout.endswith("every message arrived, once\n"), ended.stdout)
        (kept,) = self.temporary.iterdir()
        self.assertTrue(ended.stderr.startswith("kept: "), ended.stderr)
        self.assertEqual((kept / "maillog").read_text().count("status=sent"), 20)

    def test_without_reuse(self) -> None:
        """C{-o} reaches the service: with reuse switched off every message has a connection of its own."""
        ended = self.demo("--messages", "10", "--json", "-o", "smtp_tls_connection_reuse=no")
        shown = json.loads(ended.stdout)
        self.assertEqual((shown["delivered"], shown["connections"]), (10, 10))

    def test_bad_configuration(self) -> None:
        """A service that does not start is an error with its reason."""
        ended = self.demo("-o", "smtp_tls_security_level=perhaps")
        self.assertEqual((ended.returncode, ended.stdout), (1, ""))
        self.assertIn("smtp_tls_security_level", ended.stderr)
        self.assertEqual(list(self.temporary.iterdir()), [])
