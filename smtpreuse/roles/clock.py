"""
The process's clock: it reads as UNIX time does, and nobody can set it.

All that waits, expires or is measured goes by this clock, the reactor's timers first of all: a wall clock that is set
back by an hour would stall each of them for an hour, and one that is set forward would end every conversation. People
are told the time by the wall clock instead: the operator's log, header fields, notifications and what the control
socket shows; certificates are judged by it too.

Times in the queue (C{arrived}, C{next_attempt}) are by this clock. Services on one queue within one boot of the
machine go by one and the same (L{SteadyClock.continued}), so nothing that is done to the wall clock, restarts or not,
makes mail expire early or wait for longer. After a boot there is nothing but the wall clock to begin with: mail in the
queue is as much too old or too young as that was set since the service's first start in the boot before. It is tried,
and expires, so much too early or too late; none is lost.
"""

from __future__ import annotations

import math
import os
import time

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

_log = Logger()

_BOOT = "/proc/sys/kernel/random/boot_id"

if hasattr(time, "CLOCK_BOOTTIME"):

    def passed() -> float:
        """Seconds since some moment, those in which the machine was suspended included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    # Where a system has no such clock, the one it has may stand still with the machine.
    passed = time.monotonic


@frozen
class SteadyClock:
    """
    UNIX time as it was when the offset was taken, plus what has passed since.

    @ivar offset: seconds that the clock is ahead of L{passed}. Processes of one machine with one offset agree to the
        microsecond; C{repr} gives all its digits, for the command line of another process.
    """

    offset: float

    @classmethod
    def by_the_wall(cls) -> SteadyClock:
        """A clock that agrees with the wall clock now."""
        return cls(time.time() - passed())

    @classmethod
    def continued(cls, path: str) -> SteadyClock:
        """
        The clock of the service before, if it ran since the machine was booted; else one L{by_the_wall}.

        @param path: of the file that L{remember} wrote.
        """
        try:
            with open(path, encoding="ascii") as file:
                boot, offset = file.read(200).split()
            remembered = float(offset)
            if not math.isfinite(remembered):
                raise ValueError(f"not a time: {offset}")
        except FileNotFoundError:
            return cls.by_the_wall()
        except (OSError, ValueError) as error:
            _log.warn("clock begun by the wall's: file={path} reason={why}", path=path, why=str(error))
            return cls.by_the_wall()
        return cls(remembered) if boot == _boot() else cls.by_the_wall()

    def remember(self, path: str) -> None:
        """
        Write down what L{continued} reads. Where boots cannot be told from each other nothing is written.

        @raise OSError: when it cannot be written; the next service begins by the wall clock then.
        """
        boot = _boot()
        if not boot:
            return
        scratch = f"{path}.new"
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(f"{boot} {self.offset!r}\n")
        # Not synced: a power cut makes it worthless anyway.
        os.replace(scratch, path)

    def seconds(self) -> float:
        """The time by this clock."""
        return self.offset + passed()

    def drive(self, reactor: IReactorTime) -> None:
        """
        From now on this is the reactor's clock. Twisted's reactors ask C{self.seconds} for whatever they time, a call
        keeps the clock that it was scheduled by: so before anything is scheduled.
        """
        reactor.seconds = self.seconds  # type: ignore[method-assign]  # what Twisted has there is a function, too


def _boot() -> str:
    """Names this boot of the machine; empty where the system does not tell."""
    try:
        with open(_BOOT, encoding="ascii") as file:
            return file.read(100).strip()
    except OSError:
        return ""
