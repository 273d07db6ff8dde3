"""
aiosmtpd as a process: a destination that shares no code with us, and keeps what it gets octet for octet.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from smtpreuse.cli.certificate import self_made
from tests.service import LIMIT, until

PROGRAM = Path(__file__).with_name("aiosmtpd_server.py")


class Keeper:
    """
    One destination.

    @ivar relayhost: the setting that leads to it.
    """

    def __init__(self, directory: Path) -> None:
        """
        @param directory: is there; whoever made it removes it.
        """
        self._kept = directory / "kept"
        self._kept.mkdir()
        self._printed = directory / "printed"
        certificate = directory / "keeper.pem"
        certificate.write_bytes(self_made("keeper.test", datetime.now(UTC)))
        with self._printed.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(self._kept), str(certificate)],
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            until(lambda: "\n" in self.printed() or self._process.poll() is not None, self.printed)
            self.relayhost = f"[127.0.0.1]:{int(self.printed().split()[0])}"
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(LIMIT)

    def printed(self) -> str:
        """What it wrote."""
        return self._printed.read_text(errors="replace")

    def counts(self) -> Counter[str]:
        """How many C{connection}s, C{handshake}s and C{message}s it has seen."""
        return Counter(self.printed().split()[1:])

    def kept(self) -> dict[str, bytes]:
        """What came, by recipient; a message that came twice has a C{+} behind the second one's."""
        return {path.name: path.read_bytes() for path in self._kept.iterdir()}
