"""
Our service as a foreign program sees it: a process that was started as the README says.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from smtpreuse.cli.child import READY, twistd

# Seconds: for a start, an end, an arrival; a busy machine needs a tenth of it.
LIMIT = 60.0


def until(true: Callable[[], bool], what: Callable[[], str], limit: float = LIMIT) -> None:
    """
    Wait for something to become true.

    @param what: says what was seen instead, when it did not.
    """
    end = time.monotonic() + limit
    while not true():
        if time.monotonic() > end:
            raise AssertionError(what())
        time.sleep(0.02)


class Service:
    """
    One service, with a directory of its own. It may be started again after it ended.

    @ivar directory: holds C{main.cf}, the queue in C{spool}, and the log in C{maillog}.
    """

    def __init__(self, settings: dict[str, str]) -> None:
        """
        @param settings: what C{main.cf} says beside the names of the files.
        """
        self.directory = Path(tempfile.mkdtemp(prefix="smtpreuse-test-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._printed = b""
        self._reader: threading.Thread | None = None
        self.configure(settings)

    def configure(self, settings: dict[str, str]) -> None:
        """Write another C{main.cf}."""
        values = {
            "myhostname": "mta.test",
            "queue_directory": "spool",
            "maillog_file": "maillog",
            "mynetworks": "127.0.0.0/8",
            **settings,
        }
        text = "".join(f"{name} = {value}\n" for name, value in values.items())
        (self.directory / "main.cf").write_text(text)

    def start(self, *options: str) -> tuple[str, int]:
        """
        Start it, and wait until it takes mail.

        @return: where.
        """
        self._printed = b""
        command = [twistd(), "-n", "--pidfile=", "smtpreuse", "--config", str(self.directory / "main.cf")]
        command += ["--listen", "tcp:0:interface=127.0.0.1", *options]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            command, cwd=self.directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        until(lambda: self._ready() is not None or self._process_ended(), self.printed)
        ready = self._ready()
        if ready is None:
            raise AssertionError(f"the service did not start:\n{self.printed()}")
        host, _, port = ready.rpartition(":")
        return host, int(port)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit status, -N when signal N ended it."""
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(number)
        try:
            status = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the service did not end:\n{self.printed()}") from None
        assert self._reader is not None
        self._reader.join()
        return status

    def remove(self) -> None:
        """End it, and remove all of it."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        """The operator's log so far."""
        path = self.directory / "maillog"
        return path.read_text(errors="replace") if path.exists() else ""

    def printed(self) -> str:
        """What it wrote to standard output and standard error."""
        return self._printed.decode(errors="replace")

    def ask(self, *words: str) -> list[dict[str, object]]:
        """What a subcommand of C{smtpreuse} answers, object by object."""
        command = [sys.executable, "-m", "smtpreuse.cli.main", *words, "--json"]
        command += ["--config", str(self.directory / "main.cf")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT)
        return [json.loads(line) for line in ended.stdout.splitlines()]

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as output:
            while piece := os.read(output.fileno(), 65536):
                self._printed += piece

    def _process_ended(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None

    def _ready(self) -> str | None:
        _, found, behind = self._printed.partition(READY)
        line, complete, _ = behind.partition(b"\n")
        return line.decode() if found and complete else None
