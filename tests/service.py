"""
Our service as a process that was started as the README says, for tests that see it from outside: C{tests.interop} and
C{tests.system}. It knows nothing of the service but its command line, its files and what it prints.
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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.cli.child import READY, twistd
from tests.peers import missing

# Seconds: for a start, an end, an arrival; a busy machine needs a tenth of it.
LIMIT = 60.0
# Found at import, as trial changes the working directory before it runs a test.
# How coverage tells the processes that we start.
_MEASURED = "COVERAGE_PROCESS_CONFIG"
_PATHS = [str(Path(path).resolve()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def until(
    true: Callable[[], bool], what: Callable[[], str], limit: float = LIMIT,
    progress: Callable[[], object] = lambda: None,
) -> None:  # fmt: skip
    """
    Wait for something to become true.

    @param what: says what was seen instead, when it did not.
    @param limit: seconds without progress.
    @param progress: what changes as long as there is any; by default nothing does, and the limit is one for all.
    """
    reached, end = progress(), time.monotonic() + limit
    while not true():
        now = progress()
        if now != reached:
            reached, end = now, time.monotonic() + limit
        elif time.monotonic() > end:
            raise AssertionError(what())
        time.sleep(0.02)


def scratch(case: SynchronousTestCase) -> Path:
    """
    A directory that goes with the test. Not below trial's own: a UNIX socket's path is short, and users of foreign
    programs have to get there.
    """
    path = Path(tempfile.mkdtemp(prefix="smtpreuse-test-"))
    case.addCleanup(shutil.rmtree, path, ignore_errors=True)
    path.chmod(0o755)
    return path


def environment(*, measured: bool = True) -> dict[str, str]:
    """
    What processes of ours are started with: an installed copy is theirs as it is ours; a C{PYTHONPATH} that leads to
    this checkout leads there from every directory.

    @param measured: whether what they run counts for the coverage, where ours does; it halves their speed.
    """
    paths = {"PYTHONPATH": os.pathsep.join(_PATHS)} if _PATHS else {}
    return {name: value for name, value in {**os.environ, **paths}.items() if measured or name != _MEASURED}


class Service:
    """
    One service, with a directory of its own. It may be started again after it ended.

    @ivar directory: holds C{main.cf}, the queue in C{spool}, and the log in C{maillog}.
    @ivar port: where it takes mail, on C{127.0.0.1}, since L{start}.
    @ivar places: all addresses that it printed when it was ready.
    @ivar measured: see L{environment}; may be set before a start.
    @ivar twistd: options of C{twistd} itself; may be set before a start.
    """

    def __init__(self, directory: Path, **parameters: str) -> None:
        """
        @param directory: is there (see L{scratch}); whoever made it removes it.
        @param parameters: what C{main.cf} says beside the names of the files.
        @raise Exception: L{missing}, when the package is not installed.
        """
        try:
            version("smtpreuse")
        except PackageNotFoundError:
            raise missing("an installed copy of smtpreuse (tox makes one)") from None
        self.directory = directory
        self.port = 0
        self.measured = True
        self.twistd: tuple[str, ...] = ()
        self.places: list[str] = []
        self._options: tuple[str, ...] = ()
        self._under: tuple[str, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None
        self._printed = b""
        self._reader: threading.Thread | None = None
        self.configure(**parameters)

    def configure(self, **parameters: str) -> None:
        """Write another C{main.cf}; a service that runs has read the one before."""
        values = {
            "myhostname": "mta.test",
            "queue_directory": "spool",
            "maillog_file": "maillog",
            "mynetworks": "127.0.0.0/8",
            **parameters,
        }
        text = "".join(f"{name} = {value}\n" for name, value in values.items())
        (self.directory / "main.cf").write_text(text)

    def start(self, *options: str, under: tuple[str, ...] = ()) -> int:
        """
        Start it, and wait until it takes mail.

        @param options: more of C{twistd smtpreuse}.
        @param under: the command line of a program that runs it, C{strace} perhaps.
        @return: its port, a new one each time.
        """
        self.launch(*options, under=under)
        until(lambda: self._ready() is not None or self.ended(), self.printed)
        ready = self._ready()
        if ready is None:
            raise AssertionError(f"the service did not start:\n{self.printed()}")
        self.places = ready.split(", ")
        self.port = int(self.places[0].rpartition(":")[2])
        return self.port

    def launch(self, *options: str, under: tuple[str, ...] = ()) -> None:
        """Start it and wait for nothing: for a start that is to fail. The options are those of L{start}."""
        assert self._process is None, "it runs"
        self._options, self._under = options, under
        self._printed = b""
        command = [*under, twistd(), "-n", "--pidfile=", *self.twistd, "smtpreuse"]
        command += ["--config", str(self.directory / "main.cf"), "--listen", "tcp:0:interface=127.0.0.1", *options]
        self._process = process = subprocess.Popen(
            command, cwd=self.directory, env=environment(measured=self.measured), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it takes mail."""
        return "127.0.0.1", self.port

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def control(self) -> Path:
        """Its control socket."""
        return self.directory / "spool" / "control"

    def ended(self) -> bool:
        """Whether it has ended, of itself or by a signal."""
        return self._process is None or self._process.poll() is not None

    def wait(self, limit: float = LIMIT) -> int:
        """
        Wait for its end.

        @param limit: seconds, after which it is killed and the test fails.
        @return: its exit status, -N when signal N ended it.
        """
        process, self._process = self._process, None
        if process is None:
            return 0
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the service did not end:\n{self.printed()}") from None
        assert self._reader is not None
        self._reader.join()
        return status

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit status, -N when signal N ended it, 0 when it does not run."""
        if not self.ended():
            self.send_signal(number)
        return self.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, and wait for nothing."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it with SIGKILL, wherever it is."""
        self.stop(signal.SIGKILL)

    def restart(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it if it runs, and start it on the same queue as it was started before; its new port."""
        self.stop(number)
        return self.start(*self._options, under=self._under)

    def log(self) -> str:
        """The operator's log so far."""
        path = self.directory / "maillog"
        return path.read_text(errors="replace") if path.exists() else ""

    def maillog(self, containing: str = "") -> list[str]:
        """The operator's lines so far that have this in them."""
        return [line for line in self.log().splitlines() if containing in line]

    def printed(self) -> str:
        """What it wrote to standard output and standard error."""
        return self._printed.decode(errors="replace")

    def ask(self, *words: str) -> list[dict[str, object]]:
        """What a subcommand of C{smtpreuse} answers, object by object."""
        command = [sys.executable, "-m", "smtpreuse.cli.main", *words, "--json"]
        command += ["--config", str(self.directory / "main.cf")]
        ended = subprocess.run(
            command, cwd=self.directory, env=environment(), capture_output=True, text=True, timeout=LIMIT
        )
        return [json.loads(line) for line in ended.stdout.splitlines()]

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as output:
            while piece := os.read(output.fileno(), 65536):
                self._printed += piece

    def _ready(self) -> str | None:
        _, found, behind = self._printed.partition(READY)
        line, complete, _ = behind.partition(b"\n")
        return line.decode() if found and complete else None


def service(case: SynchronousTestCase, **parameters: str) -> Service:
    """
    A service that is ended with the test, and has to end well; its directory goes with it. It is not started yet.
    """
    made = Service(scratch(case), **parameters)

    def end() -> None:
        status = made.stop()
        case.assertEqual((status, made.printed().count("Traceback")), (0, 0), made.printed())

    case.addCleanup(end)
    return made
