"""
The service as a child process, started as its users start it: C{twistd -n --pidfile= smtpreuse --config FILE}.

It knows nothing of the service but the line that it prints when it takes mail.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from contextlib import suppress

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from smtpreuse.errors import SmtpreuseError

READY = b"ready: listening on "
# Seconds: the start of an interpreter on a slow and busy machine, ten times over.
START_LIMIT = 60.0
# Seconds: the service itself takes no longer than shutdown_timeout, 30 s.
STOP_LIMIT = 60.0
# Octets of what it prints that are kept for a message of what went wrong.
_KEPT = 65536


def twistd() -> str:
    """
    The C{twistd} of the environment that this program runs in.

    @raise SmtpreuseError: when there is none.
    """
    places = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    found = shutil.which("twistd", path=places)
    if found is None:
        raise SmtpreuseError("twistd was not found: is Twisted installed?")
    return found


class ServiceProcess(ProcessProtocol):
    """One run of the service."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._printed = b""
        self._complaints = b""
        self._status: int | None = None
        self._ready: Deferred[None] = Deferred()
        self._ended: list[Deferred[None]] = []

    def start(self, reactor: IReactorProcess, options: list[str], directory: str) -> None:
        """
        Start it.

        @param options: behind C{smtpreuse} on twistd's command line.
        @param directory: to run in.
        """
        program = twistd()
        # Its standard input is a pipe of ours, which ends when we do, however that comes.
        command = [program, "-n", "--pidfile=", "smtpreuse", "--end-with-stdin", *options]
        reactor.spawnProcess(self, program, command, env=dict(os.environ), path=directory)

    async def address(self) -> str:
        """
        Wait until it takes mail.

        @return: the address it printed, C{127.0.0.1:PORT}.
        @raise SmtpreuseError: when it ended before, or is not ready in L{START_LIMIT} seconds.
        """
        self._ready.addTimeout(START_LIMIT, self._clock, lambda _, limit: None)
        await self._ready
        line = self._ready_line()
        if line is None:
            said = (self._complaints or self._printed).decode(errors="replace").strip()
            raise SmtpreuseError(f"the service did not start: {said}")
        return line

    async def stop(self) -> int:
        """
        End it with SIGTERM, and with SIGKILL when that does not help within L{STOP_LIMIT} seconds.

        @return: its exit status, -N when signal N ended it.
        """
        self._signal("TERM")
        killing = self._clock.callLater(STOP_LIMIT, self._signal, "KILL")
        try:
            while self._status is None:
                waiting: Deferred[None] = Deferred()
                self._ended.append(waiting)
                await waiting
        finally:
            if killing.active():
                killing.cancel()
        return self._status

    def outReceived(self, data: bytes) -> None:
        """It prints."""
        if not self._ready.called:
            self._printed = (self._printed + data)[-_KEPT:]
            if self._ready_line() is not None:
                self._ready.callback(None)

    def errReceived(self, data: bytes) -> None:
        """It complains."""
        self._complaints = (self._complaints + data)[-_KEPT:]

    def processEnded(self, reason: Failure) -> None:
        """It is over, and all that it printed has come."""
        number: int | None = getattr(reason.value, "signal", None)
        status: int | None = getattr(reason.value, "exitCode", None)
        self._status = -number if number is not None else status or 0
        if not self._ready.called:
            self._ready.callback(None)
        ended, self._ended = self._ended, []
        for waiting in ended:
            waiting.callback(None)

    def _ready_line(self) -> str | None:
        _, found, behind = self._printed.partition(READY)
        line, complete, _ = behind.partition(b"\n")
        return line.decode() if found and complete else None

    def _signal(self, name: str) -> None:
        if self.transport is None:
            return
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)
