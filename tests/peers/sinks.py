"""
C{smtpreuse sink} as a process: a destination for the service, with its counts and what it captured.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.service import LIMIT, environment


class Sink:
    """
    One destination.

    @ivar address: host and port.
    """

    def __init__(self, *options: str, capture: bool = False) -> None:
        """
        @param options: of C{smtpreuse sink}.
        @param capture: whether it keeps what comes, for L{captured}.
        """
        self._directory = Path(tempfile.mkdtemp(prefix="smtpreuse-sink-"))
        words = [*options, "--capture", str(self._directory)] if capture else list(options)
        command = [sys.executable, "-m", "smtpreuse.cli.main", "sink", *words]
        self._process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
        first = self._line()
        if not first:
            self._process.wait()
            shutil.rmtree(self._directory, ignore_errors=True)
            raise AssertionError(f"it did not start: {' '.join(command)}")
        host, _, port = str(json.loads(first)["listening"]).rpartition(":")
        self.address = (host, int(port))

    @property
    def relayhost(self) -> str:
        """The setting that leads to it."""
        host, port = self.address
        return f"[{host}]:{port}"

    def counts(self) -> dict[str, float]:
        """What came so far."""
        self._process.send_signal(signal.SIGUSR1)
        counts: dict[str, float] = json.loads(self._line())
        return counts

    def captured(self) -> list[bytes]:
        """The messages that came, in order."""
        return [path.read_bytes() for path in sorted(self._directory.glob("*.eml"))]

    def by_recipient(self) -> dict[str, bytes]:
        """The messages that came, by their first recipient."""
        came = {}
        for path in sorted(self._directory.glob("*.json")):
            recipient: str = json.loads(path.read_text())["recipients"][0]
            came[recipient] = path.with_suffix(".eml").read_bytes()
        return came

    def stop(self) -> dict[str, float]:
        """End it; what came in all."""
        self._process.send_signal(signal.SIGTERM)
        output, _ = self._process.communicate(timeout=LIMIT)
        shutil.rmtree(self._directory, ignore_errors=True)
        counts: dict[str, float] = json.loads(output.splitlines()[-1])
        return counts

    def remove(self) -> None:
        """End it if it runs, and remove what it captured."""
        if self._process.poll() is None:
            self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()
