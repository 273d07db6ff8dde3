"""
The operator's log: lines in the order of their writing, each with a syslog header.

It knows no line's grammar (L{smtpreuse.model.logline} does). Lines are gathered and written once per reactor turn, as a
message leaves several of them, and an event through the logger costs twenty times as much. A log that cannot be written
never stops mail. Source: C{maillog_file} of Postfix; the header is RFC 3164's (section 4.1.2), or has RFC 3339's time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from smtpreuse.interfaces import IMailLog
from smtpreuse.model.logline import clean

# Not strftime's %b: log tools know the English names only.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_STANDARD_OUTPUT = 1


@implementer(IMailLog)
class MailLog:
    """
    Writes to a file, or to standard output: to its descriptor, as twistd puts C{sys.stdout} into its own log.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, path: str, host: str, *, iso: bool = False, pid: Callable[[], int] = os.getpid,
        wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """
        @param clock: ends the reactor's turn, and tells no time.
        @param path: of the file, appended to and made with mode 0640; empty for standard output.
        @param host: the name of this machine in every header.
        @param iso: whether the header's time is that of RFC 3339, with its zone.
        @param pid: asked when a header is built, as the process forks on its way to the background.
        @param wall: UNIX time by the clock on the wall, as in every other log of this machine.
        @raise OSError: when the file cannot be opened.
        """
        self._wall = wall
        self._clock = clock
        self._host = host
        self._iso = iso
        self._pid = pid
        self._lines: list[str] = []
        self._second = -1
        self._head = self._tail = ""
        self._lost = 0
        self._torn = False
        self._path = path
        self._file = self._open(path)

    def adopt(self, path: str, *, iso: bool) -> None:
        """
        Write there and in this form from the next line on; what was written before stays where it was to go.

        @raise OSError: when the file cannot be opened; nothing has changed then.
        """
        if path != self._path:
            opened = self._open(path)
            self.flush()
            if self._path:
                os.close(self._file)
            self._path, self._file, self._torn = path, opened, False
        if iso != self._iso:
            self.flush()
            self._iso, self._second = iso, -1

    def write(self, program: str, text: str, process: int = 0) -> None:
        """One line, at the end of this reactor turn; the lines of one turn carry its time."""
        if not self._lines:
            self._clock.callLater(0, self.flush)
            second = int(self._wall())
            if second != self._second:
                self._second = second
                self._head = f"{self._time(second)} {self._host} smtpreuse/"
                self._tail = f"[{self._pid()}]: "
        tail = f"[{process}]: " if process else self._tail
        self._lines.append(f"{self._head}{program}{tail}{clean(text)}\n")

    def flush(self) -> None:
        """Write what was gathered."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        octets = "".join(lines).encode()
        try:
            self._put(b"\n" + octets if self._torn else octets)
        except OSError as error:
            if not self._lost:
                self._log.error(
                    "operator log not written: file={path} error={error} (said once; mail goes on, lines are lost)",
                    path=self._name, error=str(error),
                )
            self._lost += len(lines)
        else:
            if self._lost:
                self._log.warn("operator log written again: file={path} lost={lost}", path=self._name, lost=self._lost)
                self._lost = 0

    def reopen(self) -> None:
        """Open the file anew, after it was rotated; when that fails the old one is kept, and the error logged."""
        self.flush()
        try:
            opened = self._open(self._path)
        except OSError as error:
            self._log.error("operator log not reopened: file={path} error={error}", path=self._name, error=str(error))
            return
        previous, self._file, self._torn = self._file, opened, False
        if self._path:
            os.close(previous)

    def close(self) -> None:
        """Write what was gathered and let go of the file; nothing may be written after it."""
        self.flush()
        if self._path:
            # Its number may soon be another file's: a line that comes too late must not get there.
            os.close(self._file)
            self._file = -1

    @property
    def _name(self) -> str:
        return self._path or "standard output"

    @staticmethod
    def _open(path: str) -> int:
        if not path:
            return _STANDARD_OUTPUT
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _put(self, octets: bytes) -> None:
        rest = memoryview(octets)
        while rest:
            written = os.write(self._file, rest)
            # A disk that fills up takes part of a line; the next line must not be glued to it.
            self._torn = rest[written - 1] != 10
            rest = rest[written:]

    def _time(self, second: int) -> str:
        local = time.localtime(second)
        if not self._iso:
            return f"{_MONTHS[local.tm_mon - 1]} {local.tm_mday:2d} {time.strftime('%H:%M:%S', local)}"
        zone = time.strftime("%z", local)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}{zone[:3]}:{zone[3:]}"
